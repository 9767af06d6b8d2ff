"""The server of ``python -m benchmarks.soak``: both transports in one application."""

from __future__ import annotations

import gc
import os
import random
import sys
from typing import Any

from ..control import on_loop, resident_bytes, serve
from . import flavour

run = flavour.choose(sys.argv)

from tornado.httpserver import HTTPServer  # noqa: E402
from tornado.netutil import bind_sockets  # noqa: E402
from tornado.web import Application  # noqa: E402

from wse_tornado import AsyncWseServer, AuthRequest, Limits, WseError  # noqa: E402
from wse_tornado.core.server_connection import ServerConnection  # noqa: E402

LIMITS = Limits(
    heartbeat=1.0, heartbeat_timeout=1.0, auth_timeout=2.0, close_timeout=1.0, max_inbox=100
)
commands: dict[str, Any] = {}
counts = {"connected": 0, "messages": 0, "calls": 0, "errors": 0}


def identify(auth: AuthRequest) -> None:
    if isinstance(auth.identity, str) and auth.identity.startswith("user-"):
        auth.accept(auth.identity, {"message": "Welcome!"})
    else:
        auth.refuse()


def make(**options: Any) -> AsyncWseServer:
    """A server with everything on it that clients use."""
    server = AsyncWseServer(identify=identify, conn_per_user=3, limits=LIMITS, **options)

    @server.when.connected
    def connected(conn: Any) -> None:
        counts["connected"] += 1

    @server.when.error
    def failed(error: WseError, conn: Any) -> None:
        counts["errors"] += 1

    @server.channel.on("chat")
    def chat(conn: Any, payload: Any) -> None:
        counts["messages"] += 1
        conn.client.send("chat", payload)

    @server.register("echo")
    def echo(conn: Any, payload: Any) -> Any:
        counts["calls"] += 1
        return payload

    @server.register("back")
    async def back(conn: Any, payload: Any) -> Any:
        """Call the caller."""
        return await conn.call("echo", payload, timeout=1)

    return server


servers = [make(), make(transport="tornado", compression=True)]


def disturb(share: float) -> int:
    """Cut a share of all connections, each in one of the ways in which they end."""
    cut = 0
    for server in servers:
        server.broadcast("news", "x" * random.choice((10, 1000, 30_000)))
        for conn in tuple(server._hub.connections):
            if random.random() < share:
                cut += 1
                random.choice((conn.abort, conn.drop, lambda conn=conn: conn.close(1012, "")))()
    return cut


def count() -> dict[str, int]:
    """What there is now."""
    return {
        **counts,
        "users": sum(len(server.clients) for server in servers),
        "connections": sum(len(server._hub.connections) for server in servers),
        "files": len(os.listdir("/proc/self/fd")),
        "resident": resident_bytes(),
    }


def objects() -> int:
    """Connections that somebody still holds, open or not."""
    gc.collect()
    return sum(1 for one in gc.get_objects() if type(one) is ServerConnection)


async def start() -> int:
    for command in (disturb, count, objects):
        commands[command.__name__] = on_loop(command)
    bare, tornado = servers
    http = HTTPServer(Application([*bare.routes("/bare"), *tornado.routes("/tornado")]))
    sockets = bind_sockets(0, "127.0.0.1")
    http.add_sockets(sockets)
    return int(sockets[0].getsockname()[1])


if __name__ == "__main__":
    serve(start, run, commands)
