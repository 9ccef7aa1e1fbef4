"""The map of the disk shows what `Timeline.state_at` says, and never by colour alone."""

import re

import numpy as np
import pytest

from vmrestorekit.restore import timeline as flags
from vmrestorekit.show import block_map
from vmrestorekit.show.theme import BLOCK_STATES, SOURCES


def expected_state(block_flags, expired):
    """The rules of the map once more, for one block, the most advanced first."""
    if block_flags & flags.WRITTEN and not expired:
        return "written"
    if block_flags & flags.RELOCATED:
        return "purged" if block_flags & flags.PURGED else "relocated"
    if block_flags & flags.IN_CACHE:
        return "served" if block_flags & flags.SERVED else "staged"
    if block_flags & flags.IN_FLIGHT:
        return "on_its_way"
    return "in_backup" if block_flags & flags.STORED else "hole"


def letters_of(svg):
    """The letters of the map by cell, read off the picture."""
    found = {}
    for across, down, text in re.findall(r'<text x="([\d ]+)" y="([\d ]+)"[^>]*>([^<]+)</text>', svg):
        for x, y, letter in zip(across.split(), down.split(), text, strict=True):
            found[int(x) // 12, int(y) // 12] = letter
    return found


@pytest.mark.parametrize("which", ["restore", "mount", "large"])
def test_counts_are_those_of_the_state(which, request):
    timeline = request.getfixturevalue(which)
    for index in np.linspace(-1, len(timeline) - 1, 17).astype(int).tolist():
        state = timeline.state_at(index)
        expected = [expected_state(each, state.phase == "expired") for each in state.flags.tolist()]
        counts = block_map.count_states(state)
        assert counts == {name: expected.count(name) for name in BLOCK_STATES}
        assert sum(counts.values()) == timeline.plan.blocks
        legend = block_map.legend(state)
        for name, count in counts.items():
            assert f"{BLOCK_STATES[name].name} <b>{count:,}</b>" in legend


def test_each_cell_of_a_small_disk_bears_the_letter_of_its_state(restore):
    for index in (0, 60, len(restore) // 2, len(restore) - 1):
        state = restore.state_at(index)
        letters = letters_of(block_map.block_map(state))
        columns = 9  # 48 blocks
        for block, each in enumerate(state.flags.tolist()):
            letter = letters.get((block % columns, block // columns), "")
            assert letter == BLOCK_STATES[expected_state(each, False)].letter


def test_all_states_occur_in_the_course_of_a_restore(restore):
    seen = set()
    for index in range(len(restore)):
        seen |= {name for name, count in block_map.count_states(restore.state_at(index)).items() if count}
    assert seen == set(BLOCK_STATES)


@pytest.mark.parametrize("blocks", [1, 2, 48, 959, 960, 961, 4000, 131_072])
def test_a_map_has_at_most_so_many_cells_and_all_blocks_are_in_one(blocks):
    shown = np.full(blocks, 1, np.uint8)
    cells, shares = block_map.cells_of(shown)
    assert cells.size <= block_map.MAX_COLUMNS * block_map.MAX_ROWS
    assert cells.size * block_map.blocks_per_cell(blocks) >= blocks
    assert (cells == 1).all()
    assert (shares == 1).all()


def test_a_cell_shows_its_most_frequent_state_beyond_resting():
    names = list(BLOCK_STATES)
    in_backup, staged, served = (names.index(name) for name in ("in_backup", "staged", "served"))
    shown = np.full(960 * 10, in_backup, np.uint8)
    shown[:3] = staged
    shown[3:5] = served
    shown[10:12] = staged, served  # as many of each: the more advanced
    cells, shares = block_map.cells_of(shown)
    assert (cells[0], cells[1], cells[2]) == (staged, served, in_backup)
    assert (shares[0], shares[1]) == (0.3, 0.1)


def test_what_was_written_is_gone_with_an_expired_mount(mount):
    before = mount.next_of_kind("warn_of_expiry", -1)
    assert block_map.count_states(mount.state_at(before))["written"] > 0
    after = block_map.count_states(mount.state_at(len(mount) - 1))
    assert {name for name, count in after.items() if count} == {"hole", "in_backup"}


def test_signs_differ_without_their_colours():
    letters = [sign.letter for sign in BLOCK_STATES.values()]
    assert len(set(letters)) == len(letters)
    assert len({sign.letter for sign in SOURCES.values()}) == len(SOURCES)
    assert len({sign.shape for sign in SOURCES.values()}) == len(SOURCES)


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(
    "sign", [sign for sign in [*BLOCK_STATES.values(), *SOURCES.values()] if sign.colour.startswith("#")]
)
def test_letters_can_be_read_on_their_colour(sign):
    light, dark = sorted([luminance(sign.colour), luminance(sign.ink)], reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5
