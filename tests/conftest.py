"""Fixtures and checks for all tests."""

import gc
import os
from collections.abc import Iterator

import pytest

from .support import FLAVOURS, open_sockets, seconds
from .support.leaks import library_threads, stacks, wait_until

# A browser is started in one environment only: tox -e browser.
collect_ignore = [] if os.environ.get("WSE_TEST_BROWSER") else ["browser"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Scale the time limit of every test with WSE_TEST_TIMESCALE."""
    for item in items:
        marker = item.get_closest_marker("timeout")
        limit = marker.args[0] if marker and marker.args else 60
        item.add_marker(pytest.mark.timeout(seconds(limit)))


def require(present: bool, what: str) -> None:
    """Skip where something is absent; in CI nothing may be."""
    if present:
        return
    if os.environ.get("CI"):
        pytest.fail(f"{what} is absent, and CI must have it")
    pytest.skip(f"{what} is absent")


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    """Each flavour of the server."""
    return str(request.param)


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """No thread and no socket outlives its test."""
    before = open_sockets()
    threads_before = set(library_threads())
    yield

    def left_threads() -> list:  # type: ignore[type-arg]
        return [thread for thread in library_threads() if thread not in threads_before]

    try:
        wait_until(lambda: not left_threads(), 3)
    except AssertionError:
        pytest.fail("threads were left behind:\n" + stacks(left_threads()))
    try:
        wait_until(lambda: open_sockets() <= before, 0.2)
        return
    except AssertionError:
        gc.collect()  # what only a cycle keeps is no leak
    try:
        wait_until(lambda: open_sockets() <= before, 3)
    except AssertionError:
        pytest.fail(f"sockets were left behind: {open_sockets() - before}")
