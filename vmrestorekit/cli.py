"""The command line, ``vmrestorekit …``: thin, each command calls one function of a room."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from vmrestorekit.backup.browse import CopyContents
    from vmrestorekit.restore.timeline import Timeline

app = typer.Typer(
    help="Instant VM restore and live mount: simulate, record and carry out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
traces_app = typer.Typer(help="Recorded boots.", no_args_is_help=True)
backup_app = typer.Typer(help="Backup copies of virtual machines, in a store on disk.", no_args_is_help=True)
lab_app = typer.Typer(help="Real virtual machines: build guests, record boots.", no_args_is_help=True)
app.add_typer(traces_app, name="traces")
app.add_typer(backup_app, name="backup")
app.add_typer(lab_app, name="lab")


# --- traces -------------------------------------------------------------------------------------------

CorpusOption = Annotated[
    Path | None, typer.Option("--corpus", help="Directory of a corpus; default: the one of the package.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@traces_app.command("list")
def traces_list(corpus: CorpusOption = None, as_json: JsonOption = False) -> None:
    """List what was recorded, one row a recording."""
    from vmrestorekit.traces.corpus import load_corpus

    print_table(load_corpus(corpus).summary().to_dicts(), as_json)


@traces_app.command("show")
def traces_show(
    vm: str,
    boot: Annotated[str | None, typer.Argument()] = None,
    corpus: CorpusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one boot (default: the first): how it was recorded, its operations and first requests."""
    from vmrestorekit.traces.corpus import describe_boot, load_corpus

    machine = load_corpus(corpus)[vm]
    print_record(describe_boot(machine.boot(boot) if boot else machine.boots[0]), as_json)


@traces_app.command("summary")
def traces_summary(
    corpus: CorpusOption = None,
    pairs: Annotated[bool, typer.Option("--pairs", help="Compare all machines and boots.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what each machine's last boot reads, what others read of that, and how alike boots are.

    In MB and percent of 4 KiB blocks with contents. Three figures beside each other: read at the same
    address / with the same content / at the same place of a file of the same path.
    """
    from vmrestorekit.traces.corpus import load_corpus
    from vmrestorekit.traces.in_common import overlaps, read_again, repeatability
    from vmrestorekit.traces.working_set import working_sets

    machines = load_corpus(corpus)
    again = read_again(machines).to_dicts()
    record = {
        "read by the last boot until it was done": working_sets(machines).to_dicts(),
        "percent of these blocks that were read again": again if as_json else side_by_side(again),
        "boots recorded twice, and boots after shutdowns": repeatability(
            machines, all_pairs=pairs
        ).to_dicts(),
    }
    if pairs:
        record["percent of these blocks that another boot read"] = overlaps(machines).to_dicts()
    print_record(record, as_json)


def side_by_side(read_again: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of `read_again` as a person reads them: address / content / path in one cell."""
    from vmrestorekit.traces.in_common import WAYS

    def cell(row: dict[str, Any], other: str) -> str:
        shares = [row[f"{other}_{way}"] for way in WAYS]
        return "" if None in shares else " / ".join(map(str, shares))

    return [
        {
            "vm": row["vm"],
            "own boot before": cell(row, "before"),
            "nearest of another lineage": row["nearest"],
            "by that one": cell(row, "nearest"),
            "same release, median": cell(row, "release"),
            "other releases, median": cell(row, "elsewhere"),
        }
        for row in read_again
    ]


@traces_app.command("catalog")
def traces_catalog(
    corpus: CorpusOption = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Write it anew from the recordings.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the catalogue, one row a recording; as JSON with all that is known of each."""
    from vmrestorekit.traces.corpus import load_corpus, packaged_corpus_directory, rebuild_catalog

    if rebuild:
        rebuild_catalog(corpus or packaged_corpus_directory())
    rows = load_corpus(corpus).catalog().to_dicts()
    if not as_json:
        left_out = {"recorder", "accelerator", "versions", "marks"}
        rows = [{name: _listed(value) for name, value in row.items() if name not in left_out} for row in rows]
    print_table(rows, as_json)


def _listed(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list) else value


@traces_app.command("validate")
def traces_validate(
    path: Annotated[Path | None, typer.Argument(help="A corpus or a trace file.")] = None,
    corpus: CorpusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a whole corpus or one trace file; exit status 1 if anything is wrong."""
    from vmrestorekit.traces.checks import find_problems

    problems = find_problems(path or corpus)
    if as_json:
        print(json.dumps([{"problem": problem} for problem in problems], indent=2))
    else:
        print("\n".join(problems) or "no problems found")
    raise typer.Exit(1 if problems else 0)


@traces_app.command("import")
def traces_import(
    format_name: Annotated[
        str, typer.Argument(metavar="FORMAT", help="Such as nbdkit, blkparse, qemu, fio.")
    ],
    file: Path,
    output: Annotated[Path, typer.Option("--output", "-o", help="The trace, as Parquet.")],
) -> None:
    """Read another program's block trace; an unknown FORMAT lists those there are."""
    from vmrestorekit.traces.foreign import import_trace

    trace = import_trace(format_name, file)
    trace.save(output)
    print(f"{output}: {trace.frame.height} requests ({trace.metadata.recorder})")


@traces_app.command("export")
def traces_export(
    trace: Annotated[Path, typer.Argument(help="A trace file.")],
    format_name: Annotated[str, typer.Argument(metavar="FORMAT", help="oracle-general, fio, fio-2 or csv.")],
    output: Path,
) -> None:
    """Write a trace for another program: oracle-general for cache simulators, fio to carry it out again."""
    from vmrestorekit.traces.foreign import export_trace
    from vmrestorekit.traces.schema import ReadTrace

    export_trace(ReadTrace.load(trace), format_name, output)


@traces_app.command("anonymise")
def traces_anonymise(
    corpus: Annotated[Path, typer.Argument(help="Directory of a corpus.")],
    output: Annotated[Path, typer.Argument(help="Directory that is not there yet.")],
    key_file: Annotated[
        Path, typer.Option("--key-file", help="At least 16 random bytes, to be kept secret.")
    ],
) -> None:
    """Copy a corpus with paths, names and contents as keyed hashes; sizes, offsets and times stay."""
    from vmrestorekit.traces.anonymise import anonymise_corpus

    anonymise_corpus(corpus, output, key_file)


@app.command("manifest")
def manifest(
    image: Path,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Save the manifest here.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what lies where on a disk image: partitions, files, contents of its 4 KiB blocks."""
    from vmrestorekit.backup.manifest import build_manifest, describe_manifest

    built = build_manifest(image)
    if output:
        built.save(output)
    print_record(describe_manifest(built), as_json)


# --- backup -------------------------------------------------------------------------------------------

StoreArgument = Annotated[Path, typer.Argument(help="Directory of the backup store.")]
CopyArgument = Annotated[int, typer.Argument(help="Number of the copy, as listed.")]
DiskOption = Annotated[int, typer.Option("--disk", min=0, help="Which disk of the machine.")]
ZstdOption = Annotated[
    int | None, typer.Option("--zstd", min=1, max=22, help="Compress at this level; default: not at all.")
]
StreamsOption = Annotated[int, typer.Option(min=1, help="Write so many chunks at the same time.")]


@backup_app.command("create")
def backup_create(
    image: Annotated[Path, typer.Argument(help="The machine's disk: a raw, QCOW2 or VMDK image.")],
    store: StoreArgument,
    vm: Annotated[str | None, typer.Option("--vm", help="The machine's name; default: the image's.")] = None,
    kind: Annotated[str, typer.Option(help="full, incremental or differential.")] = "full",
    disk: Annotated[list[Path] | None, typer.Option(help="One more disk; may be repeated.")] = None,
    configuration: Annotated[
        list[Path] | None, typer.Option(help="A file that describes the machine; default: IMAGE.json if any.")
    ] = None,
    block_kib: Annotated[
        int | None, typer.Option(help="Size of the blocks of a new store; default: 64.")
    ] = None,
    zstd: ZstdOption = None,
    streams: StreamsOption = 1,
) -> None:
    """Back up a virtual machine; makes the store if there is none. Interrupted, the same command goes on."""
    from vmrestorekit.backup import BackupStore, CopySettings, create_copy
    from vmrestorekit.lab.guest import describe_image

    beside = image.with_name(image.name + ".json")
    if configuration is None:
        configuration = [beside] if beside.exists() else []
    name = vm or str(describe_image(image)["name"])
    settings = CopySettings(zstd_level=zstd)
    block_bytes = None if block_kib is None else block_kib * 1024
    with BackupStore.open_or_create(store, block_bytes) as opened, _progress("reading") as progress:
        copy = create_copy(
            *(opened, name, [image, *(disk or [])]),
            kind=kind,
            configuration=configuration,
            settings=settings,
            streams=streams,
            progress=progress,
        )
    counts = copy.counts
    print(
        f"copy {copy.number}, {copy.kind.replace('_', ' ')}, of {copy.vm}: {counts['new_blocks']} new blocks "
        f"({counts['new_bytes'] / 1e6:.1f} MB, {counts['stored_bytes'] / 1e6:.1f} MB stored), "
        f"{counts['linked_blocks']} links, {counts['zero_blocks']} became zeros"
    )


@backup_app.command("list")
def backup_list(store: StoreArgument, as_json: JsonOption = False) -> None:
    """List the copies in a store, and attempts that were interrupted."""
    from vmrestorekit.backup import BackupStore

    with BackupStore(store) as opened:
        rows = [
            {
                "copy": copy.number,
                "vm": copy.vm,
                "kind": copy.kind.replace("_", " ") if copy.complete else f"{copy.kind}, interrupted",
                "changes against": copy.parent,
                "created": copy.created,
                "files": ", ".join(file.name for file in copy.files),
                "disk MB": round(sum(file.bytes for file in copy.disks) / 1e6, 1),
                "new blocks": copy.counts.get("new_blocks"),
                "links": copy.counts.get("linked_blocks"),
                "stored MB": round(copy.counts.get("stored_bytes", 0) / 1e6, 1),
                "used by": ", ".join(opened.associations(copy.number)),
            }
            for copy in [*opened.copies(), *opened.attempts()]
        ]
    print_table(rows, as_json)


@backup_app.command("browse")
def backup_browse(
    store: StoreArgument,
    number: Annotated[int | None, typer.Argument(metavar="COPY", help="Number of the copy.")] = None,
    path: Annotated[str | None, typer.Argument(help="A folder.")] = None,
    disk: Annotated[
        int | None, typer.Option("--disk", min=0, help="Which disk; default: the first, all for --select.")
    ] = None,
    select: Annotated[
        list[str] | None, typer.Option(help="Files by a pattern such as '/srv/**': which blocks they need.")
    ] = None,
    partition: Annotated[
        list[int] | None, typer.Option(help="A whole partition by its number: which blocks it has.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show machines, then their disks and partitions, then folders and files, from the store alone."""
    from vmrestorekit.backup import BackupStore, CopyContents

    if number is None:
        backup_list(store, as_json)
        return
    with BackupStore(store) as opened, CopyContents(opened, number) as contents:
        if select or partition:
            chosen = contents.select(*(select or []), partitions=partition or [], disk=disk)
            blocks = chosen.blocks(opened.block_bytes)
            record = {
                "files": len(chosen.files),
                "file_bytes": sum(file.size for file in chosen.files if file.kind == "regular"),
                "blocks": len(blocks),
                "block_bytes": opened.block_bytes,
                "numbers": " ".join(map(str, blocks.tolist())),
            }
            print_record(record, as_json)
        elif path is None:
            print_record(_described_copy(contents), as_json)
        else:
            rows = [
                {"name": file.path, "kind": file.kind, "bytes": file.size}
                for file in contents.folder(path, disk or 0)
            ]
            print_table(rows, as_json)


def _described_copy(contents: CopyContents) -> dict[str, Any]:
    copy = contents.copy
    partitions = [
        {
            "disk": number,
            **partition,
            "files": sum(file.partition == partition["partition"] for file in contents.files(number).files)
            if partition["partition"] in contents.files(number).readable
            else "cannot be read, backed up all the same",
        }
        for number in range(len(contents.disks))
        for partition in contents.files(number).partitions
    ]
    files = [{"file": file.name, "role": file.role, "bytes": file.bytes} for file in copy.files]
    return {
        "copy": copy.number,
        "vm": copy.vm,
        "created": copy.created,
        "files": files,
        "partitions": partitions,
    }


@backup_app.command("extract")
def backup_extract(
    store: StoreArgument,
    number: CopyArgument,
    path: Annotated[str, typer.Argument(help="A file of the machine, or the name of its configuration.")],
    out: Path,
    disk: DiskOption = 0,
) -> None:
    """Read one file out of a copy, without restoring anything else."""
    from vmrestorekit.backup import BackupStore, CopyContents

    with BackupStore(store) as opened, CopyContents(opened, number) as contents:
        print(f"{out}: {contents.extract(path, out, disk)} bytes")


@backup_app.command("verify")
def backup_verify(store: StoreArgument, as_json: JsonOption = False) -> None:
    """Check every byte of a store; exit status 1 if anything is damaged, with what that affects."""
    from vmrestorekit.backup import BackupStore, Damage, StoreError, verify_store

    try:
        with BackupStore(store) as opened, _progress("checking") as progress:
            damages = verify_store(opened, progress)
    except StoreError as error:
        if not store.is_dir() or not any(store.iterdir()):
            raise
        damages = [Damage(str(error))]
    if as_json:
        print(json.dumps([dataclasses.asdict(damage) for damage in damages], indent=2))
    elif not damages:
        print("no damage found")
    for damage in [] if as_json else damages:
        print(damage.what)
        if damage.copy is not None:
            affected = ", ".join(damage.files) or "the whole copy"
            print(f"    affects copy {damage.copy}{' of ' + damage.vm if damage.vm else ''}: {affected}")
    raise typer.Exit(1 if damages else 0)


@backup_app.command("synthesise")
def backup_synthesise(
    store: StoreArgument,
    number: CopyArgument,
    rewrite: Annotated[
        bool, typer.Option("--rewrite", help="Write all contents anew, in the order of the disk.")
    ] = False,
    zstd: ZstdOption = None,
    streams: StreamsOption = 1,
) -> None:
    """Make a full copy that equals a copy of a chain, from the store alone."""
    from vmrestorekit.backup import BackupStore, CopySettings, synthesise_full

    with BackupStore(store) as opened, _progress("reading") as progress:
        copy = synthesise_full(
            *(opened, number),
            rewrite=rewrite,
            settings=CopySettings(zstd_level=zstd),
            streams=streams,
            progress=progress,
        )
    print(
        f"copy {copy.number}, synthetic full, equals copy {number} of {copy.vm}: "
        f"{copy.counts['new_blocks']} blocks written, {copy.counts['linked_blocks']} links"
    )


@backup_app.command("expire")
def backup_expire(
    store: StoreArgument,
    numbers: Annotated[list[int], typer.Argument(metavar="COPY...", help="Numbers of copies.")],
) -> None:
    """Delete copies, and give back the space of contents that no other copy links to."""
    from vmrestorekit.backup import BackupStore, expire_copies

    with BackupStore(store) as opened:
        print(f"{expire_copies(opened, numbers) / 1e6:.1f} MB given back")


@backup_app.command("export")
def backup_export(
    store: StoreArgument,
    number: CopyArgument,
    out: Annotated[
        Path, typer.Argument(help="The image to write, or a folder for all files of the machine.")
    ],
) -> None:
    """Give back a machine's disk as it was, as a raw, sparse image."""
    from vmrestorekit.backup import BackupStore, export_copy

    with BackupStore(store) as opened, _progress("writing") as progress:
        for path in export_copy(opened, number, out, progress):
            print(path)


@contextlib.contextmanager
def _progress(what: str, bytes_of: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr where that is a terminal, of bytes or of pieces of work."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    counts = (DownloadColumn(), TransferSpeedColumn()) if bytes_of else (MofNCompleteColumn(),)
    columns = (BarColumn(), *counts, TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(
        *(TextColumn("{task.description}"), *columns),
        console=console,
        transient=True,
        disable=not console.is_terminal,  # else it would print an empty line
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


# --- lab ----------------------------------------------------------------------------------------------


@lab_app.command("build")
def lab_build(
    spec: Annotated[Path, typer.Argument(help="Description of a guest, such as specs/bookworm-web.toml.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The image; default: NAME.img, here.")
    ] = None,
    work_dir: Annotated[
        Path, typer.Option("--work", help="Where packages are unpacked; kept for the next time.")
    ] = Path("lab-work"),
) -> None:
    """Build a guest's disk image from its description. Needs root rights."""
    from vmrestorekit.lab.guest import build_image
    from vmrestorekit.lab.progress import live_report
    from vmrestorekit.lab.spec import GuestSpec

    guest = GuestSpec.load(spec)
    with live_report() as report:
        build_image(guest, output or Path(f"{guest.name}.img"), work_dir, report)


@lab_app.command("chain")
def lab_chain(
    image: Annotated[Path, typer.Argument(help="The image whose boots 'lab record' recorded.")],
    corpus: Annotated[Path, typer.Option("--output", "-o", help="The corpus that has those boots.")],
) -> None:
    """Back up the disk before each recorded boot, check each copy, and save where their blocks lie."""
    from vmrestorekit.lab.chain import back_up_chain
    from vmrestorekit.lab.progress import live_report

    with live_report() as report:
        path = back_up_chain(image, corpus, report=report)
    print(path)


@lab_app.command("record")
def lab_record(
    image: Annotated[Path, typer.Argument(help="A raw disk image, as built by 'lab build'; never written.")],
    corpus: Annotated[Path, typer.Option("--output", "-o", help="The corpus to add the boots to.")],
    boots: Annotated[
        int | None,
        typer.Option(
            "--boots", "-n", min=1, help="So many, one after the other; default: the image's history, or 2."
        ),
    ] = None,
    accelerator: Annotated[
        str | None, typer.Option(help="kvm or tcg; default: kvm if a probe says it works.")
    ] = None,
) -> None:
    """Boot an image so often, each time from the disk the boot before left, and record every request."""
    from vmrestorekit.lab.progress import live_report
    from vmrestorekit.lab.record import record_boots

    with live_report() as report:
        record_boots(image, boots, corpus, accelerator=accelerator, report=report)


@lab_app.command("corpus")
def lab_corpus(
    specs: Annotated[list[Path], typer.Argument(help="Descriptions of guests, or folders of them.")],
    corpus: Annotated[Path, typer.Option("--output", "-o", help="The corpus to record into.")],
    work_dir: Annotated[
        Path, typer.Option("--work", help="For images and packages; those are kept for the next time.")
    ] = Path("lab-work"),
    chain: Annotated[
        list[str] | None,
        typer.Option(help="Also back up the disk of this guest before each boot; may be repeated."),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the images and writes of guests, too.")] = False,
    accelerator: Annotated[str | None, typer.Option(help="kvm or tcg, as of 'lab record'.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Build and record many guests; what is there is kept. Exit status 1 if one of them failed."""
    from vmrestorekit.lab.corpus import record_corpus, specs_in
    from vmrestorekit.lab.progress import live_report

    with live_report() as report:
        outcomes = record_corpus(
            *(specs_in(specs), corpus),
            work_dir=work_dir,
            chain=chain or (),
            keep=keep,
            accelerator=accelerator,
            report=report,
        )
    print_table(
        [
            {"guest": each.guest, "recorded": ", ".join(each.recorded), "problem": each.problem}
            for each in outcomes
        ],
        as_json,
    )
    raise typer.Exit(1 if any(each.problem for each in outcomes) else 0)


# --- simulate -----------------------------------------------------------------------------------------

VmOption = Annotated[str, typer.Option("--vm", help="Name of the recorded virtual machine.")]
BootOption = Annotated[str | None, typer.Option("--boot", help="Which of its boots; default: the last.")]
MediaOption = Annotated[str, typer.Option(help="disk_library, object_storage, tape or flash.")]
PredictorOption = Annotated[
    str,
    typer.Option(
        help="learned or content (both from the other machines), last_boot (its own boot before), or none."
    ),
]
HeadStartOption = Annotated[float, typer.Option(help="Seconds of pre-staging before the launch.")]
RelocationDelayOption = Annotated[float, typer.Option(help="Seconds from launch to relocation.")]
CacheOption = Annotated[int, typer.Option(help="Size of the read cache in MiB.")]
ExpiryOption = Annotated[float | None, typer.Option(help="Seconds until a live mount expires.")]


@app.command("simulate")
def simulate_command(
    vm: VmOption,
    mode: Annotated[
        str, typer.Option(help="full_restore, instant_restore or live_mount.")
    ] = "instant_restore",
    boot: BootOption = None,
    media: MediaOption = "object_storage",
    predictor: PredictorOption = "learned",
    head_start: HeadStartOption = 4.0,
    relocation_delay: RelocationDelayOption = 30.0,
    cache_mib: CacheOption = 256,
    expiry: ExpiryOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Save the timeline's events as Parquet.")
    ] = None,
    corpus: CorpusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate the restore of a recorded boot and print its figures."""
    from vmrestorekit.traces.schema import write_parquet_atomically

    runs = _simulated(
        vm, boot, [mode], media, predictor, head_start, relocation_delay, cache_mib, expiry, corpus
    )
    if output:
        write_parquet_atomically(runs[mode].events, output)
    _print_runs(runs, as_json)


@app.command("compare")
def compare_command(
    vm: VmOption,
    boot: BootOption = None,
    media: MediaOption = "object_storage",
    predictor: PredictorOption = "learned",
    head_start: HeadStartOption = 4.0,
    relocation_delay: RelocationDelayOption = 30.0,
    cache_mib: CacheOption = 256,
    expiry: ExpiryOption = None,
    corpus: CorpusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate full restore, instant restore and live mount of a recorded boot, side by side."""
    from vmrestorekit.plan import MODES

    _print_runs(
        _simulated(
            vm, boot, MODES, media, predictor, head_start, relocation_delay, cache_mib, expiry, corpus
        ),
        as_json,
    )


def _simulated(
    vm: str,
    boot: str | None,
    modes: Sequence[str],
    media: str,
    predictor: str,
    head_start: float,
    relocation_delay: float,
    cache_mib: int,
    expiry: float | None,
    corpus: Path | None,
) -> dict[str, Timeline]:
    from vmrestorekit.plan import LaunchRule, RelocationStart
    from vmrestorekit.predict.by_name import predictor_by_name
    from vmrestorekit.predict.planning import make_plan
    from vmrestorekit.restore.hardware import resolve_hardware
    from vmrestorekit.restore.simulate import simulate
    from vmrestorekit.traces.corpus import load_corpus

    hardware = resolve_hardware(media)
    recorded = load_corpus(corpus)
    machine = recorded[vm]
    chosen = machine.boot(boot) if boot else machine.boots[-1]
    plan = make_plan(
        predictor_by_name(predictor, chosen, recorded),
        chosen,
        launch=LaunchRule(head_start_ns=_nanoseconds("--head-start", head_start)),
        relocation_start=RelocationStart(delay_ns=_nanoseconds("--relocation-delay", relocation_delay)),
        cache_bytes=cache_mib << 20,
    )
    expiry_ns = None if expiry is None else _nanoseconds("--expiry", expiry)
    if expiry_ns is not None and "live_mount" not in modes:
        raise ValueError(f"--expiry: only a live mount expires, but the mode is {modes[0]}")
    return {
        mode: simulate(
            chosen, plan.with_mode(mode, expiry_ns=expiry_ns if mode == "live_mount" else None), hardware
        )
        for mode in modes
    }


def _nanoseconds(option: str, seconds: float) -> int:
    if not math.isfinite(seconds):
        raise ValueError(f"{option}: expected a number of seconds, got {seconds}")
    return round(seconds * 1e9)


def _print_runs(runs: dict[str, Timeline], as_json: bool) -> None:
    from vmrestorekit.restore.summary import tabulate

    summaries = {mode: timeline.summary() for mode, timeline in runs.items()}
    if as_json:
        print_table([{"mode": mode, **summary} for mode, summary in summaries.items()], as_json)
    else:
        print_table(tabulate(summaries), as_json)


# --- evaluate -----------------------------------------------------------------------------------------


@app.command("evaluate")
def evaluate_command(
    corpus: CorpusOption = None,
    test: Annotated[
        Path | None, typer.Option(help="Learn from the whole corpus, test on the machines of this one.")
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(help="later, later_with_others, lineage, release, role, or all; may be repeated."),
    ] = None,
    predictor: Annotated[
        list[str] | None, typer.Option(help="The first is compared with the others; default: all.")
    ] = None,
    bandwidth: Annotated[
        list[float] | None, typer.Option(help="MB/s of the backup device; default: 2, 10, 25, 100, 250.")
    ] = None,
    head_start: Annotated[
        list[float] | None, typer.Option(help="Seconds of pre-staging before the launch; default: 0, 4.")
    ] = None,
    newest: Annotated[
        bool, typer.Option("--newest", help="Test only each machine's last boot after a shutdown, a crash.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write Parquet tables and report.md here.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Keep finished folds here; started again, it goes on with the rest.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Processes; -1: one for each processor.")] = 1,
    cluster: Annotated[str | None, typer.Option(help="Address of a Dask scheduler to run it on.")] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Score predictors on boots that they have not seen: blocks found, time won, bytes wasted."""
    from vmrestorekit.predict.evaluation import SPLITS, Conditions, evaluate
    from vmrestorekit.predict.evaluation_report import summarise, write_report
    from vmrestorekit.traces.corpus import load_corpus

    if test and split:
        raise ValueError("--test: expected no --split beside it, since the test corpus is the split")
    defaults = Conditions()
    conditions = Conditions(
        bandwidths=tuple(_bytes_per_second(each) for each in bandwidth or ()) or defaults.bandwidths,
        head_starts_ns=tuple(_nanoseconds("--head-start", each) for each in head_start or ())
        or defaults.head_starts_ns,
    )
    splits = SPLITS if not split or "all" in split else split
    with _progress("evaluating", bytes_of=False) as progress:
        scores = evaluate(
            *(load_corpus(corpus), splits, predictor),
            test=load_corpus(test) if test else None,
            conditions=conditions,
            newest=newest,
            n_jobs=jobs,
            cluster=cluster,
            resume=resume,
            progress=progress,
        )
    report = summarise(scores, main=predictor[0] if predictor else None, seed=seed)
    if out:
        write_report(scores, report, out, command=" ".join(["vmrestorekit", *sys.argv[1:]]))
    if as_json:
        print(json.dumps(report.as_record(), indent=2))
    else:
        for title, rows in report.tables.items():
            print_table(rows, as_json, title=title)


def _bytes_per_second(megabytes: float) -> int:
    if not math.isfinite(megabytes):
        raise ValueError(f"--bandwidth: expected a number of MB/s, got {megabytes}")
    return round(megabytes * 1e6)


# --- benchmarks ---------------------------------------------------------------------------------------


@app.command("bench")
def bench_command(
    names: Annotated[list[str] | None, typer.Argument(help="Which benchmarks; default: all.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Put the rows into benchmarks/README.md.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare our speed with that of peers, both measured in one run. Needs the repository."""
    print_table(_benchmark_runner().run(names or [], write=write), as_json)


def _benchmark_runner() -> Any:
    """Import the runner that stands beside the benchmarks; they are no part of the installed package."""
    directory = Path(__file__).resolve().parents[1] / "benchmarks"
    if not (directory / "runner.py").is_file():
        raise FileNotFoundError(
            f"expected the benchmarks in {directory}, found none there: they come with the repository, "
            "not with the package"
        )
    import importlib

    sys.path.insert(0, str(directory))
    return importlib.import_module("runner")


# --- printing -----------------------------------------------------------------------------------------


def print_table(
    rows: list[dict[str, Any]], as_json: bool, title: str | None = None, empty: str = "none"
) -> None:
    """Print rows with equal keys, as JSON or as a table."""
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    # into a pipe or file: wide enough to cut nothing
    console = Console() if sys.stdout.isatty() else Console(width=1000)
    if not rows:
        console.print(f"{title}: none" if title else "none")
        return
    table = Table(title=title, title_justify="left")
    for name, value in rows[0].items():
        table.add_column(name, justify="right" if isinstance(value, int | float) else "left")
    for row in rows:
        table.add_row(*("" if value is None else escape(str(value)) for value in row.values()))
    console.print(table)


def print_record(record: dict[str, Any], as_json: bool) -> None:
    """Print a record as JSON, or its plain values as lines and what is nested in it as tables."""
    if as_json:
        print(json.dumps(record, indent=2))
        return
    for name, value in record.items():
        if isinstance(value, list) and (not value or isinstance(value[0], dict)):
            print_table(value, as_json, title=name)
        elif isinstance(value, dict):
            print_table([{"name": key, "value": entry} for key, entry in value.items()], as_json, title=name)
        else:
            print(f"{name}: {value}")


def main() -> None:
    """Run the command line; bad input ends with one sentence on stderr and exit status 2."""
    try:
        app(standalone_mode=True)
    except (ValueError, OSError) as error:
        print(f"vmrestorekit: {error}", file=sys.stderr)
        raise SystemExit(2) from None
