"""What threads hand to the loop: messages and calls, in order, counted, and with room for them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from ..errors import ConnectionNotReady, ErrorCode, SendTimeout
from .loop import Deadline, LoopThread

__all__ = ["Outbox"]

logger = logging.getLogger("wse_tornado")


class Outbox:
    """A bounded queue from any thread to the loop.

    Args:
        loop: The loop thread.
        bound: Bytes that may wait, here and in `buffered`. One item that is larger by itself is
            taken when nothing waits.
        buffered: Bytes that wait behind this queue, to be sent. Any thread.
        room: Waits, on the loop, until there is room for so many bytes in `buffered`.
    """

    def __init__(
        self,
        loop: LoopThread,
        bound: int,
        buffered: Callable[[], int],
        room: Callable[[int], Any],
    ) -> None:
        self._loop = loop
        self._bound = bound
        self._buffered = buffered
        self._room = room
        self._items: deque[tuple[int, partial[Any]]] = deque()
        # About right: threads add to it without a lock, and each drain counts anew.
        self._size = 0
        self._draining = False

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way to the loop, so that a thread may write by itself."""
        return not self._items and not self._draining

    @property
    def on_loop(self) -> bool:
        """Whether the caller runs on the loop, where nothing may wait."""
        return self._loop.is_this_thread

    def check_process(self) -> None:
        """Refuse copies that a fork left behind; see `LoopThread.check_process`."""
        self._loop.check_process()

    def put(self, size: int, deadline: Deadline | None, what: str, fn: Any, *args: Any) -> None:
        """Have ``fn`` called on the loop, after all that was put before. Any thread.

        Args:
            size: Bytes that it stands for.
            deadline: How long to wait for room; None puts it in any case.
            what: What is done, for messages.
            fn: What to call, with ``args``.

        Raises:
            SendTimeout: There was no room in time; it is not called.
            ConnectionNotReady: The loop has ended; it is not called.
            WrongThread: It would have to wait on the loop thread.
        """
        if deadline is not None:
            waiting = self._size + self._buffered()
            if waiting and waiting + size > self._bound:
                self._wait_for_room(size, deadline, what)
        self._items.append((size, partial(fn, *args)))
        self._size += size
        if not self._loop.post(self._drain):
            self._items.clear()
            self._size = 0
            raise ConnectionNotReady(None, {}, f"cannot {what}: the loop thread has ended")

    def _wait_for_room(self, size: int, deadline: Deadline, what: str) -> None:
        while True:
            left = deadline.left()
            if left is None or left <= 0:
                raise SendTimeout(
                    ErrorCode.SEND_BUFFER_FULL,
                    {"timeout": deadline.seconds},
                    f"cannot {what}: what waits to be sent was not taken within "
                    f"{deadline.seconds:g} s",
                )
            # Behind all that has been posted, so that this counts what is there now.
            self._loop.run(
                partial(self._room_within, left, size), deadline, "send", late=SendTimeout
            )
            waiting = self._size + self._buffered()
            if not waiting or waiting + size <= self._bound:
                return

    async def _room_within(self, seconds: float, size: int) -> None:
        try:
            await asyncio.wait_for(self._room(size), seconds)
        except asyncio.TimeoutError:
            pass  # whoever waits looks at its deadline

    def _drain(self) -> None:
        if self._draining:  # a post from within: the drain that is under way goes on with it
            return
        items = self._items
        self._draining = True
        try:
            while items:
                _, fn = items.popleft()
                try:
                    fn()
                except BaseException:  # nothing that one item raises may keep back the others
                    logger.exception("what a thread handed to the loop failed")
        finally:
            self._draining = False
            self._size = sum(size for size, _ in tuple(items))
