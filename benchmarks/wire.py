"""Frames made ahead of time, as a client sends them, and the two wires that peers speak.

Pure: bytes in, bytes out. A `Wire` says how one gets in and what a call looks like; `Wse` is
docs/wire.md, `SocketIo` is Socket.IO 5 over Engine.IO 4 on a WebSocket, the protocol of
python-socketio.
"""

from __future__ import annotations

import json
import struct
from abc import ABC, abstractmethod
from typing import Any

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
MASK = bytes.fromhex("9a3c5ef1")  # any mask will do (RFC 6455 5.3), but a zero one would be unfair
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def mask(data: bytes, key: bytes = MASK) -> bytes:
    """XOR with the repeated key, both ways (RFC 6455 5.3)."""
    size = len(data)
    long_key = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(long_key, "big")).to_bytes(size, "big")


def head(opcode: int, size: int, *, masked: bool) -> bytes:
    """The bytes in front of a whole message's payload, mask included."""
    bit = 0x80 if masked else 0
    if size < 126:
        start = struct.pack("!BB", 0x80 | opcode, bit | size)
    elif size < 65536:
        start = struct.pack("!BBH", 0x80 | opcode, bit | 126, size)
    else:
        start = struct.pack("!BBQ", 0x80 | opcode, bit | 127, size)
    return start + MASK if masked else start


def client_frame(payload: str | bytes, opcode: int = TEXT) -> bytes:
    """A masked frame."""
    data = payload.encode() if isinstance(payload, str) else payload
    return head(opcode, len(data), masked=True) + mask(data)


def server_frame(payload: str | bytes, opcode: int = TEXT) -> bytes:
    """A frame without a mask."""
    data = payload.encode() if isinstance(payload, str) else payload
    return head(opcode, len(data), masked=False) + data


GOODBYE = client_frame(struct.pack("!H", 1000), CLOSE)


def read_frame(data: bytes | bytearray, at: int = 0) -> tuple[int, bytes, int] | None:
    """One whole frame at ``at``: ``(opcode, payload, end)``; None where more bytes are needed."""
    have = len(data) - at
    if have < 2:
        return None
    size, start = data[at + 1] & 0x7F, at + 2
    if size == 126:
        if have < 4:
            return None
        (size,), start = struct.unpack_from("!H", data, start), start + 2
    elif size == 127:
        if have < 10:
            return None
        (size,), start = struct.unpack_from("!Q", data, start), start + 8
    key = None
    if data[at + 1] & 0x80:
        key, start = bytes(data[start : start + 4]), start + 4
    end = start + size
    if len(data) < end:
        return None
    payload = bytes(data[start:end])
    return data[at] & 0x0F, mask(payload, key) if key else payload, end


def compact(value: Any) -> str:
    """JSON without spaces."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


class Wire(ABC):
    """What a client of one protocol sends, as whole frames, and what it gets.

    Attributes:
        path: Where the upgrade request goes.
        greets: Whether the server speaks first after the upgrade.
    """

    path: str
    greets: bool

    def upgrade(self, port: int) -> bytes:
        """The upgrade request (RFC 6455 4.1)."""
        return (
            f"GET {self.path} HTTP/1.1\r\n"
            f"Host: 127.0.0.1:{port}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: wse-default-json\r\n\r\n"
        ).encode()

    @abstractmethod
    def hello(self, user: str) -> bytes:
        """Ask to be let in as a user."""

    @abstractmethod
    def welcomes(self, payload: bytes) -> bool:
        """Whether the server's answer lets the user in."""

    @abstractmethod
    def call(self, name: str, argument: Any, number: int) -> bytes:
        """A call. All numbers from 0 to 999 make frames of one length."""

    @abstractmethod
    def result(self, payload: bytes) -> Any:
        """What the answer to a call says."""

    @abstractmethod
    def message(self, type: str, payload: Any) -> bytes:
        """A message without an answer."""


class Wse(Wire):
    """docs/wire.md: this library, and the minimal servers written for it."""

    path = "/"
    greets = False

    def hello(self, user: str) -> bytes:
        return client_frame(compact(["~wse:hi", {"identity": user, "meta": {}}, None]))

    def welcomes(self, payload: bytes) -> bool:
        return payload.startswith(b'["~wse:welcome"')

    def call(self, name: str, argument: Any, number: int) -> bytes:
        return client_frame(compact([name, argument, f"Zk3vQ0a{number:03}"]))

    def result(self, payload: bytes) -> Any:
        type, result, _stamp = json.loads(payload)
        if type != "~wse:response":
            raise ValueError(f"not an answer: {payload[:200]!r}")
        return result

    def message(self, type: str, payload: Any) -> bytes:
        return client_frame(compact([type, payload, None]))


class SocketIo(Wire):
    """Socket.IO: ``42[...]`` is a message, ``42<id>[...]`` a call, ``43<id>[...]`` its answer."""

    path = "/socket.io/?EIO=4&transport=websocket"
    greets = True

    def hello(self, user: str) -> bytes:
        return client_frame("40" + compact({"identity": user}))

    def welcomes(self, payload: bytes) -> bool:
        return payload.startswith(b"40")

    def call(self, name: str, argument: Any, number: int) -> bytes:
        return client_frame(f"42{number + 1000}" + compact([name, argument]))

    def result(self, payload: bytes) -> Any:
        if not payload.startswith(b"43"):
            raise ValueError(f"not an answer: {payload[:200]!r}")
        return json.loads(payload[payload.index(b"[") :])[0]

    def message(self, type: str, payload: Any) -> bytes:
        return client_frame("42" + compact([type, payload]))
