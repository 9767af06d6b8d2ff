"""The small interface between a socket and what happens on it.

Every transport keeps these promises, so that the layers above need not know which one they have:
all methods and callbacks on the loop thread; messages whole and in order; ``connection_lost``
exactly once and last; nothing is raised into a transport by its receiver.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

__all__ = ["LoopIO", "Receiver", "SharedMessage", "Transport", "cut_reason"]

MAX_REASON_BYTES = 123  # RFC 6455 5.5: a control frame holds 125 bytes, two are the close code


class Receiver(Protocol):
    """What a transport talks to."""

    def message_received(self, data: str | bytes) -> None:
        """One whole message: ``str`` from a text frame, ``bytes`` from a binary one."""

    def pong_received(self, payload: bytes) -> None:
        """The peer answered a ping, or sent a pong without being asked."""

    def send_buffer_drained(self) -> None:
        """What had been waiting to be sent has left."""

    def connection_lost(self, code: int, reason: str) -> None:
        """The connection is over. The last callback, made once."""


class SharedMessage:
    """One message for many connections: packed once, and framed and compressed once where their
    transports can share that."""

    __slots__ = ("binary", "deflated", "frame", "payload")

    def __init__(self, payload: bytes, binary: bool) -> None:
        self.payload = payload
        self.binary = binary
        self.frame: bytes | None = None
        self.deflated: dict[object, bytes] | None = None  # frames by `Deflater.shared_key`


class Flushable(Protocol):
    """Something that gathers what it has to write."""

    def flush(self) -> None:
        """Write it."""


class LoopIO:
    """What the sockets of one loop share.

    It gathers the writes of one turn of the loop, so that each socket is written once: whoever
    runs handlers raises ``depth`` before, lowers it after, and flushes at zero.

    Attributes:
        depth: How many are running handlers now, one inside the other.
        dirty: Sockets that have something gathered.
        open: Sockets that are open, to be cut when the loop ends.
    """

    __slots__ = ("depth", "dirty", "open")

    def __init__(self) -> None:
        self.depth = 0
        self.dirty: list[Flushable] = []
        self.open: set[Transport] = set()

    def flush(self) -> None:
        """Write what every socket has gathered."""
        while self.dirty:
            dirty, self.dirty = self.dirty, []
            for transport in dirty:
                transport.flush()


class Transport(ABC):
    """One open WebSocket.

    Attributes:
        bytes_in: Bytes received, frames included.
        bytes_out: Bytes handed over to be sent, likewise.
        congested: Whether anything handed over waits to be taken by the operating system.
        heard: When the last byte arrived, on ``time.monotonic``'s clock.
        undelivered: After the end of a connection that was closed from here: bytes that the
            operating system never took.
    """

    __slots__ = ("bytes_in", "bytes_out", "congested", "heard")

    bytes_in: int
    bytes_out: int
    congested: bool
    heard: float
    undelivered: int = 0
    thread_bytes: int = 0  # of `send_from_thread`, likewise
    thread_messages: int = 0

    @property
    @abstractmethod
    def buffered(self) -> int:
        """Bytes handed over that the operating system has not taken yet."""

    @property
    def first_waiting(self) -> tuple[int, int]:
        """What was written when nothing waited ahead of it, and is not all taken yet: the size of
        its largest message, and the bytes that are left of it."""
        return 0, 0

    @property
    def taken(self) -> int:
        """Bytes of all that was handed over which the peer's system has taken, or ours where that
        is unknown. It grows for as long as the line works."""
        return 0

    @property
    def in_message(self) -> bool:
        """Whether a message has begun to arrive and is not complete."""
        return False

    @abstractmethod
    def send(self, payload: bytes, binary: bool) -> None:
        """Send one message; without effect once the connection is closing."""

    def send_shared(self, message: SharedMessage) -> None:
        """Send one message that goes to many connections."""
        self.send(message.payload, message.binary)

    def send_from_thread(self, payload: bytes, binary: bool) -> bool:
        """Send from a thread that is not the loop's, if nothing is queued ahead.

        Returns:
            False where the message has to go through the loop instead; nothing was sent.
        """
        return False

    def recover(self, payload: bytes) -> None:  # noqa: B027 - only some send from threads
        """Finish what an interrupted thread has begun to send."""

    @abstractmethod
    def ping(self, payload: bytes) -> None:
        """Ask for a sign of life."""

    def keep_alive(self) -> None:  # noqa: B027 - of no use to a transport that is not real
        """Give a sign of life without asking for one: a pong (RFC 6455 5.5.3)."""

    @abstractmethod
    def pause_reading(self) -> None:
        """Take nothing more from the socket, so that TCP pushes back."""

    @abstractmethod
    def resume_reading(self) -> None:
        """Undo `pause_reading`."""

    @abstractmethod
    def close(self, code: int, reason: str, *, patient: bool = True) -> None:
        """Send what waits, then start the close handshake.

        The socket is cut when the peer takes nothing and answers nothing for a while; where it is
        not ``patient``, that time runs from now, whatever the peer takes.
        """

    @abstractmethod
    def abort(self) -> None:
        """Cut the socket now."""


def cut_reason(reason: str) -> str:
    """A reason of at most 123 bytes of UTF-8, cut at a character boundary (docs/wire.md 5)."""
    data = reason.encode("utf-8", "replace")
    if len(data) <= MAX_REASON_BYTES:
        return data.decode("utf-8")
    return data[:MAX_REASON_BYTES].decode("utf-8", "ignore")
