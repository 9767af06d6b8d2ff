"""One of 200 receivers does not read: it is closed, and the others notice nothing."""

import json
import select
import socket
import struct
import subprocess
import time

import pytest

from .support import RawPeer, seconds
from .support.process import start_script

PEERS = 200
ROUNDS = 150
INTERVAL = 0.02  # seconds between broadcasts
BOUND = 100_000  # bytes of Limits.max_send_buffer
TEXT = "x" * 4096
PAUSE = seconds(0.1)
# Closings after which JavaScript clients come back (WIRE.md 5).
COMES_BACK = (1005, 1006, 1011, 1012, 1013, 1014, 4000)

BLOCKING = """
    import json, sys, time
    from wse_tornado import Limits, WseServer

    ROUNDS, INTERVAL, BOUND, SIZE = json.loads(sys.argv[1])
    FILL = "y" * 60_000  # the systems' own buffers hold some megabytes before anything waits here
    server = WseServer(port=0, host="127.0.0.1", identify=lambda auth: auth.identity,
                       limits=Limits(max_send_buffer=BOUND, close_timeout=30))
    gone = []
    most = 0
    server.when.disconnected(lambda conn, code, reason: gone.append([conn.cid, code, reason]))
    with server:
        print(server.port, flush=True)
        sys.stdin.readline()
        due = time.monotonic()
        for number in range(ROUNDS):
            server.broadcast("news", [1000 + number, "x" * SIZE])
            server.send("slow", "more", FILL)
            most = max(most, server.stats()["send_buffer"])
            due += INTERVAL
            time.sleep(max(0.0, due - time.monotonic()))
        print(json.dumps([most, gone, server.stats()["users"]]), flush=True)
        sys.stdin.readline()
        server.broadcast("news", "again")
        sys.stdin.readline()
"""

ASYNC = """
    import asyncio, json, sys, time
    from wse_tornado import AsyncWseServer, Limits

    ROUNDS, INTERVAL, BOUND, SIZE = json.loads(sys.argv[1])
    FILL = "y" * 60_000  # the systems' own buffers hold some megabytes before anything waits here

    async def line():
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)

    async def main():
        server = AsyncWseServer(identify=lambda auth: auth.identity,
                                limits=Limits(max_send_buffer=BOUND, close_timeout=30))
        gone = []
        most = 0
        server.when.disconnected(lambda conn, code, reason: gone.append([conn.cid, code, reason]))
        print(server.listen(0, "127.0.0.1"), flush=True)
        await line()
        due = time.monotonic()
        for number in range(ROUNDS):
            server.broadcast("news", [1000 + number, "x" * SIZE])
            server.send("slow", "more", FILL)
            most = max(most, server.stats()["send_buffer"])
            due += INTERVAL
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        print(json.dumps([most, gone, server.stats()["users"]]), flush=True)
        await line()
        server.broadcast("news", "again")
        await line()
        await server.stop()

    asyncio.run(main())
"""


def enter(port: int, name: str, *, receive_buffer: int | None = None) -> RawPeer:
    peer = RawPeer.connect(port)
    if receive_buffer is not None:
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    peer.hi(name)
    assert peer.recv_message()[0] == "~wse:welcome"
    return peer


def frame_of(number: int) -> bytes:
    """The bytes of one broadcast, as a server writes them."""
    text = json.dumps(["news", [1000 + number, TEXT], None], separators=(",", ":")).encode()
    return b"\x81\x7e" + len(text).to_bytes(2, "big") + text


def receive(peers: list[RawPeer], server: "subprocess.Popen[str]") -> float:
    """Every peer gets every broadcast, in order; the longest time one of them got nothing."""
    frames = [frame_of(number) for number in range(ROUNDS)]
    whole = b"".join(frames)
    size = len(frames[0])
    got = {peer.sock.fileno(): 0 for peer in peers}
    socks = {peer.sock.fileno(): peer.sock for peer in peers}
    buffer = bytearray(65536)
    view = memoryview(buffer)
    longest = 0.0
    with select.epoll() as poll:
        for peer in peers:
            assert not peer.buffer
            peer.sock.setblocking(False)
            poll.register(peer.sock, select.EPOLLIN)
        assert server.stdin is not None
        server.stdin.write("go\n")
        server.stdin.flush()
        last: dict[int, float] = {}
        left = len(peers)
        while left:
            events = poll.poll(seconds(10))
            assert events, "nothing arrives any more"
            for fd, _ in events:
                count = socks[fd].recv_into(buffer)
                assert count, "the server hung up on a peer that reads"
                at = got[fd]
                assert view[:count] == whole[at : at + count]
                got[fd] = at = at + count
                if at % size == 0:
                    now = time.monotonic()
                    longest = max(longest, now - last.get(fd, now))
                    last[fd] = now
                left -= at == len(whole)
    return longest


def everything(peer: RawPeer) -> bytes:
    """All bytes up to the end of a close frame's reason."""
    data = bytearray()
    while not data.endswith(b"wse.slow-consumer"):
        chunk = peer.sock.recv(1 << 20)
        assert chunk, "the connection ended without a close frame"
        data += chunk
    return bytes(data)


@pytest.mark.parametrize("script", [BLOCKING, ASYNC], ids=["blocking", "async"])
def test_one_that_never_reads_is_closed_and_the_others_see_no_pause(script: str) -> None:
    server = start_script(script, json.dumps([ROUNDS, INTERVAL, BOUND, len(TEXT)]))
    peers: list[RawPeer] = []
    try:
        assert server.stdout is not None and server.stdin is not None
        port = int(server.stdout.readline())
        slow = enter(port, "slow", receive_buffer=65536)
        peers.append(slow)
        peers += [enter(port, f"user-{number}") for number in range(PEERS - 1)]
        longest = receive(peers[1:], server)
        most, gone, users = json.loads(server.stdout.readline())
        assert gone == [["slow", 1013, "wse.slow-consumer"]]
        assert users == PEERS - 1
        assert 0 < most <= BOUND
        assert longest <= INTERVAL + PAUSE

        # What waited for it comes, and then the close frame: with a code on which it returns.
        assert everything(slow).endswith(
            b"\x88\x13" + struct.pack("!H", 1013) + b"wse.slow-consumer"
        )
        assert 1013 in COMES_BACK
        again = enter(port, "slow")
        peers.append(again)
        server.stdin.write("again\n")
        server.stdin.flush()
        assert again.recv_message() == ["news", "again", None]
    finally:
        for peer in peers:
            peer.sock.close()
        server.communicate(timeout=seconds(10))
    assert server.returncode == 0
