"""Compression, and what does not depend on the transport."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tornado.websocket import websocket_connect

from wse_tornado import (
    AsyncWseClient,
    AsyncWseServer,
    WseClient,
    WseServer,
)

from ..support import (
    accept_all,
    seconds,
)
from ..support.loops import record_client


@asynccontextmanager
async def client_at(url: str, identity: Any = "alice", **options: Any) -> AsyncIterator[Any]:
    options.setdefault("timeout", seconds(10))
    async with AsyncWseClient(url, **options) as client:
        await client.connect(identity)
        yield client


@pytest.mark.parametrize("on_server", [False, True, {"compression_level": 9}], ids=repr)
@pytest.mark.parametrize("on_client", [False, True], ids=repr)
async def test_compression_is_used_where_both_ends_want_it(on_server: Any, on_client: Any) -> None:
    server = AsyncWseServer(identify=accept_all, compression=on_server)
    port = server.listen(0, "127.0.0.1")
    text = "compressible " * 20_000
    async with client_at(f"ws://127.0.0.1:{port}", compression=on_client) as client:
        server.register("echo", lambda conn, payload: payload)
        client.register("echo", lambda payload: payload)
        assert await client.call("echo", text) == text
        (conn,) = server.clients["alice"].conns.values()
        assert await conn.call("echo", text) == text
        assert server.broadcast("m", text) == 1
        assert (await client.receive()).payload == text
        events = record_client(client)
        conn.drop("over")
        assert await events.wait("closed") == (1000, "over")
    await server.stop()


async def test_compression_is_negotiated_with_any_client() -> None:
    server = AsyncWseServer(identify=accept_all, compression=True)
    port = server.listen(0, "127.0.0.1")
    ws = await websocket_connect(
        f"ws://127.0.0.1:{port}",
        subprotocols=["wse-default-json"],
        compression_options={},
    )
    assert "permessage-deflate" in ws.headers["Sec-WebSocket-Extensions"]
    await ws.write_message('["~wse:hi",{"identity":"alice"},null]')
    assert await ws.read_message() == '["~wse:welcome",{"message":"Welcome!"},null]'
    ws.close()
    assert await ws.read_message() is None
    await server.stop()


@pytest.mark.parametrize("transport", ["auto", "tornado", "pigeon"])
def test_the_argument_transport_is_ignored_with_a_warning(transport: str) -> None:
    for make in (
        lambda: AsyncWseServer(transport=transport),
        lambda: AsyncWseClient("ws://localhost", transport=transport),
        lambda: WseServer(transport=transport),
        lambda: WseClient("ws://localhost", transport=transport),
    ):
        with pytest.warns(DeprecationWarning, match="no effect") as caught:
            make()
        assert [warning.filename for warning in caught] == [__file__]
