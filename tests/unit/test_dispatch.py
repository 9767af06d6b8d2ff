"""aio/dispatch.py: in what order, and beside what, handlers run on the loop."""

import asyncio
import threading
from typing import Any

import pytest

from wse_tornado.core.dispatch import LoopDispatcher, is_awaitable
from wse_tornado.events import Handler


class Bench:
    """A lane and what has happened on it."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.errors: list[tuple[Handler, BaseException]] = []
        self.dispatcher = LoopDispatcher()
        self.lane = self.dispatcher.lane(lambda handler, exc: self.errors.append((handler, exc)))
        self.gate = asyncio.Event()

    def plain(self, name: Any) -> None:
        self.log.append(name)

    async def coroutine(self, name: Any) -> None:
        self.log.append(name)

    async def suspending(self, name: Any) -> None:
        self.log.append(f"{name} began")
        await self.gate.wait()
        self.log.append(f"{name} ended")

    def post(self, fn: Any, *args: Any, done: Any = None) -> None:
        self.lane.post(Handler(fn), args, done)

    async def idle(self) -> None:
        """Wait until all that was posted is done."""
        ended = asyncio.Event()
        self.post(ended.set)
        await ended.wait()


async def test_plain_handlers_run_at_once_and_in_order() -> None:
    bench = Bench()
    for number in range(5):
        bench.post(bench.plain, number)
    assert bench.log == [0, 1, 2, 3, 4]
    assert bench.lane.waiting == 0


async def test_a_coroutine_that_suspends_holds_up_what_follows() -> None:
    bench = Bench()
    bench.post(bench.suspending, "a")
    bench.post(bench.plain, "b")
    bench.post(bench.coroutine, "c")
    await asyncio.sleep(0)
    assert bench.log == ["a began"]
    assert bench.lane.waiting == 2
    bench.gate.set()
    await bench.idle()
    assert bench.log == ["a began", "a ended", "b", "c"]
    assert bench.lane.waiting == 0


async def test_lanes_do_not_wait_for_one_another() -> None:
    bench = Bench()
    bench.post(bench.suspending, "a")
    other = bench.dispatcher.lane(lambda handler, exc: None)
    other.post(Handler(bench.plain), ("b",))
    assert "b" in bench.log
    bench.gate.set()
    await bench.idle()


async def test_a_handler_may_post_and_what_it_posts_comes_after_it() -> None:
    bench = Bench()

    def posts() -> None:
        bench.log.append("outer began")
        bench.post(bench.plain, "inner")
        bench.log.append("outer ended")

    bench.post(posts)
    assert bench.log == ["outer began", "outer ended", "inner"]


async def test_thousands_of_waiting_handlers_do_not_exhaust_the_stack() -> None:
    bench = Bench()
    bench.post(bench.suspending, "a")
    for number in range(5000):
        bench.post(bench.coroutine if number % 2 else bench.plain, number)
    bench.gate.set()
    await bench.idle()
    assert bench.log[2:] == list(range(5000))


async def test_an_exception_goes_to_the_lane_and_does_not_stop_it() -> None:
    bench = Bench()

    def bad() -> None:
        raise ValueError("plain")

    async def worse() -> None:
        await asyncio.sleep(0)
        raise ValueError("coroutine")

    bench.post(bad)
    bench.post(worse)
    bench.post(bench.plain, "after")
    await bench.idle()
    assert [str(exc) for _, exc in bench.errors] == ["plain", "coroutine"]
    assert [handler.fn for handler, _ in bench.errors] == [bad, worse]
    assert bench.log == ["after"]


async def test_done_gets_the_result_or_the_exception_instead() -> None:
    bench = Bench()
    outcomes: list[tuple[Any, Any]] = []

    def done(result: Any, exc: BaseException | None) -> None:
        outcomes.append((result, str(exc) if exc else None))

    async def later(result: Any) -> Any:
        await asyncio.sleep(0)
        if isinstance(result, Exception):
            raise result
        return result

    def now(result: Any) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    for fn in (now, later):
        bench.post(fn, 1, done=done)
        bench.post(fn, ValueError("no"), done=done)
        bench.post(fn, None, done=done)
    await bench.idle()
    assert outcomes == [(1, None), (None, "no"), (None, None)] * 2
    assert bench.errors == []


async def test_a_plain_function_may_return_an_awaitable() -> None:
    bench = Bench()
    future = asyncio.get_running_loop().create_future()
    results: list[Any] = []
    bench.post(lambda: future, done=lambda result, exc: results.append(result))
    bench.post(bench.plain, "after")
    await asyncio.sleep(0)
    assert bench.log == []
    future.set_result("it")
    await bench.idle()
    assert results == ["it"]
    assert bench.log == ["after"]


async def test_is_awaitable_knows_what_await_takes() -> None:
    future = asyncio.get_running_loop().create_future()
    assert is_awaitable(future)
    coro = asyncio.sleep(0)
    assert is_awaitable(coro)
    await coro
    assert not is_awaitable(5)
    assert not is_awaitable("text")


async def test_back_pressure_ends_when_the_queue_has_fallen_far_enough() -> None:
    bench = Bench()
    levels: list[int] = []
    bench.post(bench.suspending, "first")
    for number in range(10):
        bench.post(bench.plain, number)
    bench.lane.notify_when_below(4, lambda: levels.append(bench.lane.waiting))
    assert bench.lane.waiting == 10
    bench.gate.set()
    await bench.idle()
    assert levels == [4]  # once, and as soon as it is so


async def test_cancelling_is_not_an_error_of_the_handler() -> None:
    bench = Bench()
    outcomes: list[Any] = []
    bench.dispatcher.beside(
        Handler(bench.suspending), ("b",), lambda result, exc: outcomes.append(type(exc))
    )
    await asyncio.sleep(0)
    bench.dispatcher.cancel_calls()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert bench.errors == []
    assert outcomes == [asyncio.CancelledError]


@pytest.mark.parametrize("exc_type", [KeyboardInterrupt, SystemExit])
async def test_ctrl_c_in_a_handler_passes_and_leaves_the_lane_usable(exc_type: Any) -> None:
    bench = Bench()

    def stop() -> None:
        raise exc_type

    with pytest.raises(exc_type):
        bench.post(stop)
    bench.post(bench.plain, "after")
    assert bench.log == ["after"]


# -- beside


async def test_what_runs_beside_waits_for_nothing() -> None:
    bench = Bench()
    outcomes: list[Any] = []
    all_done = asyncio.Event()

    def done(result: Any, exc: BaseException | None) -> None:
        outcomes.append(exc or result)
        if len(outcomes) == 3:
            all_done.set()

    async def slow() -> str:
        await bench.gate.wait()
        return "slow"

    bench.post(bench.suspending, "lane")
    bench.dispatcher.beside(Handler(slow), (), done)
    bench.dispatcher.beside(Handler(lambda: "quick"), (), done)
    assert outcomes == ["quick"]
    bench.dispatcher.ask(Handler(lambda: "asked"), (), done)
    assert outcomes == ["quick", "asked"]
    bench.gate.set()
    await all_done.wait()
    assert outcomes[2] == "slow"
    await bench.idle()


async def test_what_raises_beside_tells_done() -> None:
    dispatcher = LoopDispatcher()
    outcomes: list[Any] = []

    def bad() -> None:
        raise ValueError("no")

    dispatcher.beside(Handler(bad), (), lambda result, exc: outcomes.append(str(exc)))
    assert outcomes == ["no"]


# -- on_loop


async def test_on_loop_runs_now_on_the_loop_and_soon_from_elsewhere() -> None:
    bench = Bench()
    threads: list[int] = []
    came = asyncio.Event()

    def note() -> None:
        threads.append(threading.get_ident())
        if len(threads) == 2:
            came.set()

    bench.dispatcher.on_loop(note)
    assert len(threads) == 1
    await asyncio.to_thread(bench.dispatcher.on_loop, note)
    await came.wait()
    assert set(threads) == {threading.get_ident()}


def test_on_loop_without_a_loop_waits_for_one() -> None:
    dispatcher = LoopDispatcher()
    log: list[str] = []

    async def main() -> None:
        dispatcher.begin()
        dispatcher.on_loop(log.append, "now")

    dispatcher.on_loop(log.append, "before")
    assert log == []
    asyncio.run(main())
    assert log == ["before", "now"]
    dispatcher.on_loop(log.append, "between two loops")
    asyncio.run(main())
    assert log == ["before", "now", "between two loops", "now"]
