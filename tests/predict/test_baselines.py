"""The baselines, each by address and mapped by content and path; on SYNTHETIC machines."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import polars as pl
import pytest
import xxhash
from synthetic_boots import BLOCK, MILLISECOND, boot_of, manifest_of, small_machine
from test_predictors import ALPHA, BETA, GAMMA, PredictorContract, without_trace

from vmrestorekit.backup.layout import BackupLayout, CopySettings
from vmrestorekit.plan import RestorePlan
from vmrestorekit.predict.baselines import NearestReplay, UnionReplay
from vmrestorekit.predict.by_name import (
    ORACLES,
    OWN_HISTORY,
    PREDICTOR_NAMES,
    NoPrediction,
    make_predictor,
    predictor_by_name,
)
from vmrestorekit.predict.evaluation import recall_by_budget
from vmrestorekit.predict.linear_score import WEIGHTS, LinearScore
from vmrestorekit.predict.mapped import WAYS, block_keys, keyed_reads
from vmrestorekit.predict.observed import PredictError, blocks_read
from vmrestorekit.predict.oracles import OracleAll, OracleOrder, OracleSet
from vmrestorekit.predict.planning import make_plan
from vmrestorekit.predict.read_ahead import read_around
from vmrestorekit.predict.replay import LastBootReplay
from vmrestorekit.restore.simulate import simulate
from vmrestorekit.traces.boots import Boot
from vmrestorekit.traces.corpus import Corpus, RecordedVM
from vmrestorekit.traces.manifest import Manifest


def read(block, at, count=1, disk=0):
    return (at, "read", disk, block * BLOCK, count * BLOCK)


def staged(predictor, manifest, budget=None, disk=0):
    """The 4 KiB blocks in the order of their staging."""
    return predictor.rank(manifest, BLOCK, None if budget is None else budget * BLOCK, disk=disk).tolist()


class TestLastBootByContent(PredictorContract):
    make = staticmethod(functools.partial(LastBootReplay, by="content"))


class TestLastBootByPath(PredictorContract):
    make = staticmethod(functools.partial(LastBootReplay, by="path"))


class TestNearestByAddress(PredictorContract):
    make = staticmethod(NearestReplay)


class TestNearestByContent(PredictorContract):
    make = staticmethod(functools.partial(NearestReplay, by="content"))


class TestUnionByAddress(PredictorContract):
    make = staticmethod(UnionReplay)


class TestUnionByContent(PredictorContract):
    make = staticmethod(functools.partial(UnionReplay, by="content"))


class TestUnionByMeanAccessAndPath(PredictorContract):
    make = staticmethod(functools.partial(UnionReplay, order="mean_access", by="path"))


class TestLinearScoreByAddress(PredictorContract):
    make = staticmethod(LinearScore)


class TestTunedLinearScoreByContent(PredictorContract):
    make = staticmethod(functools.partial(LinearScore, weights="tuned", by="content"))


class TestOracleOrder(PredictorContract):
    make = staticmethod(OracleOrder)


class TestOracleSet(PredictorContract):
    make = staticmethod(OracleSet)


class TestOracleAll(PredictorContract):
    make = staticmethod(OracleAll)

    def test_a_new_fit_forgets_old_answers(self):
        """Whatever it is fitted on, it answers all: only the disks may differ."""
        predictor = OracleAll().fit(ALPHA)
        assert predictor.score_blocks(ALPHA[0].manifest)["probability"].to_list() == [1.0] * 1024
        with pytest.raises(PredictError, match="OracleAll: expected the recorded disk 0 of 4096 bytes"):
            predictor.fit(boot_of(manifest_of([1]), [])).score_blocks(ALPHA[0].manifest)


class TestWhatIsTheSame:
    SEEN = manifest_of([11, 12, 13, 0, 15, 16], [("/lib/app-1.2/x.so", 0, 2), ("/etc/x", 2, 1)])
    BOOT = boot_of(SEEN, [read(1, 10), read(2, 20), read(4, 30)])
    # all has moved, /lib/app has new contents, block 5 holds what block 4 held
    NOW = manifest_of([13, 0, 98, 99, 97, 15], [("/lib/app-1.10/x.so", 2, 2), ("/etc/x", 0, 1)])

    @pytest.mark.parametrize(("by", "blocks"), [("address", [2, 4]), ("content", [0, 5]), ("path", [3, 0])])
    @pytest.mark.parametrize("make", [LastBootReplay, NearestReplay, UnionReplay, LinearScore])
    def test_blocks_are_found_by_address_content_or_path(self, make, by, blocks):
        assert staged(make(by=by).fit(self.BOOT), self.NOW) == blocks

    def test_a_content_that_lies_twice_is_staged_twice(self):
        assert staged(UnionReplay(by="content").fit(self.BOOT), manifest_of([12, 0, 12])) == [0, 2]

    def test_another_disk_is_another_address_and_no_other_content(self):
        both = (manifest_of([1, 2]), manifest_of([3, 4]))
        boot = boot_of(both, [read(0, 10, disk=1)])
        assert staged(UnionReplay(by="address").fit(boot), both[0], disk=0) == []
        assert staged(UnionReplay(by="address").fit(boot), both[0], disk=1) == [0]
        assert staged(UnionReplay(by="content").fit(boot), manifest_of([4, 3]), disk=0) == [1]

    def test_numbers_and_random_names_in_paths_are_overlooked(self):
        def key(path):
            return block_keys(manifest_of([1, 2], [(path, 0, 2)]), 0, "path").to_list()

        first, second = key("/usr/lib/modules/6.1.0-50/ext4.ko")
        assert key("/usr/lib/modules/6.12.117/ext4.ko") != [first, second]  # one more number
        assert key("/usr/lib/modules/5.10.0-7/ext4.ko") == [first, second]
        assert key("/var/log/journal/0123456789abcdef/x") == key("/var/log/journal/fedcba98/x")
        assert key("/usr/lib/modules/6.1.0-50/ext3.so") != [first, second]
        assert first != second

    def test_keys_do_not_depend_on_process_or_version(self):
        keys = block_keys(manifest_of([7, 0, 9], [("/a1", 0, 2)]), 1, "path").to_list()
        first = xxhash.xxh3_64_intdigest(b"/a#")
        assert keys == [first, (first + 0x9E3779B97F4A7C15) % 2**64, None]
        assert block_keys(manifest_of([7, 0]), 1, "content").to_list() == [7, None]
        assert block_keys(manifest_of([7, 0]), 1, "address").to_list() == [2**40, 2**40 + 1]

    def test_all_reads_of_a_block_count_and_of_its_places_the_one_most_read(self):
        boot = boot_of(
            manifest_of([5, 6, 5]), [read(0, 10, 2), read(0, 40), read(2, 7), read(1, 1000)], boot_done_ns=99
        )
        found = keyed_reads(boot, "content").rows()
        assert found == [(5, 2.0, (25 + 7) / 2, 7.0), (6, 1.0, 10.0, 10.0)]

    @pytest.mark.parametrize("make", [LastBootReplay, NearestReplay, UnionReplay, LinearScore])
    def test_a_way_that_there_is_not(self, make):
        with pytest.raises(PredictError, match="by: expected one of address, content, path, got 'name'"):
            make(by="name").fit(ALPHA)


class TestUnion:
    DISK = manifest_of(range(1, 9))

    def machines(self):
        return [
            boot_of(self.DISK, [read(1, 10), read(2, 50)], vm="a"),
            boot_of(self.DISK, [read(1, 90), read(2, 60)], vm="a", boot="boot-2"),
            boot_of(self.DISK, [read(2, 40), read(3, 30), read(1, 200)], vm="b"),
        ]

    def test_it_finds_what_any_machine_read_in_the_order_of_the_earliest(self):
        assert staged(UnionReplay().fit(self.machines()), self.DISK) == [1, 3, 2]

    def test_by_mean_access_machines_count_alike_however_often_they_booted(self):
        # block 1: a at 50, b at 200; block 2: a at 55, b at 40; block 3: b at 30. Boots alike: 1 at 100
        predictor = UnionReplay("mean_access").fit(self.machines())
        assert staged(predictor, self.DISK) == [3, 2, 1]
        assert predictor.times_["first_read_ns"].to_list() == [125.0, 47.5, 30.0]

    def test_a_budget_cuts_the_list_where_it_ends(self):
        assert staged(UnionReplay().fit(self.machines()), self.DISK, budget=2) == [1, 3]

    def test_an_order_that_there_is_not(self):
        with pytest.raises(PredictError, match="order: expected one of first_access, mean_access, got 'x'"):
            UnionReplay("x").fit(ALPHA)


class TestNearest:
    TARGET = manifest_of(range(100, 120))
    # the twin has all of it, moved by one block; the neighbour half of it, in place; both a lot of their own
    TWIN = boot_of(manifest_of([0, *range(100, 120), 900]), [read(5, 10)], vm="twin")
    NEIGHBOUR = boot_of(manifest_of([*range(100, 110), *range(700, 712)]), [read(3, 10)], vm="neighbour")
    STRANGER = boot_of(manifest_of(range(500, 522)), [read(7, 10)], vm="a-stranger")
    ALL = (TWIN, NEIGHBOUR, STRANGER)

    def test_by_content_it_picks_the_twin(self):
        predictor = NearestReplay(by="content").fit(self.ALL)
        assert predictor.likeness(self.TARGET) == {"a-stranger": 0, "neighbour": 0.5, "twin": 1}
        assert staged(predictor, self.TARGET) == [4]  # what lies in block 5 of the twin

    def test_by_address_only_what_lies_at_the_same_place_is_alike(self):
        predictor = NearestReplay(by="address").fit(self.ALL)
        assert predictor.likeness(self.TARGET) == {"a-stranger": 0, "neighbour": 0.5, "twin": 0}
        assert staged(predictor, self.TARGET) == [3]

    def test_by_path_equal_places_in_files_are_alike(self):
        near = boot_of(manifest_of([1, 2, 3], [("/bin/a", 0, 2), ("/c", 2, 1)]), [read(1, 5)], vm="z-near")
        far = boot_of(manifest_of([7, 8, 9], [("/bin/b", 0, 3)]), [read(0, 5)], vm="far")
        predictor = NearestReplay(by="path").fit([near, far])
        now = manifest_of([8, 9], [("/bin/a", 0, 2)])
        assert predictor.likeness(now) == {"far": 0, "z-near": 1}
        assert staged(predictor, now) == [1]

    def test_it_replays_the_last_boot_of_the_nearest_and_nothing_else(self):
        earlier = boot_of(self.TWIN.manifest, [read(9, 10)], vm="twin", boot="boot-0")
        predictor = NearestReplay(by="content").fit([earlier, *self.ALL])
        assert staged(predictor, self.TARGET) == [4]

    def test_without_anything_in_common_it_is_the_first_by_name(self):
        predictor = NearestReplay(by="address").fit(self.ALL)
        assert staged(predictor, manifest_of(range(2000, 2020))) == [7]

    @pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
    def test_on_large_disks_the_share_is_known_to_a_hundredth(self, share):
        blocks, common = 200_000, round(200_000 * share)
        seen = manifest_of([*range(1, common + 1), *range(10**6, 10**6 + 2 * blocks - common)])
        predictor = NearestReplay(by="content").fit(boot_of(seen, [read(0, 1)]))
        likeness = predictor.likeness(manifest_of(range(1, blocks + 1)))
        assert likeness["synthetic"] == pytest.approx(share, abs=0.01)


class TestLinearScore:
    def test_the_weights_are_those_that_were_published(self):
        """ThinkAhead (FAST'26): count, mean, first at 10 and at 100 MB/s."""
        assert dict(WEIGHTS) == {"10MB/s": (0.13, 0.44, 0.43), "100MB/s": (0.14, 0.15, 0.72)}

    DISK = manifest_of(range(1, 9))
    # block 1 is read by all, late; block 2 once, first of all; block 3 by two, in between
    MACHINES = (
        boot_of(DISK, [read(1, 900), read(3, 500)], vm="a"),
        boot_of(DISK, [read(1, 900), read(3, 510)], vm="b"),
        boot_of(DISK, [read(1, 900), read(2, 100)], vm="c"),
    )

    @pytest.mark.parametrize(
        ("weights", "order"),
        [((1, 0, 0), [1, 3, 2]), ((0, 1, 0), [2, 3, 1]), ((0, 0, 1), [2, 3, 1]), ((1, 0.1, 0), [1, 3, 2])],
    )
    def test_weights_decide_the_order(self, weights, order):
        assert staged(LinearScore(weights).fit(self.MACHINES), self.DISK) == order

    def test_the_score_is_the_weighted_sum_of_scaled_terms(self):
        boots = [*ALPHA, *GAMMA]
        predictor = LinearScore("100MB/s", by="content").fit(boots)
        assert predictor.weights_ == WEIGHTS["100MB/s"]
        reads = {}
        for vm in ("alpha", "gamma"):
            for boot in (boot for boot in boots if boot.vm == vm):
                content = boot.manifest.blocks["content"].to_list()
                for row in blocks_read(boot).iter_rows(named=True):
                    of_vm = reads.setdefault(content[row["block"]], {}).setdefault(vm, [])
                    of_vm.append((row["reads"], row["first_read_ns"]))
        count = {key: sum(sum(n for n, _ in of) / 2 for of in by.values()) / 2 for key, by in reads.items()}
        mean = {k: np.mean([np.mean([at for _, at in of]) for of in by.values()]) for k, by in reads.items()}
        first = {key: min(at for of in by.values() for _, at in of) for key, by in reads.items()}

        def scaled(term, key):
            low, high = min(term.values()), max(term.values())
            return (term[key] - low) / (high - low)

        def score(key):
            return (
                0.14 * scaled(count, key) + 0.15 * (1 - scaled(mean, key)) + 0.72 * (1 - scaled(first, key))
            )

        content = BETA[0].manifest.blocks["content"].to_list()
        ranked = staged(predictor, BETA[0].manifest)
        expected = [at for at, key in enumerate(content) if key in reads]
        assert ranked == sorted(expected, key=lambda at: (-round(score(content[at]), 12), at))

    def test_the_order_goes_on_over_several_disks(self):
        both = (manifest_of([1, 2, 3]), manifest_of([4, 5, 6]))
        seen = [read(0, 300), read(1, 100, disk=1), read(2, 200), read(0, 400, disk=1)]
        predictor = LinearScore((0, 0, 1)).fit(boot_of(both, seen))
        plan = make_plan(predictor, both, block_bytes=BLOCK)
        assert plan.first_set.tolist() == [4, 2, 0, 3]

    def frequent_or_early(self):
        """Machines that read 30 blocks late, all of them; each reads 40 of its own early."""
        machines = []
        for number in range(4):
            own = 100 + 50 * number
            requests = [read(own + at, 10 + at) for at in range(40)]
            requests += [read(at, 5000 + at) for at in range(30)]
            machines.append(boot_of(manifest_of(range(1, 401)), requests, vm=f"vm-{number}"))
        return machines

    def test_tuning_finds_that_what_is_common_is_read_again(self):
        machines = self.frequent_or_early()
        tuned = LinearScore("tuned").fit(machines[:3])
        assert tuned.weights_[0] > 0
        assert sum(tuned.weights_) == pytest.approx(1)
        shipped = LinearScore("100MB/s").fit(machines[:3])
        found = [recall_by_budget(each, machines[3], [1.0])["recall"][0] for each in (tuned, shipped)]
        assert found[0] == pytest.approx(30 / 70)
        assert found[1] < 1 / 70

    def test_tuning_for_a_bandwidth_wants_blocks_in_time(self):
        """Blocks that all read, more often the later: without haste all orders find all of them."""
        boots = [
            boot_of(
                self.DISK,
                [read(at, 1000 * at + extra) for at in range(1, 8) for extra in range(at)],
                vm=f"vm-{number}",
            )
            for number in range(3)
        ]
        a_block_in = 1000.0  # ns: each is there just when it is wanted, if they come in that order
        in_time = LinearScore("tuned", bandwidth=BLOCK * 1e9 / a_block_in, head_start_ns=0).fit(boots)
        assert staged(in_time, self.DISK) == [1, 2, 3, 4, 5, 6, 7]
        assert staged(LinearScore((1, 0, 0)).fit(boots), self.DISK) == [7, 6, 5, 4, 3, 2, 1]

    def test_one_machine_teaches_no_weights(self):
        assert LinearScore("tuned").fit(ALPHA).weights_ == WEIGHTS["10MB/s"]

    @pytest.mark.parametrize("weights", ["fast", (1, 2), (1, 2, "x"), 3, None])
    def test_weights_that_are_none(self, weights):
        with pytest.raises(PredictError, match=r"weights: expected .*three numbers, got"):
            LinearScore(weights).fit(ALPHA)

    @pytest.mark.parametrize("weights", [(0, 0, 0), (1, -1, 1), (float("nan"), 1, 1), (float("inf"), 1, 1)])
    def test_weights_that_make_no_order(self, weights):
        with pytest.raises(PredictError, match="weights: expected three numbers from 0 on, not all 0"):
            LinearScore(weights).fit(ALPHA)

    @pytest.mark.parametrize("bandwidth", [0, -1.0, float("nan")])
    def test_a_bandwidth_that_is_none(self, bandwidth):
        with pytest.raises(PredictError, match="bandwidth: expected more than 0 bytes a second"):
            LinearScore("tuned", bandwidth=bandwidth).fit(ALPHA)


class TestOracles:
    DISK = manifest_of([1, 2, 3, 0, 5, 6])
    BOOT = boot_of(DISK, [read(4, 10), read(0, 30), read(2, 20), read(3, 40)])

    @pytest.mark.parametrize(
        ("make", "order"),
        [(OracleOrder, [4, 2, 0]), (OracleSet, [0, 2, 4]), (OracleAll, [0, 1, 2, 4, 5])],
    )
    def test_what_each_knows(self, make, order):
        assert staged(make().fit(self.BOOT), self.DISK) == order

    @pytest.mark.parametrize("make", [OracleOrder, OracleSet])
    def test_nobody_finds_more(self, make):
        table = recall_by_budget(make().fit(BETA[1]), BETA[1], [1.0])
        assert table.row(0)[2:] == (1.0, 1.0)


def corpus_of(*machines, **lineages):
    return Corpus(
        {
            boots[0].vm: RecordedVM(boots[0].vm, {"lineage": lineages.get(boots[0].vm, "")}, boots)
            for boots in machines
        }
    )


LEARN_FROM_OTHERS = [name for name in PREDICTOR_NAMES if name not in (*ORACLES, *OWN_HISTORY, "none")]


class Watched(Boot):
    """A boot that tells when somebody looks at its trace or at its disks."""

    def __getattribute__(self, name):
        if name in ("trace", "manifests", "metadata", "disk_bytes"):
            raise AssertionError(f"looked at {object.__getattribute__(self, 'vm')}: {name}")
        return super().__getattribute__(name)


def watched(boot):
    return Watched(boot.vm, boot.boot, _parts=boot._parts)


class TestByName:
    def test_names_are_of_different_predictors(self):
        made = [repr(make_predictor(name)) for name in PREDICTOR_NAMES]
        assert len(set(made)) == len(made)

    def test_an_unknown_name(self):
        with pytest.raises(
            PredictError, match=r"expected one of learned, content, last_boot, .*got 'nearest'"
        ):
            make_predictor("nearest")

    @pytest.mark.parametrize("name", LEARN_FROM_OTHERS)
    def test_who_learns_from_others_never_looks_at_the_whole_lineage(self, name):
        clone = small_machine("clone", 4)
        lineages = {"beta": "golden", "clone": "golden"}
        corpus = corpus_of(ALPHA, GAMMA, tuple(map(watched, BETA)), tuple(map(watched, clone)), **lineages)
        predictor = predictor_by_name(name, corpus["beta"].boots[1], corpus)
        plain = corpus_of(ALPHA, GAMMA)
        expected = make_predictor(name).fit(plain).score_blocks(BETA[1].manifest)
        assert predictor.score_blocks(BETA[1].manifest).equals(expected)
        assert make_plan(predictor, without_trace(BETA[1])).first_set.size

    def test_the_image_a_clone_descends_from_is_of_its_lineage(self):
        corpus = corpus_of(tuple(map(watched, ALPHA)), BETA, tuple(map(watched, GAMMA)), gamma="alpha")
        for boot in (corpus["alpha"].boots[0], corpus["gamma"].boots[0]):
            assert predictor_by_name("first_access_by_content", boot, corpus).times_.height

    def test_nobody_of_another_lineage(self):
        corpus = corpus_of(ALPHA, GAMMA, gamma="alpha")
        with pytest.raises(
            PredictError, match=r"nearest_by_path: expected machines .* lineage alpha, found none"
        ):
            predictor_by_name("nearest_by_path", GAMMA[0], corpus)

    @pytest.mark.parametrize("name", OWN_HISTORY)
    def test_own_history_ends_before_the_boot(self, name):
        boots = (*small_machine("alpha", 1, boots=2), *map(watched, ALPHA[:1]))
        boots = (boots[0], boots[1], Watched("alpha", "boot-3", _parts=boots[2]._parts))
        corpus = corpus_of(boots, tuple(map(watched, BETA)))
        assert predictor_by_name(name, boots[2], corpus).boot_ == "boot-2"
        with pytest.raises(PredictError, match=f"{name}: expected a boot of alpha before boot-1, found none"):
            predictor_by_name(name, boots[0], corpus)

    @pytest.mark.parametrize("name", ORACLES)
    def test_oracles_look_at_the_boot_itself(self, name):
        corpus = corpus_of(tuple(map(watched, ALPHA)), BETA)
        assert predictor_by_name(name, BETA[0], corpus).boot_ == "boot-1"


class TestReadAround:
    DISK = manifest_of([0, 0, *range(1, 31)])

    def test_stored_blocks_side_by_side_on_the_medium_come_together(self):
        layout = read_around(BackupLayout.full([self.DISK], BLOCK), 8 * BLOCK)
        assert layout.frame_start.tolist()[:3] == [-1, -1, 0]
        assert layout.frame_end.tolist()[:3] == [-1, -1, 8 * BLOCK]
        sizes = (layout.frame_end - layout.frame_start)[2:] // BLOCK
        assert sizes.tolist() == [8] * 24 + [6] * 6

    def test_a_lazy_restore_with_it_fetches_less_often_and_more(self):
        requests = [read(at, at * MILLISECOND) for at in range(2, 32)]
        boot = boot_of(self.DISK, requests, boot_done_ns=100 * MILLISECOND)
        plan = make_plan(NoPrediction().fit(boot), boot, mode="live_mount", block_bytes=BLOCK)
        assert isinstance(plan, RestorePlan)
        plain = BackupLayout.full([self.DISK], BLOCK)
        fetches = [
            simulate(boot, plan, layout=layout).events.filter(pl.col("kind") == "fetch").height
            for layout in (plain, read_around(plain, 8 * BLOCK))
        ]
        assert fetches == [30, 4]

    def test_it_needs_blocks_that_can_be_read_by_themselves(self):
        settings = CopySettings(zstd_level=1, frame_bytes=4 * BLOCK)
        with pytest.raises(PredictError, match="expected a copy whose blocks are read by themselves"):
            read_around(BackupLayout.full([self.DISK], BLOCK, settings), 8 * BLOCK)
        with pytest.raises(PredictError, match="at least one block of 4096 bytes, got 4095"):
            read_around(BackupLayout.full([self.DISK], BLOCK), BLOCK - 1)


class TestLargeDisks:
    def test_states_of_disks_are_let_go_that_were_not_held(self, packaged_corpus):
        boots = packaged_corpus["trixie-web"].boots[:2]
        fresh = [dataclasses.replace(boot) for boot in boots]
        held = fresh[1].manifests
        for make in (UnionReplay, NearestReplay, LinearScore):
            make(by="content").fit(fresh)
        assert fresh[1].manifests is held
        assert "manifests" not in vars(fresh[0])

    @pytest.mark.parametrize("by", WAYS)
    def test_a_disk_of_3_gib_shows_what_is_the_same_on_it(self, by):
        """How fast it is scored is measured by `vmrestorekit evaluate`, column "disk s"."""
        content = np.random.default_rng(0).integers(1, 2**63, 786_432, dtype=np.uint64)
        large = big_disk(content)
        seen = boot_of(large, [read(at, at, 40) for at in range(0, 20_000, 50)], vm="large")
        other = boot_of(large, [read(at, at, 40) for at in range(9_000, 25_000, 50)], vm="other")
        read_by_either = np.zeros(content.size, bool)
        for start in (*range(0, 20_000, 50), *range(9_000, 25_000, 50)):
            read_by_either[start : start + 40] = True
        # contents have moved by one block; addresses and files have not
        expected = np.roll(read_by_either, 1) if by == "content" else read_by_either
        now = big_disk(np.roll(content, 1))
        for make in (UnionReplay, LinearScore, functools.partial(LinearScore, "tuned")):
            probability = make(by=by).fit([seen, other]).score_blocks(now)["probability"].to_numpy()
            np.testing.assert_array_equal(probability > 0, expected)
        nearest = NearestReplay(by=by).fit([seen, other]).score_blocks(now)["probability"].to_numpy()
        assert 0 < (nearest > 0).sum() < expected.sum()


def big_disk(content):
    """20,000 files of 32 blocks each, in order."""
    blocks = np.arange(content.size)
    owner = np.where(blocks < 640_000, blocks // 32, -1)
    frame = pl.DataFrame(
        {"content": content, "file": owner.astype(np.int32), "file_block": (blocks % 32).astype(np.int32)}
    ).with_columns(
        file=pl.when(pl.col("file") >= 0).then("file"),
        file_block=pl.when(pl.col("file") >= 0).then("file_block"),
    )
    # letters, because numbers in paths are overlooked
    paths = [
        "/usr/share/" + "".join(chr(103 + at // 20**place % 20) for place in range(4)) for at in range(20_000)
    ]
    files = pl.DataFrame(
        {
            "path": paths,
            "size": [32 * BLOCK] * 20_000,
            "kind": ["regular"] * 20_000,
            "package": [None] * 20_000,
        },
        schema=manifest_of([1]).files.schema,
    )
    size = content.size * BLOCK
    return Manifest(size, frame, files, manifest_of([1]).partitions)
