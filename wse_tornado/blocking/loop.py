"""The IOLoop on a thread, and the waits of other threads for what happens on it.

Every blocking call of the library is a `Wait` here, so that each of them ends: by its result, its
deadline, Ctrl-C, or the end of the loop. It knows nothing of WebSockets.

There is no lock in this module, on purpose. Ctrl-C, a signal handler and a finalizer may run
between any two bytecodes of a caller, and a lock held there would be held for ever. What must not
be torn is either one operation of C (append to a deque, add to a set, ``dict.setdefault``), or is
done on the loop thread, which no signal reaches.
"""

from __future__ import annotations

import _thread
import asyncio
import atexit
import logging
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
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
_AGAIN: Any = object()  # an outcome: the run was at its end, ask the next one
_SLACK = 0.4  # what a wait grants the loop beyond its deadline to report a better error


class Deadline:
    """A point in time that all waiting of one public call shares.

    Raises:
        ValueError: The seconds are not a number, or below 0.
    """

    __slots__ = ("_at", "seconds")

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        if seconds is None:
            self._at: float | None = None
            return
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds >= 0:
            raise ValueError(f"a time-out is a number of seconds, 0 or more, not {seconds!r}")
        self._at = time.monotonic() + seconds

    def left(self) -> float | None:
        """Seconds left, never below 0; None without a deadline."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())


class _Pool(Protocol):
    def enter_wait(self, wait: object) -> None: ...
    def leave_wait(self, wait: object) -> None: ...


class Settles(Protocol):
    """Something that waits for an outcome."""

    @property
    def settle(self) -> Callable[[Any, BaseException | None], object]: ...


class _ThreadState(threading.local):
    pool: _Pool | None = None  # the bounded set of workers that this thread belongs to
    run: Run | None = None  # the run of a loop that this thread carries


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

    def settle(self, result: Any, error: BaseException | None) -> bool:
        """Set the outcome and wake the thread. False if there is an outcome already."""
        if self.done:
            return False
        self.result, self.error = result, error
        self.done = True
        try:
            self._gate.release()
        except RuntimeError:  # two threads settled it at once
            return False
        if self._on_settled is not None:
            self._on_settled()
        return True

    def wait(self, seconds: float | None) -> bool:
        """Sleep until there is an outcome. False if the time is over first.

        Raises:
            KeyboardInterrupt: Ctrl-C, at once.
        """
        if self.done:
            return True
        pool = thread_state.pool
        if pool is None:
            self.sleep_on(self._gate, seconds)
            return self.done
        pool.enter_wait(self)
        try:
            self.sleep_on(self._gate, seconds)
            return self.done
        finally:
            pool.leave_wait(self)

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


class Run:
    """One run of a loop thread, from its start to its end.

    It owns the loop, who uses it, what is posted to it, and who waits for it. A run is never
    started twice, and never waits for the one before it.

    Attributes:
        owner: The loop thread whose run it is.
        io: What its sockets share.
        loop: The asyncio loop, while there is one.
        over: Whether it takes nothing more. Set on the loop thread, once.
        error: What kept it from starting.
        users: Who keeps it running. Changed on the loop thread only.
        waits: Who is to be woken when it ends.
        goodbyes: Coroutine functions that close what is still open at the end.
    """

    def __init__(
        self,
        owner: LoopThread,
        factory: Callable[[], asyncio.AbstractEventLoop],
    ) -> None:
        self.owner = owner
        self.io = LoopIO()  # writes of one turn leave together
        self.loop: asyncio.AbstractEventLoop | None = None
        self.over = False
        self.error: BaseException | None = None
        self.users: set[object] = set()
        self.waits: set[Settles] = set()
        self.goodbyes: dict[Callable[[], Coroutine[Any, Any, None]], None] = {}
        self._factory = factory
        self._posts: deque[partial[Any]] = deque()
        self._turn = 0  # drains that have begun
        self._woken = -1  # the turn for which the loop has been woken
        self._joiners: set[Wait] = set()
        self._ended = False
        self._slots: dict[str, Any] = {}  # what is decided once: see `_once`

    def _once(self, name: str, value: T) -> T:
        """The first value that any thread gave for this name: one atomic operation."""
        first: T = self._slots.setdefault(name, value)
        return first

    def successor(self) -> Run:
        """The run that comes after this one; the same for everybody who asks."""
        run: Run | None = self._slots.get("successor")
        return run or self._once("successor", Run(self.owner, self._factory))

    # -- life

    @property
    def running(self) -> bool:
        """Whether the loop runs and takes work."""
        return self.loop is not None and not self.over

    @property
    def begun(self) -> bool:
        """Whether it takes work that will be done."""
        return "thread" in self._slots and not self.over

    def begin(self) -> None:
        """Start the thread, unless that has been done.

        Raises:
            RuntimeError: The system has no thread left.
        """
        if "thread" not in self._slots:
            # One operation, so that Ctrl-C leaves either no thread or one that goes its own way.
            # Two callers may both come here: the second thread finds the run taken.
            _thread.start_new_thread(self._launch, ())

    def _launch(self) -> None:
        """Start the thread proper from a bare one: `Thread.start` is many steps, and no signal
        reaches these."""
        thread = threading.Thread(target=self._main, name=self.owner.name, daemon=True)
        if self._once("thread", thread) is thread:
            try:
                thread.start()
            except BaseException as exc:  # no thread left
                self._refuse(exc)

    def _main(self) -> None:
        thread_state.run = self
        try:
            loop = self._factory()
            asyncio.set_event_loop(loop)
            ioloop = IOLoop(asyncio_loop=loop, make_current=False)
        except BaseException as exc:
            asyncio.set_event_loop(None)
            self._refuse(exc)
            return
        loop.call_soon(self._first_turn)
        self.loop = (
            loop  # what is posted from here on wakes it; what was before, `_first_turn` does
        )
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

    def _refuse(self, error: BaseException) -> None:
        """It cannot start: tell whoever waits for it."""
        self.error = error
        self.over = True
        self._fail_waits(error)
        self._posts.clear()
        self._tell_joiners()

    def _first_turn(self) -> None:
        self._drain()
        self.check_users()

    def enter(self, user: object) -> bool:
        """Keep it running for this user. On the loop thread. False if it is at its end."""
        if self.over:
            return False
        self.users.add(user)
        return True

    def leave(self, user: object) -> None:
        """The user does not need it any more; with the last one it ends. On the loop thread."""
        self.users.discard(user)
        self.check_users()

    def check_users(self) -> None:
        """End it where nobody needs it. On the loop thread."""
        if not self.users:
            self.finish()

    def finish(self) -> None:
        """End it, whoever uses it. On the loop thread."""
        if not self.over and self.loop is not None:
            self.over = True
            self.loop.stop()

    def settled(self, seconds: float | None) -> bool:
        """Wait until all that was posted has been done and, if that was its end, until it has
        ended. False if the time is over first."""
        deadline, done = Deadline(seconds), Wait()
        self.waits.add(done)
        try:
            if self.post(done.settle, None, None) and not done.wait(seconds):
                return False
        finally:
            self.waits.discard(done)
        return not self.over or self.join(deadline.left())

    def join(self, seconds: float | None) -> bool:
        """Wait until it has ended. False if the time is over first."""
        wait = Wait()
        self._joiners.add(wait)
        try:
            # Look again now that the wait is known: either the end sees it, or this sees the end.
            return self._ended or wait.wait(seconds)
        finally:
            self._joiners.discard(wait)

    def _tell_joiners(self) -> None:
        self._ended = True
        for wait in tuple(self._joiners):
            wait.settle(None, None)

    def _end(self, loop: asyncio.AbstractEventLoop, ioloop: IOLoop) -> None:
        """End in order: no new work, nobody left waiting, tasks, sockets, the loop.

        Whatever users' code raises meanwhile, the next step is taken.
        """
        self.over = True
        self._drain()
        # Users who are still there lose their sockets while the loop can close them.
        farewell = self._begin_goodbyes()
        if farewell:
            self._complete(asyncio.wait(farewell, timeout=_EXIT_SECONDS))
        # What is decided already reaches those who wait for it, before they are failed.
        for _ in range(_LAST_TURNS):
            self._complete(asyncio.sleep(0))
        self._fail_waits(ended_error())
        for transport in tuple(self.io.open):
            try:
                transport.abort()  # its peer has had its time to say goodbye
            except BaseException:
                logger.exception("a connection could not be cut")
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self._complete(asyncio.wait(tasks, timeout=1))
        # Some more turns, for callbacks of what has just been cut and cancelled.
        for _ in range(_LAST_TURNS):
            self._complete(asyncio.sleep(0))
        self._complete(loop.shutdown_asyncgens())
        self._drain()
        self.loop = None
        asyncio.set_event_loop(None)
        try:
            ioloop.close(all_fds=True)  # sockets of connections that never came about
        except BaseException:
            logger.exception("the loop did not close cleanly")
        self._fail_waits(ended_error())
        thread_state.run = None
        self._tell_joiners()

    def _complete(self, awaitable: Awaitable[Any]) -> None:
        loop = self.loop
        assert loop is not None
        try:
            loop.run_until_complete(awaitable)
        except BaseException:  # SystemExit, too: what raised it is the users' code
            logger.exception("the loop thread did not end cleanly")

    def _begin_goodbyes(self) -> list[asyncio.Task[None]]:
        assert self.loop is not None
        goodbyes, self.goodbyes = self.goodbyes, {}
        return [self.loop.create_task(goodbye()) for goodbye in tuple(goodbyes)]

    def _fail_waits(self, error: BaseException) -> None:
        for wait in tuple(self.waits):
            try:
                wait.settle(None, error)
            except BaseException:
                logger.exception("a wait could not be ended")

    # -- work for the loop

    def post(self, fn: Callable[..., Any], *args: Any) -> bool:
        """Call ``fn`` on the loop: now if this is its thread, else soon. Any thread.

        Many posts share one wake-up of the loop.

        Returns:
            Whether it is called, or will be. False once the run is over.
        """
        if thread_state.run is self:
            fn(*args)
            return True
        item = partial(fn, *args)
        self._posts.append(item)
        if self.over:
            # Either the last drain takes it, or it is taken back here: one of the two.
            try:
                self._posts.remove(item)
            except ValueError:
                return True
            return False
        try:
            self._wake()
        except BaseException:  # Ctrl-C, and it is not known how far it came
            self._wake()
            raise
        return True

    def _wake(self) -> None:
        # The turn is read after the append. If the loop was woken for that very turn already, its
        # drain has not begun yet (it counts first), and will see what was appended. Noted after
        # the wake-up and not before: an interrupt in between costs one wake-up too many.
        turn = self._turn
        loop = self.loop
        if self._woken != turn and loop is not None:
            try:
                loop.call_soon_threadsafe(self._drain)
            except RuntimeError:  # it has just been closed
                return
            self._woken = turn

    def _drain(self) -> None:
        self._turn += 1  # before looking: what is appended from here on wakes the loop anew
        posts = self._posts
        io = self.io
        io.depth += 1
        try:
            for _ in range(len(posts)):
                try:
                    item = posts.popleft()
                except IndexError:  # its poster took it back
                    break
                try:
                    item()
                except BaseException:  # nothing that one post raises may keep back the others
                    logger.exception("a call posted to the loop thread failed")
        finally:
            io.depth -= 1
            if not io.depth:
                io.flush()

    def say_goodbye(self) -> Wait:
        """Begin to close what is open; the wait ends when that is done. Any thread."""
        said = Wait()

        def start() -> None:
            tasks = self._begin_goodbyes()

            def finished(task: asyncio.Task[None]) -> None:
                if not task.cancelled():
                    task.exception()
                if all(task.done() for task in tasks):
                    said.settle(None, None)

            for task in tasks:
                task.add_done_callback(finished)
            if not tasks:
                said.settle(None, None)

        self.waits.add(said)
        if not self.post(start):
            said.settle(None, None)
        return said


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
    _shared: ClassVar[dict[int, LoopThread]] = {}  # by process id
    _all: ClassVar[dict[int, weakref.ref[LoopThread]]] = {}  # by id()

    def __init__(
        self,
        name: str = "wse-tornado-loop",
        *,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> None:
        self.name = name
        self._run = Run(self, loop_factory or new_event_loop)
        self._tokens: deque[object] = deque()  # of users who gave no name
        self._detached = False
        key = id(self)
        LoopThread._all[key] = weakref.ref(self, lambda _: LoopThread._all.pop(key, None))

    @classmethod
    def shared(cls) -> LoopThread:
        """The loop thread that the blocking objects of this process share."""
        shared = cls._shared.get(os.getpid())
        return shared or cls._shared.setdefault(os.getpid(), cls())

    # -- life

    @property
    def running(self) -> bool:
        """Whether the thread runs."""
        return not self._detached and self._run.running

    @property
    def begun(self) -> bool:
        """Whether the thread runs, or is about to."""
        return not self._detached and self._run.begun

    @property
    def is_this_thread(self) -> bool:
        """Whether the caller runs on the loop."""
        run = thread_state.run
        return run is not None and run.owner is self

    @property
    def detached(self) -> bool:
        """Whether this is a copy that a fork left in a child process."""
        return self._detached

    @property
    def io(self) -> LoopIO:
        """What the sockets of the present run share; on a loop thread, of its own run."""
        return (thread_state.run or self._run).io

    def acquire(self, user: object = None, deadline: Deadline | None = None) -> None:
        """Count one more user; the first one starts the thread.

        Args:
            user: Who that is, for `release`; nobody in particular when None.
            deadline: When to give up, where something blocks the loop.

        Raises:
            WrongThread: This object is a copy that a fork left in a child process.
            WaitTimeout: The loop did not answer in time.
            Exception: What kept the loop from starting.
        """
        self.check_process()
        deadline = deadline or Deadline(None)
        token = object() if user is None else user
        run = self._run
        try:
            while True:
                while run.over:
                    run = run.successor()
                self._run = run
                if self._enter(run, token, deadline):
                    break
            if user is None:
                self._tokens.append(token)
        except BaseException:
            run.post(run.leave, token)
            raise

    def _enter(self, run: Run, user: object, deadline: Deadline) -> bool:
        """Become a user of this run. False if it has come to its end meanwhile."""
        entered = Wait()

        def enter() -> None:  # on the loop thread, so that no interrupt tears it
            entered.settle(run.enter(user), None)

        run.waits.add(entered)
        try:
            if not run.post(enter):
                if run.error is not None:
                    raise run.error
                return False
            run.begin()
            if not entered.wait(deadline.left()):
                raise WaitTimeout(None, {"timeout": deadline.seconds}, f"{self!r} is blocked")
            if run.error is not None:
                raise run.error
            return entered.result is True
        finally:
            run.waits.discard(entered)

    def release(self, user: object = None, deadline: Deadline | None = None) -> None:
        """Count one user less; with the last one the thread ends, and this waits for that."""
        if self._detached:
            return
        if user is None:
            if not self._tokens:
                return
            user = self._tokens.pop()
        run = self._run
        if not run.post(run.leave, user) or thread_state.run is run:
            return
        seconds = _JOIN_SECONDS if deadline is None else deadline.left()
        if not run.settled(seconds):
            logger.error("%r does not end: does an inline handler, or a coroutine, block?", self)

    def __enter__(self) -> LoopThread:
        self.acquire()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    # -- work for the loop

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
        run = thread_state.run
        if run is not None and run.owner is self:
            raise WrongThread(
                None,
                {"call": what},
                f"{what}() blocks and would stop the loop it waits for: do not use it in a "
                "coroutine or an inline handler of the blocking flavour; use a plain handler "
                "(which gets a thread), or the Async classes",
            )

    def post(self, fn: Callable[..., Any], *args: Any) -> bool:
        """Call ``fn`` on the loop of the present run; see `Run.post`."""
        return self._run.post(fn, *args)

    def later(self, seconds: float, fn: Callable[[], None]) -> bool:
        """Call ``fn`` on the loop after that time. False if the loop does not run."""
        return self.post(lambda: asyncio.get_running_loop().call_later(seconds, fn))

    def run(
        self,
        make: Callable[[], Coroutine[Any, Any, T]],
        deadline: Deadline,
        what: str,
        *,
        wait: Wait | None = None,
        waiter: Callable[[Wait, float | None], bool] | None = None,
        late: type[WseError] = WaitTimeout,
        starting: bool = False,
        undelivered: Callable[[T], None] | None = None,
    ) -> T:
        """Run a coroutine on the loop and wait for it. Not on the loop thread.

        Giving up, by the deadline or Ctrl-C, cancels the coroutine.

        Args:
            make: Makes the coroutine, on the loop. It should keep the deadline itself and raise
                the fitting error; this wait ends shortly after the deadline in any case.
            deadline: When to give up.
            what: The name of the public method, for messages.
            wait: What to wait on, for a caller that has to see the result whatever interrupts it.
            waiter: Waits in place of `Wait.wait`.
            late: What to raise when the loop itself is too busy to report in time.
            starting: Start the loop where it does not run.
            undelivered: Called on the loop with a result that came after giving up.

        Raises:
            WrongThread: On the loop thread, or in a forked child.
            ConnectionNotReady: The loop has ended.
            TimeoutError: The loop did not even report in time.
            Exception: What kept the loop from starting.
        """
        self.check_may_block(what)
        outcome: Wait = wait or Wait()
        run = self._run
        task: asyncio.Task[T] | None = None

        def start() -> None:
            nonlocal task
            if outcome.done:
                run.check_users()
            elif run.over:  # posted in its last moments
                outcome.settle(
                    _AGAIN if starting else None, None if starting else ended_error(what)
                )
            else:
                assert run.loop is not None
                run.users.add(outcome)  # it goes on until this is done
                task = run.loop.create_task(make())
                task.add_done_callback(finished)

        def finished(task: asyncio.Task[T]) -> None:
            error: BaseException | None
            if task.cancelled():
                result, error = None, ConnectionNotReady(None, {}, f"{what}() was cut short")
            else:
                error = task.exception()
                result = None if error is not None else task.result()
            if not outcome.settle(result, error) and error is None and undelivered is not None:
                undelivered(result)  # type: ignore[arg-type]
            run.waits.discard(outcome)
            run.leave(outcome)

        def give_up() -> None:
            run.waits.discard(outcome)
            outcome.settle(None, None)
            if task is not None:
                task.cancel()

        try:
            while True:
                while starting and run.over:
                    run = run.successor()
                    self._run = run
                run.waits.add(outcome)
                if (starting or run.loop is not None) and run.post(start):
                    if starting:
                        run.begin()
                elif not starting:
                    raise ended_error(what)
                else:
                    continue
                left = deadline.left()
                seconds = None if left is None else left + _SLACK
                ended = outcome.wait(seconds) if waiter is None else waiter(outcome, seconds)
                if not ended:
                    raise late(
                        None,
                        {"timeout": deadline.seconds},
                        f"{what}() did not end in time, and the loop was too busy to say why",
                    )
                if outcome.result is not _AGAIN:
                    break
                run.waits.discard(outcome)
                outcome = Wait(outcome._on_settled)
        except BaseException:
            if not outcome.done:
                run.post(give_up)
            raise
        finally:
            run.waits.discard(outcome)
        result: T = outcome.outcome()
        return result

    def settled(self, deadline: Deadline) -> None:
        """Wait for what has been posted and, if that ends the loop, for its end."""
        run = self._run
        if not run.settled(deadline.left()):
            logger.error("%r does not end: does an inline handler, or a coroutine, block?", self)

    def track(self, wait: Settles) -> None:
        """Have a wait ended when the loop ends; see `untrack`."""
        self._run.waits.add(wait)

    def untrack(self, wait: Settles) -> None:
        """Undo `track`."""
        self._run.waits.discard(wait)

    # -- the end of the process

    def at_goodbye(self, goodbye: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a coroutine when the interpreter exits while this loop runs."""
        self._run.goodbyes[goodbye] = None

    def not_at_goodbye(self, goodbye: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Undo `at_goodbye`."""
        self._run.goodbyes.pop(goodbye, None)

    def _detach(self) -> None:
        """In a forked child: nothing here works any more, and nothing of the parent's is hurt."""
        _left_by_fork.append(self._run)  # closing its loop would reach the parent's
        self._detached = True

    def __repr__(self) -> str:
        run = self._run
        if self._detached:
            state = "left behind by a fork"
        else:
            state = f"running users={len(run.users)}" if run.running else "stopped"
        return f"<LoopThread {self.name} {state}>"


def ended_error(what: str = "") -> ConnectionNotReady:
    """What who waits is told when the loop ends."""
    return ConnectionNotReady(
        None, {}, f"{what}(): the loop thread does not run" if what else "the loop thread has ended"
    )


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's loop where uvloop is installed, else one of asyncio that has ``add_reader``.

    Where gevent or eventlet has replaced `threading` or `socket`, "threads" are coroutines of one
    real thread. uvloop waits in the real system call and would stop them all; asyncio waits in
    what they have replaced.
    """
    if not _patched():
        try:
            import uvloop
        except ImportError:
            pass
        else:
            loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
            return loop
    return asyncio.SelectorEventLoop()


def _patched() -> bool:
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and (
        gevent.is_module_patched("threading") or gevent.is_module_patched("socket")
    ):
        return True
    eventlet = sys.modules.get("eventlet.patcher")
    return eventlet is not None and bool(
        eventlet.is_monkey_patched("thread") or eventlet.is_monkey_patched("socket")
    )


_left_by_fork: list[Any] = []


def _after_fork_in_child() -> None:
    thread_state.pool = None  # a worker may have forked: it belongs to no set of workers here
    thread_state.run = None
    for reference in tuple(LoopThread._all.values()):
        loop_thread = reference()
        if loop_thread is not None:
            loop_thread._detach()
    LoopThread._all.clear()


def _at_exit() -> None:
    """Goodbyes of all loops at once: however many there are, the exit takes no longer."""
    LoopThread.exiting = True
    loop_threads = [reference() for reference in tuple(LoopThread._all.values())]
    runs = [each._run for each in loop_threads if each is not None and each._run.running]
    deadline = Deadline(_EXIT_SECONDS)
    for said in [run.say_goodbye() for run in runs]:
        said.wait(deadline.left())
    deadline = Deadline(_EXIT_SECONDS)
    for run in runs:
        run.post(run.finish)
    for run in runs:
        run.join(deadline.left())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
