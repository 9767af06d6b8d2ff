"""The blocking client: its life, and what races with it."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support import RawServer, seconds, serve, wait_until
from wse_tornado import (
    AlreadyConnected,
    ConnectionFailed,
    ConnectionNotReady,
    ConnectTimeout,
    Limits,
    LoopThread,
    NotAuthorized,
    NotSerializable,
    RpcFailed,
    RpcNotRegistered,
    RpcTimeout,
    Status,
    WseClient,
    WseError,
)


def test_connect_returns_the_welcome_and_close_ends_the_session():
    with serve("blocking") as served, WseClient(served.url) as client:
        assert client.status == Status.IDLE
        assert client.connect("a", {"device": "laptop"}) == {"message": "Welcome!"}
        assert client.status == Status.READY
        client.close()
        assert client.status == Status.OFFLINE
        client.close()  # no error
        assert client.connect("a") == {"message": "Welcome!"}
        wait_until(lambda: served.names().count("joined") == 2)
    assert ("joined", "a", {"device": "laptop"}) in served.events
    assert ("disconnected", "a", 1000, "wse.by-client") in served.events


def test_closing_before_connecting_is_no_error():
    client = WseClient("ws://127.0.0.1:1")
    client.close()
    client.drop()
    assert client.status == Status.IDLE


def test_a_refusal_is_raised_in_connect():
    with serve("blocking") as served, WseClient(served.url) as client:
        with pytest.raises(NotAuthorized) as caught:
            client.connect("nobody")
        assert isinstance(caught.value, PermissionError)
        assert client.status == Status.OFFLINE


def test_a_second_connect_is_refused_until_close():
    with serve("blocking") as served, WseClient(served.url) as client:
        client.connect("a")
        with pytest.raises(AlreadyConnected):
            client.connect("a")
        assert client.status == Status.READY


def test_a_server_that_is_not_there_fails_connect_at_once():
    with RawServer(lambda peer: None) as raw:
        url = raw.url
    with WseClient(url) as client, pytest.raises(ConnectionFailed):
        client.connect("a")


@pytest.mark.parametrize(
    "use",
    [
        lambda client: client.call("add"),
        lambda client: client.submit("add"),
        lambda client: client.send("news"),
    ],
)
def test_talking_without_a_connection_names_the_way_out(use):
    with serve("blocking") as served, WseClient(served.url) as client:
        with pytest.raises(ConnectionNotReady, match=r"call connect\(\) first"):
            use(client)
        client.connect("a")
        client.close()
        with pytest.raises(ConnectionNotReady, match=r"call connect\(\) again"):
            use(client)


def test_call_raises_what_the_server_answers():
    def fail(conn, payload):
        raise WseError("shop.sold-out", {"left": 0})

    def setup(server):
        server.register("fail", fail)
        server.register("divide", lambda conn, payload: 1 / payload)

    with serve("blocking", setup=setup) as served, WseClient(served.url) as client:
        client.connect("a")
        with pytest.raises(RpcFailed) as caught:
            client.call("fail")
        assert caught.value.code == "shop.sold-out"
        assert caught.value.details == {"left": 0, "rpc": "fail"}
        with pytest.raises(RpcFailed, match="division by zero"):
            client.call("divide", 0)
        with pytest.raises(RpcNotRegistered):
            client.call("missing")
        with pytest.raises(NotSerializable):
            client.call("divide", object())
        with pytest.raises(NotSerializable):
            client.send("news", object())
        for timeout in (0, -1, "soon", True):
            with pytest.raises(ValueError, match="time-out"):
                client.call("divide", 1, timeout=timeout)
        assert client.call("divide", 1) == 1


def test_a_late_answer_disturbs_nothing():
    go = threading.Event()

    def setup(server):
        server.register("slow", lambda conn, payload: go.wait(seconds(10)) and "late")
        server.register("add", lambda conn, payload: payload + 1)

    with serve("blocking", setup=setup) as served, WseClient(served.url) as client:
        client.connect("a")
        with pytest.raises(RpcTimeout):
            client.call("slow", timeout=0.1)
        go.set()
        assert client.call("add", 1) == 2
        assert not client._core.link.pending


def test_registering_twice_is_refused_and_unregistering_undoes_it():
    client = WseClient("ws://127.0.0.1:1")

    @client.register("work")
    def work(payload):
        return 1

    with pytest.raises(WseError, match="unregister it first"):
        client.register("work", work)
    client.unregister("work")
    with pytest.raises(WseError):
        client.unregister("work")


def test_jump_leaves_one_server_for_another():
    with serve("blocking") as one, serve("blocking") as two, WseClient(one.url) as client:
        client.connect("a", {"n": 1})
        assert client.jump(two.url) == {"message": "Welcome!"}
        wait_until(lambda: ("disconnected", "a", 4000, "jump") in one.events)
        wait_until(lambda: ("joined", "a", {"n": 1}) in two.events)
        client.jump(one.url, "b")
        wait_until(lambda: "b" in one.server.clients)


def test_drop_ends_the_session_with_its_reason():
    with serve("blocking") as served, WseClient(served.url) as client:
        client.connect("a")
        client.drop("so long")
        assert client.wait(timeout=seconds(5))
        wait_until(lambda: ("disconnected", "a", 1000, "so long") in served.events)


def test_repr_shows_the_state():
    with serve("blocking") as served, WseClient(served.url) as client:
        assert repr(client) == f"<WseClient IDLE {served.url}>"
        client.connect("a")
        assert repr(client) == f"<WseClient READY {served.url}>"
        client.close()
        assert repr(client) == f"<WseClient OFFLINE {served.url}>"


def test_latency_is_known_after_a_ping():
    limits = Limits(heartbeat=0.05, heartbeat_timeout=seconds(5))
    with serve("blocking") as served, WseClient(served.url, limits=limits) as client:
        assert client.latency is None
        client.connect("a")
        wait_until(lambda: client.latency is not None)
        assert 0 <= client.latency < seconds(5)


# -- races with close


def test_close_waits_for_its_own_connection_only():
    deaf = threading.Event()

    def script(peer):
        first = len(raw.peers) == 1
        peer.recv()
        peer.send("~wse:welcome", None, None)
        if first:
            deaf.wait(seconds(20))
        else:
            peer.wait_closed()

    limits = Limits(close_timeout=seconds(0.5))
    with RawServer(script) as raw, ThreadPoolExecutor(1) as pool:
        with LoopThread() as loop, WseClient(raw.url, limits=limits, loop=loop) as client:
            client.connect("a")
            closing = pool.submit(client.close)
            wait_until(lambda: client.status == Status.OFFLINE)
            client.connect("a")
            closing.result(seconds(3))
            assert client.status == Status.READY
            deaf.set()


def test_a_client_can_be_closed_however_connect_and_close_race():
    with serve("blocking", conn_per_user=50) as served, LoopThread() as loop:
        for _ in range(30):
            client = WseClient(served.url, loop=loop, timeout=seconds(5))
            both = threading.Barrier(2)

            def connect(client=client, both=both):
                both.wait()
                try:
                    client.connect("a")
                except ConnectionError:
                    pass

            def close(client=client, both=both):
                both.wait()
                client.close()

            with ThreadPoolExecutor(2) as pool:
                for future in [pool.submit(connect), pool.submit(close)]:
                    future.result(seconds(10))
            client.close()
            assert client.status in (Status.IDLE, Status.OFFLINE)
        wait_until(lambda: not served.server.clients)
        assert "users=1" in repr(loop)


def test_a_connect_that_close_overtakes_is_not_begun():
    held = threading.Event()
    with serve("blocking") as served, LoopThread() as loop, ThreadPoolExecutor(1) as pool:
        with WseClient(served.url, loop=loop) as client:
            loop.post(held.wait, seconds(10))  # the loop is busy: connect stays on its way
            connecting = pool.submit(client.connect, "a")
            wait_until(lambda: len(loop._posts) == 1)
            client._life.acquire()
            client._held = False  # what close() does first
            client._life.release()
            held.set()
            with pytest.raises(ConnectionFailed, match="closed while it was connecting"):
                connecting.result(seconds(5))
            client._held = True
        assert not served.server.clients


def test_close_from_many_threads_at_once():
    with serve("blocking") as served, WseClient(served.url) as client:
        for _ in range(10):
            client.connect("a")
            with ThreadPoolExecutor(5) as pool:
                for future in [pool.submit(client.close) for _ in range(5)]:
                    future.result(seconds(5))
            wait_until(lambda: client.status == Status.OFFLINE)


def test_a_handler_may_close_its_own_client():
    over = threading.Event()
    with serve("blocking") as served, WseClient(served.url) as client:
        client.channel.on("go", lambda payload: (client.close(), over.set()))
        client.connect("a")
        served.server.send("a", "go")
        assert over.wait(seconds(5))
        assert client.status == Status.OFFLINE


def test_sending_while_closing_gives_back_the_room_it_took():
    with serve("blocking") as served, WseClient(served.url) as client:
        for _ in range(10):
            client.connect("a")
            closing = threading.Thread(target=client.close)
            closing.start()
            try:
                while True:
                    client.send("news", "x" * 1000)
            except ConnectionNotReady:
                pass
            closing.join()
            assert client._posted == 0


def test_connect_gives_up_in_time_where_nobody_answers():
    def silent(peer):
        peer.recv()
        peer.wait_closed()

    with RawServer(silent) as raw, WseClient(raw.url) as client:
        with pytest.raises(ConnectTimeout):
            client.connect("a", timeout=0.2)
        with pytest.raises(ConnectTimeout):
            client.connect("a", timeout=0.2)
