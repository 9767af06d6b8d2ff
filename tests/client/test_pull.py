"""Pull style: `receive`, `wait_for`, iteration, `wait` and `wait_ready`."""

import asyncio
import threading
from typing import Any

import pytest

from wse_tornado import (
    AsyncWseClient,
    ConnectionNotReady,
    Limits,
    Message,
    ReceiveTimeout,
)

from ..support import (
    RawPeer,
    RawServer,
    beside,
    let_in,
    outcome,
    seconds,
    serve,
    stay,
    use,
    wait_until,
)
from ..support.loops import connected, listening


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


def test_receive_gives_what_no_handler_takes_in_order(flavour: str) -> None:
    handled: list[Any] = []
    messages = [("mine", 0), ("one", 1), ("mine", 1), ("two", None)]
    with RawServer(sends(*messages)) as server, use(flavour, server.url) as used:
        used.client.channel.on("mine", handled.append)
        used.connect("ann")
        assert used.receive() == Message("one", 1)
        assert used.receive() == ("two", None)
        wait_until(lambda: handled == [0, 1])
        with pytest.raises(ReceiveTimeout, match=r"no message came within 0\.05 s") as caught:
            used.do(used.client.receive, timeout=0.05)
        assert isinstance(caught.value, TimeoutError)


def test_receive_with_no_time_looks_and_does_not_wait(flavour: str) -> None:
    with RawServer(sends(("one", 1), ("two", 2))) as server, use(flavour, server.url) as used:
        used.connect("ann")
        used.wait_for("two")
        assert used.do(used.client.receive, timeout=0) == Message("one", 1)
        with pytest.raises(ReceiveTimeout):
            used.do(used.client.receive, timeout=0)


def test_what_came_before_the_end_can_still_be_received(flavour: str) -> None:
    script = sends(("one", 1), ("two", 2), then=hang_up)
    with RawServer(script) as server, use(flavour, server.url) as used:
        used.connect("ann")
        assert used.do(used.client.wait, timeout=seconds(5))
        assert [used.receive().payload for _ in range(2)] == [1, 2]
        with pytest.raises(ConnectionNotReady, match="closed: 1000 enough"):
            used.receive()


async def listed(client: AsyncWseClient) -> list[Any]:
    return [message.type async for message in client]


def test_iteration_ends_with_the_connection(flavour: str) -> None:
    script = sends(("one", 1), ("two", 2), then=hang_up)
    with RawServer(script) as server, use(flavour, server.url) as used:
        used.connect("ann")
        if flavour == "blocking":
            assert [message.type for message in used.client] == ["one", "two"]
        else:
            assert used.do(listed, used.client) == ["one", "two"]


def test_a_full_inbox_drops_the_oldest_and_counts_it(flavour: str) -> None:
    messages = [("number", number) for number in range(10)]
    with RawServer(sends(*messages, then=hang_up)) as server:
        with use(flavour, server.url, limits=Limits(max_inbox=4)) as used:
            used.connect("ann")
            used.do(used.client.wait, timeout=seconds(5))
            assert [used.receive().payload for _ in range(4)] == [6, 7, 8, 9]
            assert used.client.stats()["inbox_dropped"] == 6


def test_wait_for_takes_one_type_and_what_fits_and_leaves_the_others(flavour: str) -> None:
    messages = [("a", 1), ("b", 2), ("b", 3), ("a", 4)]
    with RawServer(sends(*messages)) as server, use(flavour, server.url) as used:
        used.connect("ann")
        assert used.wait_for("b", lambda payload: payload > 2) == 3
        assert used.receive() == Message("a", 1)
        assert used.wait_for("a") == 4
        with pytest.raises(ReceiveTimeout, match="of the type 'b'"):
            used.do(used.client.wait_for, "b", lambda payload: payload > 5, timeout=0.05)
        assert used.receive() == Message("b", 2)


@pytest.mark.parametrize("waiting", [False, True])
def test_an_exception_of_the_predicate_is_raised_in_its_own_wait(
    flavour: str, waiting: bool
) -> None:
    go = threading.Event()

    def script(peer: RawPeer) -> None:
        let_in(peer)
        if waiting:
            go.wait(seconds(10))
        peer.send("n", 0)
        peer.send("last", None)
        stay(peer)

    with RawServer(script) as server, use(flavour, server.url) as used:
        used.connect("ann")
        if not waiting:
            used.wait_for("last")
        result = beside(used.wait_for, "n", lambda payload: 1 / payload)
        if waiting:
            used.waiting(1)
            go.set()
        with pytest.raises(ZeroDivisionError):
            outcome(result)
        assert used.wait_for("n") == 0  # it is still there


def test_wait_for_sees_a_message_that_a_handler_takes_as_well(flavour: str) -> None:
    handled: list[Any] = []
    with serve("blocking") as served, use(flavour, served.url) as used:
        used.client.channel.on("news", handled.append)
        used.connect("ann")
        result = beside(used.wait_for, "news")
        used.waiting(1)
        served.server.send("ann", "news", 1)
        assert outcome(result) == 1
        wait_until(lambda: handled == [1])


def test_wait_tells_whether_the_client_is_closed(flavour: str) -> None:
    with serve("blocking") as served, use(flavour, served.url) as used:
        used.connect("ann")
        assert used.do(used.client.wait, timeout=0.05) is False
        used.do(used.client.wait_ready, timeout=0.05)
        served.server.drop_client("ann")
        assert used.do(used.client.wait, timeout=seconds(5)) is True


async def test_a_cancelled_receive_loses_no_message() -> None:
    async with listening() as server, connected(server) as client:
        waiting = asyncio.ensure_future(client.receive())
        await asyncio.sleep(0)
        client._connector.inbox.offer(Message("a", 1), keep=True)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await client.receive() == Message("a", 1)
