"""The signals of a server and of a client: what they tell, by name. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .events import Handler, Signal

__all__ = ["ClientSignals", "ServerSignals"]


class ServerSignals:
    """What a server tells; subscribe with ``server.when.joined(fn)`` or as a decorator.

    Events of one connection come in order. Events that two connections of one user cause may
    overtake each other while handlers of the first still run: `clients` knows who is there now.

    Attributes:
        joined: ``(client, meta)``, a user's first device is in.
        left: ``(client, code, reason)``, a user's last device is gone.
        connected: ``(conn)``, a device is in.
        disconnected: ``(conn, code, reason)``, a device is gone; it is no longer in
            ``conn.client.conns``.
        ignored: ``(conn, message)``, a message of a type without a handler.
        error: ``(error, conn)``, a problem without a caller to raise in; ``conn`` may be None.
    """

    def __init__(self, *, inline: bool) -> None:
        self.joined = Signal("joined", ("client", "meta"), inline=inline)
        self.left = Signal("left", ("client", "code", "reason"), inline=inline)
        self.connected = Signal("connected", ("conn",), inline=inline)
        self.disconnected = Signal("disconnected", ("conn", "code", "reason"), inline=inline)
        self.ignored = Signal("ignored", ("conn", "message"), inline=inline)
        self.error = Signal("error", ("error", "conn"), inline=inline)


class ClientSignals:
    """What a client tells; subscribe with ``client.when.ready(fn)`` or as a decorator.

    Attributes:
        connected: ``()``, the socket is open, authentication begins.
        ready: ``(welcome)``, the server has let the client in; told to late subscribers too.
        closed: ``(code, reason)``, a connection is over, a refused one too.
        updated: ``(status)``, the `Status` changed; told to late subscribers too.
        ignored: ``(message)``, a message without a handler (it waits for ``receive``).
        error: ``(error)``, a problem without a caller to raise in.
    """

    def __init__(
        self, *, inline: bool, replay: Callable[[Signal, Handler, tuple[Any, ...]], None]
    ) -> None:
        self.connected = Signal("connected", (), inline=inline)
        self.ready = Signal("ready", ("welcome",), inline=inline, replays=replay)
        self.closed = Signal("closed", ("code", "reason"), inline=inline)
        self.updated = Signal("updated", ("status",), inline=inline, replays=replay)
        self.ignored = Signal("ignored", ("message",), inline=inline)
        self.error = Signal("error", ("error",), inline=inline)
