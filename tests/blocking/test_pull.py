"""Pull style: ``receive``, iteration, ``wait_for``, ``wait``, and many calls with ``submit``."""

import queue
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed, wait

import pytest

from tests.support import RawServer, seconds, serve, wait_until
from wse_tornado import (
    ConnectionNotReady,
    Limits,
    Message,
    NotSerializable,
    ReceiveTimeout,
    RpcDisconnected,
    RpcFailed,
    RpcNotRegistered,
    RpcTimeout,
    WaitTimeout,
    WseClient,
)


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


def test_receive_gives_messages_in_order():
    with RawServer(sends(("one", 1), ("two", None))) as raw, connected(raw) as client:
        assert client.receive(timeout=seconds(5)) == Message("one", 1)
        type, payload = client.receive(timeout=seconds(5))
        assert (type, payload) == ("two", None)
        with pytest.raises(ReceiveTimeout) as caught:
            client.receive(timeout=0.05)
        assert isinstance(caught.value, TimeoutError)


def test_receive_with_no_time_looks_and_does_not_wait():
    with RawServer(sends(("one", 1), ("two", 2))) as raw, connected(raw) as client:
        client.wait_for("two", timeout=seconds(5))
        assert client.receive(timeout=0) == Message("one", 1)
        with pytest.raises(ReceiveTimeout):
            client.receive(timeout=0)


def test_receive_leaves_messages_of_handlers_alone():
    handled = []
    with RawServer(sends(("mine", 1), ("other", 2))) as raw:
        with WseClient(raw.url) as client:
            client.channel.on("mine", handled.append)
            client.connect("a")
            assert client.receive(timeout=seconds(5)) == Message("other", 2)
        assert handled == [1]


def test_what_came_before_the_end_can_still_be_received():
    with RawServer(sends(("one", 1), ("two", 2), then=hang_up)) as raw, connected(raw) as client:
        assert client.wait(timeout=seconds(5))
        assert client.receive().payload == 1
        assert client.receive().payload == 2
        with pytest.raises(ConnectionNotReady):
            client.receive()


def test_iteration_ends_with_the_connection():
    with RawServer(sends(("one", 1), ("two", 2), then=hang_up)) as raw, connected(raw) as client:
        assert [message.type for message in client] == ["one", "two"]


def test_a_full_inbox_drops_the_oldest():
    messages = [("number", number) for number in range(10)]
    with RawServer(sends(*messages, ("last", None), then=hang_up)) as raw:
        with connected(raw, limits=Limits(max_inbox=4)) as client:
            client.wait()
            got = [message.payload for message in client]
    assert got == [7, 8, 9, None]


def test_wait_for_takes_one_message_out_of_the_middle():
    with RawServer(sends(("a", 1), ("b", 2), ("a", 3))) as raw, connected(raw) as client:
        assert client.wait_for("b", timeout=seconds(5)) == 2
        assert client.receive(timeout=seconds(5)).payload == 1
        assert client.receive(timeout=seconds(5)).payload == 3


def test_wait_for_with_a_predicate_passes_over_what_does_not_fit():
    with RawServer(sends(("n", 1), ("n", 2), ("n", 3))) as raw, connected(raw) as client:
        assert client.wait_for("n", lambda payload: payload > 1, timeout=seconds(5)) == 2
        assert client.wait_for("n", timeout=seconds(5)) == 1
        with pytest.raises(ReceiveTimeout):
            client.wait_for("n", lambda payload: payload > 5, timeout=0.05)
        assert client.receive(timeout=seconds(5)).payload == 3


@pytest.mark.parametrize("waiting", [False, True])
def test_an_exception_of_the_predicate_is_raised_in_the_caller(waiting):
    go = threading.Event()

    def script(peer):
        peer.recv()
        peer.send("~wse:welcome", None, None)
        if waiting:
            go.wait(seconds(10))
        peer.send("n", 0)
        peer.send("last", None)
        peer.wait_closed()

    with RawServer(script) as raw, connected(raw) as client, ThreadPoolExecutor(1) as pool:
        if not waiting:
            client.wait_for("last")
        result = pool.submit(client.wait_for, "n", lambda payload: 1 / payload)
        if waiting:
            wait_until(lambda: client._core.inbox._waiters)
            go.set()
        with pytest.raises(ZeroDivisionError):
            result.result(seconds(5))
        assert client.wait_for("n", timeout=seconds(5)) == 0  # it is still there


def test_wait_for_sees_a_message_that_a_handler_takes_as_well():
    handled = []
    with serve("blocking") as served, WseClient(served.url) as client:
        client.channel.on("news", handled.append)
        client.connect("a")
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(client.wait_for, "news", timeout=seconds(5))
            wait_until(lambda: client._core.inbox._waiters)
            served.server.send("a", "news", 1)
            assert result.result() == 1
        wait_until(lambda: handled == [1])


def test_wait_for_a_type_of_the_library_is_refused():
    with serve("blocking") as served, WseClient(served.url) as client:
        client.connect("a")
        with pytest.raises(ValueError, match="belongs to the library"):
            client.wait_for("~wse:welcome")


def test_each_message_goes_to_one_of_many_receivers():
    messages = [("n", number) for number in range(100)]
    with RawServer(sends(*messages, then=hang_up)) as raw, connected(raw) as client:
        with ThreadPoolExecutor(5) as pool:
            parts = [pool.submit(list, client) for _ in range(5)]
            got = [m.payload for part in parts for m in part.result(seconds(10))]
    assert sorted(got) == list(range(100))


@pytest.mark.parametrize(
    "pull",
    [
        lambda client: client.receive(timeout=1),
        lambda client: client.wait_for("news", timeout=1),
        lambda client: client.wait_ready(timeout=1),
    ],
)
def test_pulling_before_connect_names_the_way_out(pull):
    client = WseClient("ws://127.0.0.1:1")
    with pytest.raises(ConnectionNotReady, match=r"connect\(\) first"):
        pull(client)
    assert list(client) == []
    assert client.wait() is True


def test_wait_tells_whether_the_client_is_closed():
    with serve("blocking") as served, WseClient(served.url) as client:
        client.connect("a")
        assert client.wait(timeout=0.05) is False
        served.server.drop_client("a")
        assert client.wait(timeout=seconds(5)) is True


def test_wait_ready_waits_for_the_reconnection():
    def script(peer):
        peer.recv()
        peer.send("~wse:welcome", None, None)
        if len(raw.peers) == 1:
            peer.kill()
        else:
            peer.wait_closed()

    with RawServer(script) as raw, connected(raw, reconnect=True) as client:
        wait_until(lambda: client.status == "RE_CONNECTING" or len(raw.peers) > 1)
        client.wait_ready(timeout=seconds(10))
        assert client.status == "READY"


def test_wait_ready_ends_with_its_time():
    with RawServer(sends(then=lambda peer: peer.kill())) as raw:
        client = connected(raw, reconnect=True)
        wait_until(lambda: client.status == "RE_CONNECTING")
        raw.close()
        with client, pytest.raises(WaitTimeout):
            client.wait_ready(timeout=0.2)


# -- submit


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
        assert not client._core.link.pending


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
        assert client._loop._waits == {served.server._stopped}


def test_a_cancelled_future_forgets_its_call():
    with serve("blocking", setup=calculator) as served, WseClient(served.url) as client:
        client.connect("a")
        future = client.submit("hold")
        wait_until(lambda: len(client._core.link.pending) == 1)
        assert future.cancel()
        with pytest.raises(CancelledError):
            future.result()
        wait_until(lambda: len(client._core.link.pending) == 0)
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
        began = time.monotonic()
        for future in futures:
            with pytest.raises(ConnectionError):
                future.result(seconds(1))
        assert time.monotonic() - began < seconds(1)
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
