"""Users' handlers on threads: in order on lanes, calls beside them, or all by hand.

Nothing here knows the protocol. All threads are daemons of our own: executors of the standard
library are joined when the interpreter exits, and a stuck callback would keep it alive.

As in ``loop.py`` there is no lock: a finalizer may run between any two bytecodes, on any thread,
and use the very object that it interrupts. Each record below is a deque, of which one operation
takes or puts an item; who has put something looks again for who could take it.
"""

from __future__ import annotations

import _thread
import asyncio
import inspect
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from ..core.dispatch import (
    Dispatcher,
    Done,
    Lane,
    LoopDispatcher,
    OnError,
    failure_of,
    is_awaitable,
)
from ..errors import ErrorCode, WseError
from ..events import Handler
from ..transport.base import LoopIO
from .loop import Deadline, LoopThread, Wait, ended_error, thread_state

__all__ = ["ManualRunner", "ThreadDispatcher", "Workers"]

logger = logging.getLogger("wse_tornado")

STALL_SECONDS = 2.0  # that all workers wait and none comes free, before calls are refused
RETRY_SECONDS = 0.1  # until a thread that could not be started is tried again


class Job:
    """Something to run, which returns how many handlers that were, and what to do if it cannot
    be."""

    __slots__ = ("reject", "run")

    def __init__(self, run: Callable[[], int], reject: Callable[[], None] | None = None) -> None:
        self.run = run
        self.reject = reject


class Runner(ABC):
    """Runs jobs somewhere off the loop.

    Attributes:
        turn: Handlers a lane runs before others have their turn; None for all that are due.
        later: ``later(seconds, fn)`` calls ``fn`` on the loop after that time.
    """

    turn: int | None = 64
    later: Callable[[float, Callable[[], None]], object]

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Run it soon. Any thread but one that Ctrl-C may hit."""

    @abstractmethod
    def retire(self) -> None:
        """Let idle threads end. Jobs still run; later ones start threads anew."""

    def resume(self) -> None:  # noqa: B027 - only threads need to be told
        """Undo `retire`."""


class _Worker:
    __slots__ = ("gate",)

    def __init__(self) -> None:
        self.gate = threading.Lock()
        self.gate.acquire()


class Workers(Runner):
    """A bounded set of daemon threads, started as needed.

    A job that may be rejected is, once every thread has been waiting inside a blocking call of
    this library for `STALL_SECONDS`: then none can be counted on to become free, and waiting for
    one could be waiting for oneself.

    Args:
        name: What the threads' names begin with.
        size: How many there may be.
    """

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self.later = lambda seconds, fn: None
        self._jobs: deque[Job] = deque()
        self._idle: deque[_Worker] = deque()
        self._free = deque(range(1, size + 1))  # numbers of threads that may be started
        self._waiting: set[object] = set()  # waits that threads of the set are in
        self._news = object()  # another one whenever a thread comes free
        self._stalled: tuple[object, float] = (None, 0.0)  # the news when, and since when
        self._check_due = 0.0
        self._starved = False  # the system has had no thread left for us
        self._retiring = True  # until `resume`: whom nobody uses keeps no thread

    @property
    def count(self) -> int:
        """How many threads there are."""
        return self._size - len(self._free)

    def submit(self, job: Job) -> None:
        self._jobs.append(job)
        self._match()
        if self._jobs:
            self._check_later()

    def _match(self) -> None:
        """Wake, or start, a thread for each job that waits.

        Any number of threads may be in here at once. Who makes a job or a thread available calls
        this afterwards, so that of the two that meet the later one finds the earlier.
        """
        while self._jobs:
            try:
                self._idle.pop().gate.release()
                return  # it takes a job
            except IndexError:
                pass
            try:
                number = self._free.popleft()
            except IndexError:
                return  # all are busy: the first to become free takes it
            try:
                threading.Thread(
                    target=self._work, args=(number,), name=f"{self._name}-{number}", daemon=True
                ).start()
                self._starved = False
            except RuntimeError:  # the system has no thread left, or the interpreter is exiting
                self._free.append(number)
                if not LoopThread.exiting and not self._starved:
                    logger.exception("cannot start a worker thread; it is tried again")
                self._starved = True
            return

    def _work(self, number: int) -> None:
        thread_state.pool = self
        worker = _Worker()
        while True:
            try:
                job = self._jobs.popleft()
            except IndexError:
                if self._retiring:
                    break
                self._idle.append(worker)
                self._match()  # a job may have come since
                worker.gate.acquire()
                continue
            try:
                job.run()
            except BaseException:  # SystemExit too: a handler cannot end a thread of ours
                logger.exception("a job of %s failed", self._name)
            del job  # hold nothing of the last job while idle
            self._news = object()
        self._free.append(number)
        self._match()

    def retire(self) -> None:
        self._retiring = True
        while self._idle:
            try:
                self._idle.pop().gate.release()
            except IndexError:
                break

    def resume(self) -> None:
        """Undo `retire`."""
        self._retiring = False

    def enter_wait(self, wait: object) -> None:
        """The calling worker is about to wait for the other end."""
        self._waiting.add(wait)
        if self._jobs:
            self._check_later()

    def leave_wait(self, wait: object) -> None:
        """It goes on."""
        self._waiting.discard(wait)
        self._news = object()

    @property
    def _stuck(self) -> bool:
        return bool(self._jobs) and len(self._waiting) >= self.count

    def _check_later(self) -> None:
        """Look later after jobs that no thread takes."""
        now = time.monotonic()
        if self._stuck and now > self._check_due:
            if self._stalled[0] is not self._news:
                self._stalled = (self._news, now)
            self._check_due = now + RETRY_SECONDS
            self.later(RETRY_SECONDS, self._check)

    def _check(self) -> None:
        self._match()  # what could not be started may start now
        news, since = self._stalled
        if self._stuck and news is self._news and time.monotonic() - since >= STALL_SECONDS:
            for job in tuple(self._jobs):
                if job.reject is not None:
                    try:
                        self._jobs.remove(job)
                    except ValueError:  # a thread took it
                        continue
                    job.reject()
        self._check_due = 0.0
        self._check_later()


class ManualRunner(Runner):
    """Keeps jobs until the owner runs them, on its own thread."""

    turn = None

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()
        self._urgent: deque[Job] = deque()
        self._sleepers: set[threading.Lock] = set()  # one of each thread in `run_until`

    def submit(self, job: Job) -> None:
        self._jobs.append(job)
        self.wake()

    def submit_urgent(self, job: Job) -> None:
        """A job that a blocking ``connect`` runs itself, or it would wait for ever."""
        self._urgent.append(job)
        self.wake()

    def retire(self) -> None:
        pass

    @property
    def pending(self) -> bool:
        """Whether anything waits to be run."""
        return bool(self._jobs or self._urgent)

    def wake(self) -> None:
        """Let every `run_until` look again."""
        for gate in tuple(self._sleepers):
            try:
                gate.release()
            except RuntimeError:  # it is awake
                pass

    def run_pending(self, *, urgent_only: bool = False) -> int:
        """Run what is due. Returns how many handlers that were."""
        count = 0
        for jobs in (self._urgent,) if urgent_only else (self._urgent, self._jobs):
            for _ in range(len(jobs)):
                try:
                    job = jobs.popleft()
                except IndexError:  # another thread took it
                    break
                count += job.run()
        return count

    def run_until(
        self, done: Callable[[], bool], seconds: float | None, *, urgent_only: bool = False
    ) -> bool:
        """Run jobs as they come, until ``done()`` or the time is over (then False)."""
        deadline = Deadline(seconds)
        gate = threading.Lock()
        gate.acquire()
        self._sleepers.add(gate)
        try:
            while True:
                self.run_pending(urgent_only=urgent_only)
                if done():
                    return True
                left = deadline.left()
                if left is not None and left <= 0:
                    return False
                Wait.sleep_on(gate, left)
        finally:
            self._sleepers.discard(gate)


class ThreadDispatcher(Dispatcher):
    """Runs plain handlers on runners, coroutines and inline handlers on the loop.

    Args:
        loop: The loop thread.
        ordered: Carries the lanes.
        calls: Runs what needs no order.
    """

    def __init__(self, loop: LoopThread, ordered: Runner, calls: Runner) -> None:
        self.loop = loop
        self.ordered = ordered
        self.calls = calls
        for runner in (ordered, calls):
            runner.later = loop.later
        self._by_hand = isinstance(calls, ManualRunner)
        self._on_loop = LoopDispatcher()  # carries coroutines that serve calls
        self.in_order = LoopDispatcher()  # and those of lanes, which closing does not cancel

    @property
    def io(self) -> LoopIO:  # type: ignore[override] # of the present run of the loop thread
        return self.loop.io

    def lane(self, on_error: OnError) -> Lane:
        return ThreadLane(self, on_error)

    def beside(self, handler: Handler, args: tuple[Any, ...], done: Done) -> None:
        if not (handler.inline or handler.is_coroutine):
            self.calls.submit(self._job(handler, args, done))
            return
        result, exc = self.call(handler, args)
        if exc is None and is_awaitable(result):
            self.await_(result, done, self._on_loop)
        else:
            done(result, exc)

    def ask(self, handler: Handler, args: tuple[Any, ...], done: Done) -> None:
        if isinstance(self.calls, ManualRunner) and not (handler.inline or handler.is_coroutine):
            self.calls.submit_urgent(self._job(handler, args, done))
        else:
            self.beside(handler, args, done)

    def on_loop(self, fn: Callable[..., None], *args: Any) -> None:
        if self.loop.begun and self.loop.post(fn, *args):
            return
        # No loop takes work any more: here, or never. Ctrl-C may tear what the main thread does
        # between any two steps; it does not reach another one.
        if threading.get_ident() != threading.main_thread().ident:
            fn(*args)
            return
        done = Wait()

        def there() -> None:
            try:
                fn(*args)
            finally:
                done.settle(None, None)

        _thread.start_new_thread(there, ())
        done.wait(None)

    def cancel_calls(self) -> None:
        self._on_loop.cancel_calls()

    def _job(self, handler: Handler, args: tuple[Any, ...], done: Done) -> Job:
        def run() -> int:
            try:
                result, exc = self.call(handler, args)
            except KeyboardInterrupt:  # by hand only: the thread is the user's own
                error = WseError(ErrorCode.RP_EXECUTION_FAILED, {}, "it was interrupted")
                self.on_loop(done, None, error)
                raise
            if exc is None and is_awaitable(result):
                self.await_(result, done, self._on_loop)
            else:
                self.on_loop(done, result, exc)
            return 1

        def reject() -> None:
            error = WseError(
                ErrorCode.WORKERS_EXHAUSTED,
                {},
                "every worker waits for a call of its own, so none can serve this one; "
                "nest fewer calls, or raise Limits.max_workers",
            )
            logger.error("%r was not run: %s", handler, error)
            self.loop.post(done, None, error)

        return Job(run, reject)

    def call(self, handler: Handler, args: tuple[Any, ...]) -> tuple[Any, BaseException | None]:
        """Run a handler on this thread: its result, which may be awaitable, or its exception."""
        try:
            return handler.fn(*args), None
        except BaseException as exc:  # SystemExit in a handler is a failure of the handler
            if isinstance(exc, KeyboardInterrupt) and self._by_hand and not handler.inline:
                raise  # Ctrl-C, on the user's own thread
            return None, failure_of(exc)

    def await_(self, awaitable: Awaitable[Any], done: Done, tasks: LoopDispatcher) -> None:
        """Run a coroutine that a handler is, or returned, on the loop. It occupies no thread."""
        contained = Handler(partial(_contain, awaitable))
        if self.loop.post(tasks.beside, contained, (), partial(_unpack, done)):
            return
        # Where the loop has ended it never began; this keeps Python from warning of that.
        if (
            asyncio.iscoroutine(awaitable)
            and inspect.getcoroutinestate(awaitable) == inspect.CORO_CREATED
        ):
            awaitable.close()
        done(None, ended_error("a coroutine handler"))


async def _contain(awaitable: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    """Await it; a SystemExit becomes an outcome, as a task would pass it on to the loop."""
    try:
        return await awaitable, None
    except (SystemExit, KeyboardInterrupt) as exc:
        return None, exc


def _unpack(
    done: Done, outcome: tuple[Any, BaseException | None] | None, exc: BaseException | None
) -> None:
    if outcome is None:
        done(None, exc)
    else:
        done(*outcome)


class ThreadLane(Lane):
    """A lane carried by one thread at a time, or by none while a coroutine of it runs."""

    __slots__ = ("_carried", "_dispatcher", "_notify", "_on_error", "_queue")

    def __init__(self, dispatcher: ThreadDispatcher, on_error: OnError) -> None:
        self._dispatcher = dispatcher
        self._on_error = on_error
        self._queue: deque[tuple[Handler, tuple[Any, ...], Done | None]] = deque()
        self._carried = deque([False])  # who takes the one item out carries the lane
        self._notify: tuple[int, Callable[[], None]] | None = None

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def notify_when_below(self, waiting: int, callback: Callable[[], None]) -> None:
        self._notify = (waiting, callback)
        self._check_level()  # it may have fallen in the meantime

    def post(self, handler: Handler, args: tuple[Any, ...], done: Done | None = None) -> None:
        if handler.inline:
            self._ended(handler, done, *self._dispatcher.call(handler, args))
            return
        self._queue.append((handler, args, done))
        self._carry()

    def _carry(self) -> None:
        """Have what waits run, unless somebody carries the lane already."""
        try:
            self._carried.pop()
        except IndexError:
            return
        self._submit()

    def _submit(self) -> None:
        self._dispatcher.ordered.submit(Job(self._run))

    def _run(self) -> int:
        """Run some of the queue. Returns how many handlers that were."""
        count = 0
        try:
            for _ in range(self._dispatcher.ordered.turn or len(self._queue)):
                try:
                    handler, args, done = self._queue.popleft()
                except IndexError:
                    break
                if self._notify is not None:
                    self._check_level()
                count += 1
                result, exc = self._dispatcher.call(handler, args)
                if exc is None and result is not None and is_awaitable(result):
                    ended = partial(self._ended_and_go_on, handler, done)
                    self._dispatcher.await_(result, ended, self._dispatcher.in_order)
                    return count
                if done is not None or exc is not None:
                    self._dispatcher.on_loop(self._finish, handler, done, result, exc)
        except BaseException:  # Ctrl-C ended a handler: the rest of the queue stays due
            self._submit()
            raise
        if self._queue:
            self._submit()  # others have their turn first
        else:
            self._carried.append(False)
            if self._queue:  # something came since, and saw the lane carried
                self._carry()
        return count

    def _ended_and_go_on(
        self, handler: Handler, done: Done | None, result: Any, exc: BaseException | None
    ) -> None:
        try:
            self._finish(handler, done, result, exc)
        finally:
            self._submit()

    def _check_level(self) -> None:
        notify = self._notify
        if notify is not None and len(self._queue) <= notify[0]:
            self._notify = None
            self._dispatcher.loop.post(notify[1])

    def _ended(
        self, handler: Handler, done: Done | None, result: Any, exc: BaseException | None
    ) -> None:
        """An inline handler has ended, or begun a coroutine that nothing waits for."""
        if exc is None and result is not None and is_awaitable(result):
            ended = partial(self._finish, handler, done)
            self._dispatcher.await_(result, ended, self._dispatcher.in_order)
        else:
            self._finish(handler, done, result, exc)

    def _finish(
        self, handler: Handler, done: Done | None, result: Any, exc: BaseException | None
    ) -> None:
        if done is not None:
            done(result, exc)
        elif exc is not None:
            self._on_error(handler, exc)
