"""What paths and blocks have in common with those of other machines; SYNTHETIC disks."""

from __future__ import annotations

import dataclasses
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_boots import BLOCK, manifest_of

from vmrestorekit.predict.description import (
    BLOCK_FEATURES,
    FILE_FEATURES,
    FILE_KEYS,
    KEYS,
    PARTS,
    DescribedDisk,
    describe_disk,
)
from vmrestorekit.predict.paths import PATH_CLASSES, canonical, path_class
from vmrestorekit.predict.reached import FAR, Reached
from vmrestorekit.traces.manifest import BLOCKS_SCHEMA, REFERENCES_SCHEMA, Manifest, sorted_references

BOOKWORM_MODULE = "/lib/modules/6.1.0-50-cloud-amd64/kernel/x.ko.xz"
TRIXIE_MODULE = "/usr/lib/modules/6.12.9-amd64/kernel/x.ko"
IN_FILE = BLOCK_FEATURES[: BLOCK_FEATURES.index("address")]


def feature(described: DescribedDisk, name: str) -> list[float]:
    return described.features[:, BLOCK_FEATURES.index(name)].tolist()


def disk_of(files, references=(), packages=()) -> Manifest:
    """A disk of files of one block each, in this order."""
    disk = manifest_of(range(1, len(files) + 1), [(path, at, 1) for at, path in enumerate(files)])
    table = pl.DataFrame(list(references), schema=REFERENCES_SCHEMA, orient="row")
    owner = pl.Series("package", list(packages) or [None] * len(files), dtype=pl.String)
    return dataclasses.replace(
        disk, references=sorted_references(table), files=disk.files.with_columns(owner)
    )


def keys_of_path(path: str, positions=(0,), size_blocks: int = 64) -> dict[str, list[int]]:
    """The keys of some blocks of a file, by their positions in it."""
    disk = manifest_of([7] * size_blocks, [(path, 0, size_blocks)])
    keys = describe_disk(disk).keys
    return {kind: values[list(positions)].tolist() for kind, values in keys.items()}


def comparable(*paths: str) -> list[str]:
    return pl.DataFrame({"path": paths}).select(canonical(pl.col("path")))["path"].to_list()


class TestPaths:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (BOOKWORM_MODULE, TRIXIE_MODULE),
            ("/boot/vmlinuz-6.1.0-50-cloud-amd64", "/boot/vmlinuz-6.12.117+deb13-cloud-amd64"),
            ("/boot/initrd.img-5.10.0-30-amd64", "/boot/initrd.img-6.12.117+deb13-cloud-amd64"),
            ("/usr/lib/postgresql/15/bin/postgres", "/usr/lib/postgresql/17/bin/postgres"),
            ("/var/log/journal/0123456789abcdef/system.journal", "/var/log/journal/fedcba98/system.journal"),
            ("/sbin/init", "/usr/sbin/init"),
            ("/lib64/ld-linux.so.2", "/usr/lib64/ld-linux.so.2"),
            ("@data/srv/www/index.html", "/srv/www/index.html"),
            ("$superblock@root", "$superblock"),
            ("/usr/share/doc/a.gz", "/usr/share/doc/a"),
            ("/usr/lib/firmware/a.zst", "/usr/lib/firmware/a"),
        ],
    )
    def test_what_releases_and_machines_name_differently_is_the_same(self, one, other):
        first, second = comparable(one, other)
        assert first == second

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("/bin/sh", "/sbin/sh"),
            ("/usr/local/bin/x", "/usr/bin/x"),
            ("/srv/bin/x", "/srv/usr/bin/x"),
            ("/usr/lib/liba.so", "/usr/lib/libb.so"),
            ("/usr/lib/modules/6.1.0/kernel/x.ko", "/usr/lib/modules/6.1.0/kernel/y.ko"),
            ("/usr/share/a.gz/b", "/usr/share/a/b"),
            ("/usr/lib/abcdef/x", "/usr/lib/fedcba/x"),  # too short for a random name
        ],
    )
    def test_what_differs_stays_different(self, one, other):
        first, second = comparable(one, other)
        assert first != second

    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("/boot/vmlinuz-6.1.0", "kernel"),
            ("/boot/initrd.img-6.1.0", "initrd"),
            ("/boot/grub/grub.cfg", "boot"),
            (BOOKWORM_MODULE, "module"),
            ("/usr/lib/modules/6.1.0/modules.dep", "module_index"),
            ("/usr/lib/x86_64-linux-gnu/libc.so.6", "library"),
            ("/usr/lib/python3/dist-packages/a.cpython-311-x86_64-linux-gnu.so", "library"),
            ("/usr/lib/python3/dist-packages/a.py", "python"),
            ("/usr/sbin/nginx", "program"),
            ("/usr/lib/systemd/system/nginx.service", "unit"),
            ("/usr/lib/systemd/systemd", "systemd"),
            ("/etc/systemd/system/a.service.d/b.conf", "unit"),
            ("/etc/nginx/nginx.conf", "configuration"),
            ("/var/lib/dpkg/status", "package_lists"),
            ("/var/lib/postgresql/15/main/base/1", "state"),
            ("$journal", "journal"),
            ("$something_new", "metadata"),
        ],
    )
    def test_the_first_class_that_fits_counts(self, path, name):
        found = pl.DataFrame({"path": [path]}).select(path_class(pl.col("path"))).item()
        assert PATH_CLASSES[found][0] == name

    def test_a_path_of_no_class(self):
        found = pl.DataFrame({"path": ["/swapfile"]}).select(path_class(pl.col("path"))).item()
        assert found == len(PATH_CLASSES)


class TestDescribedDisk:
    # a file in two pieces, the later one first; two blocks of no file; holes between and within
    DISK = dataclasses.replace(
        manifest_of([0] * 12, [("/b", 0, 1), ("/a", 1, 1)]),
        blocks=pl.DataFrame(
            {
                "content": [21, 0, 13, 14, 90, 0, 0, 10, 0, 12, 91, 0],
                "file": [0, 0, 1, 1, None, None, None, 1, 1, 1, None, None],
                "file_block": [0, 1, 3, 4, None, None, None, 0, 1, 2, None, None],
            },
            schema=BLOCKS_SCHEMA,
        ),
    )

    def test_what_a_file_system_has_freed_is_like_nothing_that_others_have(self):
        content, files = [5, 6, 7, 8, 9], [("/a", 1, 2)]
        free = describe_disk(manifest_of(content, files, "ext4"))
        assert free.block.tolist() == [0, 3, 4, 1, 2]
        assert free.keys["content"].tolist() == [0, 0, 0, 6, 7]
        assert free.content.tolist() == [5, 8, 9, 6, 7]
        unknown = describe_disk(manifest_of(content, files, "zfs_member"))
        assert unknown.keys["content"].tolist() == [5, 8, 9, 6, 7]
        unreadable = describe_disk(manifest_of(content, [], "btrfs"))
        assert unreadable.keys["content"].tolist() == content

    def test_the_newest_of_files_that_differ_in_a_version(self):
        paths = [
            "/boot/vmlinuz-6.1.0-9-amd64",
            "/boot/vmlinuz-6.1.0-10-amd64",
            "/etc/fstab",
            f"/a{'9' * 5000}",
        ]
        found = describe_disk(manifest_of(range(1, 5), [(path, at, 1) for at, path in enumerate(paths)]))
        newest = dict(zip(found.file, found.features[:, FILE_FEATURES.index("newest")], strict=True))
        assert (newest[0], newest[1]) == (0, 1)
        assert np.isnan(newest[2])
        assert np.isnan(newest[3])

    def test_stored_blocks_come_file_by_file_in_the_order_of_the_file(self):
        found = describe_disk(self.DISK)
        assert found.block.tolist() == [4, 10, 0, 7, 9, 2, 3]
        assert found.file.tolist() == [-1, -1, 0, 1, 1, 1, 1]
        assert found.starts.tolist() == [0, 2, 3, 7]
        assert found.first_rows.tolist() == [2, 3]
        assert found.keys["content"].tolist() == [90, 91, 21, 10, 12, 13, 14]
        assert found.file_count == 2

    def test_blocks_of_no_file_have_a_content_and_an_address_and_nothing_else(self):
        found = describe_disk(self.DISK)
        none = found.file < 0
        assert none.tolist() == [True] * 2 + [False] * 5
        assert found.keys["content"].all()
        for kind in set(KEYS) - {"content", "package"}:
            assert (found.keys[kind] == 0).tolist() == none.tolist(), kind
        assert np.isnan(found.features[none][:, : len(IN_FILE)]).all()
        assert not np.isnan(found.features[none][:, len(IN_FILE) :]).any()

    def test_places_in_the_file_and_on_the_disk(self):
        found = describe_disk(self.DISK)
        own = found.file == 1
        # the table says that the file has one block: where it ends is where its last block lies
        assert np.array(feature(found, "position"))[own].tolist() == [0, 2, 3, 4]
        assert (np.array(feature(found, "to_end"))[own] == 0).all()
        np.testing.assert_allclose(feature(found, "address"), np.log2(found.block + 1), rtol=1e-6)
        np.testing.assert_allclose(feature(found, "relative_address"), found.block / 12, rtol=1e-6)
        whole = describe_disk(manifest_of(range(1, 9), [("/a", 2, 5)]))
        assert feature(whole, "position")[3:] == [0, 1, 2, 3, 4]
        assert feature(whole, "to_end")[3:] == [4, 3, 2, 1, 0]
        np.testing.assert_allclose(feature(whole, "relative_position")[3:], np.arange(5) / 5, rtol=1e-6)

    def test_a_disk_without_a_stored_block(self):
        found = describe_disk(manifest_of([0, 0, 0], [("/a", 0, 2)]))
        assert found.block.size == found.file.size == found.first_rows.size == 0
        assert found.starts.tolist() == [0]
        assert found.features.shape == (0, len(BLOCK_FEATURES))
        assert all(values.size == 0 for values in found.keys.values())

    def test_a_disk_without_files(self):
        found = describe_disk(Manifest.synthetic(5 * BLOCK))
        assert found.block.tolist() == [0, 1, 2, 3, 4]
        assert (found.file_count, found.first_rows.size, found.edges.size) == (0, 0, 0)
        assert np.isnan(found.features[:, : len(IN_FILE)]).all()

    @settings(max_examples=10, deadline=None)
    @given(st.lists(st.integers(0, 3), min_size=1, max_size=24), st.data())
    def test_every_stored_block_is_there_once_and_files_are_whole(self, content, data):
        cuts = data.draw(st.lists(st.integers(0, len(content)), max_size=6, unique=True).map(sorted))
        files = [
            (f"/f{chr(97 + at)}", first, end - first)
            for at, (first, end) in enumerate(itertools.pairwise(cuts))
        ]
        manifest = manifest_of(content, files)
        found = describe_disk(manifest)
        assert sorted(found.block.tolist()) == np.flatnonzero(content).tolist()
        owner = manifest.blocks["file"].fill_null(-1).to_numpy()[found.block]
        np.testing.assert_array_equal(found.file, owner)
        pieces = np.split(found.block, found.starts[1:-1]) if found.block.size else []
        assert all(np.unique(owner[np.isin(found.block, piece)]).size == 1 for piece in pieces)
        assert len(pieces) == np.unique(owner).size
        for piece in pieces:  # these files lie in one piece
            assert piece.tolist() == sorted(piece.tolist())


class TestKeys:
    def test_the_same_place_in_the_same_file_has_the_same_keys_across_versions(self):
        one, other = (keys_of_path(path, (0, 1, 40)) for path in (BOOKWORM_MODULE, TRIXIE_MODULE))
        assert one == other

    def test_other_positions_are_other_places_of_the_same_file(self):
        found = keys_of_path("/usr/lib/x.so", range(64))
        for kind in ("place", "name_place"):
            assert len(set(found[kind])) == 64
        assert len(set(found["place"]) | set(found["name_place"]) | set(found["part"])) == 64 + 64 + PARTS
        assert [len(set(found[kind])) for kind in ("part", *FILE_KEYS[:4])] == [PARTS, 1, 1, 1, 1]
        assert all(part != 0 for part in found["part"])

    def test_a_part_is_the_same_share_of_a_file_of_any_size(self):
        small, large = (keys_of_path("/x", range(size), size)["part"] for size in (32, 320))
        assert [small[at] for at in (0, 2, 31)] == [large[at] for at in (0, 20, 319)]
        assert small[2] != large[2]

    def test_other_files_have_other_keys(self):
        one, other = keys_of_path("/usr/lib/liba/x.so", [3]), keys_of_path("/usr/lib/libb/y.so", [3])
        for kind in ("place", "name_place", "part", "file", "name", "directory", "branch"):
            assert one[kind] != other[kind], kind
        assert one["content"] == other["content"]

    def test_a_file_that_is_reached_is_told_from_the_same_one_that_is_not(self):
        reached, alike = (describe_disk(disk_of(FILES, REFERENCES, PACKAGES)) for _ in range(2))
        idle = describe_disk(disk_of(FILES, (), PACKAGES))
        library = FILES.index("/usr/lib/libz.so")
        for key, same in (("file", True), ("reached_file", False)):
            of_each = [disk.keys[key][disk.file == library][0] for disk in (reached, alike, idle)]
            assert of_each[0] == of_each[1] != 0
            assert (of_each[0] == of_each[2]) == same

    def test_what_lies_in_another_folder_is_the_same_by_name(self):
        one = keys_of_path("/usr/lib/python3.11/json/a.py", [3])
        other = keys_of_path("/opt/venv/json/a.py", [3])
        assert one["name"] == other["name"]
        assert one["name_place"] == other["name_place"]
        assert one["file"] != other["file"]
        assert one["name"] != keys_of_path("/opt/venv/yaml/a.py")["name"]

    def test_directory_branch_and_package(self):
        files = [
            "/usr/lib/pg/15/bin/a",
            "/usr/lib/pg/15/bin/b",
            "/usr/lib/pg/15/c",
            "/usr/share/d",
            "$journal",
        ]
        disk = disk_of(files, packages=["postgresql-15", "postgresql-17", "nginx", None, None])
        keys = describe_disk(disk).keys
        directory, branch, package = (keys[kind].tolist() for kind in ("directory", "branch", "package"))
        assert directory[0] == directory[1] != directory[2]
        assert branch[0] == branch[1] == branch[2] != branch[3]
        assert package[0] == package[1] != package[2]
        assert package[3:] == [0, 0]
        assert 0 not in package[:3]

    def test_keys_are_the_same_in_every_process_and_version(self):
        keys = describe_disk(disk_of(["/lib/a1.so"], packages=["liba1"])).keys
        named = {"file": b"/usr/lib/a#.so", "name": b"lib/a#.so", "directory": b"/usr/lib"}
        named |= {"branch": b"/usr/lib/a#.so", "package": b"liba#"}
        for kind, name in named.items():
            assert keys[kind].tolist() == [xxhash.xxh3_64_intdigest(name)], kind
        program = (
            "from synthetic_boots import manifest_of\n"
            "from vmrestorekit.predict.description import describe_disk\n"
            f"keys = describe_disk(manifest_of([7] * 64, [({BOOKWORM_MODULE!r}, 0, 64)])).keys\n"
            "print({kind: values[[0, 63]].tolist() for kind, values in keys.items()})"
        )
        environment = os.environ | {"PYTHONHASHSEED": "1234", "PYTHONPATH": str(Path(__file__).parent)}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == str(keys_of_path(BOOKWORM_MODULE, (0, 63)))

    def test_places_far_into_a_large_file(self):
        """A file of 8 TiB, of which all but a few blocks are holes."""
        positions = [0, 1, 2**24, 2**24 + 1, 2**31 - 2, 2**31 - 1]
        disk = manifest_of([5] * len(positions), [("/huge", 0, len(positions))])
        blocks = disk.blocks.with_columns(file_block=pl.Series(positions, dtype=pl.Int32))
        files = disk.files.with_columns(size=pl.lit(2**31 * BLOCK, pl.Int64))
        found = describe_disk(dataclasses.replace(disk, blocks=blocks, files=files))
        assert len(set(found.keys["place"].tolist())) == len(positions)
        assert feature(found, "position") == np.float32(positions).tolist()
        assert feature(found, "to_end")[-1] == 0
        part = found.keys["part"].tolist()
        assert part[0] == part[1] == part[2] == part[3] != part[4] == part[5]
        few = keys_of_path("/huge", (0, 15), 16)["part"]
        assert [part[0], part[-1]] == few


TARGET, UNIT = "/etc/systemd/system/default.target", "/usr/lib/systemd/system/nginx.service"
FILES = (
    TARGET,
    UNIT,
    "/usr/sbin/nginx",
    "/usr/lib/libz.so",
    "/etc/nginx/nginx.conf",
    "/srv/data",
    "$journal",
)
REFERENCES = (
    (TARGET, "enables", UNIT),
    (UNIT, "starts", "/usr/sbin/nginx"),
    ("/usr/sbin/nginx", "loads", "/usr/lib/libz.so"),
)
PACKAGES = (None, "nginx", "nginx", "zlib", "nginx", None, None)


@pytest.fixture(scope="module")
def web_server():
    """The features of each file of a web server of seven."""
    rows = describe_disk(disk_of(FILES, REFERENCES, PACKAGES)).features.tolist()
    return {path: dict(zip(BLOCK_FEATURES, row, strict=True)) for path, row in zip(FILES, rows, strict=True)}


def named(found, name):
    return [found[path][name] for path in FILES]


class TestFileFeatures:
    def test_how_files_are_reached(self, web_server):
        assert named(web_server, "reached") == [
            *(Reached.ENABLED, Reached.ENABLED, Reached.STARTED, Reached.LOADED),
            *(0, 0, 0),
        ]
        assert named(web_server, "steps") == [0, 1, 2, 3, FAR, FAR, FAR]

    def test_what_packages_have_of_it(self, web_server):
        nan = np.nan
        expected = {
            "packaged": [0, 1, 1, 1, 1, 0, 0],
            "package_units": [nan, 1, 1, 0, 1, nan, nan],
            "package_programs": [nan, 1, 1, 0, 1, nan, nan],
            "package_share": [nan, 2 / 3, 2 / 3, 1, 2 / 3, nan, nan],
        }
        for name, values in expected.items():
            np.testing.assert_allclose(named(web_server, name), values, rtol=1e-6, err_msg=name)

    def test_what_the_path_tells(self, web_server):
        assert named(web_server, "of_service") == [0, 1, 1, 0, 1, 0, 0]
        assert named(web_server, "in_bin") == [0, 0, 1, 0, 0, 0, 0]
        assert named(web_server, "depth") == [4, 5, 3, 3, 3, 2, 0]
        classes = [PATH_CLASSES[int(number)][0] for number in named(web_server, "path_class")]
        assert classes == ["unit", "unit", "program", "library", "configuration", "data", "journal"]

    def test_sizes_are_powers_of_two(self, web_server):
        np.testing.assert_allclose(named(web_server, "size"), np.log2(BLOCK + 1), rtol=1e-6)

    def test_features_of_files_are_the_same_in_all_their_blocks(self):
        disk = manifest_of([7] * 9, [("/usr/bin/a", 0, 4), ("/etc/b", 4, 5)])
        rows = describe_disk(disk).features[:, : len(FILE_FEATURES)]
        for own in (rows[:4], rows[4:]):
            np.testing.assert_array_equal(own, np.tile(own[:1], (own.shape[0], 1)))
        assert (rows[0] != rows[4]).any()

    def test_edges_are_rows_of_the_table_of_files(self):
        described = describe_disk(disk_of(FILES, REFERENCES, PACKAGES))
        assert described.edges.tolist() == [[1, 2], [2, 3]]
        assert described.file_count == len(FILES)
