"""Boots for the tests of every room: a tiny SYNTHETIC one, and the recorded ones of the package."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from lacking import missing
from tiny_boots import tiny_manifest, tiny_trace

from vmrestorekit.traces.corpus import Boot, Corpus, load_corpus

# what else runs on the machine does not decide whether an example is good
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


@pytest.fixture
def tiny_boot() -> Boot:
    return Boot.from_parts(tiny_trace(), [tiny_manifest()])


@pytest.fixture
def make_tiny_boot() -> Callable[[str, str], Boot]:
    """For tests that need several: ``make_tiny_boot("vm", "boot-1")``."""
    return lambda vm, boot: Boot.from_parts(tiny_trace(vm, boot), [tiny_manifest()])


@pytest.fixture(scope="session")
def packaged_corpus() -> Corpus:
    try:
        return load_corpus()
    except FileNotFoundError as error:
        missing(f"no recorded boots in this checkout yet: {error}")
