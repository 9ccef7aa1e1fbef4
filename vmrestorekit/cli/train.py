"""Commands of a saved model: ``vmrestorekit train`` learns and saves one, ``predict`` makes plans with it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vmrestorekit.cli.shared import (
    CorpusOption,
    JsonOption,
    nanoseconds_of,
    print_record,
    progress_of,
    staging_device_of,
)

if TYPE_CHECKING:
    from vmrestorekit.predict.learned import LearnedPredictor
    from vmrestorekit.traces.corpus import Boot
    from vmrestorekit.traces.manifest import Manifest


def train_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Save the model here, such as model.npz.")],
    corpus: CorpusOption = None,
    without: Annotated[
        list[str] | None, typer.Option(help="Do not learn from this machine; may be repeated.")
    ] = None,
    scores: Annotated[
        Path | None, typer.Option(help="Keep in the model what 'evaluate --json' printed into this file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Learn from recorded boots what machines read, and save it as a model."""
    from vmrestorekit.predict.learned import LearnedPredictor
    from vmrestorekit.predict.saved_model import read_record, save_model
    from vmrestorekit.traces.corpus import load_corpus

    chosen = load_corpus(corpus).without(*(without or []))
    kept = None if scores is None else _scores_of(scores)
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.is_dir():  # better told now than after minutes
        raise IsADirectoryError(
            f"{output}: expected the name of a file to save the model in, got a directory"
        )
    started = time.perf_counter()
    with progress_of(f"learning from {len(chosen.boots)} boots", bytes_of=False):
        predictor = LearnedPredictor().fit(chosen)
    seconds = time.perf_counter() - started
    save_model(predictor, output, trained_on=chosen, scores=kept)
    learned_from = read_record(output)["trained_on"]
    record = {
        "model": str(output),
        "megabytes": round(output.stat().st_size / 1e6, 3),
        "seconds_to_learn": round(seconds, 1),
        "learned_from": [
            {
                "vm": machine["vm"],
                "lineage": machine["lineage"],
                "release": machine["release"],
                "roles": ", ".join(machine["roles"]),
                "boots": len(machine["boots"]),
            }
            for machine in learned_from["machines"]
        ],
        "digest": learned_from["digest"],
    }
    print_record(record, as_json)


def predict_command(
    model: Annotated[Path, typer.Argument(help="What 'train' saved.")],
    manifests: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[MANIFEST]...", help="Of each disk what 'manifest IMAGE -o' saved."),
    ] = None,
    vm: Annotated[
        str | None, typer.Option("--vm", help="Instead of manifests: name of a recorded machine.")
    ] = None,
    boot: Annotated[str | None, typer.Option("--boot", help="Which of its boots; default: the last.")] = None,
    mode: Annotated[
        str, typer.Option(help="full_restore, instant_restore or live_mount.")
    ] = "instant_restore",
    budget_mib: Annotated[
        int | None, typer.Option(min=0, help="Stage so much at most; default: a quarter more than expected.")
    ] = None,
    media: Annotated[
        str | None,
        typer.Option(
            help="Order for the least stall on disk_library, object_storage, tape or flash; "
            "default: by expected times."
        ),
    ] = None,
    head_start: Annotated[
        float, typer.Option(help="With --media: seconds of pre-staging before the launch.")
    ] = 4.0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Save the plan in this directory.")
    ] = None,
    corpus: CorpusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Plan a restore with a saved model: which blocks to stage first. Looks at no boot, only at the disks."""
    from vmrestorekit.predict.planning import make_plan
    from vmrestorekit.predict.saved_model import load_model, read_record
    from vmrestorekit.restore.hardware import resolve_hardware

    if bool(manifests) == (vm is not None):
        raise ValueError("expected either manifests, one for each disk, or the name of a machine with --vm")
    if manifests and (boot or corpus):
        raise ValueError("--boot, --corpus: expected --vm beside it, since manifests are of no recorded boot")
    chosen, states = _recorded(vm, boot, corpus) if vm else (None, _loaded(manifests or []))
    predictor = load_model(model)
    started = time.perf_counter()
    budget = None if budget_mib is None else budget_mib << 20
    device = None
    if media is not None:
        device = staging_device_of(resolve_hardware(media), nanoseconds_of("--head-start", head_start))
    plan = make_plan(predictor, states, mode=mode, budget_bytes=budget, device=device)
    seconds = time.perf_counter() - started
    if output:
        plan.save(output)
    about = {} if chosen is None else {"vm": chosen.vm, "boot": chosen.boot}
    if chosen is not None:
        about["model_knows"] = _known_of(chosen, read_record(model)["trained_on"]["machines"])
    record = {
        **about,
        "first_set_blocks": len(plan.first_set),
        "first_set_megabytes": round(len(plan.first_set) * plan.block_bytes / 1e6, 1),
        "expected_blocks": round(_expected_blocks(predictor, states, plan.block_bytes), 1),
        "blocks": plan.blocks,
        "block_bytes": plan.block_bytes,
        "mode": plan.mode,
        "seconds_to_plan": round(seconds, 2),
        "plan": str(output) if output else None,
    }
    print_record(record, as_json)


def _scores_of(path: Path) -> dict[str, Any]:
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: expected scores as JSON: {error}") from error
    if not isinstance(scores, dict):
        raise ValueError(f"{path}: expected scores as one JSON object, got {type(scores).__name__}")
    return scores


def _recorded(vm: str, boot: str | None, corpus: Path | None) -> tuple[Boot, tuple[Manifest, ...]]:
    from vmrestorekit.traces.corpus import load_corpus

    machine = load_corpus(corpus)[vm]
    chosen = machine.boot(boot) if boot else machine.boots[-1]
    return chosen, chosen.manifests


def _loaded(paths: Sequence[Path]) -> tuple[Manifest, ...]:
    from vmrestorekit.traces.manifest import Manifest

    return tuple(Manifest.load(path) for path in paths)


def _known_of(boot: Boot, machines: Sequence[dict[str, Any]]) -> str:
    """Say what a model has seen of a boot: a plan for one that it learned from proves nothing."""
    for machine in machines:
        if machine["vm"] == boot.vm:
            # another recording of a boot tells what the boot tells that it repeats
            seen = (boot.repeats or boot.boot) in machine["boots"]
            return "this very boot" if seen else "other boots of this machine"
    alike = any(machine["lineage"] == boot.lineage for machine in machines)
    return "machines of its lineage" if alike else "other machines only"


def _expected_blocks(predictor: LearnedPredictor, manifests: Sequence[Manifest], block_bytes: int) -> float:
    from vmrestorekit.predict.cache_blocks import cache_block_scores

    scores = (
        cache_block_scores(predictor.score_blocks(manifest, disk), manifest.blocks, block_bytes)
        for disk, manifest in enumerate(manifests)
    )
    return sum(float(each.filter("stored")["probability"].sum()) for each in scores)
