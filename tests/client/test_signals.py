"""What a client tells: its signals, errors, and the log."""

import asyncio
import json
import threading
from typing import Any

import pytest

from wse_tornado import (
    AsyncWseClient,
    AsyncWseServer,
    RpcError,
    Status,
    WseClient,
    WseError,
)

from ..support import (
    serve,
    use,
    wait_until,
)
from ..support.loops import client_of, connected, listening, record_client, url_of


async def test_the_signals_tell_the_whole_story_in_order() -> None:
    async with listening() as server:
        client = client_of(server)
        events = record_client(client)
        await client.connect("alice")
        server.send("alice", "unheard", {"n": 1})
        await events.wait("ignored")
        server.drop_client("alice", "the end")
        await events.wait("closed")
    assert events == [
        ("updated", "IDLE"),
        ("updated", "CONNECTING"),
        ("connected",),
        ("updated", "READY"),
        ("ready", {"message": "Welcome!"}),
        ("ignored", "unheard", {"n": 1}),
        ("closed", 1000, "the end"),
        ("updated", "OFFLINE"),
    ]
    assert client.closed_with == (1000, "the end")


async def test_late_subscribers_get_the_last_ready_and_updated() -> None:
    async with listening() as server, connected(server) as client:
        late: list[Any] = []
        client.when.ready(late.append)
        client.when.updated(late.append)
        assert late == [{"message": "Welcome!"}, Status.READY]
        await client.close()
        later: list[Any] = []
        client.when.ready(later.append)
        client.when.updated(later.append)
        assert later == [Status.OFFLINE]


def test_subscribing_needs_no_loop() -> None:
    urls: list[str] = []
    client = AsyncWseClient(lambda: urls[0])
    seen: list[Any] = []
    client.when.updated(seen.append)

    @client.when.updated
    async def updated(status: Status) -> None:
        seen.append(str(status))

    async def main() -> None:
        async with listening() as server:
            urls.append(url_of(server))
            await client.connect("alice")
            await client.close()

    asyncio.run(main())
    assert [str(status) for status in seen] == [
        *["IDLE", "IDLE", "CONNECTING", "CONNECTING"],
        *["READY", "READY", "OFFLINE", "OFFLINE"],
    ]


async def test_a_replay_from_another_thread_never_comes_after_a_newer_event() -> None:
    async with listening() as server, connected(server) as client:
        seen: list[Any] = []
        thread = threading.Thread(target=lambda: client.when.updated(seen.append))
        thread.start()
        thread.join()  # subscribed; the replay waits for the loop, which this blocks
        client.drop()
        await client.close()
        assert seen[-1] == Status.OFFLINE


async def test_without_a_listener_errors_go_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with listening() as server, connected(server) as client:
        client.channel.on("bad", lambda payload: 1 / 0)
        server.broadcast("bad")
        await client_sync(server, client)
        (record,) = [r for r in caplog.records if r.name == "wse_tornado.client"]
        assert record.levelname == "ERROR"
        assert record.exc_info is not None
        assert "ZeroDivisionError" in record.getMessage()


async def test_a_handler_of_errors_that_raises_is_logged_and_not_told_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with listening() as server, connected(server) as client:
        calls: list[Any] = []

        @client.when.error
        def error(error: WseError) -> None:
            calls.append(error)
            raise ValueError("in the handler of errors")

        client.channel.on("bad", lambda payload: 1 / 0)
        server.broadcast("bad")
        await client_sync(server, client)
        assert len(calls) == 1
        assert "a handler of errors, raised" in caplog.text


async def client_sync(server: AsyncWseServer, client: AsyncWseClient) -> None:
    """Everything the server has sent before is here and handled when this returns."""
    if "sync" not in server._hub.shared.procedures:
        server.register("sync", lambda conn, payload: None)
    await client.call("sync")


def test_the_repr_tells_status_and_url(flavour: str) -> None:
    with serve(flavour) as served, use(flavour, served.url) as used:
        name = type(used.client).__name__
        assert repr(used.client) == f"<{name} IDLE {served.url}>"
        used.connect("ann")
        assert repr(used.client) == f"<{name} READY {served.url}>"
        used.close()
        assert repr(used.client) == f"<{name} OFFLINE {served.url}>"
    assert repr(AsyncWseClient(lambda: "")) == "<AsyncWseClient IDLE the server>"


def test_client_stats_tell_what_happened() -> None:
    def setup(server):
        server.register("add", lambda conn, payload: sum(payload))
        server.register("hang", lambda conn, payload: gate.wait(10))

    gate = threading.Event()
    with serve("blocking", setup=setup) as served, WseClient(served.url) as client:
        assert client.stats()["status"] == "IDLE"
        client.connect("me")
        client.call("add", [1, 2])
        with pytest.raises(RpcError):
            client.call("nothing")
        with pytest.raises(TimeoutError):
            client.call("hang", timeout=0.05)
        gate.set()
        wait_until(lambda: client.stats()["calls_made"]["forgotten"] == 1)
        made = client.stats()["calls_made"]
        assert made == {"ok": 1, "failed": 1, "forgotten": 1, "disconnected": 0}
        json.dumps(client.stats())
