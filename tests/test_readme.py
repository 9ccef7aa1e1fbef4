"""What the README shows is what a reader gets."""

from __future__ import annotations

import json
import re
from pathlib import Path

from typer.testing import CliRunner

from vmrestorekit.cli import app
from vmrestorekit.restore.summary import tabulate
from vmrestorekit.traces.corpus import Corpus

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_seven_lines_show_a_stepper(packaged_corpus: Corpus) -> None:
    from vmrestorekit.show.restore.stepper import Stepper

    [example] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    *lines, last = example.strip().splitlines()
    assert len(lines) + 1 == 7
    names: dict[str, object] = {}
    exec("\n".join(lines), names)
    stepper = eval(last, names)
    assert isinstance(stepper, Stepper)
    assert stepper.step()


def test_the_table_is_what_the_command_prints(packaged_corpus: Corpus) -> None:
    [command] = re.findall(r"\$ vmrestorekit (compare .*)", README)
    result = CliRunner().invoke(app, [*command.split(), "--json"])
    assert result.exit_code == 0, result.output
    rows = {row.pop("mode"): row for row in json.loads(result.stdout)}
    printed = {row.pop("figure"): list(row.values()) for row in tabulate(rows)}
    shown = re.findall(r"^    (\w[\w ]*?)  +(\S.*)$", README.split("$ vmrestorekit compare")[1], re.MULTILINE)
    figures = {name: re.split(r"  +", values.strip()) for name, values in shown}
    assert figures.pop("figure") == list(rows)
    assert len(figures) == 10
    for name, values in figures.items():
        assert values == printed[name]
