"""The commands of the backup store from end to end, as people and programs use them."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from store_helpers import BLOCK, MIB, content, need, run, write_image
from typer.testing import CliRunner

from vmrestorekit.backup import BackupStore, CopyContents
from vmrestorekit.backup.chunk import ChunkId, container_path
from vmrestorekit.cli import app, main

BLOCKS = [1, 2, 3, 0, 0, 5, 1, 8]


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def backup(*words: str | Path, status: int = 0) -> str:
    done = CliRunner().invoke(app, ["backup", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == status, done.output
    return plain(done.stdout)


def refused(
    words: list[str | Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """What the program as installed says on stderr before it ends with exit status 2."""
    monkeypatch.setattr(sys, "argv", ["vmrestorekit", "backup", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert ended.value.code == 2, printed.err
    assert printed.out == ""
    assert "Traceback" not in printed.err
    return plain(printed.err)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_image(tmp_path / "web.img", BLOCKS)


@pytest.fixture
def store(tmp_path: Path, image: Path) -> Path:
    """A store with a full and an incremental copy of one machine."""
    path = tmp_path / "store"
    backup("create", image, path, "--block-kib", "4")
    write_image(image, [1, 2, 3, 9, 0, 0, 1, 8])
    backup("create", image, path, "--kind", "incremental")
    return path


def test_create_tells_what_it_stored(tmp_path: Path, image: Path) -> None:
    told = backup("create", image, tmp_path / "store", "--vm", "db", "--block-kib", "4", "--zstd", "3")
    assert told.startswith("copy 1, full, of db: 5 new blocks (0.0 MB, 0.0 MB stored), 1 links, 0 became")
    write_image(image, [1, 2, 3, 9, 0, 0, 1, 8])
    told = backup("create", image, tmp_path / "store", "--vm", "db", "--kind", "differential")
    assert told.startswith("copy 2, differential, of db: 1 new blocks")
    assert "1 became zeros" in told
    with BackupStore(tmp_path / "store") as opened:
        assert opened.block_bytes == 4096
        assert [copy.settings["zstd_level"] for copy in opened.copies()] == [3, None]
        assert [copy.parent for copy in opened.copies()] == [None, 1]


def test_create_takes_the_description_beside_the_image_as_configuration(tmp_path: Path, image: Path) -> None:
    description = image.with_name("web.img.json")
    description.write_text('{"name": "shop", "memory_mib": 512}')
    second = write_image(tmp_path / "data.img", [7, 7, 9])
    told = backup("create", image, tmp_path / "store", "--disk", second, "--block-kib", "4")
    assert "of shop:" in told
    (row,) = json.loads(backup("list", tmp_path / "store", "--json"))
    assert row["vm"] == "shop"
    assert row["files"] == "web.img, data.img, web.img.json"
    backup("extract", tmp_path / "store", "1", "web.img.json", tmp_path / "out.json")
    assert (tmp_path / "out.json").read_bytes() == description.read_bytes()
    (tmp_path / "all").mkdir()
    written = backup("export", tmp_path / "store", "1", tmp_path / "all").split()
    assert written == [str(tmp_path / "all" / name) for name in ("web.img", "data.img", "web.img.json")]
    for name in ("web.img", "data.img", "web.img.json"):
        assert (tmp_path / "all" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_create_takes_another_description_if_told(tmp_path: Path, image: Path) -> None:
    (tmp_path / "web.img.json").write_text('{"name": "shop"}')
    (tmp_path / "machine.xml").write_text("<domain/>")
    backup("create", image, tmp_path / "store", "--configuration", tmp_path / "machine.xml")
    (row,) = json.loads(backup("list", tmp_path / "store", "--json"))
    assert row["files"] == "web.img, machine.xml"
    assert row["vm"] == "shop"


def test_list_has_one_row_a_copy(store: Path) -> None:
    rows = json.loads(backup("list", store, "--json"))
    assert [(row["copy"], row["vm"], row["kind"], row["changes against"]) for row in rows] == [
        (1, "web", "full", None),
        (2, "web", "incremental", 1),
    ]
    assert [(row["new blocks"], row["links"]) for row in rows] == [(5, 1), (1, 0)]
    table = backup("list", store)
    assert backup("browse", store) == table
    for row in rows:
        assert any(row["created"] in line and row["kind"] in line for line in table.splitlines())


def test_verify_is_silent_about_a_sound_store_and_names_what_a_damage_affects(
    store: Path, tmp_path: Path
) -> None:
    assert backup("verify", store) == "no damage found\n"
    assert json.loads(backup("verify", store, "--json")) == []
    path = container_path(store / "chunks" / ChunkId(1, 0).folder, 0)
    data = path.read_bytes()
    at = data.index(content(3))
    path.write_bytes(data[: at + 100] + b"damage" + data[at + 106 :])
    told = backup("verify", store, status=1)
    assert f"{path}: damaged, content 2" in told
    assert f"affects copy 1 of web: web.img: bytes {2 * BLOCK} to {3 * BLOCK - 1}" in told
    assert "affects copy 2 of web: web.img: bytes" in told
    damages = json.loads(backup("verify", store, "--json", status=1))
    assert {(damage["copy"], damage["vm"]) for damage in damages} == {(1, "web"), (2, "web")}
    assert all("web.img" in damage["files"][0] for damage in damages)
    (store / "store.json").unlink()
    assert "store.json" in backup("verify", store, status=1)


def test_synthesise_then_expire_then_export(store: Path, image: Path, tmp_path: Path) -> None:
    told = backup("synthesise", store, "2")
    assert told.startswith("copy 3, synthetic full, equals copy 2 of web: 0 blocks written, 6 links")
    told = backup("synthesise", store, "2", "--rewrite", "--zstd", "3", "--streams", "2")
    assert told.startswith("copy 4, synthetic full, equals copy 2 of web: 5 blocks written")
    assert re.fullmatch(r"\d+\.\d MB given back\n", backup("expire", store, "1", "2", "3"))
    assert [row["copy"] for row in json.loads(backup("list", store, "--json"))] == [4]
    out = tmp_path / "out.img"
    assert backup("export", store, "4", out) == f"{out}\n"
    assert out.read_bytes() == image.read_bytes()
    assert backup("verify", store) == "no damage found\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["create", "no-such.img", "{store}"], "expected a disk image at no-such.img, found no such file"),
        (["create", "{image}", "{store}", "--kind", "half"], "expected full, incremental or differential"),
        (["create", "{image}", "{store}", "--vm", " "], "expected a name for the virtual machine, got ' '"),
        (["create", "{image}", "{store}", "--vm", "new", "--kind", "incremental"], "a full copy of 'new'"),
        (["create", "{image}", "{store}", "--block-kib", "64"], "this store have 4096 bytes, not 65536"),
        (["create", "{image}", "{new}", "--block-kib", "5"], "a power of two from 4096 to 4194304, got 5120"),
        (["create", "{image}", "{store}", "--configuration", "no.xml"], "no.xml"),
        (["list", "{new}"], "expected a backup store, found no store.json in it"),
        (["verify", "{new}"], "expected a backup store, found no store.json in it"),
        (["browse", "{store}", "7"], "expected the number of a copy (1, 2), got 7"),
        (["browse", "{store}", "1", "/nowhere"], "expected a folder, found no '/nowhere'"),
        (["browse", "{store}", "1", "/", "--disk", "3"], "expected the number of a disk, 0 to 0, got 3"),
        (["browse", "{store}", "1", "--select", "/srv/**"], "copy 1: no file or folder fits '/srv/**'"),
        (["browse", "{store}", "1", "--partition", "2"], "expected the number of a partition (none), got 2"),
        (["extract", "{store}", "1", "/nowhere", "out"], "expected a file '/nowhere', found none"),
        (["extract", "{store}", "1", "/x", "{image}"], "expected no such file, or it would be lost"),
        (["synthesise", "{store}", "9"], "expected the number of a copy (1, 2), got 9"),
        (["expire", "{store}", "1"], "copy 1"),
        (["export", "{store}", "2", "{image}"], "expected no such file, or it would be lost"),
        (["export", "{store}", "2", "{new}/deep/out.img"], "out.img"),
    ],
    ids=lambda found: " ".join(found) if isinstance(found, list) else "",
)
def test_bad_input_is_one_sentence(
    store: Path,
    image: Path,
    words: list[str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {path: path.read_bytes() for path in store.rglob("*.json")} | {image: image.read_bytes()}
    places = {"store": str(store), "image": str(image), "new": str(store.with_name("new"))}
    told = refused([word.format(**places) for word in words], monkeypatch, capsys)
    assert told.startswith("vmrestorekit: ")
    assert says in told
    assert told.count("\n") == 1
    assert {path: path.read_bytes() for path in before} == before
    assert not list(store.parent.glob("*.partial"))
    assert set(store.rglob("*.json")) | {image} == set(before)


def test_a_description_that_is_no_json_is_one_sentence(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("no json", "[1]", "{}"):
        image.with_name("web.img.json").write_text(text)
        if text != "{}":
            told = refused(["create", image, tmp_path / "store"], monkeypatch, capsys)
            assert "web.img.json: expected the description of a guest image" in told
        backup("create", image, tmp_path / f"store of {text}", "--vm", "web")
    assert "of web:" in backup("create", image, tmp_path / "store")


@pytest.fixture(scope="module")
def partitioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one copy of two disks: ext4 and LVM on the first, ext4 on the second."""
    need("sfdisk", "mke2fs")
    folder = tmp_path_factory.mktemp("cli")
    for name, files in (
        ("a", {"srv/www/index.html": b"<html>" * 900, "top": b"top"}),
        ("b", {"srv/b": b"b"}),
    ):
        for path, data in files.items():
            (folder / name / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / name / path).write_bytes(data)
        image = folder / f"{name}.img"
        with open(image, "wb") as file:
            file.truncate(14 * MIB)
        run("sfdisk", "-q", image, stdin="label: gpt\nstart=2048, size=16384\nstart=18432, size=6144\n")
        options = ("-E", f"offset={MIB}", "-d", folder / name)
        run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", *options, image, "8M")
    with open(folder / "a.img", "r+b") as file:
        file.seek(9 * MIB + 512)
        file.write(b"LABELONE" + bytes(16) + b"LVM2 001")
    backup("create", folder / "a.img", folder / "store", "--disk", folder / "b.img", "--block-kib", "4")
    return folder / "store"


def test_browse_shows_disks_and_partitions_also_those_that_cannot_be_read(partitioned: Path) -> None:
    record: dict[str, Any] = json.loads(backup("browse", partitioned, "1", "--json"))
    rows = [(row["disk"], row["partition"], row["file_system"]) for row in record["partitions"]]
    assert rows == [(0, 1, "ext4"), (0, 2, "lvm2"), (1, 1, "ext4"), (1, 2, "unknown")]
    told = [row["files"] for row in record["partitions"]]
    assert isinstance(told[0], int)
    assert told[1] == told[3] == "cannot be read, backed up all the same"
    assert [file["file"] for file in record["files"]] == ["a.img", "b.img"]
    lines = backup("browse", partitioned, "1").splitlines()
    assert sum("lvm2" in line and "cannot be read" in line for line in lines) == 1
    assert sum("unknown" in line and "cannot be read" in line for line in lines) == 1


def test_browse_lists_folders(partitioned: Path) -> None:
    rows = json.loads(backup("browse", partitioned, "1", "/", "--json"))
    assert [(row["name"], row["kind"]) for row in rows] == [
        ("/lost+found", "directory"),
        ("/srv", "directory"),
        ("/top", "regular"),
    ]
    assert "/srv/www/index.html" in backup("browse", partitioned, "1", "/srv/www/")
    (row,) = json.loads(backup("browse", partitioned, "1", "/srv", "--disk", "1", "--json"))
    assert row == {"name": "/srv/b", "kind": "regular", "bytes": 1}


def test_browse_tells_the_blocks_of_a_selection(partitioned: Path) -> None:
    for words, arguments in (
        (["--select", "/srv/**"], {"patterns": ["/srv/**"]}),
        (["--select", "/srv/**", "--disk", "1"], {"patterns": ["/srv/**"], "disk": 1}),
        (["--partition", "2"], {"partitions": [2]}),
        (["--partition", "2", "--disk", "1"], {"partitions": [2], "disk": 1}),
    ):
        record = json.loads(backup("browse", partitioned, "1", *words, "--json"))
        with BackupStore(partitioned) as opened, CopyContents(opened, 1) as found:
            chosen = found.select(*arguments.pop("patterns", []), **arguments)
        numbers = [int(number) for number in record["numbers"].split()]
        assert numbers == chosen.blocks(4096).tolist()
        assert record["blocks"] == len(numbers) > 0
        assert record["files"] == len(chosen.files)
        assert record["file_bytes"] == sum(file.size for file in chosen.files if file.kind == "regular")
        if "1" in words[1:]:
            assert min(numbers) >= 14 * MIB // 4096


def test_extract_gives_one_file(partitioned: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert backup("extract", partitioned, "1", "/srv/www/index.html", out) == f"{out}: 5400 bytes\n"
    assert out.read_bytes() == b"<html>" * 900
    assert backup("extract", partitioned, "1", "/srv/b", tmp_path / "b", "--disk", "1").endswith(
        ": 1 bytes\n"
    )


def test_verify_names_the_file_of_the_machine(partitioned: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(partitioned, tmp_path / "store"))
    for container in range(50):
        path = container_path(store / "chunks" / ChunkId(1, 0).folder, container)
        if path.exists() and b"<html>" * 100 in path.read_bytes():
            path.write_bytes(path.read_bytes().replace(b"<html>" * 100, b"<htnl>" * 100, 1))
            break
    told = backup("verify", store, status=1)
    assert "affects copy 1 of a: /srv/www/index.html" in told
