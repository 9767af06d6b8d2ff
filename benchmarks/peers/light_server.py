"""A server that costs next to nothing, for clients under test: bare epoll, no parsing.

It speaks this wire and Socket.IO's, answers every call with 8, and is right only about what the
clients here send: whole frames, calls without quotes behind the stamp.
"""

from __future__ import annotations

import base64
import hashlib
import re
import select
import socket
import ssl

from ..control import obey_beside, report
from ..tls import of_load, server_context
from ..wire import CLOSE, PING, PONG, TEXT, read_frame, server_frame

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3
WELCOME = server_frame('["~wse:welcome",{"message":"Welcome!"},null]')
# An Engine.IO client gives up where the announced pings do not come; none are due within a run.
GREETING = server_frame(
    '0{"sid":"light","upgrades":[],"pingInterval":900000,"pingTimeout":900000,"maxPayload":1000000}'
)
ADMITTED = server_frame('40{"sid":"light"}')
SOCKET_IO_CALL = re.compile(rb"42(\d+)")
CHUNK = bytearray(1 << 16)


class Client:
    """One connection: what has arrived, and what to answer."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.data = bytearray()
        self.upgraded = self.closing = False

    def advance(self) -> bool:
        """Take what has arrived and answer it. False once the connection is over."""
        try:
            size = self.sock.recv_into(CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.data += CHUNK[:size]
        out = b"" if self.upgraded else self._upgrade()
        at = 0
        while self.upgraded and (frame := read_frame(self.data, at)) is not None:
            opcode, payload, at = frame
            out += self._answer(opcode, payload)
        del self.data[:at]
        if out:
            self.sock.send(out)
        return bool(size) and not self.closing

    def _upgrade(self) -> bytes:
        head, found, rest = self.data.partition(b"\r\n\r\n")
        if not found:
            return b""
        self.data = rest
        lines = bytes(head).split(b"\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in lines[1:])
        }
        digest = hashlib.sha1(headers[b"sec-websocket-key"] + GUID).digest()
        answer = [
            b"HTTP/1.1 101 Switching Protocols",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: " + base64.b64encode(digest),
        ]
        if b"sec-websocket-protocol" in headers:
            answer.append(b"Sec-WebSocket-Protocol: " + headers[b"sec-websocket-protocol"])
        self.upgraded = True
        greeting = GREETING if b"/socket.io/" in lines[0] else b""
        return b"\r\n".join(answer) + b"\r\n\r\n" + greeting

    def _answer(self, opcode: int, payload: bytes) -> bytes:
        if opcode == TEXT:
            if payload.startswith(b"42"):
                call = SOCKET_IO_CALL.match(payload)
                return server_frame(b"43%b[8]" % call[1]) if call else b""
            if payload.startswith(b"40"):
                return ADMITTED
            if payload.startswith(b'["~wse:hi"'):
                return WELCOME
            if payload.endswith(b'"]'):
                stamp = payload.rsplit(b'"', 2)[1]
                return server_frame(b'["~wse:response",8,"%b"]' % stamp)
            return b""
        if opcode == PING:
            return server_frame(payload, PONG)
        if opcode == CLOSE:
            self.closing = True
            return server_frame(payload, CLOSE)
        return b""


def main() -> None:
    epoll = select.epoll()
    listeners: dict[int, tuple[socket.socket, ssl.SSLContext | None]] = {}
    ports = []
    for tls in (None, of_load(server_context())):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners[listener.fileno()] = listener, tls
        epoll.register(listener, select.EPOLLIN)
        ports.append(listener.getsockname()[1])
    clients: dict[int, Client] = {}
    obey_beside()
    report(port=ports[0], tls_port=ports[1])
    while True:
        for fd, _ in epoll.poll():
            if fd in listeners:
                listener, tls = listeners[fd]
                sock, _address = listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if tls is not None:
                    sock = tls.wrap_socket(sock, server_side=True)  # few come: no need to hurry
                sock.setblocking(False)
                epoll.register(sock, select.EPOLLIN)
                clients[sock.fileno()] = Client(sock)
            elif not clients[fd].advance():
                epoll.unregister(fd)
                clients.pop(fd).sock.close()


if __name__ == "__main__":
    main()
