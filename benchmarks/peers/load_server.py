"""The server of ``python -m benchmarks.load``: 2,500 users of this library in one process."""

from __future__ import annotations

import gc
import os
import sys
from typing import Any

from ..control import on_loop, serve
from . import flavour

run = flavour.choose(sys.argv)

from wse_tornado import AsyncWseServer, AuthRequest  # noqa: E402
from wse_tornado.core.server_connection import ServerConnection  # noqa: E402

from .minimal import WELCOME, identify  # noqa: E402

commands: dict[str, Any] = {}
last: dict[str, int] = {}  # the number of the last message, by connection
counts = {"messages": 0, "disorder": 0, "errors": 0}


def judge(auth: AuthRequest) -> None:
    if identify(auth.identity):
        auth.accept(auth.identity, WELCOME)
    else:
        auth.refuse()


server = AsyncWseServer(identify=judge, conn_per_user=2)


@server.register("double")
def double(conn: Any, payload: int) -> int:
    return payload * 2


@server.channel.on("numbered")
def numbered(conn: Any, payload: int) -> None:
    """Count it, look at its order, and send it back."""
    counts["messages"] += 1
    if payload != last.get(conn.conn_id, -1) + 1:
        counts["disorder"] += 1
    last[conn.conn_id] = payload
    conn.send("numbered", payload)


@server.when.error
def failed(error: Any, conn: Any) -> None:
    counts["errors"] += 1
    sys.stderr.write(f"{error!r}\n")


@server.when.disconnected
def gone(conn: Any, code: int, reason: str) -> None:
    last.pop(conn.conn_id, None)


def broadcast() -> int:
    """To everyone; to how many."""
    return server.broadcast("everyone", {"text": "x" * 64})


def count() -> dict[str, int]:
    """What there is now."""
    return {
        **counts,
        "users": len(server.clients),
        "connections": sum(len(client.conns) for client in server.clients.values()),
        "files": len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0,
    }


def objects() -> int:
    """Connections that somebody still holds, open or not."""
    gc.collect()
    return sum(1 for one in gc.get_objects() if type(one) is ServerConnection)


async def start() -> int:
    for command in (broadcast, count, objects):
        commands[command.__name__] = on_loop(command)
    return server.listen(0, "127.0.0.1")


if __name__ == "__main__":
    serve(start, run, commands)
