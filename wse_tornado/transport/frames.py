"""RFC 6455 frames, without I/O: bytes in, messages out, and back.

`FrameParser` takes whatever chunks the socket gives and returns whole messages and control frames,
inflated where permessage-deflate was agreed on (deflate.py). What breaks the protocol's rules ends
it with the close code to send (RFC 6455 7.4.1).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from .errors import INVALID_DATA, PROTOCOL_ERROR, TOO_BIG, FrameError

if TYPE_CHECKING:
    from .deflate import Inflater

__all__ = [
    "BINARY",
    "CLOSE",
    "COMPRESSED",
    "PING",
    "PONG",
    "TEXT",
    "FrameError",
    "FrameParser",
    "close_payload",
    "encode_frame",
    "mask_bytes",
]

CONTINUATION = 0x0
TEXT = 0x1
BINARY = 0x2
CLOSE = 0x8
PING = 0x9
PONG = 0xA

COMPRESSED = 0x40  # RSV1 on the first frame of a message (RFC 7692 6)

NO_STATUS = 1005

MAX_CONTROL_PAYLOAD = 125
LARGE = 65536

_unpack_u16 = struct.Struct("!H").unpack_from
_unpack_u64 = struct.Struct("!Q").unpack_from
_pack_u16 = struct.Struct("!BBH").pack
_pack_u64 = struct.Struct("!BBQ").pack


def _mask_in_python(mask: bytes, data: bytes) -> bytes:
    size = len(data)
    pattern = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(pattern, "big")).to_bytes(size, "big")


try:
    from tornado.speedups import websocket_mask as mask_bytes
except ImportError:  # Tornado was installed without its extension
    mask_bytes = _mask_in_python


_SHORT_HEADS = {
    opcode: tuple(bytes((0x80 | opcode, size)) for size in range(126))
    for opcode in (TEXT, BINARY, CLOSE, PING, PONG, COMPRESSED | TEXT, COMPRESSED | BINARY)
}


def encode_frame(opcode: int, payload: bytes, mask: bytes | None = None) -> bytes:
    """One final frame.

    Args:
        opcode: What it is; with `COMPRESSED` where the payload is deflated.
        payload: Its payload.
        mask: The masking key; clients must mask, servers must not (RFC 6455 5.1).
    """
    size = len(payload)
    if mask is None:
        if size < 126:
            return _SHORT_HEADS[opcode][size] + payload
        if size < 65536:
            return _pack_u16(0x80 | opcode, 126, size) + payload
        return _pack_u64(0x80 | opcode, 127, size) + payload
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 65536:
        head = _pack_u16(0x80 | opcode, 0x80 | 126, size)
    else:
        head = _pack_u64(0x80 | opcode, 0x80 | 127, size)
    return head + mask + mask_bytes(mask, payload)


def close_payload(code: int, reason: str = "") -> bytes:
    """The payload of a close frame; empty for 1005, which means that there is no code."""
    return b"" if code == NO_STATUS else struct.pack("!H", code) + reason.encode("utf-8")


def may_be_sent(code: int) -> bool:
    """Whether a close frame may hold this code (RFC 6455 7.4)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def parse_close(payload: bytes) -> tuple[int, str]:
    """Code and reason of a close frame.

    Raises:
        FrameError: The code may not be sent, or the reason is not UTF-8.
    """
    if not payload:
        return NO_STATUS, ""
    if len(payload) == 1:
        raise FrameError(PROTOCOL_ERROR, "a close frame holds half a code")
    code = _unpack_u16(payload)[0]
    if not may_be_sent(code):
        raise FrameError(PROTOCOL_ERROR, "a close frame holds a code that may not be sent")
    try:
        return code, payload[2:].decode("utf-8")
    except UnicodeDecodeError:
        raise FrameError(INVALID_DATA, "a close reason is not UTF-8") from None


Event = tuple[int, "str | bytes"]


class FrameParser:
    """Turns chunks into messages.

    Args:
        masked: Whether the peer must mask (a client) or must not (a server).
        max_message_size: Bytes of the largest message, compressed or not.
        inflater: Undoes permessage-deflate where that was agreed on.

    Attributes:
        error: What the peer did wrong.
        ended: Nothing is parsed any more: after an error, or after a close frame.
        large: A large frame is incomplete: its bytes may be read to where `room` says.
    """

    __slots__ = (
        "_filled",
        "_first",
        "_fragments",
        "_held",
        "_inflater",
        "_mask_bit",
        "_max",
        "_need",
        "ended",
        "error",
        "large",
    )

    def __init__(
        self, *, masked: bool, max_message_size: int, inflater: Inflater | None = None
    ) -> None:
        self._mask_bit = 0x80 if masked else 0
        self._max = max_message_size
        self._inflater = inflater
        self._held: bytearray | None = None  # the beginning of a frame that is not complete
        self._need = 0  # the size that frame has at least
        self._filled = 0  # of a large frame: bytes of `_held` that have been received
        self._first = 0  # first byte of the message whose fragments are arriving
        self._fragments: bytearray | None = None
        self.large = False
        self.ended = False
        self.error: FrameError | None = None

    @property
    def in_message(self) -> bool:
        """Whether the beginning of a message has arrived, and not its end."""
        return self._held is not None or self._fragments is not None

    def feed(self, data: bytes) -> list[Event]:
        """Take a chunk.

        Returns:
            What is complete now, in order: ``(TEXT, str)``, ``(BINARY, bytes)``, and control
            frames with their payload. Look at `error` afterwards.
        """
        if self.ended:
            return []
        held = self._held
        if held is None:
            return self._run(data)
        if self.large:
            del held[self._filled :]
            self._filled += len(data)
        held += data
        if len(held) < self._need:
            return []
        return self._run_held(held)

    def room(self) -> memoryview:
        """Where the next bytes of a large frame belong; report them with `filled`.

        It grows as the frame arrives: an announced size alone takes no memory.
        """
        held = self._held
        assert held is not None
        filled = self._filled
        if filled == len(held):
            held += bytes(min(self._need - filled, max(filled, LARGE)))
        return memoryview(held)[filled:]

    def filled(self, size: int) -> list[Event]:
        """So many bytes were read to `room`; the view must have been released."""
        held = self._held
        assert held is not None
        self._filled += size
        if self._filled < self._need:
            return []
        return self._run_held(held)

    def _run_held(self, held: bytearray) -> list[Event]:
        self._held = None
        self.large = False
        # Slices of a view copy nothing, but cost more than those of short bytes.
        return self._run(bytes(held) if len(held) < LARGE else memoryview(held).toreadonly())

    def _run(self, data: bytes | memoryview) -> list[Event]:
        events: list[Event] = []
        try:
            position = self._parse(data, events)
        except FrameError as exc:
            self.error = exc
            self.ended = True
            self._fragments = None
            return events
        if position < len(data):
            held = self._held = bytearray(data[position:] if position else data)
            if self._need - len(held) >= LARGE:
                self.large = True
                self._filled = len(held)
        return events

    def _parse(self, data: bytes | memoryview, events: list[Event]) -> int:
        """Parse all whole frames; where the rest begins."""
        position = 0
        end = len(data)
        mask_bit = self._mask_bit
        while end - position >= 2:
            first = data[position]
            size = data[position + 1]
            if size & 0x80 != mask_bit:
                raise FrameError(
                    PROTOCOL_ERROR,
                    "frames of a client must be masked"
                    if mask_bit
                    else "frames of a server must not be masked",
                )
            size &= 0x7F
            start = position + 2
            if size > MAX_CONTROL_PAYLOAD:
                if first & 0x08:
                    raise FrameError(PROTOCOL_ERROR, "a control frame is too long")
                if size == 126:
                    if end < start + 2:
                        self._need = start + 2 - position
                        return position
                    size = _unpack_u16(data, start)[0]
                    start += 2
                else:
                    if end < start + 8:
                        self._need = start + 8 - position
                        return position
                    size = _unpack_u64(data, start)[0]
                    start += 8
                if size > self._max:
                    raise FrameError(TOO_BIG, "message too big")
            if first != 0x81 or self._fragments is not None:
                self._check(first, size)
            payload_start = start + 4 if mask_bit else start
            stop = payload_start + size
            if stop > end:
                self._need = stop - position
                return position
            payload = data[payload_start:stop]
            if mask_bit and size:
                payload = mask_bytes(bytes(data[start:payload_start]), bytes(payload))
            position = stop
            if first == 0x81:
                if size > self._max:
                    raise FrameError(TOO_BIG, "message too big")
                try:
                    events.append((TEXT, str(payload, "utf-8")))
                except UnicodeDecodeError:
                    raise FrameError(INVALID_DATA, "a text message is not UTF-8") from None
            elif not self._take(first, bytes(payload), events):
                self.ended = True
                return end
        if end - position:
            self._need = 2
        return position

    def _check(self, first: int, size: int) -> None:
        """Everything a header can have wrong, before its payload is waited for."""
        opcode = first & 0x0F
        if first & 0x70 and (
            first & 0x70 != COMPRESSED
            or self._inflater is None
            or not CONTINUATION < opcode <= BINARY
        ):
            raise FrameError(PROTOCOL_ERROR, "reserved bits are set")
        if opcode & 0x08:
            if opcode > PONG:
                raise FrameError(PROTOCOL_ERROR, "an unknown opcode")
            if not first & 0x80:
                raise FrameError(PROTOCOL_ERROR, "a control frame is fragmented")
            return
        waiting = self._fragments
        if opcode == CONTINUATION:
            if waiting is None:
                raise FrameError(PROTOCOL_ERROR, "a continuation of nothing")
            size += len(waiting)
        elif opcode > BINARY:
            raise FrameError(PROTOCOL_ERROR, "an unknown opcode")
        elif waiting is not None:
            raise FrameError(PROTOCOL_ERROR, "a message begins inside another one")
        if size > self._max:
            raise FrameError(TOO_BIG, "message too big")

    def _take(self, first: int, payload: bytes, events: list[Event]) -> bool:
        """Take a checked frame that is not a whole plain text. False after a close frame."""
        opcode = first & 0x0F
        if opcode & 0x08:
            events.append((opcode, payload))
            return opcode != CLOSE
        if opcode != CONTINUATION:
            self._first = first
            if not first & 0x80:
                self._fragments = bytearray(payload)
                return True
            whole = payload
        else:
            assert self._fragments is not None
            self._fragments += payload
            if not first & 0x80:
                return True
            whole = bytes(self._fragments)
            self._fragments = None
        first = self._first
        if first & COMPRESSED:
            assert self._inflater is not None
            whole = self._inflater.inflate(whole, self._max)
        if first & 0x0F == BINARY:
            events.append((BINARY, whole))
            return True
        try:
            events.append((TEXT, whole.decode("utf-8")))
        except UnicodeDecodeError:
            raise FrameError(INVALID_DATA, "a text message is not UTF-8") from None
        return True
