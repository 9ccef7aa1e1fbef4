"""Commands on real virtual machines: ``vmrestorekit lab …``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vmrestorekit.cli.lab_peers import lab_fidelity, lab_peers
from vmrestorekit.cli.lab_restore import register as register_restore
from vmrestorekit.cli.lab_serve import register as register_serve
from vmrestorekit.cli.shared import JsonOption, print_table

lab_app = typer.Typer(help="Real virtual machines: build guests, record boots.", no_args_is_help=True)


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
    from vmrestorekit.lab.guests.guest import build_image
    from vmrestorekit.lab.guests.spec import GuestSpec
    from vmrestorekit.lab.progress import live_report

    guest = GuestSpec.load(spec)
    with live_report() as report:
        build_image(guest, output or Path(f"{guest.name}.img"), work_dir, report)


@lab_app.command("chain")
def lab_chain(
    image: Annotated[Path, typer.Argument(help="The image whose boots 'lab record' recorded.")],
    corpus: Annotated[Path, typer.Option("--output", "-o", help="The corpus that has those boots.")],
) -> None:
    """Back up the disk before each recorded boot, check each copy, and save where their blocks lie."""
    from vmrestorekit.lab.progress import live_report
    from vmrestorekit.lab.recording.chain import back_up_chain

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
    from vmrestorekit.lab.recording.record import record_boots

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
    from vmrestorekit.lab.progress import live_report
    from vmrestorekit.lab.recording.corpus import record_corpus, specs_in

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


register_serve(lab_app)
register_restore(lab_app)
lab_app.command("peers")(lab_peers)
lab_app.command("fidelity")(lab_fidelity)
