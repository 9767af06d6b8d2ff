"""Users' handlers on threads: in order on lanes, calls beside them, or all by hand.

Nothing here knows the protocol. All threads are daemons of our own: executors of the standard
library are joined when the interpreter exits, and a stuck callback would keep it alive.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
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
from .loop import Deadline, LoopThread, Wait, thread_state

__all__ = ["ManualRunner", "ThreadDispatcher", "Workers"]

logger = logging.getLogger("wse_tornado")


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
    """

    turn: int | None = 64

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Run it soon. Any thread."""

    @abstractmethod
    def crowded(self) -> bool:
        """Whether other jobs wait for a thread."""

    @abstractmethod
    def retire(self) -> None:
        """Let idle threads end. Jobs still run; later ones start threads anew."""


class _Worker:
    __slots__ = ("gate", "job")

    def __init__(self, job: Job) -> None:
        self.job: Job | None = job
        self.gate = threading.Lock()
        self.gate.acquire()


class Workers(Runner):
    """A bounded set of daemon threads, started as needed.

    A job that may be rejected is, once every thread of the set waits inside a blocking call of
    this library: then none of them can be counted on to become free, and waiting for one could
    be waiting for oneself.

    Args:
        name: What the threads' names begin with.
        size: How many there may be.
    """

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._lock = threading.Lock()
        self._jobs: deque[Job] = deque()
        self._idle: list[_Worker] = []
        self._count = 0
        self._started = 0
        self._waiting = 0
        self._retiring = True  # until `resume`: whom nobody uses keeps no thread

    @property
    def count(self) -> int:
        """How many threads there are."""
        return self._count

    def submit(self, job: Job) -> None:
        rejected = False
        worker = None
        with self._lock:
            if self._idle:
                worker = self._idle.pop()
                worker.job = job
            elif self._count < self._size:
                self._count += 1
                self._started += 1
                self._start(_Worker(job), self._started)
            elif self._waiting >= self._size and job.reject is not None:
                rejected = True
            else:
                self._jobs.append(job)
        if worker is not None:
            worker.gate.release()
        elif rejected and job.reject is not None:
            job.reject()

    def _start(self, worker: _Worker, number: int) -> None:
        try:
            threading.Thread(
                target=self._work, args=(worker,), name=f"{self._name}-{number}", daemon=True
            ).start()
        except RuntimeError:  # the system has no thread left, or the interpreter is exiting
            self._count -= 1
            if not LoopThread.exiting:
                logger.exception("cannot start a worker thread")
            if worker.job is not None:
                self._jobs.append(worker.job)

    def _work(self, worker: _Worker) -> None:
        thread_state.pool = self
        job = worker.job
        while job is not None:
            try:
                job.run()
            except BaseException:  # SystemExit too: a handler cannot end a thread of ours
                logger.exception("a job of %s failed", self._name)
            with self._lock:
                if self._jobs:
                    job = self._jobs.popleft()
                    continue
                if self._retiring:
                    self._count -= 1
                    return
                worker.job = None
                self._idle.append(worker)
            job = None  # hold nothing of the last job while idle
            worker.gate.acquire()
            job = worker.job

    def crowded(self) -> bool:
        return bool(self._jobs)

    def retire(self) -> None:
        with self._lock:
            self._retiring = True
            idle, self._idle = self._idle, []
            self._count -= len(idle)
        for worker in idle:
            worker.job = None
            worker.gate.release()

    def resume(self) -> None:
        """Undo `retire`."""
        self._retiring = False

    def enter_wait(self) -> None:
        """The calling worker is about to wait for the other end."""
        rejected: list[Job] = []
        with self._lock:
            self._waiting += 1
            if self._waiting >= self._size:
                rejected = [job for job in self._jobs if job.reject is not None]
                for job in rejected:
                    self._jobs.remove(job)
        for job in rejected:
            assert job.reject is not None
            job.reject()

    def leave_wait(self) -> None:
        """It goes on."""
        with self._lock:
            self._waiting -= 1


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

    def crowded(self) -> bool:
        return False

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
        self.io = loop.io
        self.ordered = ordered
        self.calls = calls
        self._on_loop = LoopDispatcher()

    def lane(self, on_error: OnError) -> Lane:
        return ThreadLane(self, on_error)

    def beside(self, handler: Handler, args: tuple[Any, ...], done: Done) -> None:
        if not (handler.inline or handler.is_coroutine):
            self.calls.submit(self._job(handler, args, done))
            return
        try:
            result = handler.fn(*args)
        except BaseException as exc:  # nothing a handler raises leaves it: the loop is everybody's
            done(None, failure_of(exc))
            return
        if result is not None and is_awaitable(result):
            contained = Handler(partial(_contain, result))
            self._on_loop.beside(contained, (), partial(_unpack, done))
        else:
            done(result, None)

    def ask(self, handler: Handler, args: tuple[Any, ...], done: Done) -> None:
        if isinstance(self.calls, ManualRunner) and not (handler.inline or handler.is_coroutine):
            self.calls.submit_urgent(self._job(handler, args, done))
        else:
            self.beside(handler, args, done)

    def on_loop(self, fn: Callable[..., None], *args: Any) -> None:
        if not self.loop.post(fn, *args) and not self.loop.running:
            fn(*args)  # no loop takes work any more: here, or never

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
        """Run a handler on this thread: its result, or its exception."""
        try:
            result = handler.fn(*args)
            if result is not None and is_awaitable(result):
                result = self._wait_for(result)
        except KeyboardInterrupt:
            raise
        except BaseException as exc:  # SystemExit in a handler is a failure of the handler
            return None, failure_of(exc)
        return result, None

    def _wait_for(self, awaitable: Awaitable[Any]) -> Any:
        """Run a coroutine that a handler is, or returned, on the loop; keep its place here."""

        async def run() -> Any:
            return await awaitable

        try:
            return self.loop.run(run, Deadline(None), "a coroutine handler")
        finally:
            # Where the loop has ended it never began; this keeps Python from warning of that.
            if (
                asyncio.iscoroutine(awaitable)
                and inspect.getcoroutinestate(awaitable) == inspect.CORO_CREATED
            ):
                awaitable.close()


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
    """A lane carried by one thread at a time."""

    __slots__ = ("_dispatcher", "_lock", "_notify", "_on_error", "_queue", "_scheduled")

    def __init__(self, dispatcher: ThreadDispatcher, on_error: OnError) -> None:
        self._dispatcher = dispatcher
        self._on_error = on_error
        self._queue: deque[tuple[Handler, tuple[Any, ...], Done | None]] = deque()
        self._lock = threading.Lock()
        self._scheduled = False
        self._notify: tuple[int, Callable[[], None]] | None = None

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def notify_when_below(self, waiting: int, callback: Callable[[], None]) -> None:
        self._notify = (waiting, callback)
        self._check_level()  # it may have fallen in the meantime

    def post(self, handler: Handler, args: tuple[Any, ...], done: Done | None = None) -> None:
        if handler.inline:
            result, exc = self._dispatcher.call(handler, args)
            self._finish(handler, done, result, exc)
            return
        with self._lock:
            self._queue.append((handler, args, done))
            if self._scheduled:
                return
            self._scheduled = True
        self._dispatcher.ordered.submit(Job(self._run))

    def _run(self) -> int:
        """Run some of the queue. Returns how many handlers that were."""
        count, empty = 0, False
        try:
            for _ in range(self._dispatcher.ordered.turn or len(self._queue)):
                with self._lock:
                    if not self._queue:
                        break
                    handler, args, done = self._queue.popleft()
                if self._notify is not None:
                    self._check_level()
                count += 1
                result, exc = self._dispatcher.call(handler, args)
                if done is not None or exc is not None:
                    self._dispatcher.on_loop(self._finish, handler, done, result, exc)
            with self._lock:
                empty = not self._queue
                if empty:
                    self._scheduled = False
        finally:
            if not empty:  # also where Ctrl-C ended a handler: the rest of the queue stays due
                self._dispatcher.ordered.submit(Job(self._run))
        return count

    def _check_level(self) -> None:
        notify = self._notify
        if notify is not None and len(self._queue) <= notify[0]:
            self._notify = None
            self._dispatcher.loop.post(notify[1])

    def _finish(
        self, handler: Handler, done: Done | None, result: Any, exc: BaseException | None
    ) -> None:
        if done is not None:
            done(result, exc)
        elif exc is not None:
            self._on_error(handler, exc)
