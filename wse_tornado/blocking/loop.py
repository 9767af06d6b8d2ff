"""The IOLoop on a thread, and the waits of other threads for what happens on it.

Every blocking call of the library is a `Wait` here, so that each of them ends: by its result, its
deadline, Ctrl-C, or the end of the loop. It knows nothing of WebSockets.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Protocol, TypeVar

from tornado.ioloop import IOLoop

from ..errors import ConnectionNotReady, WaitTimeout, WrongThread, WseError
from ..transport.base import LoopIO

__all__ = ["Deadline", "LoopThread", "Wait"]

T = TypeVar("T")

logger = logging.getLogger("wse_tornado")

# Locks cannot be interrupted by Ctrl-C on Windows: there, waits are cut into slices.
_SLICE = 0.05 if sys.platform == "win32" else None
_LONGEST = threading.TIMEOUT_MAX
_JOIN_SECONDS = 5.0  # for a loop that something blocks to come to its end
_EXIT_SECONDS = 0.4  # for saying goodbye when the interpreter exits
_LAST_TURNS = 5  # of the loop at its end; a result passes that many tasks on its way out
_SLACK = 0.4  # what a wait grants the loop beyond its deadline to report a better error


class Deadline:
    """A point in time that all waiting of one public call shares."""

    __slots__ = ("_at", "seconds")

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._at = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float | None:
        """Seconds left, never below 0; None without a deadline."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())


class _Pool(Protocol):
    def enter_wait(self) -> None: ...
    def leave_wait(self) -> None: ...


class Settles(Protocol):
    """Something that waits for an outcome."""

    @property
    def settle(self) -> Callable[[Any, BaseException | None], None]: ...


class _ThreadState(threading.local):
    pool: _Pool | None = None  # the bounded set of workers that this thread belongs to


thread_state = _ThreadState()


class Wait:
    """One thread's wait for one outcome, set from any thread; the first outcome counts."""

    __slots__ = ("__weakref__", "_gate", "_on_settled", "done", "error", "result")

    def __init__(self, on_settled: Callable[[], None] | None = None) -> None:
        self._gate = threading.Lock()
        self._gate.acquire()
        self._on_settled = on_settled
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None

    def settle(self, result: Any, error: BaseException | None) -> None:
        """Set the outcome and wake the thread."""
        if self.done:
            return
        self.result, self.error = result, error
        self.done = True
        try:
            self._gate.release()
        except RuntimeError:  # two threads settled it at once
            return
        if self._on_settled is not None:
            self._on_settled()

    def wait(self, seconds: float | None) -> bool:
        """Sleep until there is an outcome. False if the time is over first.

        Raises:
            KeyboardInterrupt: Ctrl-C, at once.
        """
        pool = thread_state.pool
        if pool is None:
            return self._wait(seconds)
        pool.enter_wait()
        try:
            return self._wait(seconds)
        finally:
            pool.leave_wait()

    def _wait(self, seconds: float | None) -> bool:
        if self.sleep_on(self._gate, seconds):
            self._gate.release()
        return self.done

    @staticmethod
    def sleep_on(gate: threading.Lock, seconds: float | None) -> bool:
        """Take a lock, within the time and open to Ctrl-C. False if the time is over first."""
        if _SLICE is None:
            return gate.acquire(True, -1 if seconds is None else min(seconds, _LONGEST))
        deadline = Deadline(seconds)
        while True:
            left = deadline.left()
            if gate.acquire(True, _SLICE if left is None else min(_SLICE, left)):
                return True
            if left is not None and left <= 0:
                return False

    def outcome(self) -> Any:
        """The result.

        Raises:
            BaseException: The error it was settled with.
        """
        if self.error is not None:
            raise self.error
        return self.result


class LoopThread:
    """A daemon thread that runs one IOLoop, for any number of blocking objects.

    It starts with the first user and ends with the last. All blocking objects of a process share
    one unless they are given a private one with ``loop=``. It can be a context manager, which
    counts as a user::

        with LoopThread() as loop, WseClient(url, loop=loop) as client: ...

    Args:
        name: The thread's name.
        loop_factory: Makes the asyncio loop; by default uvloop's where uvloop is installed.
    """

    exiting: ClassVar[bool] = False  # the interpreter is: it starts no further threads
    _shared: ClassVar[LoopThread | None] = None
    _shared_lock: ClassVar[threading.Lock] = threading.Lock()
    _all: ClassVar[weakref.WeakSet[LoopThread]] = weakref.WeakSet()

    def __init__(
        self,
        name: str = "wse-tornado-loop",
        *,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> None:
        self.name = name
        self._factory = loop_factory or new_event_loop
        self._lock = threading.Lock()
        self._users = 0
        self._thread: threading.Thread | None = None
        self._ending: threading.Thread | None = None
        self._ident: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._posts: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._scheduled = False
        self.io = LoopIO()  # writes of one turn leave together
        self._open = False
        self._waits: set[Settles] = set()
        self._goodbyes: set[Callable[[], Coroutine[Any, Any, None]]] = set()
        self._detached = False
        LoopThread._all.add(self)

    @classmethod
    def shared(cls) -> LoopThread:
        """The loop thread that the blocking objects of this process share."""
        with cls._shared_lock:
            if cls._shared is None:
                cls._shared = cls()
            return cls._shared

    # -- life

    @property
    def running(self) -> bool:
        """Whether the thread runs."""
        return self._open

    @property
    def detached(self) -> bool:
        """Whether this is a copy that a fork left in a child process."""
        return self._detached

    def acquire(self) -> None:
        """Count one more user; the first one starts the thread.

        Raises:
            WrongThread: This object is a copy that a fork left in a child process.
            Exception: What kept the loop from starting.
        """
        self.check_process()
        with self._lock:
            if self._users == 0:
                self._start()
            self._users += 1

    def release(self) -> None:
        """Count one user less; with the last one the thread ends, and this waits for that."""
        if self._detached:
            return
        with self._lock:
            if self._users == 0:
                return
            self._users -= 1
            thread = self._stop() if self._users == 0 else None
        if thread is not None and thread is not threading.current_thread():
            thread.join(_JOIN_SECONDS)
            if thread.is_alive():
                logger.error(
                    "%r does not end: does an inline handler, or a coroutine, block?", self
                )

    def __enter__(self) -> LoopThread:
        self.acquire()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def _start(self) -> None:
        ending = self._ending
        if ending is not None and ending is not threading.current_thread():
            ending.join(_JOIN_SECONDS)  # it still uses what the new thread will use
            if ending.is_alive():
                raise ConnectionNotReady(
                    None,
                    {},
                    "the loop thread cannot start again: an inline handler, or a coroutine, has "
                    "been blocking it since before it was to end",
                )
        self._ending = None
        started = Wait()
        thread = threading.Thread(target=self._main, args=(started,), name=self.name, daemon=True)
        thread.start()
        try:
            started.wait(None)
        except BaseException:
            self._thread = thread
            started.wait(None)
            self._stop()
            raise
        started.outcome()
        self._thread = thread

    def _stop(self) -> threading.Thread | None:
        thread, self._thread = self._thread, None
        loop = self._loop
        self._open = False
        if thread is not None:
            self._ending = thread
            if loop is not None:
                try:
                    loop.call_soon_threadsafe(loop.stop)
                except RuntimeError:  # it has ended by itself
                    pass
        return thread

    def _main(self, started: Wait) -> None:
        try:
            loop = self._factory()
            asyncio.set_event_loop(loop)
            ioloop = IOLoop(asyncio_loop=loop, make_current=False)
        except BaseException as exc:
            asyncio.set_event_loop(None)
            started.settle(None, exc)
            return
        self._loop, self._ident = loop, threading.get_ident()
        self._posts.clear()
        self._scheduled = False
        self._open = True
        loop.call_soon(started.settle, None, None)
        try:
            while True:
                try:
                    loop.run_forever()
                    return
                except (SystemExit, KeyboardInterrupt) as exc:
                    # A coroutine of the user's raised it. It fails its own caller, not the loop
                    # that everybody shares.
                    logger.error("%s on the loop thread", type(exc).__name__, exc_info=exc)
        finally:
            self._end(loop, ioloop)

    def _end(self, loop: asyncio.AbstractEventLoop, ioloop: IOLoop) -> None:
        """End in order: no new work, nobody left waiting, tasks, sockets, the loop."""
        self._open = False
        self._drain()
        try:
            # Users who are still there lose their sockets while the loop can close them.
            goodbyes, self._goodbyes = self._goodbyes, set()
            if goodbyes:
                farewell = [loop.create_task(goodbye()) for goodbye in goodbyes]
                loop.run_until_complete(asyncio.wait(farewell, timeout=_EXIT_SECONDS))
            # What is decided already reaches those who wait for it, before they are failed.
            for _ in range(_LAST_TURNS):
                loop.run_until_complete(asyncio.sleep(0))
        except Exception:
            logger.exception("the loop thread did not end cleanly")
        self._fail_waits()
        try:
            for transport in tuple(self.io.open):
                transport.abort()  # its peer has had its time to say goodbye
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.wait(tasks, timeout=1))
            # Some more turns, for callbacks of what has just been cut and cancelled.
            for _ in range(_LAST_TURNS):
                loop.run_until_complete(asyncio.sleep(0))
            loop.run_until_complete(loop.shutdown_asyncgens())
        except Exception:
            logger.exception("the loop thread did not end cleanly")
        finally:
            self._ident = self._loop = None
            asyncio.set_event_loop(None)
            ioloop.close(all_fds=True)  # sockets of connections that never came about
            self._fail_waits()

    def _fail_waits(self) -> None:
        error = ConnectionNotReady(None, {}, "the loop thread has ended")
        for wait in tuple(self._waits):
            wait.settle(None, error)

    # -- work for the loop

    @property
    def on_loop_thread(self) -> bool:
        """Whether the caller runs on the loop."""
        return threading.get_ident() == self._ident

    def check_process(self) -> None:
        """Refuse copies that a fork left behind.

        Raises:
            WrongThread: This is one.
        """
        if self._detached:
            raise WrongThread(
                None,
                {"pid": os.getpid()},
                "this object was made before a fork and belongs to the parent process; "
                "make a new one in the child",
            )

    def check_may_block(self, what: str) -> None:
        """Refuse a blocking call where it could never end.

        Raises:
            WrongThread: On the loop thread, or in a forked child.
        """
        self.check_process()
        if threading.get_ident() == self._ident:
            raise WrongThread(
                None,
                {"call": what},
                f"{what}() blocks and would stop the loop it waits for: do not use it in a "
                "coroutine or an inline handler of the blocking flavour; use a plain handler "
                "(which gets a thread), or the Async classes",
            )

    def post(self, fn: Callable[..., Any], *args: Any) -> bool:
        """Call ``fn`` on the loop: now if this is its thread, else soon. Any thread.

        Many posts share one wake-up of the loop.

        Returns:
            False if the loop does not run; the call is dropped.
        """
        if threading.get_ident() == self._ident:
            fn(*args)
            return True
        if not self._open:
            return False
        self._posts.append((fn, args))
        if not self._scheduled:
            self._scheduled = True
            loop = self._loop
            try:
                if loop is None:
                    return False
                loop.call_soon_threadsafe(self._drain)
            except RuntimeError:
                return False
        return True

    def _drain(self) -> None:
        # First the flag: what is appended from here on schedules a drain of its own.
        self._scheduled = False
        posts = self._posts
        io = self.io
        io.depth += 1
        try:
            for _ in range(len(posts)):
                fn, args = posts.popleft()
                try:
                    fn(*args)
                except Exception:
                    logger.exception("a call posted to the loop thread failed")
        finally:
            io.depth -= 1
            if not io.depth:
                io.flush()

    def run(
        self,
        make: Callable[[], Coroutine[Any, Any, T]],
        deadline: Deadline,
        what: str,
        *,
        settled: Callable[[], None] | None = None,
        waiter: Callable[[Wait, float | None], bool] | None = None,
        late: type[WseError] = WaitTimeout,
    ) -> T:
        """Run a coroutine on the loop and wait for it. Not on the loop thread.

        Giving up, by the deadline or Ctrl-C, cancels the coroutine.

        Args:
            make: Makes the coroutine, on the loop. It should keep the deadline itself and raise
                the fitting error; this wait ends shortly after the deadline in any case.
            deadline: When to give up.
            what: The name of the public method, for messages.
            settled: Called when there is an outcome.
            waiter: Waits in place of `Wait.wait`.
            late: What to raise when the loop itself is too busy to report in time.

        Raises:
            WrongThread: On the loop thread, or in a forked child.
            ConnectionNotReady: The loop has ended.
            TimeoutError: The loop did not even report in time.
        """
        self.check_may_block(what)
        wait = Wait(settled)
        task: asyncio.Task[T] | None = None

        def start() -> None:
            nonlocal task
            if wait.done:
                return
            assert self._loop is not None
            task = self._loop.create_task(make())
            task.add_done_callback(finished)

        def finished(task: asyncio.Task[T]) -> None:
            if task.cancelled():
                wait.settle(None, ConnectionNotReady(None, {}, f"{what}() was cut short"))
            else:
                error = task.exception()
                wait.settle(None if error is not None else task.result(), error)

        def give_up() -> None:
            wait.settle(None, None)
            if task is not None:
                task.cancel()

        self._waits.add(wait)
        try:
            if not self.post(start):
                raise ConnectionNotReady(None, {}, f"{what}(): the loop thread does not run")
            left = deadline.left()
            seconds = None if left is None else left + _SLACK
            ended = wait.wait(seconds) if waiter is None else waiter(wait, seconds)
            if not ended:
                raise late(
                    None,
                    {"timeout": deadline.seconds},
                    f"{what}() did not end in time, and the loop was too busy to say why",
                )
        except BaseException:
            if not wait.done:
                self.post(give_up)
            raise
        finally:
            self._waits.discard(wait)
        result: T = wait.outcome()
        return result

    def track(self, wait: Settles) -> None:
        """Have a wait ended when the loop ends; see `untrack`."""
        self._waits.add(wait)

    def untrack(self, wait: Settles) -> None:
        """Undo `track`."""
        self._waits.discard(wait)

    # -- the end of the process

    def at_goodbye(self, goodbye: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a coroutine when the interpreter exits while this loop runs."""
        self._goodbyes.add(goodbye)

    def not_at_goodbye(self, goodbye: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Undo `at_goodbye`."""
        self._goodbyes.discard(goodbye)

    def _say_goodbye(self) -> Wait:
        """Begin to say goodbye; the wait ends when that is done."""
        said = Wait()
        tasks: list[asyncio.Task[None]] = []

        def start() -> None:
            assert self._loop is not None
            goodbyes, self._goodbyes = self._goodbyes, set()
            tasks.extend(self._loop.create_task(goodbye()) for goodbye in goodbyes)
            for task in tasks:
                task.add_done_callback(finished)
            if not tasks:
                said.settle(None, None)

        def finished(task: asyncio.Task[None]) -> None:
            if not task.cancelled():
                task.exception()
            if all(task.done() for task in tasks):
                said.settle(None, None)

        if not self.post(start):
            said.settle(None, None)
        return said

    def _detach(self) -> None:
        """In a forked child: nothing here works any more, and nothing of the parent's is hurt."""
        _left_by_fork.append((self._loop, self._thread))  # closing them would reach the parent's
        self._detached = True
        self._open = False
        self._ident = None
        self._loop = self._thread = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        if self._detached:
            state = "left behind by a fork"
        else:
            state = f"running users={self._users}" if self._open else "stopped"
        return f"<LoopThread {self.name} {state}>"


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's loop where uvloop is installed, else one of asyncio that has ``add_reader``."""
    try:
        import uvloop
    except ImportError:
        if sys.platform == "win32":
            return asyncio.SelectorEventLoop()
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


_left_by_fork: list[Any] = []


def _after_fork_in_child() -> None:
    LoopThread._shared_lock = threading.Lock()
    LoopThread._shared = None
    thread_state.pool = None  # a worker may have forked: it belongs to no set of workers here
    for loop_thread in tuple(LoopThread._all):
        loop_thread._detach()


def _at_exit() -> None:
    """Goodbyes of all loops at once: however many there are, the exit takes no longer."""
    LoopThread.exiting = True
    loop_threads = [each for each in tuple(LoopThread._all) if not each._detached]
    deadline = Deadline(_EXIT_SECONDS)
    for said in [each._say_goodbye() for each in loop_threads]:
        said.wait(deadline.left())
    deadline = Deadline(_EXIT_SECONDS)
    for thread in [each._stop() for each in loop_threads]:
        if thread is not None:
            thread.join(deadline.left())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
