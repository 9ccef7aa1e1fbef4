"""Commands on backup copies and disk images: ``vmrestorekit backup …`` and ``manifest``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vmrestorekit.cli.shared import JsonOption, print_record, print_table, progress_of

if TYPE_CHECKING:
    from vmrestorekit.backup.browse import CopyContents


backup_app = typer.Typer(help="Backup copies of virtual machines, in a store on disk.", no_args_is_help=True)

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
    from vmrestorekit.lab.guests.guest import describe_image

    beside = image.with_name(image.name + ".json")
    if configuration is None:
        configuration = [beside] if beside.exists() else []
    name = vm or str(describe_image(image)["name"])
    settings = CopySettings(zstd_level=zstd)
    block_bytes = None if block_kib is None else block_kib * 1024
    with BackupStore.open_or_create(store, block_bytes) as opened, progress_of("reading") as progress:
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
        with BackupStore(store) as opened, progress_of("checking") as progress:
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

    with BackupStore(store) as opened, progress_of("reading") as progress:
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

    with BackupStore(store) as opened, progress_of("writing") as progress:
        for path in export_copy(opened, number, out, progress):
            print(path)


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
