"""One end of a session that resumes: what was sent, taken and acknowledged, and what to send again.

No I/O and no clock. Both ends count every message after the welcome except acknowledgements, so no
number travels with a message (docs/wire.md 8, as in XEP-0198).
"""

from __future__ import annotations

from collections import deque

__all__ = ["ACK_BYTES", "ACK_MESSAGES", "ACK_SECONDS", "Resumable"]

ACK_MESSAGES = 32  # acknowledge after so many messages of the peer,
ACK_BYTES = 256 * 1024  # or so many bytes of them,
ACK_SECONDS = 1.0  # and at most so long after the first one that is not acknowledged

Packed = tuple[bytes, bool]  # the payload of a frame, and whether the frame is binary


class Resumable:
    """The counters of one end, and the messages that the peer has not acknowledged.

    Not thread-safe: whoever keeps a message holds one lock over `keep` and handing it to the
    socket, or the order of both would differ.

    Args:
        max_bytes: Bytes of unacknowledged messages.
        max_messages: Unacknowledged messages.

    Attributes:
        sent: Counted messages sent, over all sockets.
        got: Counted messages of the peer taken, over all sockets.
        acked: How many of ours the peer has acknowledged.
        kept_bytes: Bytes of those it has not.
    """

    __slots__ = (
        "_kept",
        "_max_bytes",
        "_max_messages",
        "_owed_bytes",
        "_told",
        "acked",
        "got",
        "kept_bytes",
        "sent",
    )

    def __init__(self, max_bytes: int, max_messages: int) -> None:
        self._max_bytes = max_bytes
        self._max_messages = max_messages
        self.sent = self.got = self.acked = 0
        self._told = 0  # what we have acknowledged of the peer's
        self._owed_bytes = 0  # of the messages that we have not
        self._kept: deque[Packed] = deque()  # messages acked + 1 to sent
        self.kept_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def kept(self) -> list[Packed]:
        """The messages that the peer has not acknowledged, oldest first."""
        return list(self._kept)

    # -- sending

    def fits(self, size: int) -> bool:
        """Whether a message of ``size`` bytes may be kept. One that is larger than the bound may
        if it is alone: it could never be sent otherwise."""
        if not self._kept:
            return True
        return self.kept_bytes + size <= self._max_bytes and len(self._kept) < self._max_messages

    def keep(self, payload: bytes, binary: bool) -> None:
        """Count a message that is being sent, and keep it until it is acknowledged."""
        self.sent += 1
        self._kept.append((payload, binary))
        self.kept_bytes += len(payload)

    def acknowledged(self, count: int) -> None:
        """The peer has taken our first ``count`` messages.

        Raises:
            ValueError: It is not a number of messages that the peer can have taken; nothing has
                changed.
        """
        self.check(count)
        forget = self._kept.popleft
        freed = 0
        for _ in range(count - self.acked):
            freed += len(forget()[0])
        self.kept_bytes -= freed
        self.acked = count

    def check(self, count: object) -> None:
        """Refuse a count that is not from what was acknowledged to what was sent.

        Raises:
            ValueError: It is not.
        """
        if isinstance(count, bool) or not isinstance(count, int):
            raise ValueError("an acknowledgement is a number of messages")
        if not self.acked <= count <= self.sent:
            raise ValueError("an acknowledgement of more than was sent, or of less than before")

    # -- taking

    @property
    def owes(self) -> bool:
        """Whether the peer has sent messages that are not acknowledged."""
        return self.got != self._told

    def took(self, size: int) -> bool:
        """Count a message of the peer, of ``size`` bytes. True if it is time to acknowledge."""
        self.got += 1
        self._owed_bytes += size
        return self.got - self._told >= ACK_MESSAGES or self._owed_bytes >= ACK_BYTES

    def acknowledge(self) -> int:
        """The count to acknowledge; whoever asks sends it."""
        self._told = self.got
        self._owed_bytes = 0
        return self.got

    # -- coming back

    def resume(self, peer_got: int) -> list[Packed]:
        """Go on over a new socket. What to send again, in order.

        What the peer is told of `got` in the handshake is an acknowledgement, so the old socket
        must not be read any more when it is asked for.

        Args:
            peer_got: What the peer said that it has taken.

        Raises:
            ValueError: As `acknowledged` does: the session cannot be resumed.
        """
        self.acknowledged(peer_got)
        self.acknowledge()
        return list(self._kept)
