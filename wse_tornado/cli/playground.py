"""``serve``: a server to try things on."""

from __future__ import annotations

import argparse
import asyncio
import errno
import hmac
import json
import os
import threading
from collections.abc import Iterable
from typing import Any

from ..admission import AuthRequest
from ..blocking.connection import Connection
from ..blocking.server import WseServer
from ..challenge import HmacChallenge
from ..errors import WseError
from .page import PageHandler
from .text import DONE, OTHER, tell, write_line

__all__ = ["playground", "serve"]

DEVICES_PER_USER = 16
LONGEST_SLEEP = 3600  # seconds


def serve(options: argparse.Namespace) -> int:
    """Run a playground until Ctrl-C."""
    server = playground(
        options.port,
        options.host,
        key=options.key or os.environ.get("WSE_KEY") or None,
        secret=options.secret or os.environ.get("WSE_SECRET") or None,
        origins=options.origins,
    )
    try:
        server.start()
    except OSError as exc:
        hint = "; --port 0 takes a free one" if exc.errno == errno.EADDRINUSE else ""
        tell(f"cannot listen on port {options.port} of {options.host}: {exc}{hint}")
        return OTHER
    try:
        write_line(server.url)
        tell(f"open {page_url(server)} in a browser; Ctrl-C ends it")
        server.wait()
    finally:
        server.stop()
    return DONE


def playground(
    port: int,
    host: str,
    *,
    key: str | None = None,
    secret: str | None = None,
    origins: Iterable[str] | None = None,
) -> WseServer:
    """The server of ``serve``, not started: procedures to call, a chat, and a page at ``/``.

    A "chat" message goes to everybody. Who sends "watch" gets "users" messages, now and whenever
    somebody comes or goes.

    Args:
        port: Where to listen; 0 takes a free one.
        host: A name or an address to bind.
        key: The one identity that is let in, as the user that its meta names; by default all
            identities are, each a user of that name.
        secret: What clients must know to answer the challenge; by default they are set none.
        origins: Origins of web pages that may connect besides its own.
    """

    def identify(auth: AuthRequest) -> None:
        user = user_of(auth.identity) if key is None else auth.meta.get("user") or "user"
        if auth.identity and (key is None or same(auth.identity, key)):
            auth.accept(str(user), {"user": str(user)})
        else:
            auth.refuse()

    asks = [name for name, wanted in (("key", key), ("secret", secret)) if wanted is not None]
    server = WseServer(
        port,
        host=host,
        identify=identify,
        conn_per_user=DEVICES_PER_USER,
        allowed_origins=origins,
        handlers=[(r"/", PageHandler, {"asks": asks})],
    )
    if secret is not None:
        known = secret
        server.use_challenge(HmacChallenge(lambda identity: known))

    watchers: dict[str, Connection] = {}
    in_order = threading.Lock()  # handlers run beside one another; the last list has to be true

    def users(*_: Any) -> list[str]:
        return sorted(map(str, server.clients))

    def tell_watchers(*_: Any) -> None:
        with in_order:
            names = users()
            for conn in watchers.values():
                conn.send("users", names)

    def watch(conn: Connection, payload: Any) -> None:
        with in_order:
            watchers[conn.conn_id] = conn
            conn.send("users", users())

    def unwatch(conn: Connection, code: int, reason: str) -> None:
        with in_order:
            watchers.pop(conn.conn_id, None)

    def chat(conn: Connection, payload: Any) -> None:
        said = payload if isinstance(payload, dict) else {"text": payload}
        server.broadcast("chat", {**said, "from": conn.cid})

    server.register("add", add)
    server.register("echo", echo)
    server.register("sleep", sleep)
    server.register("whoami", whoami)
    server.register("users", users)
    server.channel.on("chat", chat)
    server.channel.on("watch", watch)
    server.when.joined(tell_watchers)
    server.when.left(tell_watchers)
    server.when.disconnected(unwatch)
    server.when.error(lambda error, conn: tell(str(error)))
    return server


def page_url(server: WseServer) -> str:
    """Where browsers of this machine find the page."""
    return server.url.replace("ws", "http", 1) + "/"


def user_of(identity: Any) -> str:
    """The user's name, as the others see it."""
    return identity if isinstance(identity, str) else json.dumps(identity)


def same(given: Any, key: str) -> bool:
    """Whether the key was given; the time it takes tells nothing."""
    return isinstance(given, str) and hmac.compare_digest(
        given.encode("utf-8", "replace"), key.encode("utf-8", "replace")
    )


def add(conn: Connection, payload: Any) -> int | float:
    """The sum of a and b."""
    return number(payload, "a") + number(payload, "b")


def echo(conn: Connection, payload: Any) -> Any:
    """The payload itself."""
    return payload


async def sleep(conn: Connection, payload: Any) -> None:
    """An answer that comes late."""
    await asyncio.sleep(min(max(number(payload, "seconds"), 0), LONGEST_SLEEP))


def whoami(conn: Connection, payload: Any) -> dict[str, Any]:
    """What the server knows of the caller."""
    return {"user": conn.cid, "meta": conn.meta, "devices": len(conn.client.conns)}


def number(payload: Any, key: str) -> int | float:
    """A number of the payload.

    Raises:
        WseError: There is none of that name.
    """
    value = payload.get(key) if isinstance(payload, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise WseError("playground.no-number", {"key": key})
    return value
