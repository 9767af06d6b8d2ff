"""Messages that wait to be pulled: ``receive`` and ``wait_for``. Loop thread only."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from ..errors import ReceiveTimeout, WseError
from ..protocol import Message

__all__ = ["Inbox"]

Wanted = Callable[[Message], bool]


class Inbox:
    """A bounded queue of messages that no handler took; past the bound the oldest is dropped.

    Args:
        size: How many messages may wait.
        on_wait: Called when somebody begins to wait.
    """

    def __init__(self, size: int, on_wait: Callable[[], None] | None = None) -> None:
        self._messages: deque[Message] = deque()
        self._size = size
        self._on_wait = on_wait
        self._waiters: list[tuple[Wanted | None, asyncio.Future[Message]]] = []
        self._ended: WseError | None = None
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def awaited(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiters)

    def offer(self, message: Message, *, keep: bool) -> bool:
        """Give a message to the first who waits for it, else keep it.

        Args:
            message: The message.
            keep: Whether it may stay for later; one that a handler took may not.

        Returns:
            Whether somebody was waiting for it.
        """
        taken = False
        for waiter in tuple(self._waiters):
            wanted, future = waiter
            if future.done():
                continue
            # `receive` gets what no handler takes
            fits = keep if wanted is None else _fits(wanted, message, future)
            if fits:
                self._waiters.remove(waiter)
                future.set_result(message)
                taken = True
                break
        if not taken and keep:
            if len(self._messages) >= self._size:
                self._messages.popleft()
                self.dropped += 1
            self._messages.append(message)
        return taken

    async def get(self, wanted: Wanted | None, timeout: float | None, what: str) -> Message:
        """The first message that fits, from those that wait or those to come.

        Raises:
            ReceiveTimeout: None came in time.
            WseError: What `end` was given.
        """
        for index, message in enumerate(self._messages):
            if wanted is None or wanted(message):
                del self._messages[index]
                return message
        if self._ended is not None:
            raise self._ended.with_traceback(None)  # or it grows with each time it is raised
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Message] = loop.create_future()
        waiter = (wanted, future)
        self._waiters.append(waiter)
        if self._on_wait is not None:
            self._on_wait()
        timer = None
        if timeout is not None:
            timer = loop.call_later(timeout, _time_out, future, timeout, what)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                # Handed over in the same turn in which the wait was given up: it is not lost.
                self._messages.appendleft(future.result())
            raise
        finally:
            if timer is not None:
                timer.cancel()
            if waiter in self._waiters:
                self._waiters.remove(waiter)

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
