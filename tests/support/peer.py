"""A WebSocket peer of the tests' own, written from RFC 6455 and sharing no code with the library.

`RawPeer` is either end of a connection on a plain socket; `RawServer` runs a script for each
client that connects.
"""

import base64
import hashlib
import json
import os
import socket
import ssl
import struct
import threading
import zlib
from collections.abc import Callable
from typing import Any

from .timing import seconds

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
DEFAULT_PROTOCOL = "wse-default-json"


class Closed(Exception):
    """The other end closed: ``code`` (1006 without a close frame) and ``reason``."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class RawPeer:
    """One end of a WebSocket. Every wait has a time-out; pings are answered."""

    def __init__(self, sock: socket.socket, *, masks: bool) -> None:
        self.sock = sock
        self.masks = masks
        self.buffer = b""
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self.answer_pings = True
        self.response_headers: dict[str, str] = {}
        self._deflater: Any = None
        self._inflater: Any = None
        sock.settimeout(seconds(10))

    def use_deflate(self) -> None:
        """Compress whole messages, and take compressed ones (RFC 7692)."""
        self._deflater = zlib.compressobj(wbits=-15)
        self._inflater = zlib.decompressobj(-15)

    # -- opening

    @classmethod
    def connect(
        cls,
        port: int,
        *,
        path: str = "/",
        protocols: str | None = DEFAULT_PROTOCOL,
        headers: dict[str, str] | None = None,
        host: str = "127.0.0.1",
        early: bytes = b"",
        tls: ssl.SSLContext | None = None,
        deflate: bool = False,
    ) -> "RawPeer":
        """Do the opening handshake as a client. Raises AssertionError unless it is answered 101.

        ``early`` is sent in the same packet as the request.
        """
        sock = socket.create_connection((host, port), timeout=seconds(10))
        if tls is not None:
            sock = tls.wrap_socket(sock, server_hostname=host)
        peer = cls(sock, masks=True)
        if deflate:
            headers = {"Sec-WebSocket-Extensions": "permessage-deflate", **(headers or {})}
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {host}:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
        ]
        if protocols is not None:
            lines.append(f"Sec-WebSocket-Protocol: {protocols}")
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        peer.sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + early)
        status, peer.response_headers = peer._read_head()
        if " 101 " not in status:
            peer.sock.close()
            raise AssertionError(f"handshake answered with {status!r}")
        accept = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
        assert peer.response_headers["sec-websocket-accept"] == accept
        if deflate:
            assert peer.response_headers["sec-websocket-extensions"] == "permessage-deflate"
            peer.use_deflate()
        return peer

    @classmethod
    def accept(
        cls,
        sock: socket.socket,
        *,
        protocol: str | None = DEFAULT_PROTOCOL,
        deflate: bool = False,
        early: bytes = b"",
    ) -> "RawPeer":
        """Do the opening handshake as a server; ``early`` is sent in the same packet."""
        peer = cls(sock, masks=False)
        _, headers = peer._read_head()
        accept = base64.b64encode(
            hashlib.sha1((headers["sec-websocket-key"] + GUID).encode()).digest()
        ).decode()
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept}",
        ]
        if protocol is not None:
            lines.append(f"Sec-WebSocket-Protocol: {protocol}")
        if deflate:
            lines.append("Sec-WebSocket-Extensions: permessage-deflate")
            peer.use_deflate()
        peer.sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + early)
        peer.response_headers = headers
        return peer

    def _read_head(self) -> tuple[str, dict[str, str]]:
        while b"\r\n\r\n" not in self.buffer:
            chunk = self.sock.recv(65536)
            if not chunk:
                raise Closed(1006, "during the handshake")
            self.buffer += chunk
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        first, *rest = head.decode("latin-1").split("\r\n")
        pairs = (line.split(":", 1) for line in rest)
        return first, {name.strip().lower(): value.strip() for name, value in pairs}

    # -- sending

    def frame(self, opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0) -> bytes:
        """The bytes of one frame."""
        if self._deflater is not None and fin and not rsv and opcode in (TEXT, BINARY):
            payload = self._deflater.compress(payload) + self._deflater.flush(zlib.Z_SYNC_FLUSH)
            payload, rsv = payload[:-4], 0x40
        first = (0x80 if fin else 0) | rsv | opcode
        mask_bit = 0x80 if self.masks else 0
        size = len(payload)
        if size < 126:
            head = struct.pack("!BB", first, mask_bit | size)
        elif size < 65536:
            head = struct.pack("!BBH", first, mask_bit | 126, size)
        else:
            head = struct.pack("!BBQ", first, mask_bit | 127, size)
        if not self.masks:
            return head + payload
        mask = os.urandom(4)
        return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))

    def send_frame(self, opcode: int, payload: bytes = b"", **options: Any) -> None:
        """Send one frame."""
        self.sock.sendall(self.frame(opcode, payload, **options))

    def send_text(self, text: str) -> None:
        """Send a text message to the letter."""
        self.send_frame(TEXT, text.encode("utf-8", "surrogatepass"))

    def send_bytes(self, data: bytes) -> None:
        """Send a binary message."""
        self.send_frame(BINARY, data)

    def send(self, *message: Any) -> None:
        """Send a message of the wire: ``send(type, payload, stamp)``."""
        self.send_text(json.dumps(message, separators=(",", ":"), ensure_ascii=False))

    def hi(self, identity: Any, meta: Any = None) -> None:
        """Introduce this peer."""
        payload = {"identity": identity}
        if meta is not None:
            payload["meta"] = meta
        self.send("~wse:hi", payload, None)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Send a close frame, wait for the other end's, and close the socket."""
        try:
            self.send_frame(CLOSE, struct.pack("!H", code) + reason.encode())
            while True:
                self.recv()
        except (Closed, OSError):
            pass
        finally:
            self.sock.close()

    def kill(self) -> None:
        """Vanish: no close frame, a reset instead of an orderly end."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    # -- receiving

    def _exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            try:
                chunk = self.sock.recv(65536)
            except (ConnectionError, ssl.SSLError):
                chunk = b""
            if not chunk:
                raise Closed(1006, "")
            self.buffer += chunk
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def recv_frame(self) -> tuple[int, bytes]:
        """The next frame, whatever it is."""
        first, second = self._exactly(2)
        compressed = self._inflater is not None and first & 0x40
        assert first & 0x70 == 0 or compressed, "reserved bits are set"
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", self._exactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self._exactly(8))
        assert bool(second & 0x80) != self.masks, "masked by the wrong side"
        mask = self._exactly(4) if second & 0x80 else None
        payload = self._exactly(size)
        if mask:
            payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        if compressed:
            payload = self._inflater.decompress(payload + b"\x00\x00\xff\xff")
        assert first & 0x80, "this peer expects whole messages"
        return first & 0x0F, payload

    def recv(self) -> str | bytes:
        """The next message. Raises Closed when a close frame, or the end, comes instead."""
        while True:
            opcode, payload = self.recv_frame()
            if opcode == PING:
                self.pings.append(payload)
                if self.answer_pings:
                    self.send_frame(PONG, payload)
            elif opcode == PONG:
                self.pongs.append(payload)
            elif opcode == CLOSE:
                code = struct.unpack("!H", payload[:2])[0] if payload else 1005
                try:
                    self.send_frame(CLOSE, payload[:2])
                except OSError:
                    pass
                raise Closed(code, payload[2:].decode())
            elif opcode == TEXT:
                return payload.decode()
            else:
                return payload

    def recv_message(self) -> Any:
        """The next message, read as JSON."""
        return json.loads(self.recv())

    def wait_closed(self) -> tuple[int, str]:
        """Read until the connection ends: ``(code, reason)``. Messages on the way are dropped."""
        try:
            while True:
                self.recv()
        except Closed as closed:
            self.sock.close()
            return closed.code, closed.reason

    def __enter__(self) -> "RawPeer":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.sock.close()


class RawServer:
    """Runs ``script(peer)`` on a thread for each client that connects.

    An exception of a script is raised when the server is left. ``protocol`` is what it selects.
    """

    def __init__(
        self,
        script: Callable[[RawPeer], None],
        *,
        protocol: str | None = DEFAULT_PROTOCOL,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        deflate: bool = False,
        early: bytes = b"",
    ) -> None:
        self.script = script
        self.protocol = protocol
        self._tls = tls
        self._deflate = deflate
        self._early = early
        self.failures: list[BaseException] = []
        self.peers: list[RawPeer] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'ws' if tls is None else 'wss'}://127.0.0.1:{self.port}"
        self._acceptor = threading.Thread(target=self._accept, name="raw-server", daemon=True)
        self._acceptor.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
            peer = RawPeer.accept(
                sock, protocol=self.protocol, deflate=self._deflate, early=self._early
            )
            self.peers.append(peer)
            self.script(peer)
        except Closed:
            pass
        except BaseException as exc:
            self.failures.append(exc)
        finally:
            sock.close()

    def refuse(self) -> None:
        """Stop listening; who is connected stays."""
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        self._acceptor.join(seconds(5))

    def close(self) -> None:
        """Stop listening, wait for the scripts, and raise what one of them raised."""
        self.refuse()
        for thread in self._threads:
            thread.join(seconds(10))
        if self.failures:
            raise self.failures[0]

    def __enter__(self) -> "RawServer":
        return self

    def __exit__(self, exc_type: object, *exc_info: object) -> None:
        try:
            self.close()
        except BaseException:
            if exc_type is None:
                raise


# -- scripts


def let_in(peer: RawPeer, welcome: Any = None) -> Any:
    """Play the server up to the welcome; what the client said."""
    type, payload, _ = peer.recv_message()
    assert type == "~wse:hi"
    peer.send("~wse:welcome", welcome, None)
    return payload


def stay(peer: RawPeer) -> None:
    """Until the other end has closed."""
    try:
        while True:
            peer.recv()
    except Closed:
        pass


def nothing_sent(peer: RawPeer) -> None:
    """All that the peer sent so far has been read, and nothing came back."""
    peer.send_frame(PING, b"still there?")
    assert peer.recv_frame() == (PONG, b"still there?")
