"""What comes with the request of a handshake, and a handshake without a descriptor left."""

import resource
import socket
from typing import Any

from ..support import RawPeer, seconds, serve, wait_until


def test_frames_beyond_one_read_that_come_with_the_request_are_not_lost() -> None:
    def setup(server: Any) -> None:
        server.register("size", lambda conn, payload: len(payload))

    with serve("async", setup=setup) as served:
        made = RawPeer(socket.socket(), masks=True)
        hi = made.frame(1, b'["~wse:hi",{"identity":"anna"},null]')
        call = made.frame(1, b'["size","' + b"x" * 30_000 + b'","s"]')
        made.sock.close()
        with served.peer(early=hi + call * 4) as peer:
            assert peer.recv_message()[0] == "~wse:welcome"
            for _ in range(4):
                assert peer.recv_message() == ["~wse:response", 30_000, "s"]


def test_a_connection_that_finds_no_descriptor_leaves_no_ghost() -> None:
    """The handshake takes the last descriptor, and the bare socket would need one more."""
    with serve("async") as served:
        sock = socket.create_connection(("127.0.0.1", served.port))
        sock.settimeout(seconds(10))
        wait_until(
            lambda: served.do(lambda: len(served.server._listener._servers[0]._connections)) == 1
        )
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        spare = socket.socket()
        highest = spare.fileno()
        spare.close()
        sock.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Protocol: wse-default-json\r\n\r\n"[:-2]
        )
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
            sock.sendall(b"\r\n")
            assert sock.recv(4096).startswith(b"HTTP/1.1 101")
            peer = RawPeer(sock, masks=True)
            peer.hi("anna")
            assert peer.recv_message()[0] == "~wse:welcome"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        peer.close()
        served.sockets(0)
