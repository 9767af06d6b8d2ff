"""Fixtures and checks for all tests."""

import asyncio
import gc
import inspect
import os
from collections.abc import Iterator

import pytest

import wse_tornado

from .support import FLAVOURS, open_sockets, seconds
from .support.leaks import library_threads, stacks, wait_until
from .support.loops import on_clean_loop

if "TOX_ENV_NAME" in os.environ:  # what users install is tested, not the checkout
    assert "site-packages" in wse_tornado.__file__, wse_tornado.__file__


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Scale the time limit of every test with WSE_TEST_TIMESCALE."""
    for item in items:
        marker = item.get_closest_marker("timeout")
        limit = marker.args[0] if marker and marker.args else 60
        item.add_marker(pytest.mark.timeout(seconds(limit)))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine function on a loop of its own, which it must leave without tasks."""
    if not inspect.iscoroutinefunction(pyfuncitem.function):
        return None
    names = inspect.signature(pyfuncitem.function).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    asyncio.run(on_clean_loop(pyfuncitem.function, arguments))
    return True


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    """Each flavour: of the server, or of the client where the other end is a raw server."""
    return str(request.param)


@pytest.fixture(params=FLAVOURS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each flavour of the client, where the server has one of its own."""
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
