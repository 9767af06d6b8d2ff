"""The server of ``benchmarks.load`` and ``benchmarks.soak``: ``watched_server FLAVOUR load|soak``.

It counts what it sees. For the soak there are two servers in one application, with and without
compression, and short time-outs.
"""

from __future__ import annotations

import os
import random
import sys
from functools import partial
from typing import Any

from ..control import on_loop, resident_bytes, serve
from . import flavour
from .inside import cut_connection, objects
from .servers import HOST, judge, listen

run = flavour.choose(sys.argv[1])

from tornado.web import Application  # noqa: E402

from wse_tornado import AsyncWseServer, Limits  # noqa: E402

SHORT = Limits(
    heartbeat=1.0, heartbeat_timeout=1.0, auth_timeout=2.0, close_timeout=1.0, max_inbox=100
)
counts = {"connected": 0, "messages": 0, "calls": 0, "disorder": 0, "errors": 0}
servers: list[AsyncWseServer] = []


def make(**options: Any) -> AsyncWseServer:
    """A server with everything on it that clients use."""
    server = AsyncWseServer(identify=judge, **options)
    last: dict[str, int] = {}  # the number of the last message, by connection

    @server.when.connected
    def connected(conn: Any) -> None:
        counts["connected"] += 1

    @server.when.disconnected
    def gone(conn: Any, code: int, reason: str) -> None:
        last.pop(conn.conn_id, None)

    @server.when.error
    def failed(error: Any, conn: Any) -> None:
        counts["errors"] += 1
        if sys.argv[2] == "load":  # where none is expected
            sys.stderr.write(f"{error!r}\n")

    @server.channel.on("numbered")
    def numbered(conn: Any, payload: int) -> None:
        """Count it, look at its order, and send it back."""
        counts["messages"] += 1
        if payload != last.get(conn.conn_id, -1) + 1:
            counts["disorder"] += 1
        last[conn.conn_id] = payload
        conn.send("numbered", payload)

    @server.channel.on("chat")
    def chat(conn: Any, payload: Any) -> None:
        counts["messages"] += 1
        conn.client.send("chat", payload)

    @server.register("double")
    def double(conn: Any, payload: int) -> int:
        return payload * 2

    @server.register("echo")
    def echo(conn: Any, payload: Any) -> Any:
        counts["calls"] += 1
        return payload

    @server.register("back")
    async def back(conn: Any, payload: Any) -> Any:
        """Call the caller."""
        return await conn.call("echo", payload, timeout=1)

    servers.append(server)
    return server


def broadcast() -> int:
    """To everyone; to how many."""
    return sum(server.broadcast("everyone", {"text": "x" * 64}) for server in servers)


def disturb(share: float) -> int:
    """Broadcast, and cut a share of all connections in the ways in which servers end them."""
    cut = 0
    for server in servers:
        server.broadcast("news", "x" * random.choice((10, 1000, 30_000)))
        for client in tuple(server.clients.values()):
            for conn in tuple(client.conns.values()):
                if random.random() < share:
                    cut += 1
                    random.choice((partial(cut_connection, conn), conn.drop, client.drop))()
    return cut


def count() -> dict[str, int]:
    """What there is now."""
    return {
        **counts,
        "users": sum(len(server.clients) for server in servers),
        "connections": sum(
            len(client.conns) for server in servers for client in server.clients.values()
        ),
        "files": len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0,
        "resident": resident_bytes(),
        "objects": objects(),
    }


commands: dict[str, Any] = {}


async def start() -> int:
    commands.update({each.__name__: on_loop(each) for each in (broadcast, disturb, count)})
    if sys.argv[2] == "load":
        return make(conn_per_user=2).listen(0, HOST)
    plain = make(conn_per_user=3, limits=SHORT).routes("/plain")
    deflate = make(conn_per_user=3, limits=SHORT, compression=True).routes("/deflate")
    return listen(Application([*plain, *deflate]), None)


if __name__ == "__main__":
    serve(start, run, commands)
