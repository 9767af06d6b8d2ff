"""``serve``: a server to try things on."""

from __future__ import annotations

import argparse
import asyncio
import errno
import hmac
import json
import os
import signal
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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
# Running calls may finish after SIGTERM. Container runtimes send SIGKILL 10 seconds after it.
STOP_GRACE = 5.0  # seconds
# What clients of this machine connect to. "::" is bound for IPv6 alone, so "localhost", which may
# resolve to 127.0.0.1, would not do there.
LOOPBACKS = {"": "localhost", "0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104


def serve(options: argparse.Namespace) -> int:
    """Run a playground until Ctrl-C or SIGTERM."""
    server = playground(
        options.port,
        options.host,
        key=options.key or os.environ.get("WSE_KEY") or None,
        secret=options.secret or os.environ.get("WSE_SECRET") or None,
        origins=options.origins,
    )
    try:
        with sigterm_raises():
            return _run(server, options)
    except Terminated:
        server.stop(grace=STOP_GRACE)
        return DONE


def _run(server: WseServer, options: argparse.Namespace) -> int:
    try:
        server.start()
    except OSError as exc:
        hint = "; --port 0 takes a free one" if exc.errno == errno.EADDRINUSE else ""
        tell(f"cannot listen on port {options.port} of {options.host}: {exc}{hint}")
        return OTHER
    try:
        write_line(local_url(server.url, options.host))
        tell(f"open {page_url(server.url, options.host)} in a browser; Ctrl-C ends it")
        if (address := network_address(options.host)) is not None:
            tell(f"other computers connect to ws://{address}:{server.port}")
        server.wait()
    except Terminated:
        raise  # stopped with a grace by the caller
    except BaseException:
        server.stop()
        raise
    server.stop()
    return DONE


class Terminated(BaseException):
    """SIGTERM arrived."""


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Raise `Terminated` in the main thread on the first SIGTERM, and ignore further ones.

    Process 1 of a container has no default action for SIGTERM: without a handler the signal is
    ignored, and the container is killed after its time-out.
    """

    def terminate(signum: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except Terminated:
        raise  # the process ends; a second SIGTERM does not shorten the grace
    except BaseException:
        signal.signal(signal.SIGTERM, before)
        raise
    signal.signal(signal.SIGTERM, before)


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


def local_url(url: str, host: str) -> str:
    """A URL that answers on this machine, whatever address was bound."""
    if (name := LOOPBACKS.get(host)) is None:
        return url
    return f"ws://{name}:{url.rpartition(':')[2]}"


def page_url(url: str, host: str) -> str:
    """Where browsers of this machine find the page."""
    return local_url(url, host).replace("ws", "http", 1) + "/"


def network_address(host: str) -> str | None:
    """This machine's own address on its network, where all of them were bound; else None."""
    if host not in LOOPBACKS:
        return None
    family, probe = (
        (socket.AF_INET6, "2001:db8::1") if host == "::" else (socket.AF_INET, "192.0.2.1")
    )
    try:
        # Connecting a UDP socket sends nothing; it only chooses the address to send from.
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((probe, 9))
            address: str = sock.getsockname()[0]
    except OSError:
        return None
    return f"[{address}]" if ":" in address else address


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
