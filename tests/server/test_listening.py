"""A server's arguments, its port, and its stop without calls."""

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from wse_tornado import (
    AsyncWseServer,
    ConnectionNotReady,
    Limits,
    LoopThread,
    WseClient,
    WseServer,
)

from ..support import (
    RawPeer,
    accept_all,
    beside,
    outcome,
    seconds,
    serve,
    wait_until,
)
from ..support.leaks import library_threads
from ..support.loops import connected, listening, record_server


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"conn_per_user": 0}, ValueError),
        ({"conn_per_user": -1}, ValueError),
        ({"conn_per_user": 1.5}, TypeError),
        ({"conn_per_user": True}, TypeError),
        ({"linger": -1}, ValueError),
        ({"linger": float("nan")}, ValueError),
        ({"timeout": 0}, ValueError),
        ({"protocol": "json"}, TypeError),
        ({"identify": 5}, TypeError),
        ({"identify": lambda: None}, TypeError),
        ({"allowed_origins": "https://example.com"}, TypeError),
    ],
)
def test_arguments_that_make_no_sense_are_refused(options: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        AsyncWseServer(**options)


def make(**options: Any) -> WseServer:
    return WseServer(identify=lambda auth: auth.identity, host="127.0.0.1", **options)


@pytest.mark.parametrize("port", [-1, 65536, "4200", True, None])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(ValueError, match="port"):
        make(port=port)


def test_listening_needs_a_loop() -> None:
    with pytest.raises(RuntimeError, match="loop"):
        AsyncWseServer(identify=accept_all).listen(0)


# Tornado's bind_sockets leaves the socket that it could not bind to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_taken_port_is_an_os_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = WseServer(port, identify=accept_all, host="127.0.0.1")
        with pytest.raises(OSError, match=r"[Aa]ddress already in use"):
            server.start()
        assert server.port is None
        assert not library_threads()
        with serve("async") as served, pytest.raises(OSError, match=r"[Aa]ddress already in use"):
            served.do(AsyncWseServer(identify=accept_all).listen, port, "127.0.0.1")


def test_it_answers_on_the_path_it_was_given_only(flavour: str) -> None:
    with serve(flavour, path="/ws") as served:
        served.enter(path="/ws").close()
        with pytest.raises(AssertionError, match="404"):
            served.peer(path="/other")


async def test_the_repr_tells_state_users_and_connections() -> None:
    server = AsyncWseServer(identify=accept_all)
    assert repr(server) == "<AsyncWseServer mounted users=0 connections=0>"
    server.listen(0, "127.0.0.1")
    async with connected(server):
        assert repr(server) == f"<AsyncWseServer port={server.port} users=1 connections=1>"
        (conn,) = server.clients["alice"].conns.values()
        assert repr(conn) == f"<Connection {conn.conn_id} of 'alice' from 127.0.0.1 open>"
        assert repr(server.clients["alice"]) == "<ClientIdentity 'alice' devices=1>"
        conn.drop("enough")
        assert repr(conn).endswith("closed 1000 enough>")
    await server.stop()
    assert repr(server).startswith("<AsyncWseServer stopped ")


async def test_a_stopped_server_can_listen_again() -> None:
    server = AsyncWseServer(identify=accept_all)
    for _ in range(2):
        server.listen(0, "127.0.0.1")
        async with connected(server):
            assert list(server.clients) == ["alice"]
        await server.stop()
    await server.stop()


async def test_a_peer_that_ignores_the_close_frame_does_not_hold_up_stop() -> None:
    async with listening(limits=Limits(close_timeout=0.1)) as server:
        events = record_server(server)
        peer = await asyncio.to_thread(RawPeer.connect, server.port)
        peer.hi("alice")
        await events.wait("connected")
        await asyncio.wait_for(server.stop(), seconds(5))
        peer.kill()


def test_a_server_starts_stops_and_starts_again():
    server = make()
    assert server.port is None
    with pytest.raises(ConnectionNotReady, match=r"start\(\)"):
        server.url  # noqa: B018 - asking is the test
    for _ in range(3):
        assert repr(server) == "<WseServer stopped users=0>"
        assert server.start() is server
        assert server.url == f"ws://127.0.0.1:{server.port}"
        with pytest.raises(RuntimeError, match=r"stop\(\) it first"):
            server.start()
        with WseClient(server.url) as client:
            client.connect("a")
            assert repr(server) == f"<WseServer port={server.port} users=1>"
        server.stop()
        server.stop()  # no error
        assert server.port is None


def test_wait_ends_with_stop_on_another_thread():
    with make() as server, ThreadPoolExecutor(3) as pool:
        assert server.wait(timeout=0.05) is False
        waits = [pool.submit(server.wait) for _ in range(3)]
        server.stop()
        assert [wait.result(seconds(2)) for wait in waits] == [True] * 3
    assert server.wait() is True


def test_wait_before_start_returns_at_once():
    assert make().wait() is True


def test_stop_while_a_handler_is_stuck():
    stuck, go = threading.Event(), threading.Event()

    def setup(server):
        server.channel.on("stick", lambda conn, payload: (stuck.set(), go.wait(seconds(20))))

    with serve("blocking", setup=setup) as served, WseClient(served.url) as client:
        client.connect("a")
        client.send("stick")
        assert stuck.wait(seconds(5))
        outcome(beside(served.server.stop), 15)
        go.set()


def test_a_handler_may_stop_its_own_server():
    def setup(server):
        server.channel.on("stop", lambda conn, payload: server.stop())

    with serve("blocking", setup=setup) as served, WseClient(served.url) as client:
        client.connect("a")
        client.send("stop")
        assert served.server.wait(timeout=seconds(5))


def test_an_interrupted_start_does_not_leave_a_port_open():
    with LoopThread() as loop:
        held = threading.Event()
        server = make(loop=loop)
        loop.post(held.wait, seconds(10))  # the loop is busy
        with pytest.raises(TimeoutError):
            server.start(timeout=0.05)
        held.set()
        probe = threading.Event()
        loop.post(probe.set)
        assert probe.wait(seconds(5))
        wait_until(lambda: server.port is None)
        with server:
            assert server.port is not None
