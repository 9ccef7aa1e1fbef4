import pytest
from synthetic import instant_restore, live_mount, long_timeline

from vmrestorekit.restore.timeline import Timeline


@pytest.fixture(scope="session")
def restore() -> Timeline:
    return instant_restore(48)


@pytest.fixture(scope="session")
def mount() -> Timeline:
    return live_mount(48)


@pytest.fixture(scope="session")
def large() -> Timeline:
    return instant_restore(4000)


@pytest.fixture(scope="session")
def long() -> Timeline:
    return long_timeline(200_000)
