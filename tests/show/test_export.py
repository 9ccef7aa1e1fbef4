"""What widgets share: saving what they show, a map to click, a chart drawn anew."""

import sys
from pathlib import Path

import altair as alt
import polars as pl
import pytest
import traitlets

from vmrestorekit.show.clickable_map import ClickableMap
from vmrestorekit.show.export import FORMATS, Export, ExportError, save
from vmrestorekit.show.live_chart import LiveChart
from vmrestorekit.show.renderer import MIME_TYPE

TABLE = pl.DataFrame({"x": [1, 2], "y": [3, 4]})
BEGINS = {".png": b"\x89PNG", ".svg": b"<svg", ".html": b"<!DOCTYPE html>", ".parquet": b"PAR1"}


def chart():
    return alt.Chart(TABLE, description="two points").mark_point().encode(x="x:Q", y="y:Q")


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("ending", FORMATS.values())
def test_saves_each_format(ending):
    path = save(f"found{ending}", chart(), TABLE)
    assert path.read_bytes().lstrip()[: len(BEGINS[ending])] == BEGINS[ending]
    assert [each.name for each in Path().iterdir()] == [path.name]
    if ending == ".parquet":
        assert pl.read_parquet(path).equals(TABLE)
    if ending == ".html":  # a page that is read without a network
        assert 'src="http' not in path.read_text()


def test_replaces_what_is_there_only_by_something_whole(monkeypatch):
    path = Path("found.parquet")
    path.write_text("before")

    def fails(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", fails)
    with pytest.raises(OSError, match="disk full"):
        save(path, chart(), TABLE)
    assert path.read_text() == "before"
    assert [each.name for each in Path().iterdir()] == ["found.parquet"]


def test_says_what_is_wrong(monkeypatch):
    with pytest.raises(ExportError, match=r"a\.pdf: expected a name that ends in \.png, \.svg"):
        save("a.pdf", chart(), TABLE)
    with pytest.raises(ExportError, match="expected a folder that exists"):
        save("nowhere/a.png", chart(), TABLE)
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(ExportError, match="expected the package vl-convert-python"):
        save("a.png", chart(), TABLE)
    assert list(Path().iterdir()) == []


def test_the_row_saves_what_is_chosen_and_says_so():
    row = Export("found", chart, lambda: TABLE)
    row.format.value = ".parquet"
    row.button.click()
    assert "Saved as found.parquet." in row._status.value
    row.name.value = "nowhere/found"
    row.button.click()
    assert "Not saved: " in row._status.value
    assert 'role="status"' in row._status.value
    assert row.save() is None


def test_a_chart_is_drawn_anew():
    live = LiveChart(height=100)
    for _ in range(2):
        live.draw(chart())
        (output,) = live.outputs
        assert output["data"][MIME_TYPE]["$schema"].endswith("v5.20.1.json")
        assert output["data"]["text/plain"] == "<Chart: two points>"
    assert isinstance(live.chart, alt.Chart)


def test_a_map_has_a_chosen_cell():
    clicked = ClickableMap(svg="<svg/>", columns=4, cells=10)
    seen = []
    clicked.observe(lambda change: seen.append(change["new"]), "cell")
    clicked.cell = 7  # as the browser does
    assert seen == [7]
    with pytest.raises(traitlets.TraitError):
        clicked.columns = 0
    assert "role" in str(clicked._esm)  # the script comes with the package
