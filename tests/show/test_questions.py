"""Questions about a timeline: drawn by a seed, and right by the events themselves."""

import dataclasses
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import instant_restore, live_mount
from tiny_boots import TINY_DISK_BYTES, tiny_manifest, tiny_trace

from vmrestorekit.plan import EVICTION_POLICIES, LaunchRule, PurgeRule, RelocationStart, RestorePlan
from vmrestorekit.restore.simulate import simulate
from vmrestorekit.show.guessing.questions import QUESTION_KINDS, QuestionError, draw_questions
from vmrestorekit.traces.corpus import Boot

MS = 1_000_000
BOOT = Boot.from_parts(tiny_trace(), [tiny_manifest()])
ANSWER_OF = {"cache_hit": "hit", "cache_wait": "wait", "cache_miss": "miss"}


def all_of(timeline, kind, seed=0):
    """As many questions of a kind as the timeline offers."""
    with pytest.raises(QuestionError, match="expected at most") as caught:
        draw_questions(timeline, 100_000, seed, [kind])
    found = int(str(caught.value).split("at most ")[1].split(",")[0])
    return draw_questions(timeline, found, seed, [kind]) if found else ()


class Replay:
    """The events before a row, one after the other: a second opinion, without numpy and without `State`."""

    def __init__(self, timeline, row):
        self.came, self.used, self.hits = {}, {}, Counter()
        self.served, self.awaited = set(), Counter()
        self.flying, self.written, self.moved, self.pivoted = set(), set(), set(), False
        for at, event in enumerate(timeline.events.head(row).iter_rows(named=True)):
            for block in range(event["block"], event["block"] + event["count"]):
                self.change(event["kind"], at, block)
            if event["kind"] in ("lose_media_agent", "empty_read_cache"):
                self.came, self.flying = {}, set()
            self.pivoted |= event["kind"] == "use_destination"

    def change(self, kind, at, block):
        if kind in ANSWER_OF:
            self.awaited[block] += 1
        if kind == "fetch":
            self.flying.add(block)
        elif kind in ("staged", "read_from_media"):
            self.flying.discard(block)
            if kind == "staged":
                self.came[block] = self.used[block] = at
                self.hits[block] = 0
                self.served.discard(block)
        elif kind == "serve":
            self.awaited[block] -= 1
            self.served.add(block)
        elif kind in ("evict", "purge"):
            self.came.pop(block, None)
        elif kind == "cache_hit":
            self.used[block] = at
            self.hits[block] += 1
        elif kind == "written":
            self.written.add(block)
        elif kind in ("relocated", "applied"):
            self.moved.add(block)
            if kind == "applied":
                self.written.discard(block)

    def found(self, block):
        """All answers that are possible for a block: what waits in the queue leaves no event."""
        if block in self.came:
            return {"hit"}
        return {"wait"} if block in self.flying else {"miss", "wait"}

    def goes(self, policy, blocks, gone):
        """The only one of some blocks that the policy lets go."""
        may_go = {block for block in self.served & set(self.came) if not self.awaited[block]} | {gone}
        assert set(blocks) <= may_go & set(self.came)
        if policy in ("fifo", "lru"):
            key = (self.came if policy == "fifo" else self.used).__getitem__
            assert min(map(key, may_go)) == min(map(key, blocks))  # the first of all that may go
            return min(blocks, key=key)
        (block,) = (block for block in blocks if not self.hits[block])
        return block

    def routed(self, block, stored):
        if self.pivoted and (block in self.moved or block in self.written):
            return "destination"
        if block in self.written:
            return "write cache"
        if block in self.moved:
            return "destination"
        return "media agent" if stored[block] else "nowhere (a hole)"


def check(timeline, question):
    """Compare an answer with the event, and with what the events before it lead to."""
    event = timeline.events.row(question.index, named=True)
    replay, answer = Replay(timeline, question.index), question.answer()
    assert answer in question.options
    assert len(set(question.options)) == len(question.options)
    if question.kind == "hit_or_miss":
        assert answer == ANSWER_OF[event["kind"]]
        assert question.blocks == (event["block"],)
        assert answer in replay.found(event["block"])
    elif question.kind == "which_goes":
        assert event["kind"] == "evict"
        assert 3 <= len(question.options) <= 4
        assert answer == f"block {event['block']:,}"
        assert tells_apart(timeline, replay, question.blocks, event["block"])
        assert replay.goes(timeline.plan.eviction, question.blocks, event["block"]) == event["block"]
    else:
        assert event["kind"] == "vm_read"
        assert answer == replay.routed(event["block"], timeline.stored)
        assert answer == where_it_came_from(timeline, question.index)


def tells_apart(timeline, replay, blocks, gone):
    """Tell whether the times that decide differ as they are shown, to the millisecond."""
    if timeline.plan.eviction not in ("fifo", "lru"):
        return True
    key = replay.came if timeline.plan.eviction == "fifo" else replay.used
    shown = [f"{timeline.times[key[block]] / 1e9:.3f}" for block in blocks]
    return shown.count(shown[blocks.index(gone)]) == 1


def where_it_came_from(timeline, row):
    request = timeline.events["request"][row]
    kinds = [kind for kind, of in timeline.events[row:].select("kind", "request").rows() if of == request]
    kinds = set(kinds[: kinds.index("vm_done")])
    if kinds & set(ANSWER_OF):
        return "media agent"
    places = {"read_write_cache": "write cache", "read_destination": "destination"}
    return next((place for kind, place in places.items() if kind in kinds), "nowhere (a hole)")


# --- drawing ------------------------------------------------------------------------------------------


def test_the_same_seed_draws_the_same_questions(restore):
    assert draw_questions(restore, 6, 3) == draw_questions(instant_restore(48), 6, 3)
    drawn = {draw_questions(restore, 6, seed) for seed in range(8)}
    assert len(drawn) > 4


def test_questions_come_in_the_order_of_time_and_kinds_take_turns(restore):
    questions = draw_questions(restore, 6, 1)
    assert [each.index for each in questions] == sorted(each.index for each in questions)
    assert Counter(each.kind for each in questions) == dict.fromkeys(QUESTION_KINDS, 2)


def test_answers_take_turns_as_long_as_there_are_any(mount, restore):
    for seed in range(4):
        answers = Counter(each.answer() for each in draw_questions(mount, 9, seed, ["hit_or_miss"]))
        assert answers == {"hit": 3, "wait": 3, "miss": 3}
    # there are fewer waits than this: the others fill up
    waits = int(restore.are_of_kind("cache_wait").sum())
    answers = Counter(each.answer() for each in draw_questions(restore, 15, 0, ["hit_or_miss"]))
    assert answers["wait"] == waits < 5
    assert abs(answers["hit"] - answers["miss"]) <= 1


def test_no_moment_is_asked_about_twice(restore):
    for kind in QUESTION_KINDS:
        rows = [each.index for each in all_of(restore, kind)]
        assert len(set(rows)) == len(rows) > 1


def test_numpy_numbers_will_do(restore):
    assert draw_questions(restore, np.int64(3), np.int64(1)) == draw_questions(restore, 3, 1)


# --- right and told -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", QUESTION_KINDS)
@pytest.mark.parametrize("make", [instant_restore, live_mount])
def test_answers_are_what_the_events_say(make, kind):
    timeline = make(48, slots=14)  # the bookkeeper evicts what came first, and the plan says LRU
    for policy in ("lru", "fifo"):
        changed = dataclasses.replace(timeline, plan=timeline.plan.replace(eviction=policy))
        questions = all_of(changed, kind)
        assert questions
        for question in questions:
            check(changed, question)


@st.composite
def tiny_restores(draw):
    """Restores of the tiny boot with read caches that are too small."""
    mode = draw(st.sampled_from(["instant_restore", "live_mount"]))
    unit = 4096
    random = np.random.default_rng(draw(st.integers(0, 99)))
    first_set = random.permutation(TINY_DISK_BYTES // unit)[: draw(st.integers(0, 500))]
    changes = {}
    if mode == "instant_restore":
        changes["relocation_depth"] = draw(st.integers(1, 3))
        changes["purge"] = PurgeRule(run_length=draw(st.integers(2, 16)), by_indication=draw(st.booleans()))
    plan = RestorePlan(
        (TINY_DISK_BYTES,),
        mode=mode,
        block_bytes=unit,
        first_set=first_set,
        launch=LaunchRule("head_start", head_start_ns=draw(st.integers(0, 300)) * MS),
        relocation_start=RelocationStart("delay", draw(st.integers(0, 2000)) * MS),
        cache_bytes=draw(st.sampled_from([24, 64, 150, 1024])) * unit,
        fetch_bytes=8 * unit,
        stage_fetch_bytes=2 * unit,
        relocation_request_bytes=16 * unit,
        eviction=draw(st.sampled_from(EVICTION_POLICIES)),
        misses=draw(st.sampled_from(["through_cache", "through_cache", "straight"])),
        **changes,
    )
    return simulate(BOOT, plan, draw(st.sampled_from(["disk_library", "object_storage", "flash"])))


@settings(max_examples=25)
@given(tiny_restores(), st.sampled_from(sorted(QUESTION_KINDS)), st.integers(0, 5))
def test_answers_of_simulated_restores_are_what_the_events_say(timeline, kind, seed):
    for question in all_of(timeline, kind, seed)[::7]:
        check(timeline, question)


@pytest.mark.parametrize("policy", sorted({*EVICTION_POLICIES} - {"s3fifo"}))
def test_each_policy_has_evictions_to_ask_about(policy):
    plan = RestorePlan(
        (TINY_DISK_BYTES,), block_bytes=4096, cache_bytes=64 * 4096, eviction=policy, fetch_bytes=32 * 1024
    )
    timeline = simulate(BOOT, plan.replace(relocation_request_bytes=64 * 1024), "disk_library")
    questions = all_of(timeline, "which_goes")
    assert questions
    for question in questions[::5]:
        check(timeline, question)
        assert policy.upper() in question.text


def test_s3_fifo_spares_what_was_hit_twice():
    # the tiny boot reads hardly anything so often
    timeline = live_mount(48, slots=16)
    timeline = dataclasses.replace(timeline, plan=timeline.plan.replace(eviction="s3fifo"))
    (question, *_) = all_of(timeline, "which_goes")
    hits = Replay(timeline, question.index).hits
    for block, option in zip(question.blocks, question.options, strict=True):
        assert hits[block] == 0 if option == question.answer() else hits[block] >= 2


def test_reads_from_everywhere_are_asked_about(restore, mount):
    answers = {each.answer() for timeline in (restore, mount) for each in all_of(timeline, "what_next")}
    assert answers == {"write cache", "destination", "media agent", "nowhere (a hole)"}


def test_one_place_for_all_reads_is_nothing_to_ask_about(mount):
    kinds = ["vm_read", "vm_done", "fetch", "staged", "serve", *ANSWER_OF]
    events = mount.events.filter(mount.events["kind"].is_in(kinds))
    always = events.filter(events["request"].is_in(events.filter(kind="serve")["request"].implode()))
    assert always.filter(kind="vm_read", count=1).height > 3
    assert not all_of(dataclasses.replace(mount, events=always), "what_next")


def test_explanations_are_sentences_with_times(restore, mount):
    for timeline in (restore, mount):
        for kind in QUESTION_KINDS:
            for question in all_of(timeline, kind):
                told = question.explanation()
                assert told[0].isupper()
                assert told[-1] in ".)"
                assert "-1" not in told
                assert f"{timeline.times[question.index] / 1e9:,.3f} s" in question.text


def test_explanations_tell_what_had_become_of_a_block(restore, mount):
    told = [(each.answer(), each.explanation()) for each in all_of(mount, "hit_or_miss")]
    told += [(each.answer(), each.explanation()) for each in all_of(restore, "hit_or_miss")]
    for answer, words in [
        ("hit", "neither evicted nor purged since"),
        ("wait", "Its fetch began at"),
        ("miss", "was never in the read cache before"),
        ("miss", "and was evicted at"),
        ("miss", "and was purged at"),
        ("miss", "lost with the whole cache at"),
    ]:
        assert any(words in explanation for of, explanation in told if of == answer), words
        assert not any(words in explanation for of, explanation in told if of != answer), words


def test_the_repr_of_a_question_does_not_tell_its_answer(restore):
    for question in draw_questions(restore, 6):
        other = next(each for each in question.options if each != question.answer())
        changed = dataclasses.replace(question, _answer=other, _explanation="something else")
        assert repr(changed) == repr(question)
        assert changed != question


# --- what cannot be asked -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"count": 0}, "questions: expected a whole number of at least 1, got 0"),
        ({"count": 2.0}, "questions: expected a whole number of at least 1, got 2.0"),
        ({"count": True}, "questions: expected a whole number of at least 1, got True"),
        ({"seed": -1}, "seed: expected a whole number of at least 0, got -1"),
        ({"seed": "mine"}, "seed: expected a whole number of at least 0, got 'mine'"),
        ({"kinds": ()}, r"kinds: expected some of hit_or_miss, which_goes, what_next, each once, got \(\)"),
        ({"kinds": ("when",)}, "kinds: expected some of .*'when'"),
        ({"kinds": "hit_or_miss"}, "kinds: expected some of .*'hit_or_miss'"),
        ({"kinds": ["what_next", "what_next"]}, "kinds: expected some of .*each once"),
        ({"kinds": 3}, "kinds: expected some of .*got 3"),
        ({"count": 1000}, r"questions: expected at most \d+, as this timeline offers no more for .*got 1000"),
    ],
)
def test_bad_arguments(restore, arguments, said):
    with pytest.raises(QuestionError, match=said):
        draw_questions(restore, **arguments)


def test_what_is_no_timeline():
    with pytest.raises(ValueError, match="timeline: expected a Timeline, as simulate"):
        draw_questions("restore")


def test_a_timeline_without_suitable_moments(restore):
    quiet = dataclasses.replace(restore, events=restore.events.head(4))
    with pytest.raises(QuestionError, match="expected at most 0, as this timeline offers no more"):
        draw_questions(quiet, 1)
    with pytest.raises(QuestionError, match=r"for which_goes \(evictions that the policy explains\), got 1"):
        draw_questions(quiet, 1, 0, ["which_goes"])


def test_an_eviction_that_the_policy_does_not_explain_is_not_asked_about(mount):
    # the bookkeeper evicts what came first: only some of these are what LRU would let go
    evictions = int(mount.are_of_kind("evict").sum())
    assert 0 < len(all_of(mount, "which_goes")) < evictions


def test_a_block_that_somebody_waits_for_is_no_option(mount):
    mount = dataclasses.replace(mount, plan=mount.plan.replace(eviction="fifo"))
    options = 0
    for question in all_of(mount, "which_goes"):
        gone = mount.events["block"][question.index]
        hit = mount.events.filter(kind="cache_hit").tail(1)
        for block in {*question.blocks} - {gone}:
            asked = hit.with_columns(
                time_ns=pl.lit(int(mount.times[question.index]), pl.Int64), block=pl.lit(block, pl.Int32)
            )
            before, behind = mount.events.head(question.index), mount.events[question.index :]
            changed = dataclasses.replace(mount, events=pl.concat([before, asked, behind]))
            for again in all_of(changed, "which_goes"):
                if again.index == question.index + 1:
                    assert block not in again.blocks
                    options += 1
    assert options > 3


def test_events_that_contradict_each_other_are_not_asked_about(mount):
    without = dataclasses.replace(mount, events=mount.events.filter(mount.events["kind"] != "staged"))
    assert not [each for each in all_of(without, "hit_or_miss") if each.answer() == "hit"]
    assert not all_of(without, "which_goes")
    without = dataclasses.replace(mount, events=mount.events.filter(mount.events["kind"] != "written"))
    assert without.are_of_kind("read_write_cache").any()
    for question in all_of(without, "what_next"):
        check(without, question)


@pytest.mark.parametrize("detail", ["events", "runs"])
def test_detail_of_the_simulation(detail):
    plan = RestorePlan((TINY_DISK_BYTES,), block_bytes=4096, cache_bytes=64 * 4096)
    timeline = simulate(BOOT, plan, "disk_library", detail=detail)
    for question in draw_questions(timeline, 4):
        check(timeline, question)
