"""The forms of a profile: what each stages of a tiny machine, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny_boots import TINY_FILES, tiny_manifest

from vmrestorekit.backup.browse import Selection
from vmrestorekit.predict.observed import PredictError
from vmrestorekit.predict.profiles import (
    ApplicationProfiles,
    BlockList,
    BootScheme,
    NamedProfile,
    SelectedFiles,
    SelectedInBackup,
    first_set,
)
from vmrestorekit.traces.corpus import Corpus

UNIT = 4096
DISKS = [tiny_manifest(), tiny_manifest()]


def blocks_of(path: str, disk: int = 0) -> list[int]:
    [(first, count)] = [(first, count) for name, _, first, count in TINY_FILES if name == path]
    return [disk * 1024 + first + part for part in range(count)]


def test_selected_files_come_in_their_order_on_every_disk() -> None:
    profile = SelectedFiles(("/sbin/*", "/boot/vmlinuz"))
    expected = [
        block
        for path in ("/sbin/init", "/boot/vmlinuz")
        for disk in (0, 1)
        for block in blocks_of(path, disk)
    ]
    assert first_set([profile], DISKS, UNIT).tolist() == expected


def test_files_of_one_pattern_come_by_path_and_then_by_position() -> None:
    found = first_set([SelectedFiles(("/*",))], DISKS[:1], UNIT).tolist()
    paths = sorted(path for path, *_ in TINY_FILES if path.startswith("/"))
    assert found == [block for path in paths for block in blocks_of(path)]


def test_a_cache_block_larger_than_a_unit_comes_once() -> None:
    found = first_set([SelectedFiles(("/sbin/init",))], DISKS[:1], 16 * 1024)
    assert found.tolist() == sorted({block // 4 for block in blocks_of("/sbin/init")})


def test_a_boot_scheme_goes_on_from_its_starting_block_over_holes() -> None:
    found = first_set([BootScheme(250, 20 * UNIT)], DISKS, UNIT).tolist()
    assert found == [*blocks_of("$superblock"), *blocks_of("$inode_table"), *blocks_of("/boot/vmlinuz")[:7]]


def test_several_forms_add_up_and_nothing_comes_twice() -> None:
    both = first_set([BlockList((450, 300, 904)), SelectedFiles(("/lib/*",))], DISKS[:1], UNIT)
    assert both.tolist() == [450, 300] + [b for b in blocks_of("/lib/libc.so.6") if b != 450]


def test_a_named_profile_is_what_the_media_agent_knows_under_that_name() -> None:
    known = {"loader": BlockList((0, 1, 2)), "kernel": SelectedFiles(("/boot/*",))}
    assert first_set([NamedProfile("loader", known)], DISKS, UNIT).tolist() == [0, 1, 2]


def test_an_application_profile_finds_the_application(packaged_corpus: Corpus) -> None:
    boot = packaged_corpus["bookworm-db"].boots[1]
    database = first_set([ApplicationProfiles(("postgresql",))], boot.manifests)
    web = first_set([ApplicationProfiles(("nginx",))], boot.manifests)
    assert len(database) > 200
    assert len(web) == 0
    assert not np.isin(database, first_set([SelectedFiles(("/boot/*",))], boot.manifests)).any()


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (BlockList((1, 2048)), "block list: entry 1 is block 2048, but the disks have 2048"),
        (BootScheme(9999), "boot scheme: expected a starting block from 0 to 2047, got 9999"),
        (SelectedFiles(("/nowhere/*",)), "selected files: no file of the disks fits '/nowhere/*'"),
        (ApplicationProfiles(("emacs",)), "application profile: expected one of nginx, postgresql"),
        (NamedProfile("x", {}), "named profile: expected one of none, got 'x'"),
    ],
)
def test_what_the_disks_do_not_have_is_refused(profile: Any, message: str) -> None:
    with pytest.raises(PredictError) as error:
        first_set([profile], DISKS, UNIT)
    assert message in str(error.value)


BLOCK_KIB_16 = 16 * 1024


def selection(*extents: tuple[int, int, int], disks: int = 2) -> SelectedInBackup:
    """Of a backup of the tiny disks: (disk, first block of 4 KiB, number of such blocks)."""
    sizes = tuple(disk.disk_bytes for disk in DISKS[:disks])
    bytes_of = tuple((disk, first * UNIT, count * UNIT) for disk, first, count in extents)
    return SelectedInBackup(Selection(sizes, (), bytes_of))


def test_a_selection_in_a_backup_gives_stored_blocks_in_its_order_none_twice() -> None:
    kernel, init = blocks_of("/boot/vmlinuz", 1), blocks_of("/sbin/init")
    assert 0 not in [*kernel, *init]
    profile = selection(
        (1, kernel[0] - 1024, len(kernel)), (0, init[0], len(init)), (1, kernel[1] - 1024, 2), (0, 0, 1024)
    )
    found = first_set([profile], DISKS, UNIT).tolist()
    begun = [*kernel, *init]
    assert found[: len(begun)] == begun
    stored = [block for block, content in enumerate(DISKS[0].blocks["content"]) if content]
    assert found[len(begun) :] == [block for block in stored if block not in init]
    assert 0 < len(stored) < 1024
    both = first_set([BlockList((init[1], kernel[0])), profile], DISKS, UNIT).tolist()
    assert both[:2] == [init[1], kernel[0]]
    assert sorted(both) == sorted(found)


def test_a_selection_of_larger_cache_blocks_has_each_once() -> None:
    first = blocks_of("/sbin/init")[0]
    found = first_set([selection((0, first, 1), (0, first + 1, 1))], DISKS, BLOCK_KIB_16).tolist()
    assert found == list(dict.fromkeys([first // 4, (first + 1) // 4]))


def test_a_selection_of_a_machine_with_other_disks_is_refused() -> None:
    sizes = tuple(disk.disk_bytes for disk in DISKS)
    with pytest.raises(PredictError) as error:
        first_set([selection((0, 0, 1), disks=1)], DISKS, UNIT)
    assert str(error.value) == f"selection: expected one of disks of {sizes} bytes, got one of {sizes[:1]}"
