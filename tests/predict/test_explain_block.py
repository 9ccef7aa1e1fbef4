"""Explanations against what the SYNTHETIC machines really have and read, worked out in plain Python."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import polars as pl
import pytest
from synthetic_boots import BLOCK, MILLISECOND, boot_of, manifest_of, small_machine

from vmrestorekit.predict import asked_disk, explain
from vmrestorekit.predict.block_features import FEATURES
from vmrestorekit.predict.explain import GROUPS, PAST_GROUPS, explain_block
from vmrestorekit.predict.file_reads import FILE_READ_FEATURES
from vmrestorekit.predict.learned import LearnedPredictor
from vmrestorekit.predict.metrics import recall_by_budget
from vmrestorekit.predict.missed import MISSED_SCHEMA, missed_and_wasted, missed_by_class
from vmrestorekit.predict.observed import PredictError, blocks_read
from vmrestorekit.predict.relatives import PAST_FEATURES
from vmrestorekit.predict.replay import LastBootReplay
from vmrestorekit.traces.corpus import Boot
from vmrestorekit.traces.manifest import REFERENCES_SCHEMA, sorted_references

SHARED = "/usr/lib/shared{:02d}x/lib{}.so"


def path_of(identity: int) -> str:
    return SHARED.format(identity, chr(97 + identity % 26))


def made_known(boots, renamed=None, references=()):
    """The same boots, on disks with references and with one path renamed."""
    found = []
    for boot in boots:
        disk = boot.manifest
        files = disk.files.with_columns(pl.col("path").replace(renamed or {}))
        table = pl.DataFrame(list(references), schema=REFERENCES_SCHEMA, orient="row").pipe(sorted_references)
        told = dataclasses.replace(disk, files=files, references=table)
        found.append(Boot.from_parts(boot.trace, (told,)))
    return tuple(found)


PROGRAM = "/usr/sbin/starter"
REFERENCES = [(PROGRAM, "loads", path_of(3)), (path_of(3), "loads", path_of(6))]
MACHINES = {
    name: made_known(small_machine(name, seed), {path_of(0): PROGRAM}, REFERENCES)
    for seed, name in enumerate(("alpha", "beta", "gamma", "delta"), 1)
}
LEARNED_FROM = ("alpha", "beta", "gamma")
DELTA = MACHINES["delta"][-1]


def block_of(boot: Boot, path: str, position: int = 0) -> int:
    number = boot.manifest.files["path"].to_list().index(path)
    blocks = boot.manifest.blocks.with_row_index("block")
    return blocks.filter(pl.col("file") == number, pl.col("file_block") == position)["block"].item()


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


@pytest.fixture(scope="module")
def predictor():
    return LearnedPredictor().fit([boot for name in LEARNED_FROM for boot in MACHINES[name]])


@pytest.fixture(scope="module")
def knows_delta():
    names = (*LEARNED_FROM, "delta")
    boots = [boot for name in names for boot in MACHINES[name][: 1 if name == "delta" else None]]
    return LearnedPredictor().fit(boots)


# why a block


def test_the_machines_named_are_those_that_have_the_block_and_those_that_read_it(predictor):
    for block in np.flatnonzero(DELTA.manifest.blocks["content"].to_numpy())[::29].tolist():
        content = DELTA.manifest.blocks["content"][block]
        rates = {}
        for name in LEARNED_FROM:
            boots = MACHINES[name]
            there = np.flatnonzero(boots[-1].manifest.blocks["content"].to_numpy() == content).tolist()
            reads = [set(blocks_read(boot)["block"].to_list()) for boot in boots]
            if there:
                rates[name] = np.mean([there[0] in read for read in reads])
        met = explain_block(predictor, DELTA.manifest, block).evidence["content"]
        assert met.rates == rates
        assert met.machines == tuple(sorted(rates))
        assert met.read == tuple(name for name in LEARNED_FROM if rates.get(name, 0) > 0)


def test_a_block_that_all_read_is_told_in_sentences(predictor):
    block = block_of(DELTA, path_of(3), 2)
    found = explain_block(predictor, DELTA.manifest, block)
    assert (found.path, found.position, found.block, found.disk) == (path_of(3), 2, block, 0)
    assert found.probability == predictor.score_blocks(DELTA.manifest)["probability"][block] > 0.9
    told = str(found)
    assert repr(found) == told
    assert f"Block {block} of disk 0 is block 2 of {path_of(3)}." in told
    assert "3 of the 3 machines that have this content (alpha, beta, gamma) read it." in told
    assert "3 of the 3 machines that have this place of this file (alpha, beta, gamma) read it." in told
    assert (
        f"{PROGRAM} loads {path_of(3)} (that something of the first is read: {found.chain.probability:.2f})."
        in told
    )
    assert f"That anything of its file is read has probability {found.file_probability:.2f}." in told
    assert "For it speaks" in told


def test_what_few_or_none_read_is_told_so(predictor):
    never = explain_block(predictor, DELTA.manifest, block_of(DELTA, path_of(2)))
    assert never.probability < 0.1
    assert "None of the 3 machines that have this content (alpha, beta, gamma) read it." in str(never)
    sometimes = explain_block(predictor, DELTA.manifest, block_of(DELTA, path_of(1)))
    assert sometimes.evidence["place"].rates == dict.fromkeys(LEARNED_FROM, 0.5)


def test_of_a_block_that_is_not_looked_at_no_answer_is_told(predictor, knows_delta, monkeypatch):
    block = block_of(DELTA, path_of(3), 2)
    for learned in (predictor, knows_delta):
        found = explain_block(learned, DELTA.manifest, block)
        assert found.looked_at
        assert "looked at" not in str(found)
    monkeypatch.setattr(asked_disk, "UNLIKELY", 1.0)
    unasked = dataclasses.replace(DELTA.manifest)  # what was scored before is kept
    found = explain_block(predictor, unasked, block)
    assert not found.looked_at
    assert 0 < found.probability <= 0.1 < found.stranger_probability
    assert found.probability == predictor.score_blocks(unasked)["probability"][block]
    told = str(found)
    assert "The block itself was not looked at" in told
    assert "only files that are likely enough to be read are looked into" in told
    assert "speaks" not in told
    assert "Nothing known" not in told
    # its own past read the file: it is looked at, however unlikely others make it
    assert explain_block(knows_delta, unasked, block).looked_at


def test_a_block_of_no_file_is_not_looked_at_if_nobody_has_it(predictor):
    block = block_of(DELTA, path_of(3), 2)
    here = pl.int_range(pl.len()) == block
    blocks = DELTA.manifest.blocks.with_columns(
        content=pl.when(here).then(pl.lit(77, pl.UInt64)).otherwise("content"),
        file=pl.when(~here).then("file"),
        file_block=pl.when(~here).then("file_block"),
    )
    found = explain_block(predictor, dataclasses.replace(DELTA.manifest, blocks=blocks), block)
    assert not found.looked_at
    assert "of those of no file, only what another machine has" in str(found)


def test_a_file_that_only_this_machine_has(predictor):
    found = explain_block(predictor, DELTA.manifest, block_of(DELTA, "/opt/delta/data.bina", 1))
    assert found.evidence["content"].rates == found.evidence["file"].rates == {}
    assert found.evidence["branch"].rates == {}
    assert "No other machine has this content, nor anything by the name of its file" in str(found)
    assert found.chain is None
    assert found.users == ()


def test_the_shortest_chain_from_a_likely_program_leads_to_the_file(predictor):
    found = explain_block(predictor, DELTA.manifest, block_of(DELTA, path_of(6)))
    assert found.chain.steps == ((PROGRAM, "loads", path_of(3)), (path_of(3), "loads", path_of(6)))
    assert found.users == (path_of(3),)
    assert f"{PROGRAM} loads {path_of(3)}, which loads {path_of(6)}" in str(found)
    assert explain_block(predictor, DELTA.manifest, block_of(DELTA, path_of(9))).chain is None


UNITS = [("/usr/lib/systemd/system/web.service", 0, 1), ("/usr/sbin/web", 1, 1), ("/usr/bin/other", 2, 1)]
LIBRARY, UNLIKELY = "/usr/lib/libweb.so", "/usr/bin/other"


@pytest.mark.parametrize(
    ("likely", "expected"),
    [
        ({"/usr/sbin/web": 0.9, UNLIKELY: 0.1}, ["/usr/sbin/web"]),
        ({"/usr/sbin/web": 0.8, UNLIKELY: 0.9}, [UNLIKELY]),  # as short, and likelier
        ({"/usr/sbin/web": 0.2, UNITS[0][0]: 0.9}, [UNITS[0][0], "/etc/link", "/usr/sbin/web"]),
        ({"/usr/sbin/web": 0.2, "/usr/lib/mine.so": 1.0}, None),  # no program, no unit
    ],
)
def test_a_chain_begins_with_what_is_likely_and_nearest(likely, expected):
    references = [
        (UNITS[0][0], "starts", "/etc/link"),
        ("/etc/link", "links", "/usr/sbin/web"),
        ("/usr/sbin/web", "loads", LIBRARY),
        (UNLIKELY, "loads", LIBRARY),
        (LIBRARY, "loads", "/usr/sbin/web"),  # in a circle
        ("/usr/sbin/web", "needs_module", "/usr/lib/mine.so"),
    ]
    files = [*UNITS, (LIBRARY, 3, 1), ("/usr/lib/mine.so", 4, 1)]
    table = sorted_references(pl.DataFrame(references, schema=REFERENCES_SCHEMA, orient="row"))
    manifest = dataclasses.replace(manifest_of(range(1, 9), files), references=table)
    chain, users = explain._how_used(manifest, LIBRARY, likely)
    assert set(users) == {"/usr/sbin/web", UNLIKELY}
    if expected is None:
        assert chain is None
    else:
        assert [source for source, _, _ in chain.steps] == expected
        assert chain.steps[-1][2] == LIBRARY
        assert chain.probability == likely[expected[0]]
    assert explain._how_used(manifest, "/usr/lib/mine.so", likely) == (None, ())


KINDS = ("file", "reached_file", "name", "directory", "branch")


def test_a_machine_of_a_corpus_of_one_lineage_is_called_by_its_name():
    alone = LearnedPredictor().fit(MACHINES["alpha"])
    found = explain_block(alone, DELTA.manifest, block_of(DELTA, path_of(3)))
    assert {key: met.machines for key, met in found.evidence.items() if met.rates} == dict.fromkeys(
        ("content", "place", "read_place", "name_place", "part", *KINDS), ("alpha",)
    )


# contributions


def test_every_feature_is_of_one_group():
    derived = {"first_guess", "file_read"}
    grouped = [feature for features in GROUPS.values() for feature in features]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {*FEATURES, *FILE_READ_FEATURES} - derived
    of_past = [feature for features in PAST_GROUPS.values() for feature in features]
    assert sorted([*of_past, "boots", "alike"]) == sorted(PAST_FEATURES)  # these two are of the whole disk


def test_a_share_is_the_mean_over_all_orders():
    values = np.random.default_rng(5).normal(size=16)
    groups = ("a", "b", "c", "d")

    def answer(known):
        return values[known @ (1 << np.arange(4))]

    shares = dict.fromkeys(groups, 0.0)
    for order in itertools.permutations(range(4)):
        so_far = 0
        for number in order:
            shares[groups[number]] += (values[so_far | 1 << number] - values[so_far]) / 24
            so_far |= 1 << number
    found = explain._contributions(groups, answer)
    assert {each.group: each.share for each in found} == pytest.approx(shares)
    last = {group: values[15] - values[15 - (1 << number)] for number, group in enumerate(groups)}
    assert {each.group: each.taken_away for each in found} == pytest.approx(last)
    sizes = [abs(each.share) for each in found]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("identity", [0, 1, 2, 3])
def test_the_shares_add_up_to_the_answer(predictor, knows_delta, identity):
    path = path_of(identity) if identity else PROGRAM
    stranger = explain_block(predictor, DELTA.manifest, block_of(DELTA, path, 1))
    assert stranger.stranger_probability == stranger.probability
    for found in (stranger, explain_block(knows_delta, DELTA.manifest, block_of(DELTA, path, 1))):
        shares = sum(each.share for each in found.contributions)
        gained = logit(found.stranger_probability) - logit(found.nothing_known)
        assert shares == pytest.approx(gained, abs=1e-2)


def machine_without_names(vm: str, content: list[int], read: np.ndarray) -> tuple[Boot, ...]:
    """Two boots that read the same blocks, on a disk whose only file is read and has no name in common."""
    manifest = manifest_of([*content, 10**6 + sum(map(ord, vm))], [(f"/{vm}", len(content), 1)])
    wanted = [*np.flatnonzero(read).tolist(), len(content)]
    requests = [((at + 1) * MILLISECOND, "read", 0, block * BLOCK, BLOCK) for at, block in enumerate(wanted)]
    return tuple(boot_of(manifest, requests, vm=vm, boot=f"boot-{number}") for number in (1, 2))


def expect_decisive(contributions, group, probability):
    decisive = contributions[0]
    assert decisive.group == group
    assert decisive.share > 1
    assert decisive.taken_away > 1
    without = 1 / (1 + math.exp(decisive.taken_away - logit(probability)))
    assert probability > 0.9
    assert without < 0.5


def test_without_the_decisive_group_the_probability_drops():
    # 800 contents in common and 200 of its own, each disk in its own order: nothing else can tell
    machines = []
    for seed, vm in enumerate("abcd"):
        content = np.append(np.arange(1, 801), np.arange(1, 201) + 1000 * (seed + 1))
        content = np.random.default_rng(seed).permutation(content)
        read = (content % 4 == 0) & (content < 1000)
        machines.append(machine_without_names(vm, content.tolist(), read))
    predictor = LearnedPredictor().fit([boot for machine in machines[:3] for boot in machine])
    manifest = machines[3][0].manifest
    found = explain_block(predictor, manifest, manifest.blocks["content"].index_of(4))
    expect_decisive(found.contributions, "the same content elsewhere", found.probability)
    assert found.path is found.package is found.position is found.file_probability is None
    assert explain_block(predictor, manifest, manifest.blocks["content"].index_of(5)).probability < 0.1


# the own past


def test_the_own_past_speaks_for_what_it_read_and_is_no_witness_beside(knows_delta):
    block = block_of(DELTA, path_of(3))
    found = explain_block(knows_delta, DELTA.manifest, block)
    assert found.probability == knows_delta.score_blocks(DELTA.manifest)["probability"][block]
    assert (found.past.vm, found.past.boots, found.past.rate, found.past.unchanged) == ("delta", 1, 1.0, True)
    assert found.evidence["content"].machines == LEARNED_FROM
    assert found.past.alike == 1.0
    assert {each.group for each in found.past_contributions} == set(PAST_GROUPS)
    assert "disk is known as that of delta: 100% of what one boot of it read lies where it did" in str(found)
    assert "1 of 1 read this address, whose content is the same." in str(found)


def test_where_nobody_else_can_tell_the_own_past_decides():
    machines = []
    for seed, vm in enumerate("abcd"):
        content = list(range(1000 * seed + 1, 1000 * seed + 801))
        machines.append(machine_without_names(vm, content, np.random.default_rng(seed).random(800) < 0.25))
    predictor = LearnedPredictor().fit([boot for machine in machines for boot in machine])
    boot = machines[3][-1]
    read = blocks_read(boot)["block"].to_list()
    found = explain_block(predictor, boot.manifest, read[5])
    expect_decisive(found.past_contributions, "its own past", found.probability)
    assert "2 of 2 read this address, whose content is the same." in str(found)
    unread = explain_block(predictor, boot.manifest, min(set(range(800)) - set(read)))
    assert unread.probability < 0.1
    assert "0 of 2 read this address, whose content is the same." in str(unread)


def test_without_two_boots_of_any_machine_nothing_weighs_the_past():
    once = LearnedPredictor().fit([MACHINES[name][0] for name in (*LEARNED_FROM, "delta")])
    found = explain_block(once, DELTA.manifest, block_of(DELTA, path_of(3)))
    assert found.past.vm == "delta"
    assert found.past_contributions == ()


# bad input


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (-1, "block: expected the number of a 4 KiB block of this disk, 0 to 1023; got -1"),
        (1024, "block: expected the number of a 4 KiB block of this disk, 0 to 1023; got 1024"),
        (0, "block: expected a block that the backup copy stores; 0 is all zeros"),
        (2.5, "block: expected the number of a 4 KiB block, got 2.5"),
        ("web", "block: expected the number of a 4 KiB block, got 'web'"),
    ],
)
def test_a_block_that_cannot_be_explained(predictor, block, message):
    with pytest.raises(PredictError, match=message):
        explain_block(predictor, DELTA.manifest, block)


def test_a_predictor_that_cannot_be_asked(predictor):
    block = block_of(DELTA, path_of(3))
    for other in (LastBootReplay().fit(MACHINES["alpha"]), "learned"):
        with pytest.raises(PredictError, match=r"expected a LearnedPredictor, .*; got (Last|str)"):
            explain_block(other, DELTA.manifest, block)
    with pytest.raises(PredictError, match="expected a fitted one; this LearnedPredictor has not learned"):
        explain_block(LearnedPredictor(), DELTA.manifest, block)
    with pytest.raises(PredictError, match="expected a fitted one; this LastBootReplay has not learned"):
        missed_and_wasted(LastBootReplay(), DELTA)
    with pytest.raises(PredictError, match="predictor: expected a fitted predictor, got str"):
        missed_and_wasted("learned", DELTA)
    with pytest.raises(PredictError, match="manifest: expected a Manifest of the disk, got Boot"):
        explain_block(predictor, DELTA, block)


@pytest.mark.parametrize("budget", [0, -1.0, math.nan, math.inf, "all"])
def test_a_budget_that_is_none(predictor, budget):
    with pytest.raises(PredictError, match="budget: expected a positive number, times what the boot read"):
        missed_and_wasted(predictor, DELTA, budget)


# what was missed and wasted


@pytest.mark.parametrize("budget", [0.5, 1.25])
def test_every_block_is_counted_once_and_at_its_file(predictor, budget):
    table = missed_and_wasted(predictor, DELTA, budget)
    assert table.schema == MISSED_SCHEMA
    scores = recall_by_budget(predictor, DELTA, [budget])
    read = set(blocks_read(DELTA)["block"].to_list())
    missed, wasted, found = (int(table[column].sum()) for column in ("missed", "wasted", "found"))
    assert missed + found == len(read)
    assert wasted + found == scores["staged"].item()
    assert found / len(read) == scores["recall"].item()
    blocks = DELTA.manifest.blocks["file"].to_list()
    paths = DELTA.manifest.files["path"].to_list()
    needed = {path: sum(blocks[block] == number for block in read) for number, path in enumerate(paths)}
    assert {
        row["path"]: row["missed"] + row["found"] for row in table.to_dicts() if row["missed"] + row["found"]
    } == {path: count for path, count in needed.items() if count}
    order = [(-row["missed"], -row["wasted"]) for row in table.to_dicts()]
    assert order == sorted(order)
    by_class = missed_by_class(table)
    assert by_class.select(pl.col("missed", "wasted", "found").sum()).row(0) == (missed, wasted, found)
    assert by_class["files"].sum() == table.height


def test_what_nobody_had_and_what_nobody_read_is_told_apart(predictor):
    # a boot that also reads a file of its own, and one that no machine ever read
    # (file 34 has its name, but for numbers, and is read by none either)
    mine, unread = "/opt/delta/data.bina", path_of(8)
    requests = [
        (number * MILLISECOND, "read", 0, block_of(DELTA, path) * BLOCK, BLOCK)
        for number, path in enumerate((mine, unread, path_of(3)), 1)
    ]
    boot = boot_of(DELTA.manifest, requests, vm="delta")
    table = missed_and_wasted(predictor, boot, 1.0)
    rows = {row["path"]: row for row in table.to_dicts()}
    assert rows[mine] == {
        **{"disk": 0, "path": mine, "path_class": "other", "package": None},
        **{"missed": 1, "wasted": 0, "found": 0, "met": False, "read_elsewhere": False},
        "probability": predictor.score_blocks(DELTA.manifest)["probability"][block_of(DELTA, mine)],
    }
    assert (rows[unread]["missed"], rows[unread]["met"], rows[unread]["read_elsewhere"]) == (1, True, False)
    assert (rows[path_of(3)]["met"], rows[path_of(3)]["read_elsewhere"]) == (True, True)
    by_class = {row["path_class"]: row for row in missed_by_class(table).to_dicts()}
    assert (by_class["other"]["missed_unmet"], by_class["other"]["missed_unread"]) == (1, 0)
    assert (by_class["library"]["missed_unmet"], by_class["library"]["missed_unread"]) == (0, 1)


def test_disks_and_blocks_of_no_file_are_told_apart_by_any_predictor():
    first = manifest_of([1, 2, 3, 0], [("/usr/bin/tool", 0, 2)])
    second = manifest_of([4, 5], [("/usr/bin/tool", 0, 1)])
    before = boot_of((first, second), [(1, "read", 0, 0, BLOCK), (2, "read", 1, 0, 2 * BLOCK)])
    boot = boot_of((first, second), [(1, "read", 0, 0, 3 * BLOCK), (2, "read", 1, 0, BLOCK)])
    table = missed_and_wasted(LastBootReplay().fit([before]), boot)
    columns = ("disk", "path", "path_class", "missed", "wasted", "found", "probability", "met")
    assert sorted(table.select(columns).rows(), key=str) == [
        (0, "/usr/bin/tool", "program", 1, 0, 1, 0.5, None),
        (0, None, "no file", 1, 0, 0, 0.0, None),
        (1, "/usr/bin/tool", "program", 0, 0, 1, 1.0, None),
        (1, None, "no file", 0, 1, 0, 1.0, None),
    ]
