"""The check of notebook 02: how much of a boot lies in incremental copies."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "notebooks"))

from checks import layout as exercise

from vmrestorekit.traces.corpus import Corpus


@pytest.mark.parametrize("seed", [1, 5, 7])
def test_right_and_typically_wrong_answers(seed: int, packaged_corpus: Corpus) -> None:
    length, layout, blocks, full_chunks = exercise.chain(seed)
    assert 1 <= length <= 7
    chunks = layout.chunk[blocks]
    assert chunks.min() >= 0
    in_increments, mb = int(np.sum(chunks >= full_chunks)), layout.block_bytes / 1e6
    assert 0 < in_increments < len(blocks)
    for right in (in_increments * mb, round(in_increments * mb, 1), np.float64(in_increments * mb)):
        assert exercise.check_increments(right, seed).is_right
    for wrong, said in {
        (len(blocks) - in_increments) * mb: "full copy",
        in_increments: "number of blocks",
        in_increments * layout.block_bytes: "bytes",
        in_increments * layout.block_bytes / 2**20: "MiB",
        np.sum(layout.chunk >= full_chunks) * mb: "all blocks of the disk",
        -1: "chunks of the full copy",
    }.items():
        verdict = exercise.check_increments(wrong, seed)
        assert verdict.is_right is False
        assert said in verdict.text
        assert f"{in_increments * mb:.1f}" not in verdict.text


@pytest.mark.parametrize("answer", ["12", [12], float("nan"), True])
def test_what_is_no_number_gets_a_sentence(answer: object) -> None:
    verdict = exercise.check_increments(answer, 1)
    assert verdict.is_right is False
    assert "A number of MB" in verdict.text


@pytest.mark.parametrize("answer", [..., None])
def test_without_an_answer_it_is_the_student_s_turn(answer: object) -> None:
    assert exercise.check_increments(answer, 1).is_right is None
