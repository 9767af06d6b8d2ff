"""How users' handlers are run: in order on a lane, or beside one another.

The core posts handlers here and never runs one itself. This module runs them on the loop; the
blocking flavour puts its own `Dispatcher` in its place (``blocking/dispatch.py``).
"""

from __future__ import annotations

import asyncio
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from typing import Any

from ..events import Handler
from ..transport.base import LoopIO

__all__ = ["Dispatcher", "Done", "Lane", "LoopDispatcher", "LoopLane", "is_awaitable"]

Done = Callable[[Any, BaseException | None], None]
OnError = Callable[[Handler, BaseException], None]


def is_awaitable(value: Any) -> bool:
    """Whether ``await`` takes it."""
    return hasattr(type(value), "__await__")


def failure_of(exc: BaseException) -> BaseException:
    """What a plain function raised, as the failure it is: it is no task, so a CancelledError, which
    a cancelled future's ``result()`` raises, does not mean that anybody cancelled it."""
    if not isinstance(exc, asyncio.CancelledError):
        return exc
    failure = RuntimeError("what it asked the result of had been cancelled")
    failure.__cause__ = exc
    return failure


class Lane(ABC):
    """Runs handlers one at a time, in the order they were posted."""

    __slots__ = ()

    @property
    @abstractmethod
    def waiting(self) -> int:
        """Handlers posted and not started."""

    @abstractmethod
    def post(self, handler: Handler, args: tuple[Any, ...], done: Done | None = None) -> None:
        """Run a handler when all that was posted before it is done. Loop thread only.

        Args:
            handler: What to run.
            args: Its arguments.
            done: Called on the loop with its result or its exception; without it an exception
                goes to the lane's ``on_error``.
        """

    def post_all(self, jobs: Iterable[tuple[Handler, tuple[Any, ...]]]) -> None:
        """Post several, with nothing between them, whatever the first of them causes."""
        for handler, args in jobs:
            self.post(handler, args)

    @abstractmethod
    def notify_when_below(self, waiting: int, callback: Callable[[], None]) -> None:
        """Call back once, on the loop, when no more than ``waiting`` handlers wait."""


class Dispatcher(ABC):
    """Makes lanes, and runs what needs no order.

    Attributes:
        io: What the sockets of the loop share.
    """

    io: LoopIO

    @abstractmethod
    def lane(self, on_error: OnError) -> Lane:
        """A new lane."""

    @abstractmethod
    def beside(self, handler: Handler, args: tuple[Any, ...], done: Done) -> None:
        """Run a handler now, beside all others; ``done`` is called on the loop."""

    def ask(self, handler: Handler, args: tuple[Any, ...], done: Done) -> None:
        """Run a handler that connecting waits for: who to be, how to solve a challenge."""
        self.beside(handler, args, done)

    @abstractmethod
    def on_loop(self, fn: Callable[..., None], *args: Any) -> None:
        """Call ``fn`` on the loop: now if this is its thread, else soon. Any thread."""

    def begin(self) -> None:  # noqa: B027 - only some need to be told
        """The loop of this thread is the one to use from now on."""

    @abstractmethod
    def cancel_calls(self) -> None:
        """Cancel the coroutines that run beside the lanes: nobody waits for them any more."""


class TaskSet:
    """Coroutines that are running, so that they are neither lost nor left behind."""

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def run(self, awaitable: Awaitable[Any], done: Done) -> bool:
        """Run to the end. True if it ended without suspending (``done`` has been called)."""
        coro = awaitable if asyncio.iscoroutine(awaitable) else _await(awaitable)
        task = start_task(coro)
        if task.done():
            _tell(task, done)
            return True
        self._tasks.add(task)
        task.add_done_callback(partial(self._finished, done))
        return False

    def _finished(self, done: Done, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        _tell(task, done)

    def cancel(self) -> None:
        """Cancel them, but for the one that asks for it."""
        current = asyncio.current_task()
        for task in tuple(self._tasks):
            if task is not current:
                task.cancel()


def _tell(task: asyncio.Task[Any], done: Done) -> None:
    if task.cancelled():
        done(None, asyncio.CancelledError())
        return
    exc = task.exception()
    done(None, exc) if exc is not None else done(task.result(), None)


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


if sys.version_info >= (3, 12):

    def start_task(coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task that has run up to its first suspension, often its end."""
        return asyncio.Task(coro, loop=asyncio.get_running_loop(), eager_start=True)

else:

    def start_task(coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task. Before Python 3.12 it cannot begin at once: code that asks for the current
        task, as ``asyncio.timeout`` does, would find none or a foreign one."""
        return asyncio.get_running_loop().create_task(coro)


class Turn:
    """Keeps handlers from running inside handlers.

    A handler that drops a connection, or broadcasts to one that does not keep up, causes events
    of other lanes. They start when it returns, in the order in which they came up: a chain of them
    neither recurses nor overtakes anything.
    """

    __slots__ = ("due", "running")

    def __init__(self) -> None:
        self.running = False
        self.due: deque[LoopLane] = deque()

    def start_due(self) -> None:
        """The handler has returned, or suspended: start what it has caused."""
        while self.due and not self.running:
            self.due.popleft().advance()


class LoopLane(Lane):
    """A lane on the loop: plain handlers run at once, a coroutine holds up what comes after it."""

    __slots__ = ("_busy", "_notify", "_on_error", "_queue", "_tasks", "_turn")

    def __init__(self, on_error: OnError, tasks: TaskSet, turn: Turn) -> None:
        self._on_error = on_error
        self._tasks = tasks
        self._turn = turn
        self._queue: deque[tuple[Handler, tuple[Any, ...], Done | None]] | None = None
        self._busy = False
        self._notify: tuple[int, Callable[[], None]] | None = None

    @property
    def waiting(self) -> int:
        return len(self._queue) if self._queue is not None else 0

    def notify_when_below(self, waiting: int, callback: Callable[[], None]) -> None:
        self._notify = (waiting, callback)

    def post(self, handler: Handler, args: tuple[Any, ...], done: Done | None = None) -> None:
        turn = self._turn
        if not self._busy and not turn.running:
            self._busy = True
            if self._start(handler, args, done):
                self.advance()
            return
        if self._queue is None:
            self._queue = deque()
        self._queue.append((handler, args, done))
        self._wait_for_turn()

    def _wait_for_turn(self) -> None:
        """Have what is queued started: when the lane is free, and no other handler runs."""
        if self._busy:
            return
        self._busy = True
        if self._turn.running:
            self._turn.due.append(self)
        else:
            self.advance()

    def post_all(self, jobs: Iterable[tuple[Handler, tuple[Any, ...]]]) -> None:
        if self._queue is None:
            self._queue = deque()
        self._queue.extend((handler, args, None) for handler, args in jobs)
        self._wait_for_turn()

    def advance(self) -> None:
        """Start what waits until something suspends or nothing is left."""
        while self._queue:
            handler, args, done = self._queue.popleft()
            if self._notify is not None and len(self._queue) <= self._notify[0]:
                callback = self._notify[1]
                self._notify = None
                callback()
            if not self._start(handler, args, done):
                return
        self._busy = False

    def _start(self, handler: Handler, args: tuple[Any, ...], done: Done | None) -> bool:
        """Run one handler. False if it is a coroutine that has suspended."""
        turn = self._turn
        turn.running = True
        try:
            return self._run(handler, args, done)
        finally:
            turn.running = False
            if turn.due:
                turn.start_due()

    def _run(self, handler: Handler, args: tuple[Any, ...], done: Done | None) -> bool:
        try:
            result = handler.fn(*args)
        except (Exception, asyncio.CancelledError) as exc:
            self._finish(handler, done, None, failure_of(exc))
            return True
        except BaseException:
            self._busy = False
            raise
        if result is not None and is_awaitable(result):
            running = True

            def finished(result: Any, exc: BaseException | None) -> None:
                self._finish(handler, done, result, exc)
                if not running:
                    self.advance()

            ended = self._tasks.run(result, finished)
            running = False
            return ended
        if done is not None:
            done(result, None)
        return True

    def _finish(
        self, handler: Handler, done: Done | None, result: Any, exc: BaseException | None
    ) -> None:
        if done is not None:
            done(result, exc)
        elif exc is not None and not isinstance(exc, asyncio.CancelledError):
            self._on_error(handler, exc)


class LoopDispatcher(Dispatcher):
    """Everything on the loop."""

    def __init__(self) -> None:
        self.io = LoopIO()
        self._tasks = TaskSet()
        self._calls = TaskSet()
        self._turn = Turn()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._early: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()

    def lane(self, on_error: OnError) -> Lane:
        self._loop = asyncio.get_running_loop()
        return LoopLane(on_error, self._tasks, self._turn)

    def begin(self) -> None:
        self._loop = asyncio.get_running_loop()
        while self._early:
            fn, args = self._early.popleft()
            fn(*args)

    def beside(self, handler: Handler, args: tuple[Any, ...], done: Done) -> None:
        turn = self._turn
        turn.running = True
        try:
            result = handler.fn(*args)
        except (Exception, asyncio.CancelledError) as exc:
            done(None, failure_of(exc))
        else:
            if result is not None and is_awaitable(result):
                self._calls.run(result, done)
            else:
                done(result, None)
        finally:
            turn.running = False
            if turn.due:
                turn.start_due()

    def on_loop(self, fn: Callable[..., None], *args: Any) -> None:
        try:
            here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is not None and (self._loop is None or here is self._loop):
            fn(*args)
        elif self._loop is None or self._loop.is_closed():
            self._early.append((fn, args))  # for when there is a loop
        else:
            self._loop.call_soon_threadsafe(fn, *args)

    def cancel_calls(self) -> None:
        self._calls.cancel()
