"""SYNTHETIC machines with lineages, releases and roles, whose boots are alike: right scores are known."""

from __future__ import annotations

from collections.abc import Iterable

from synthetic_boots import BLOCK, MILLISECOND, boot_of, manifest_of

from vmrestorekit.traces.corpus import Boot, Corpus, RecordedVM

CACHE_BLOCK = 64 * 1024
UNITS = CACHE_BLOCK // BLOCK
DONE_NS = 1500 * MILLISECOND


def reading(vm: str, boot: str, blocks: Iterable[int], content: Iterable[int], **marks: int) -> Boot:
    """A boot of 1.5 s that reads these 4 KiB blocks, one every 50 ms, each for 1 ms."""
    requests = [
        ((order + 1) * 50 * MILLISECOND, "read", 0, block * BLOCK, BLOCK)
        for order, block in enumerate(blocks)
    ]
    made = boot_of(manifest_of(content), requests, vm=vm, boot=boot, boot_done_ns=DONE_NS)
    made.trace.metadata.marks.update(marks)
    return made


def machine(
    vm: str, first: int = 1, boots: int = 2, lineage: str = "", release: str = "Debian 12", role: str = "web"
) -> RecordedVM:
    """A machine of 32 cache blocks that reads every second one, from `first` on, in each boot alike."""
    content = [number + 1 for number in range(32 * UNITS)]
    read = [(first + 2 * number) % 32 * UNITS for number in range(16)]
    return RecordedVM(
        vm,
        {"lineage": lineage, "release": release, "roles": [role]},
        tuple(reading(vm, f"boot-{number + 1}", read, content) for number in range(boots)),
    )


def corpus_of(*machines: RecordedVM) -> Corpus:
    return Corpus({each.name: each for each in machines})
