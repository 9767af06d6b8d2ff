"""Messages that wait to be pulled: ``receive`` and ``wait_for``. Loop thread only."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import ReceiveTimeout, WseError
from ..protocol import Message

__all__ = ["Entry", "Inbox"]

Wanted = Callable[[Message], bool]


class Entry(NamedTuple):
    """A message and its place in the order in which messages came."""

    number: int
    message: Message


class Inbox:
    """A bounded queue of messages that no handler took.

    As long as nobody pulls, the oldest message is dropped for each one past the bound. Once
    somebody does, nothing is dropped: the connection stops reading while the queue is `full`.

    Args:
        size: How many messages may wait.
        on_wait: Called when somebody begins to wait, or has made room.
    """

    def __init__(self, size: int, on_wait: Callable[[], None] | None = None) -> None:
        self._entries: deque[Entry] = deque()
        self._size = size
        self._on_wait = on_wait
        self._waiters: list[tuple[Wanted | None, asyncio.Future[Entry]]] = []
        self._ended: WseError | None = None
        self._count = 0
        self._pulled = False
        self.dropped = 0
        self.dropping = False  # since the last pull

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def awaited(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiters)

    @property
    def full(self) -> bool:
        """Whether reading has to pause for it."""
        return self._pulled and len(self._entries) >= self._size

    def overflows(self, times: int) -> bool:
        """Whether so many times its bound wait, because reading could not pause."""
        return len(self._entries) >= times * self._size

    def pull(self) -> None:
        """Somebody is going to pull: drop nothing from now on. Any thread."""
        self._pulled = True

    def offer(self, message: Message, *, keep: bool) -> bool:
        """Give a message to the first who waits for it, else keep it.

        Args:
            message: The message.
            keep: Whether it may stay for later; one that a handler took may not.

        Returns:
            Whether somebody was waiting for it.
        """
        self._count += 1
        entry = Entry(self._count, message)
        for waiter in tuple(self._waiters):
            wanted, future = waiter
            if future.done():
                continue
            # `receive` gets what no handler takes
            fits = keep if wanted is None else _fits(wanted, message, future)
            if fits:
                self._waiters.remove(waiter)
                future.set_result(entry)
                return True
        if keep:
            if len(self._entries) >= self._size and not self._pulled:
                self._entries.popleft()
                self.dropped += 1
                self.dropping = True
            self._entries.append(entry)
        return False

    async def take(self, timeout: float | None) -> Entry:
        """The next message that no handler takes; see `get`."""
        return await self.get(None, timeout, "message")

    async def get(self, wanted: Wanted | None, timeout: float | None, what: str) -> Entry:
        """The first message that fits, from those that wait or those to come.

        Raises:
            ReceiveTimeout: None came in time.
            WseError: What `end` was given.
        """
        self.pull()
        self.dropping = False
        for index, entry in enumerate(self._entries):
            if wanted is None or wanted(entry.message):
                del self._entries[index]
                if len(self._entries) == self._size // 2:
                    self._tell()
                return entry
        if self._ended is not None:
            raise self._ended.with_traceback(None)  # or it grows with each time it is raised
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Entry] = loop.create_future()
        waiter = (wanted, future)
        self._waiters.append(waiter)
        self._tell()
        timer = None
        if timeout is not None:
            timer = loop.call_later(timeout, _time_out, future, timeout, what)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                # Handed over in the same turn in which the wait was given up: it is not lost.
                self.give_back(future.result())
            raise
        finally:
            if timer is not None:
                timer.cancel()
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def give_back(self, entry: Entry) -> None:
        """Nobody has got it after all: give it to who waits, or put it back to its place."""
        for waiter in tuple(self._waiters):
            wanted, future = waiter
            if not future.done() and (wanted is None or _fits(wanted, entry.message, future)):
                self._waiters.remove(waiter)
                future.set_result(entry)
                return
        for index, other in enumerate(self._entries):
            if other.number > entry.number:
                self._entries.insert(index, entry)
                return
        self._entries.append(entry)

    def _tell(self) -> None:
        if self._on_wait is not None:
            self._on_wait()

    def begin(self) -> None:
        """Messages may come (again)."""
        self._ended = None

    def end(self, error: WseError) -> None:
        """No further message will come: who waits gets ``error``."""
        self._ended = error
        waiters, self._waiters = self._waiters, []
        for _, future in waiters:
            if not future.done():
                future.set_exception(error)


def _fits(wanted: Wanted, message: Message, future: asyncio.Future[Any]) -> bool:
    try:
        return bool(wanted(message))
    except Exception as exc:  # the predicate's fault belongs to who waits with it
        future.set_exception(exc)
        return False


def _time_out(future: asyncio.Future[Any], timeout: float, what: str) -> None:
    if not future.done():
        future.set_exception(
            ReceiveTimeout(None, {"timeout": timeout}, f"no {what} came within {timeout:g} s")
        )
