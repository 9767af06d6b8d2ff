"""This library's async server."""

from __future__ import annotations

import sys
from typing import Any

from ..control import serve
from . import flavour

run = flavour.choose(sys.argv)

from wse_tornado import AsyncWseServer, AuthRequest  # noqa: E402

from .minimal import WELCOME, add, identify  # noqa: E402


def judge(auth: AuthRequest) -> None:
    if identify(auth.identity):
        auth.accept(auth.identity, WELCOME)
    else:
        auth.refuse()


server = AsyncWseServer(identify=judge)


@server.register("add")
def served_add(conn: Any, payload: dict[str, int]) -> int:
    return add(payload)


@server.register("echo")
def echo(conn: Any, payload: Any) -> Any:
    return payload


@server.channel.on("shout")
def shout(conn: Any, payload: Any) -> None:
    server.broadcast("shout", payload)


async def start() -> int:
    return server.listen(0, "127.0.0.1")


if __name__ == "__main__":
    serve(start, run)
