"""What every pipe promises: liveness, accounting, closings that deliver, and bounds."""

import asyncio
import base64
import contextlib
import errno
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from wse_tornado import ErrorCode, Limits, WseClient
from wse_tornado.core.connection import Life
from wse_tornado.transport import pipes

from ..support import FLAVOURS, RawPeer, RawServer, Served, seconds, serve, wait_until
from ..support.clients import use
from ..support.peer import CLOSE, PING, PONG, TEXT
from ..support.pipes import WAYS, On
from ..support.proxy import SlowProxy


@pytest.fixture(params=WAYS, ids=str)
def on(request: pytest.FixtureRequest) -> On:
    way = request.param
    assert isinstance(way, On)
    return way


@contextlib.contextmanager
def serving(on: On, flavour: str = "async", **options: Any) -> Iterator[Served]:
    with serve(flavour, **on.served, **options) as served:
        yield served


def enter(served: Served, on: On, name: str = "ann", **options: Any) -> RawPeer:
    peer = served.peer(**on.peer, **options)
    peer.hi(name)
    assert peer.recv_message()[0] == "~wse:welcome"
    return peer


def noise(size: int) -> str:
    """Text that hardly compresses, so that a size on the wire is known."""
    return base64.b64encode(random.Random(size).randbytes(size))[:size].decode()


# -- broken closings


def test_a_close_frame_whose_reason_is_not_utf8_leaves_nothing_behind(on: On) -> None:
    with serving(on, limits=Limits(max_connections=3, close_timeout=0.5)) as served:
        for _ in range(6):
            with served.peer(**on.peer) as peer:  # not let in yet
                peer.send_frame(CLOSE, struct.pack("!H", 1000) + b"\xff\xfe")
                assert peer.wait_closed()[0] == 1007
            wait_until(lambda: not served.hub.connections)
        enter(served, on).kill()


@pytest.mark.parametrize("code", [999, 1004, 1006, 1015, 2999, 5000])
def test_close_codes_that_may_not_be_sent_are_answered_with_1002(on: On, code: int) -> None:
    with serving(on) as served, enter(served, on) as peer:
        peer.send_frame(CLOSE, struct.pack("!H", code))
        assert peer.wait_closed()[0] == 1002


def test_a_close_frame_is_answered_with_its_code_and_reason(on: On) -> None:
    with serving(on) as served, enter(served, on) as peer:
        peer.send_frame(CLOSE, struct.pack("!H", 4000) + "jümp".encode())
        assert peer.recv_frame() == (CLOSE, struct.pack("!H", 4000) + "jümp".encode())


def test_a_close_frame_of_a_server_is_answered_with_its_code_and_reason(on: On) -> None:
    answers = []

    def script(peer: RawPeer) -> None:
        peer.recv()
        peer.send("~wse:welcome", None, None)
        peer.send_frame(CLOSE, struct.pack("!H", 1012) + b"moving")
        answers.append(peer.recv_frame())

    with RawServer(script, **on.raw_server) as server, WseClient(server.url, **on.client) as client:
        client.connect("ann")
        assert client.wait(timeout=seconds(5))
    assert answers == [(CLOSE, struct.pack("!H", 1012) + b"moving")]


def test_what_breaks_the_rules_in_a_flood_is_still_told_why(on: On) -> None:
    """Unread bytes would reset the connection, and the close frame could be lost with it."""
    with serving(on, limits=Limits(max_message_size=1000)) as served, enter(served, on) as peer:
        peer.sock.sendall(peer.frame(2, noise(3000).encode()) + peer.frame(TEXT, b"x") * 200_000)
        assert peer.wait_closed()[0] == 1009
        wait_until(lambda: ("disconnected", "ann", 1009, "message too big") in served.events)


# -- bounds


def test_a_flood_of_pings_from_who_does_not_read_takes_no_memory(on: On) -> None:
    with serving(on) as served, enter(served, on) as peer:
        (conn,) = served.hub.users.devices.values()
        pings = peer.frame(PING, b"x" * 125) * 1000
        peer.sock.settimeout(seconds(0.3))
        sent = 0
        try:
            while sent < 60_000_000:
                peer.sock.sendall(pings)
                sent += len(pings)
        except TimeoutError:
            pass
        assert conn.buffered < 200_000


def test_inflating_stops_at_the_bound() -> None:
    on = On(tls=False, deflate=True)
    with serving(on, limits=Limits(max_message_size=100_000)) as served, enter(served, on) as peer:
        peer.send("x", "y" * 99_000, None)
        peer.send("x", "y" * 101_000, None)
        assert peer.wait_closed()[0] == 1009
        assert served.events[-2][:1] != ("error",)


@pytest.mark.parametrize(
    "sizes", [[4_500_000, 10], [2_100_000, 2_100_000], [10, 4_200_000, 10, 10]], ids=str
)
def test_a_peer_that_reads_is_no_slow_consumer_whatever_is_sent_at_once(
    on: On, sizes: list[int]
) -> None:
    texts = [noise(size) for size in sizes]
    with serving(on) as served, enter(served, on) as peer:
        got: list[int] = []

        def read() -> None:
            for _ in texts:
                got.append(len(peer.recv_message()[1]))

        reader = threading.Thread(target=read)
        reader.start()

        def send() -> None:
            for text in texts:
                assert served.server.send("ann", "t", text) == 1

        served.do(send)
        reader.join(seconds(20))
        assert got == sizes


# -- liveness


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_large_message_on_a_slow_line_is_no_silence(on: On, way: str) -> None:
    """It takes several times as long as silence would be allowed to last."""
    limits = Limits(heartbeat=seconds(0.4), heartbeat_timeout=seconds(0.4))
    text = noise(400_000)
    with serving(on, limits=limits) as served, SlowProxy(served.port, rate=150_000) as proxy:
        url = f"{on.scheme}://127.0.0.1:{proxy.port}"
        with use("blocking", url, limits=limits, **on.client) as used:
            used.connect("ann")
            got: list[Any] = []
            arrived = threading.Event()

            def take(*args: Any) -> None:
                got.append(args[-1])
                arrived.set()

            served.server.channel.on("t", take)
            used.client.channel.on("t", take)
            if way == "up":
                used.client.send("t", text)
            else:
                served.do(served.server.send, "ann", "t", text)
            assert arrived.wait(seconds(20))
            assert got == [text]
            assert not used.closings()


def test_a_line_that_goes_silent_is_noticed(on: On) -> None:
    limits = Limits(heartbeat=seconds(0.2), heartbeat_timeout=seconds(0.2))
    with serving(on, limits=limits) as served, enter(served, on) as peer:
        began = time.monotonic()
        with contextlib.suppress(Exception):
            while True:
                peer.recv_frame()  # reads, and answers nothing
        assert 0.3 < time.monotonic() - began < seconds(2)
        gone = ("disconnected", "ann", 1006, "wse.heartbeat-timeout")
        wait_until(lambda: gone in served.events)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_an_end_that_has_paused_reading_shows_that_it_lives(on: On, flavour: str) -> None:
    stuck = threading.Event()
    limits = Limits(max_queue=5, heartbeat=seconds(0.1), heartbeat_timeout=seconds(0.2))

    def setup(server: Any) -> None:
        if flavour == "blocking":
            server.channel.on("n", lambda conn, payload: stuck.wait(seconds(10)))
        else:

            async def wait(conn: Any, payload: Any) -> None:
                while not stuck.is_set():
                    await asyncio.sleep(0.01)

            server.channel.on("n", wait)

    with serving(on, flavour, setup=setup, limits=limits) as served, enter(served, on) as peer:
        (conn,) = served.hub.users.devices.values()
        peer.sock.sendall(b"".join(peer.frame(TEXT, b'["n"]') for _ in range(40)))
        wait_until(lambda: conn._paused)
        deadline = time.monotonic() + seconds(10)
        shown = 0
        while shown < 8 and time.monotonic() < deadline:
            shown += peer.recv_frame()[0] in (PING, PONG)
        assert shown == 8
        assert conn.life is not Life.ENDED
        stuck.set()


def test_a_client_that_is_slow_to_handle_is_not_cut(on: On) -> None:
    limits = Limits(max_queue=5, heartbeat=seconds(0.1), heartbeat_timeout=seconds(0.1))
    got: list[int] = []
    done = threading.Event()

    def handle(payload: int) -> None:
        time.sleep(0.05)
        got.append(payload)
        if payload == 59:
            done.set()

    with serving(on, limits=limits) as served:
        with use("blocking", served.url, limits=limits, **on.client) as used:
            used.client.channel.on("n", handle)
            used.connect("ann")
            for number in range(60):
                served.do(served.server.send, "ann", "n", number)
            assert done.wait(seconds(20))
            assert got == list(range(60))
            assert not used.closings()


# -- pausing


def test_a_pause_during_what_came_with_the_handshake_holds(on: On) -> None:
    """A peer that is not read any more cannot send for ever."""
    limits = Limits(max_queue=5)
    stuck = threading.Event()

    async def wait(conn: Any, payload: Any) -> None:
        while not stuck.is_set():
            await asyncio.sleep(0.01)

    def setup(server: Any) -> None:
        server.channel.on("n", wait)

    made = RawPeer(socket.socket(), masks=True)
    made.sock.close()
    hi = made.frame(TEXT, b'["~wse:hi",{"identity":"ann"},null]')
    flood = made.frame(TEXT, b'["n"]') * 20
    with serving(on, setup=setup, limits=limits) as served:
        with served.peer(**on.peer, early=hi + flood) as peer:
            wait_until(lambda: [c for c in served.hub.users.devices.values() if c._paused])
            (conn,) = served.hub.users.devices.values()
            bulk = made.frame(TEXT, b'["n","' + b"x" * 60_000 + b'"]')
            peer.sock.settimeout(seconds(0.3))
            with contextlib.suppress(TimeoutError):
                while True:
                    peer.sock.sendall(bulk)
            assert conn.traffic[0] < 1_000_000
            stuck.set()


# -- endings


def test_a_peer_that_half_closes_with_a_backlog_is_noticed_at_once(on: On) -> None:
    with serving(on, limits=Limits(max_send_buffer=40_000_000)) as served:
        with enter(served, on) as peer:
            (conn,) = served.hub.users.devices.values()
            text = noise(1_000_000)
            while not conn.buffered:
                served.do(served.server.send, "ann", "t", text)
            socket.socket.shutdown(peer.sock, socket.SHUT_WR)
            wait_until(lambda: ("disconnected", "ann", 1006, "") in served.events, 2)
            wait_until(lambda: not served.hub.connections, 2)


def test_a_failed_write_ends_a_connection_whose_reading_is_paused(on: On) -> None:
    stuck = threading.Event()
    limits = Limits(max_queue=5, heartbeat=seconds(0.1))

    def setup(server: Any) -> None:
        server.channel.on("n", lambda conn, payload: stuck.wait(seconds(10)))

    with serving(on, "blocking", setup=setup, limits=limits) as served:
        with enter(served, on) as peer:
            (conn,) = served.hub.users.devices.values()
            peer.sock.sendall(b"".join(peer.frame(TEXT, b'["n"]') for _ in range(40)))
            wait_until(lambda: conn._paused)
            peer.kill()
            wait_until(lambda: conn.life is Life.ENDED and conn.ended_with == (1006, ""), 3)
            stuck.set()


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.ENOMEM])
def test_a_system_short_of_memory_only_delays(
    on: On, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(on) as served, enter(served, on) as peer:
        (conn,) = served.hub.users.devices.values()
        pipe = conn._transport._pipe
        real = pipe._send
        failures = [OSError(number, "no memory")] * 3

        def send(data: Any) -> int:
            if failures:
                raise failures.pop()
            return int(real(data))

        pipe._send = send
        for number_sent in range(3):
            served.do(served.server.send, "ann", "n", number_sent)
        assert [peer.recv_message()[1] for _ in range(3)] == [0, 1, 2]
        assert not failures


def test_a_first_frame_that_came_partly_with_the_handshake_is_not_lost(on: On) -> None:
    made = RawPeer(socket.socket(), masks=False)
    made.sock.close()
    frame = made.frame(TEXT, b'["early","hello",null]')

    for cut in (1, 2, 5):
        gate = threading.Event()

        def script(peer: RawPeer, cut: int = cut, gate: threading.Event = gate) -> None:
            peer.recv()  # the hi
            peer.sock.sendall(frame[cut:])
            peer.send("~wse:welcome", None, None)
            gate.wait(seconds(10))

        got: list[Any] = []
        with RawServer(script, early=frame[:cut], **on.raw_server) as server:
            with WseClient(server.url, **on.client) as client:
                client.when.ignored(lambda message, got=got: got.append(message.payload))
                client.connect("ann")
                wait_until(lambda got=got: got == ["hello"])
                gate.set()


# -- closings that deliver


def test_leaving_the_with_block_delivers_what_was_sent(on: On) -> None:
    limits = Limits(close_timeout=0.5, max_send_buffer=10_000_000)
    got: list[int] = []
    text = noise(100_000)

    def setup(server: Any) -> None:
        server.channel.on("t", lambda conn, payload: got.append(payload[0]))

    with serving(on, setup=setup) as served, SlowProxy(served.port, rate=2_000_000) as proxy:
        with WseClient(
            f"{on.scheme}://127.0.0.1:{proxy.port}", limits=limits, **on.client
        ) as client:
            client.connect("ann")
            for number in range(70):
                client.send("t", [number, text])
        wait_until(lambda: got == list(range(70)), 20)


@pytest.mark.parametrize("kind", FLAVOURS)
def test_what_could_not_be_delivered_is_told(on: On, kind: str) -> None:
    gate = threading.Event()

    def script(peer: RawPeer) -> None:
        peer.recv()
        peer.send("~wse:welcome", None, None)
        gate.wait(seconds(20))

    told: list[Any] = []
    with RawServer(script, **on.raw_server) as server:
        limits = Limits(close_timeout=0.3, max_send_buffer=40_000_000)
        with use(kind, server.url, limits=limits, **on.client) as used:
            used.client.when.error(told.append)
            used.connect("ann")
            text = noise(1_000_000)

            def fill() -> None:
                for _ in range(12):
                    used.client.send("t", text)

            used.do(fill)
            began = time.monotonic()
            used.close()
            assert time.monotonic() - began < seconds(2)
            wait_until(lambda: told)
        gate.set()
    assert told[0].code == ErrorCode.NOT_DELIVERED
    assert 1_000_000 < told[0].details["bytes"] < 12_100_000


# -- large messages and the fallback


def test_large_messages_echo_unchanged_whatever_the_chunks(on: On) -> None:
    def setup(server: Any) -> None:
        server.register("echo", lambda conn, payload: payload)

    with serving(on, setup=setup) as served:
        with use("blocking", served.url, **on.client) as used:
            used.connect("ann")
            for size in (16_370, 16_384, 65_530, 65_536, 131_072, 1_000_003, 5_000_000):
                text = noise(size)
                assert used.call("echo", text, timeout=seconds(10)) == text


@pytest.mark.parametrize("kind", FLAVOURS)
def test_streams_serve_where_the_loop_cannot_watch_sockets(
    on: On, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipes, "watches_sockets", lambda loop: False)
    stuck = threading.Event()

    def setup(server: Any) -> None:
        server.register("echo", lambda conn, payload: payload)

    with serving(on, setup=setup) as served:
        with use(kind, served.url, **on.client) as used:
            used.connect("ann")
            (conn,) = served.hub.users.devices.values()
            assert type(conn._transport._pipe) is pipes.StreamPipe
            for size in (10, 70_000, 3_000_000):
                text = noise(size)
                assert used.call("echo", text, timeout=seconds(10)) == text
        wait_until(lambda: ("left", "ann", 1000, "wse.by-client") in served.events)
        with enter(served, on) as peer:
            peer.send_frame(CLOSE, struct.pack("!H", 4000) + b"jump")
            assert peer.recv_frame() == (CLOSE, struct.pack("!H", 4000) + b"jump")
        enter(served, on, "bob").kill()
        wait_until(lambda: not served.hub.connections)
        stuck.set()
