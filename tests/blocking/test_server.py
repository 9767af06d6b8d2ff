"""The blocking server: its life, its users, and handlers that block."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support import seconds, serve, wait_until
from tests.support.leaks import library_threads
from wse_tornado import (
    ConnectionNotReady,
    Limits,
    LoopThread,
    NotSerializable,
    RpcDisconnected,
    RpcFailed,
    RpcNotRegistered,
    RpcTimeout,
    WseClient,
    WseServer,
)


def make(**options):
    return WseServer(identify=lambda auth: auth.identity, host="127.0.0.1", **options)


def let_in(served, identity="a"):
    """A raw client that is in, and the server's connection to it."""
    before = set(served.core.connections)
    peer = served.peer()
    peer.hi(identity)
    peer.recv()
    wait_until(lambda: set(served.core.connections) - before)
    (conn_id,) = set(served.core.connections) - before
    return peer, served.server.clients[identity].conns[conn_id]


def test_a_server_starts_stops_and_starts_again():
    server = make()
    assert server.port is None
    with pytest.raises(ConnectionNotReady, match=r"start\(\)"):
        server.url  # noqa: B018 - asking is the test
    for _ in range(3):
        assert server.start() is server
        assert server.url == f"ws://127.0.0.1:{server.port}"
        with pytest.raises(RuntimeError, match=r"stop\(\) it first"):
            server.start()
        with WseClient(server.url) as client:
            client.connect("a")
        server.stop()
        server.stop()  # no error
        assert server.port is None


# Tornado's bind_sockets leaves the socket that it could not bind to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_port_that_is_taken_is_an_error_in_start():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = make(port=taken.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            server.start()
        assert server.port is None
        assert not library_threads()


@pytest.mark.parametrize("port", [-1, 65536, "4200", True, None])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(ValueError, match="port"):
        make(port=port)


def test_repr_shows_the_state():
    server = make()
    assert repr(server) == "<WseServer stopped users=0>"
    with server, WseClient(server.url) as client:
        client.connect("a")
        assert repr(server) == f"<WseServer port={server.port} users=1>"
        user = server.clients["a"]
        assert repr(user) == "<ClientIdentity 'a' devices=1>"
        (conn,) = user.conns.values()
        assert repr(conn) == f"<Connection {conn.conn_id} of 'a' from 127.0.0.1 open>"


def test_wait_ends_with_stop_on_another_thread():
    with make() as server, ThreadPoolExecutor(3) as pool:
        assert server.wait(timeout=0.05) is False
        waits = [pool.submit(server.wait) for _ in range(3)]
        server.stop()
        assert [wait.result(seconds(2)) for wait in waits] == [True] * 3
    assert server.wait() is True


def test_wait_before_start_returns_at_once():
    assert make().wait() is True


def test_two_threads_may_stop_at_once_on_a_shared_loop():
    limits = Limits(close_timeout=seconds(1))
    with LoopThread() as loop, ThreadPoolExecutor(4) as pool:
        server = make(loop=loop, limits=limits).start()
        with WseClient(server.url) as client:
            client.connect("a")
            for future in [pool.submit(server.stop) for _ in range(4)]:
                future.result(seconds(0.8))
        assert server.port is None


def test_stop_while_a_handler_is_stuck():
    stuck, go = threading.Event(), threading.Event()

    def setup(server):
        server.channel.on("stick", lambda conn, payload: (stuck.set(), go.wait(seconds(20))))

    with serve("blocking", setup=setup) as served, WseClient(served.url) as client:
        client.connect("a")
        client.send("stick")
        assert stuck.wait(seconds(5))
        began = time.monotonic()
        served.server.stop()
        assert time.monotonic() - began < seconds(2)
        go.set()


def test_a_handler_may_stop_its_own_server():
    def setup(server):
        server.channel.on("stop", lambda conn, payload: server.stop())

    with serve("blocking", setup=setup) as served, WseClient(served.url) as client:
        client.connect("a")
        client.send("stop")
        assert served.server.wait(timeout=seconds(5))


def test_stop_lets_running_calls_finish():
    began, go = threading.Event(), threading.Event()

    def setup(server):
        server.register("slow", lambda conn, payload: (began.set(), go.wait(seconds(10)))[1])

    with serve("blocking", setup=setup) as served, WseClient(served.url) as client:
        client.connect("a")
        future = client.submit("slow")
        assert began.wait(seconds(5))
        with ThreadPoolExecutor(1) as pool:
            stopping = pool.submit(served.server.stop, seconds(10))
            wait_until(lambda: served.core._stopping)
            go.set()
            assert future.result(seconds(5)) is True
            stopping.result(seconds(5))
        assert client.wait(timeout=seconds(5))
        assert client._core.closed_with[0] == 1012


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


def test_messages_reach_their_users_and_are_counted():
    with serve("blocking", conn_per_user=2) as served:
        server = served.server
        one, _ = let_in(served, "a")
        two, conn = let_in(served, "a")
        other, _ = let_in(served, "b")
        assert server.broadcast("all", 1) == 3
        assert server.broadcast("others", 2, exclude="b") == 2
        assert server.send("a", "mine", 3) == 2
        assert server.send("nobody", "mine", 3) == 0
        assert server.clients["a"].send("mine", 4) == 2
        assert conn.send("this", 5) == 1
        expected = [["all", 1], ["others", 2], ["mine", 3], ["mine", 4]]
        assert [one.recv_message()[:2] for _ in range(4)] == expected
        assert [two.recv_message()[:2] for _ in range(5)] == [*expected, ["this", 5]]
        assert other.recv_message()[:2] == ["all", 1]
        for bad in (server.broadcast, lambda *args: server.send("a", *args), conn.send):
            with pytest.raises(NotSerializable):
                bad("news", object())
            with pytest.raises(ValueError):
                bad("~wse:hi", 1)
        for peer in (one, two, other):
            peer.close()


def test_dropping_tells_the_reason_and_counts():
    with serve("blocking", conn_per_user=3) as served:
        peers = [let_in(served) for _ in range(3)]
        peers[0][1].drop("that one")
        assert peers[0][0].wait_closed() == (1000, "that one")
        wait_until(lambda: len(served.server.clients["a"].conns) == 2)
        assert served.server.drop_client("a", "all of them") == 2
        assert served.server.drop_client("nobody") == 0
        for peer, _ in peers[1:]:
            assert peer.wait_closed() == (1000, "all of them")
        wait_until(lambda: not served.server.clients)
        assert peers[0][1].send("news") == 0
        with pytest.raises(RpcDisconnected) as caught:
            peers[0][1].call("anything")
        assert not caught.value.sent


def test_connections_know_who_they_are():
    with serve("blocking") as served, WseClient(served.url) as client:
        client.connect("a", {"device": "laptop"})
        user = served.server.clients["a"]
        ((conn_id, conn),) = user.conns.items()
        assert (conn.conn_id, conn.cid, conn.identity) == (conn_id, "a", "a")
        assert conn.meta == {"device": "laptop"}
        assert conn.client is user
        assert conn.remote_addr == "127.0.0.1"
        assert conn.latency is None
        assert user.cid == "a"
        with pytest.raises(TypeError):
            served.server.clients["b"] = user


def test_calls_from_the_main_thread_a_handler_and_a_signal():
    answers = []

    def ask(conn, payload=None):
        answers.append(conn.call("number"))

    def setup(server):
        server.channel.on("ask", ask)
        server.when.connected(ask)
        server.register("ask", lambda conn, payload: conn.call("number") * 2)

    with serve("blocking", setup=setup) as served, WseClient(served.url) as client:
        client.register("number", lambda payload: 21)
        client.connect("a")
        client.send("ask")
        assert client.call("ask") == 42
        wait_until(lambda: answers == [21, 21])
        (conn,) = served.server.clients["a"].conns.values()
        assert conn.call("number") == 21


def test_conn_call_raises_what_can_go_wrong():
    go = threading.Event()

    def fail(payload):
        raise ValueError("mine")

    with serve("blocking") as served, WseClient(served.url) as client:
        client.register("fail", fail)
        client.register("slow", lambda payload: go.wait(seconds(10)))
        client.connect("a")
        (conn,) = served.server.clients["a"].conns.values()
        with pytest.raises(RpcFailed, match="mine"):
            conn.call("fail")
        with pytest.raises(RpcNotRegistered):
            conn.call("missing")
        with pytest.raises(RpcTimeout):
            conn.call("slow", timeout=0.1)
        with pytest.raises(NotSerializable):
            conn.call("slow", object())
        with pytest.raises(ValueError):
            conn.call("")
        with pytest.raises(ValueError):
            conn.call("slow", timeout=0)
        go.set()


def test_coroutine_handlers_work_and_keep_their_order():
    import asyncio

    seen = []

    async def slow(conn, payload):
        await asyncio.sleep(0.01 if payload % 2 else 0)
        seen.append(payload)

    with (
        serve("blocking", setup=lambda s: s.channel.on("n", slow)) as served,
        WseClient(served.url) as client,
    ):
        client.connect("a")
        for number in range(20):
            client.send("n", number)
        wait_until(lambda: len(seen) == 20)
        assert seen == list(range(20))


def test_identify_may_decide_later_and_on_another_thread():
    later = []

    def identify(auth):
        thread = threading.Timer(0.01, auth.accept, ("a", "late"))
        later.append(thread)
        thread.start()

    with serve("blocking", identify=identify) as served, WseClient(served.url) as client:
        assert client.connect("anything") == "late"
    later[0].join()


def test_a_slow_handler_of_one_connection_holds_up_no_other():
    go = threading.Event()

    def setup(server):
        server.channel.on("hold", lambda conn, payload: go.wait(seconds(20)))
        server.channel.on("quick", lambda conn, payload: conn.send("done"))

    with (
        serve("blocking", setup=setup) as served,
        WseClient(served.url) as slow,
        WseClient(served.url) as quick,
    ):
        slow.connect("a")
        quick.connect("b")
        slow.send("hold")
        quick.send("quick")
        assert quick.receive(timeout=seconds(5)).type == "done"
        go.set()


def test_more_connections_than_workers_are_all_served():
    def setup(server):
        server.register("echo", lambda conn, payload: time.sleep(0.001) or payload)

    limits = Limits(max_workers=2)
    with serve("blocking", setup=setup, limits=limits) as served, ThreadPoolExecutor(8) as pool:

        def use(number):
            with WseClient(served.url) as client:
                client.connect(f"user-{number}")
                return [client.call("echo", turn) for turn in range(20)]

        for future in [pool.submit(use, number) for number in range(8)]:
            assert future.result(seconds(20)) == list(range(20))
        names = {t.name for t in library_threads() if t.name.startswith("wse-tornado-server")}
        assert len(names) <= 2 * limits.max_workers
