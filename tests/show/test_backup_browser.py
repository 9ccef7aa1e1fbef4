"""The file manager, headless: on a small disk made by hand, on recorded machines, on a backup store."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from vmrestorekit.backup import BackupStore, CopyContents, create_copy
from vmrestorekit.plan import RestorePlan
from vmrestorekit.predict.profiles import SelectedInBackup, first_set
from vmrestorekit.show.backups.backed_up_disk import copy_of_boot
from vmrestorekit.show.backups.blocks_view import BLOCK_SIZES
from vmrestorekit.show.backups.browser import BackupBrowser
from vmrestorekit.show.backups.file_selection import SELECTION_SCHEMA
from vmrestorekit.show.backups.folder_tree import FolderTree
from vmrestorekit.show.backups.selection_tables import bytes_read_by_boot, bytes_stored
from vmrestorekit.traces.corpus import Boot, Corpus, RecordedVM, load_corpus
from vmrestorekit.traces.manifest import BLOCKS_SCHEMA, FILES_SCHEMA, PARTITIONS_SCHEMA, Manifest
from vmrestorekit.traces.schema import TRACE_SCHEMA, ReadTrace, TraceMetadata

KIB = 1024

# path -> (size, kind, 4 KiB blocks in the order of the file); block 7 is zeros, block 40 of no file
FILES = {
    "$boot": (8 * KIB, "metadata", [0, 1]),
    "$superblock": (4 * KIB, "metadata", [2]),
    "$group_descriptors": (8 * KIB, "metadata", [3, 30]),
    "$inode_table": (8 * KIB, "metadata", [4, 5]),
    "/": (4 * KIB, "directory", [6]),
    "/etc": (4 * KIB, "directory", [8]),
    "/etc/empty.conf": (4 * KIB, "regular", [7]),
    "/etc/passwd": (9000, "regular", [18, 17, 19]),
    "/srv/data/a.bin": (20 * KIB, "regular", [32, 33, 34, 35, 36]),  # its folders have no blocks
    "/srv/data/b<b>.txt": (100, "regular", [37]),
    "/z": (5, "symlink", [38]),
}
BLOCKS = 64


def small_manifest(files: dict[str, tuple[int, str, list[int]]] = FILES) -> Manifest:
    content = np.zeros(BLOCKS, np.uint64)
    file: list[int | None] = [None] * BLOCKS
    place: list[int | None] = [None] * BLOCKS
    for number, (_, _, blocks) in enumerate(files.values()):
        for at, block in enumerate(blocks):
            file[block], place[block] = number, at
            content[block] = 1000 + block
    content[7], content[40] = 0, 77
    rows = [(path, size, kind, None) for path, (size, kind, _) in files.items()]
    return Manifest(
        BLOCKS * 4096,
        pl.DataFrame({"content": content, "file": file, "file_block": place}, schema=BLOCKS_SCHEMA),
        pl.DataFrame(rows, schema=FILES_SCHEMA, orient="row"),
        pl.DataFrame([(1, 2 * 4096, 62 * 4096, "ext4")], schema=PARTITIONS_SCHEMA, orient="row"),
    )


def boot_that_reads(*blocks: int, name: str = "boot-1", disks: int = 1) -> Boot:
    rows = [(100 * at, 100 * at + 50, 0, "read", 4096 * block, 4096) for at, block in enumerate(blocks)]
    frame = pl.DataFrame(rows, schema=TRACE_SCHEMA, orient="row")
    metadata = TraceMetadata("by-hand", name, (BLOCKS * 4096,) * disks, {}, "none", "none", {})
    return Boot.from_parts(ReadTrace(frame, metadata), [small_manifest()] * disks)


@pytest.fixture
def browser() -> BackupBrowser:
    return BackupBrowser(boot_that_reads(0, 2, 17, 40), block_bytes=16 * KIB, rows=3)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return load_corpus()


@pytest.fixture(scope="module")
def recorded(corpus: Corpus) -> Boot:
    boot = corpus["trixie-files"].boot("boot-1")
    assert boot.manifests
    return boot


def names(browser: BackupBrowser) -> list[str]:
    return [entry.name for entry in browser.entries]


def at_root(browser: BackupBrowser) -> BackupBrowser:
    browser.go_to("by-hand", "before boot-1", 0)
    return browser


# --- the tree ---------------------------------------------------------------------------------------------


def test_everything_in_a_folder_follows_it_and_missing_folders_are_added():
    paths = ["/", "/a.b", "/a", "/a/b", "/a/b.c", "/a/b/c", "@1/x/y", "$boot", "/a-"]
    kinds = ["directory", "regular", *["directory"] * 2, *["regular"] * 3, "metadata", "regular"]
    tree = FolderTree.of(paths, kinds)
    top = tree.node_at("/")
    assert [tree.path(node) for node in tree.children(top)] == ["/a", "/a-", "/a.b"]
    inside = tree.inside(tree.node_at("/a"))
    assert sorted(paths[file] for file in inside) == ["/a", "/a/b", "/a/b.c", "/a/b/c"]
    assert [tree.path(node) for node in tree.tops] == ["/", "$", "@1/"]
    assert tree.path(tree.node_at("@1/x")) == "@1/x"
    assert tree.file[tree.node_at("@1/x")] == -1
    assert tree.path(tree.node_at("$boot")) == "$boot"
    assert tree.node_at("/nothing") is None
    sums = tree.sums(np.arange(len(paths)))
    assert sums[top] == sum(range(len(paths))) - 6 - 7
    assert [tree.node_of_file[tree.file[node]] for node in range(len(tree)) if tree.file[node] >= 0] == [
        node for node in range(len(tree)) if tree.file[node] >= 0
    ]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.txt", ["/srv/data/b<b>.txt"]),
        ("/etc/*", ["/etc/empty.conf", "/etc/passwd"]),
        ("/srv/data", ["/srv/data"]),
        ("PASSWD", ["/etc/passwd"]),
        ("[", []),
    ],
)
def test_find(browser, pattern, found):
    at_root(browser)
    assert browser.find(pattern) == len(found)
    assert names(browser) == found


# --- going about ------------------------------------------------------------------------------------------


def test_a_single_copy_is_open_and_lists_its_drives(browser):
    assert names(browser) == ["disk 0, files of /", "disk 0, structures", "disk 0, partition 1 as a whole"]
    assert [entry.cells[1] for entry in browser.entries] == ["12", "7", "18"]
    assert browser.place == "all machines › by-hand › before boot-1"
    assert "Enter" in browser.sentence


def test_folders_first_pages_and_the_way_up(browser):
    browser.files.enter(0)
    assert names(browser) == ["etc", "srv", "z"]
    assert [entry.kind for entry in browser.entries] == ["directory", "directory", "symlink"]
    browser.files.enter(1)
    browser.files.enter(0)
    assert browser.place.endswith("› disk 0 / › srv › data")
    assert names(browser) == ["a.bin", "b<b>.txt"]
    assert browser.entries[0].cells == ("20 KiB", "5", "0")
    browser.files.enter(0)  # a file cannot be entered
    assert names(browser) == ["a.bin", "b<b>.txt"]
    browser.up()
    browser.up()
    assert browser.files.list.current == 1  # where we came from
    for _ in range(2):
        browser.up()
    assert browser.place == "all machines › by-hand"
    with pytest.raises(ValueError, match="expected a selection"):
        _ = browser.plan
    browser.files.enter(0)
    assert browser.place.endswith("before boot-1")


def test_pages_turn_and_stop_at_the_ends(browser):
    at_root(browser)
    browser.find("*")
    everything = []
    while True:
        everything += names(browser)
        before = browser.files.list.current
        browser.files.turn(1)
        if browser.sentence == "This is the last page.":
            break
        assert browser.files.list.current == 0, before
    assert len(everything) == len(set(everything)) == 8
    browser.files.turn(-1)
    assert browser.files.list.current == 2  # backwards the keyboard stands on the last row
    assert "Page 2 of 3" in browser.sentence


def test_sorting(browser):
    at_root(browser)
    browser.find("*")
    browser.files.sorting.value = "bytes"
    assert browser.entries[0].name == "/srv"  # with all that is in it
    browser.files.sorting.value = "read"
    assert [entry.cells[2] for entry in browser.entries] == ["1", "1", "0"]
    browser.up()
    browser.files.sorting.value = "name"
    assert names(browser) == ["etc", "srv", "z"]


def test_found_files_lead_to_their_folder(browser):
    at_root(browser)
    browser.files.pattern.value = "passwd"
    browser.files.find_button.click()
    browser.files.enter(0)
    assert browser.place.endswith("› etc")
    assert browser.entries[browser.files.list.current].name == "passwd"


def test_what_the_page_tells(browser):
    at_root(browser)
    tell = lambda do, number=0: browser.files.list._handle_custom_msg({"do": do, "number": number}, [])  # noqa: E731
    tell("open", 1)
    assert browser.place.endswith("srv")
    tell("tick", 0)
    assert browser.chosen == 2
    tell("up")
    tell("page", 1)
    assert browser.sentence == "This is the last page."
    tell("trail", 0)
    assert browser.place == "all machines"
    for nonsense in ({"do": "fly"}, {"do": "open", "number": "x"}, {"do": "open", "number": 99}, {}, "x"):
        browser.files.list._handle_custom_msg(nonsense, [])


# --- choosing ---------------------------------------------------------------------------------------------


def test_ticks_of_folders_follow_their_files(browser):
    at_root(browser)
    assert [row["tick"] for row in browser.files.list.rows] == [0, 0, 0]
    browser.select("/etc/passwd")
    assert [row["tick"] for row in browser.files.list.rows] == [1, 0, 0]
    browser.files.tick(0)
    assert [row["tick"] for row in browser.files.list.rows] == [2, 0, 0]
    assert browser.chosen == 3
    browser.files.tick(0)
    assert browser.chosen == 0
    assert browser.sentence == "No longer chosen: etc. Nothing is chosen."


def test_cost_counts_by_hand(browser):
    browser.select("/etc/passwd")
    cost = browser.cost
    # what leads there: $boot 0 1, superblock 2, the first run of the group descriptors 3, / 6, /etc 8
    assert (cost.files, cost.file_bytes, cost.blocks, cost.blocks_read) == (1, 9000, 3, 1)
    assert cost.blocks_leading == 6
    # cache blocks of four: 0 to 3, 4 to 7, 8 to 11, then 16 to 19 of the file
    assert cost.cache_blocks.tolist() == [0, 1, 2, 4]
    assert cost.media_bytes == 4 * 16 * KIB
    assert (cost.blocks_along, cost.files_along) == (2, 1)  # 4 and 5, of the inode table
    assert browser.sentence.startswith("1 path fits. The selection needs 9 blocks")


def test_what_a_boot_takes_is_hidden_until_something_is_chosen(browser):
    assert browser.blocks.cost.value == ""
    browser.select("/etc/passwd")
    assert "to boot the machine" in browser.blocks.cost.value
    browser.clear()
    assert browser.blocks.cost.value == ""


def test_table_has_the_order_of_reading(browser):
    assert browser.table().schema == SELECTION_SCHEMA
    browser.select("/etc/passwd")
    table = browser.table()
    assert table.filter(why="chosen")["block"].to_list() == [18, 17, 19]
    assert table.filter(why="leads there")["block"].to_list() == [0, 1, 2, 3, 6, 8]
    assert table["path"].to_list()[-1] == "/etc/passwd"
    assert table["read_by_boot"].sum() == 3
    assert table["cache_block"].unique().sort().to_list() == [0, 1, 2, 4]


def test_zeros_are_not_fetched(browser):
    browser.select("/etc/empty.conf")
    assert browser.cost.blocks == 0
    assert 7 not in browser.table()["block"]


def test_whole_partition_and_structures(browser):
    browser.files.tick(2)
    assert browser.chosen == 1
    assert browser.cost.blocks == 18  # all but the zeros, and the two in front; the one of no file, too
    assert browser.cost.blocks_leading == 0
    browser.files.tick(2)
    browser.files.tick(1)
    assert browser.cost.blocks == 7
    assert browser.cost.blocks_leading == 0  # nothing leads to a structure
    browser.all_button.click()
    assert browser.cost.blocks == 19  # a partition as a whole is only chosen for itself
    browser.none_button.click()
    assert browser.chosen == 0


def test_plan_selection_and_profile_agree(browser):
    with pytest.raises(ValueError, match="choose at least one file"):
        _ = browser.selection
    browser.plan_button.click()
    assert browser.sentence.startswith("Nothing is chosen")
    browser.select("/srv", "/etc/passwd")
    plan = browser.plan
    assert isinstance(plan, RestorePlan)
    assert (plan.mode, plan.block_bytes) == ("live_mount", 16 * KIB)
    assert plan.first_set.tolist() == browser.selection.blocks(16 * KIB).tolist()
    profile = first_set([SelectedInBackup(browser.selection)], [small_manifest()], 16 * KIB)
    assert plan.first_set.tolist() == profile.tolist()
    assert {file.path for file in browser.selection.files} == {
        "/etc/passwd",
        "/srv/data/a.bin",
        "/srv/data/b<b>.txt",
    }
    later = browser.make_plan(expiry_ns=10**12, block_bytes=4096)
    assert later.expiry_ns == 10**12
    assert later.first_set.tolist() == browser.selection.blocks(4096).tolist()
    browser.mode.value = "instant_restore"
    browser.plan_button.click()
    assert browser.plan.mode == "instant_restore"
    assert "instant restore that stages" in browser.sentence


def test_several_disks_are_numbered_one_after_the_other():
    browser = BackupBrowser(boot_that_reads(disks=2), block_bytes=16 * KIB)
    browser.select("/srv", disk=1)
    assert browser.cost.cache_blocks.min() >= 16
    assert browser.plan.first_set.tolist() == browser.selection.blocks(16 * KIB).tolist()
    browser.select("/srv")
    assert browser.chosen == 4


# --- the map ----------------------------------------------------------------------------------------------


def test_map_shows_what_is_stored_and_whose_it_is(browser):
    browser.select("/etc/passwd")
    drawn = browser.blocks.drawn
    assert drawn.blocks.tolist() == [0, 1, 2, 4, 7, 8, 9, 10]  # no holes
    roles = ["stored", "boot", "leads", "chosen"]
    assert [roles[role] for role in drawn.role] == [
        *("leads", "leads", "leads", "chosen", "stored", "stored", "stored", "boot"),
    ]
    browser.blocks.map.cell = 3
    assert "Block 4: 1 file, most of it of /etc/passwd" in browser.sentence
    assert browser.blocks.map.text == browser.sentence
    browser.blocks.show_button.click()
    assert browser.place.endswith("› etc")
    assert browser.entries[browser.files.list.current].name == "passwd"
    browser.blocks.map.cell = 7
    assert "0 files" in browser.sentence
    assert browser.blocks.show_button.disabled


def test_map_of_the_needed_blocks_keeps_their_order(browser):
    browser.blocks.map_of.value = -1
    assert browser.blocks.map.cells == 0
    browser.select("/srv/data/a.bin", "/etc/passwd")
    assert browser.blocks.drawn.blocks.tolist() == browser.plan.first_set.tolist()
    assert browser.blocks.map.cells == len(browser.plan.first_set)


def test_names_are_escaped(browser):
    browser.select("*b<b>*")
    browser.blocks.map.cell = browser.blocks.drawn.role.tolist().index(3)
    assert "b&lt;b&gt;" in browser.blocks._here.value
    assert "b<b>" not in browser.blocks._here.value + browser._status.value


@pytest.mark.parametrize("block_bytes", BLOCK_SIZES)
def test_every_size_of_blocks(browser, block_bytes):
    browser.select("*")
    browser.blocks.block_size.value = block_bytes
    assert browser.plan.block_bytes == block_bytes
    assert browser.plan.first_set.tolist() == browser.selection.blocks(block_bytes).tolist()
    # block 40 is of no file: "*" does not bring it, unless it comes along; nor structures that nobody needs
    chosen = {6, 8, 17, 18, 19, *range(32, 39)} | {0, 1, 2, 3}
    touched = {block * 4096 // block_bytes for block in chosen}
    assert set(browser.plan.first_set.tolist()) >= touched
    assert browser.cost.media_bytes <= bytes_stored(browser.open_copy, block_bytes)


def test_another_copy_is_another_selection():
    machine = RecordedVM("by-hand", {}, (boot_that_reads(0), boot_that_reads(1, name="boot-2")))
    browser = BackupBrowser(Corpus({"by-hand": machine}))
    assert names(browser) == ["before boot-1", "before boot-2"]
    browser.files.tick(0)  # a copy cannot be chosen
    browser.go_to("by-hand", "before boot-2", 0, "/etc")
    browser.select("/etc")
    assert browser.chosen == 3
    browser.go_to("by-hand", "before boot-2", 0, "/srv")
    assert browser.chosen == 3
    browser.go_to("by-hand", "before boot-1")
    assert browser.chosen == 0


# --- saving -----------------------------------------------------------------------------------------------


def test_saves_the_selection_and_a_picture(browser, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    browser.select("/etc")
    export = browser.children[-1]
    export.format.value = ".parquet"
    path = export.save()
    assert pl.read_parquet(path).equals(browser.table())
    specification = browser.blocks.drawn.chart().to_dict()
    assert len(specification["layer"]) == 2
    if pytest.importorskip("vl_convert"):
        export.format.value = ".svg"
        assert b"<svg" in export.save().read_bytes()


# --- what cannot be ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source": 7}, "source: expected a corpus, .* got int"),
        ({"source": {}}, "source: expected at least one machine"),
        ({"block_bytes": 5000}, "block_bytes: expected a power of two"),
        ({"rows": 0}, "rows: expected a whole number"),
        ({"rows": True}, "rows: expected a whole number"),
        ({"width": None}, "width: expected pixels"),
    ],
)
def test_constructor_says_what_is_wrong(changes, said):
    arguments = {"source": boot_that_reads(0)} | changes
    with pytest.raises(ValueError, match=said):
        BackupBrowser(arguments.pop("source"), **arguments)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ({"machine": "x"}, "machine: expected one of by-hand"),
        ({"machine": "by-hand", "copy": "x"}, "copy: expected one of before boot-1"),
        ({"copy": "before boot-1"}, "expected a machine with a copy"),
        ({"machine": "by-hand", "copy": "before boot-1", "disk": 3}, "disk: expected 0 to 0, got 3"),
        ({"machine": "by-hand", "copy": "before boot-1", "disk": 0, "path": "/x"}, "found no '/x'"),
        ({"machine": "by-hand", "copy": "before boot-1", "disk": 0, "path": "/z"}, "found no '/z'"),
    ],
)
def test_go_to_says_what_is_wrong_and_stays(browser, place, said):
    before = browser.place
    with pytest.raises(ValueError, match=said):
        browser.go_to(**place)
    assert browser.place == before


def test_select_says_what_is_wrong_and_chooses_nothing(browser):
    with pytest.raises(ValueError, match="fits '/nothing'"):
        browser.select("/etc", "/nothing")
    assert not browser.chosen
    browser.go_to()
    for act in (lambda: browser.select("/etc"), lambda: browser.find("x")):
        with pytest.raises(ValueError, match="open one first"):
            act()


# --- recorded machines ------------------------------------------------------------------------------------


def test_recorded_machine(corpus, recorded):
    browser = BackupBrowser(corpus)
    assert len(browser.files) == len(corpus)
    browser.go_to("trixie-files", "before boot-1", 1, "/srv/3")
    browser.select("/srv/3/31.txt", disk=1)
    manifest = recorded.manifests[1]
    file = manifest.files["path"].to_list().index("/srv/3/31.txt")
    own = manifest.blocks.with_row_index("block").filter(pl.col("file") == file).sort("file_block")["block"]
    assert browser.table().filter(why="chosen")["block"].to_list() == own.to_list()
    profile = first_set([SelectedInBackup(browser.selection)], recorded.manifests)
    assert browser.plan.first_set.tolist() == profile.tolist()


def test_totals_are_those_of_the_manifest(recorded):
    copy = copy_of_boot(recorded)
    for disk, manifest in zip(copy.disks, recorded.manifests, strict=True):
        with_file = manifest.blocks.filter((pl.col("content") != 0) & pl.col("file").is_not_null()).height
        assert disk.stored_of_files.sum() == with_file
        tree = disk.tree
        assert tree.sums(disk.stored_of_files)[tree.tops].sum() == with_file
    assert bytes_stored(copy, 4096) == sum(
        4096 * (manifest.blocks["content"] != 0).sum() for manifest in recorded.manifests
    )
    assert 0 < bytes_read_by_boot(copy) < bytes_stored(copy)


def test_only_what_was_asked_for_stays_in_memory(corpus):
    machine = corpus["bullseye-dns"]
    for boot in machine.recordings:
        boot.drop_manifests()
    browser = BackupBrowser(machine)
    browser.files.enter(1)
    assert not any("manifests" in vars(boot) for boot in machine.recordings)
    assert machine.boots[0].manifests
    browser.go_to("bullseye-dns", "before boot-3")
    assert ["manifests" in vars(boot) for boot in machine.recordings][:3] == [True, False, False]


def test_answers_within_100_ms(recorded):
    browser = BackupBrowser(recorded)
    browser.go_to("trixie-files", "before boot-1", 0, "/")
    acts = {
        "choose all": lambda: browser.select("/usr"),
        "folder": lambda: browser.go_to("trixie-files", "before boot-1", 0, "/var/lib/dpkg/info"),
        "page": lambda: browser.files.turn(1),
        "row": lambda: setattr(browser.files.list, "current", 3),
        "tick": lambda: browser.files.tick(3),
        "4 KiB": lambda: setattr(browser.blocks.block_size, "value", 4096),
        "1 MiB": lambda: setattr(browser.blocks.block_size, "value", 1 << 20),
        "map": lambda: setattr(browser.blocks.map_of, "value", -1),
        "cell": lambda: setattr(browser.blocks.map, "cell", 5),
        "search": lambda: browser.find("*"),
        "sort": lambda: setattr(browser.files.sorting, "value", "bytes"),
    }
    for name, act in acts.items():
        started = time.process_time()
        act()
        assert time.process_time() - started < 0.1, name


# --- a backup store ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    pytest.importorskip("pytsk3")
    mke2fs = shutil.which("mke2fs") or shutil.which("mke2fs", path="/usr/sbin:/sbin")
    if mke2fs is None:
        pytest.skip("expected mke2fs")
    folder = tmp_path_factory.mktemp("store")
    root = folder / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "hosts").write_bytes(b"127.0.0.1 localhost\n" * 700)
    (root / "srv" / "deep").mkdir(parents=True)
    (root / "srv" / "deep" / "large.bin").write_bytes(bytes(range(1, 256)) * 4000)
    (root / "srv" / "linked").hardlink_to(root / "etc" / "hosts")
    image = folder / "disk.img"
    with open(image, "wb") as file:
        file.truncate(16 << 20)
    subprocess.run([mke2fs, "-q", "-t", "ext4", "-d", str(root), str(image)], check=True)
    made = BackupStore.create(folder / "store", 4096)
    create_copy(made, "small", [image])
    yield made, root
    made.close()


def test_store_agrees_with_the_file_manager_below(store):
    made, _ = store
    with CopyContents(made, 1) as contents:
        browser = BackupBrowser(contents, block_bytes=4096)
        for patterns in (("/etc/hosts",), ("/srv",), ("/srv/deep/large.bin", "/etc")):
            browser.clear()
            browser.select(*patterns)
            expected = contents.select(*patterns)
            stored = {*np.flatnonzero(browser.open_copy.disks[0].stored).tolist()}
            assert {*browser.plan.first_set.tolist()} == {*expected.blocks(4096).tolist()} & stored
        assert browser.entries[0].cells[2] == "–"  # nobody recorded a boot
        assert "boot the machine" not in browser.blocks.cost.value


def test_extracts_a_file(store, tmp_path: Path, monkeypatch):
    made, root = store
    monkeypatch.chdir(tmp_path)
    browser = BackupBrowser(made)
    browser.go_to("small", "copy 1", 0, "/srv/deep")
    browser.files.list.current = 0
    row = browser.extraction
    assert row.layout.display == "flex"
    assert row.name.value == "large.bin"
    row.button.click()
    row.wait()
    assert (tmp_path / "large.bin").read_bytes() == (root / "srv/deep/large.bin").read_bytes()
    assert browser.sentence.startswith("Extracted /srv/deep/large.bin")
    row.button.click()
    row.wait()
    assert "expected the name of a new file" in browser.sentence
    assert row.progress.value == 1.0
    assert row.stop_button.disabled


def test_extraction_can_be_stopped(store, tmp_path: Path, monkeypatch):
    made, _ = store
    monkeypatch.chdir(tmp_path)
    browser = BackupBrowser(made)
    browser.go_to("small", "copy 1", 0, "/srv/deep")
    row = browser.extraction
    pieces = row._contents.read

    def stopped_at_once(path, disk):
        for piece in pieces(path, disk):
            row.stop_button.click()
            yield piece

    monkeypatch.setattr(row._contents, "read", stopped_at_once)
    row.button.click()
    row.wait()
    assert browser.sentence == "Stopped; nothing was written to large.bin."
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_has_nothing_to_extract(browser):
    assert browser.extraction.layout.display == "none"
    browser.extraction.start()
