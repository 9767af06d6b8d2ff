"""Every bound of the library and its default, in one place. Pure data."""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["Limits"]


_MAY_BE_OFF = frozenset({"heartbeat", "message_rate"})


@dataclass(frozen=True)
class Limits:
    """Bounds of a server or a client. Sizes are bytes, times are seconds.

    Raises:
        ValueError: A bound is negative or of no use.
    """

    max_message_size: int = 10 * 1024 * 1024
    """Largest message accepted; a larger one ends the connection with 1009."""

    max_send_buffer: int = 4 * 1024 * 1024
    """Bytes that may wait for a slow peer. A server closes with 1013 past it; a blocking
    client's ``send`` waits. A single message larger than this still goes out when nothing
    waits ahead of it."""

    max_queue: int = 1000
    """Messages of one connection that may wait for their handlers before reading pauses. It does
    not pause while a call to that peer is pending, or a client's ``receive`` waits: what is waited
    for stands behind them. With ten times as many the connection is closed with 1013."""

    max_pending_calls: int = 10_000
    """Calls of one connection that may be under way in each direction. A further one made here
    raises; a further one of the peer is answered with ``wse.too-many-calls``."""

    message_rate: float = 0.0
    """Messages per second a server takes from one connection on average (a token bucket);
    above it the connection is closed with 1008. 0 turns it off."""

    message_burst: int = 100
    """Messages that may come at once on top of ``message_rate``."""

    max_inbox: int = 1000
    """Messages that may wait for ``receive``; past it the oldest is dropped."""

    max_connections: int = 10_000
    """Connections of one server, strangers included; further ones are closed with 1013."""

    max_strangers: int = 1000
    """Connections that have not been let in yet; further ones are closed with 1013."""

    max_strangers_per_address: int = 1000
    """The same for each remote address. Behind a proxy all addresses are the proxy's unless the
    server is told to believe its headers (``xheaders``)."""

    auth_timeout: float = 20.0
    """Time to get in; a connection that is still a stranger then is closed with 1013."""

    close_timeout: float = 3.0
    """Time without progress after which a connection that is closing is cut: the peer takes
    nothing of what waits to be sent (less than 4 KiB a second count as nothing), or does not answer
    the close frame. A peer that broke the rules or did not keep up has no more than this in all."""

    heartbeat: float = 25.0
    """Silence after which a ping is sent; 0 turns the heartbeat off."""

    heartbeat_timeout: float = 20.0
    """Silence after that ping which ends the connection."""

    max_workers: int = 32
    """Threads of a blocking object for ordered callbacks (a client has one), and as many again
    for incoming calls."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"Limits.{field.name} is a number, not {value!r}")
            if not value >= 0 or (value == 0 and field.name not in _MAY_BE_OFF):
                raise ValueError(f"Limits.{field.name} must be above 0, not {value!r}")
