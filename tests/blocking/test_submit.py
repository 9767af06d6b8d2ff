"""Many calls at once with `submit`, and pulling beside handlers and other threads."""

import queue
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed, wait

import pytest

from wse_tornado import (
    ConnectionNotReady,
    Limits,
    NotSerializable,
    RpcDisconnected,
    RpcFailed,
    RpcNotRegistered,
    RpcTimeout,
    WseClient,
)

from ..support import RawServer, seconds, serve, wait_until


def sends(*messages, then=None):
    """A script that lets the client in and sends it messages."""

    def script(peer):
        peer.recv()
        peer.send("~wse:welcome", None, None)
        for type, payload in messages:
            peer.send(type, payload)
        if then is None:
            peer.wait_closed()
        else:
            then(peer)

    return script


def hang_up(peer):
    peer.close(1000, "enough")


def connected(raw, **options):
    client = WseClient(raw.url, **options)
    client.connect("a")
    return client


def test_each_message_goes_to_one_of_many_receivers():
    messages = [("n", number) for number in range(100)]
    with RawServer(sends(*messages, then=hang_up)) as raw, connected(raw) as client:
        with ThreadPoolExecutor(5) as pool:
            parts = [pool.submit(list, client) for _ in range(5)]
            got = [m.payload for part in parts for m in part.result(seconds(10))]
    assert sorted(got) == list(range(100))


def calculator(server):
    server.register("double", lambda conn, payload: payload * 2)
    server.register("divide", lambda conn, payload: 1 / payload)
    held = threading.Event()
    server.held = held
    server.register("hold", lambda conn, payload: held.wait(seconds(20)))


def test_submit_has_many_calls_on_their_way_at_once():
    meet = threading.Barrier(10)

    def setup(server):
        server.register("meet", lambda conn, payload: meet.wait(seconds(10)) * 0 + payload)

    with serve("blocking", setup=setup) as served, WseClient(served.url) as client:
        client.connect("a")
        futures = [client.submit("meet", number) for number in range(10)]
        assert sorted(f.result() for f in as_completed(futures, seconds(10))) == list(range(10))
        assert client.stats()["calls_pending"] == 0


def test_a_future_raises_what_call_raises():
    with serve("blocking", setup=calculator) as served, WseClient(served.url) as client:
        client.connect("a")
        with pytest.raises(RpcFailed):
            client.submit("divide", 0).result(seconds(5))
        with pytest.raises(RpcNotRegistered):
            client.submit("missing").result(seconds(5))
        with pytest.raises(RpcTimeout):
            client.submit("hold", timeout=0.1).result(seconds(5))
        lost = client.submit("hold")
        served.server.drop_client("a")
        with pytest.raises(RpcDisconnected):
            lost.result(seconds(5))
        served.server.held.set()


def test_submit_raises_at_once_what_is_wrong_at_once():
    client = WseClient("ws://127.0.0.1:1")
    with pytest.raises(ConnectionNotReady):
        client.submit("double", 1)
    with serve("blocking", setup=calculator) as served, WseClient(served.url) as client:
        client.connect("a")
        with pytest.raises(NotSerializable):
            client.submit("double", object())
        with pytest.raises(ValueError):
            client.submit("")
        with pytest.raises(ValueError):
            client.submit("double", 1, timeout=0)
        assert client.stats()["calls_pending"] == 0


def test_a_cancelled_future_forgets_its_call():
    with serve("blocking", setup=calculator) as served, WseClient(served.url) as client:
        client.connect("a")
        future = client.submit("hold")
        wait_until(lambda: client.stats()["calls_pending"] == 1)
        assert future.cancel()
        with pytest.raises(CancelledError):
            future.result()
        wait_until(lambda: client.stats()["calls_pending"] == 0)
        served.server.held.set()
        assert client.call("double", 2) == 4


def test_cancelling_while_answers_come_loses_no_other_call():
    with serve("blocking", setup=calculator) as served, WseClient(served.url) as client:
        client.connect("a")
        futures = [client.submit("double", number) for number in range(200)]
        for future in futures[::2]:
            future.cancel()
        _, open_ = wait(futures, seconds(10))
        assert not open_
        for number, future in enumerate(futures):
            if not future.cancelled():
                assert future.result() == number * 2


def test_futures_end_when_the_client_is_closed():
    with serve("blocking", setup=calculator) as served, WseClient(served.url) as client:
        client.connect("a")
        futures = [client.submit("hold") for _ in range(10)]
        client.close()
        for future in futures:
            with pytest.raises(ConnectionError):
                future.result(seconds(5))
        served.server.held.set()


def test_waiting_for_a_message_reads_on_past_messages_that_wait_for_handlers() -> None:
    """A handler that waits for what stands behind a full queue gets it."""
    got: queue.Queue[object] = queue.Queue()

    with serve("blocking") as served:
        with WseClient(served.url, limits=Limits(max_queue=5)) as client:

            @client.channel.on("work")
            def work(payload: int) -> None:
                if payload == 0:
                    got.put(client.wait_for("at last", timeout=seconds(10)))

            client.connect("me")
            for i in range(30):
                served.server.broadcast("work", i)
            served.server.broadcast("at last", "here")
            assert got.get(timeout=seconds(10)) == "here"
