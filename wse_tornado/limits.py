"""Every bound of the library and its default, in one place. Data only."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass, fields
from typing import Any, TypeVar

__all__ = ["Limits"]

T = TypeVar("T")

_MAY_BE_OFF = frozenset({"heartbeat", "message_rate"})
_RENAMED = {
    "max_strangers": "max_unauthenticated",
    "max_strangers_per_address": "max_unauthenticated_per_address",
}


def _takes_old_names(cls: type[T]) -> type[T]:
    """Accept the old names of bounds as keywords, with a warning, and as attributes."""
    # The initializer that dataclass has generated takes the present names only.
    generated = cls.__init__

    @functools.wraps(generated)
    def initialize(self: T, *args: Any, **bounds: Any) -> None:
        for old, new in _RENAMED.items():
            if old in bounds:
                warnings.warn(
                    f"Limits({old}=) is now called {new}", DeprecationWarning, stacklevel=2
                )
                if new in bounds:
                    raise TypeError(f"Limits takes {new} or its old name {old}, not both")
                bounds[new] = bounds.pop(old)
        generated(self, *args, **bounds)

    cls.__init__ = initialize  # type: ignore[assignment]
    return cls


@_takes_old_names
@dataclass(frozen=True)
class Limits:
    """Bounds of a server or a client. Sizes are in bytes, times in seconds.

    Raises:
        ValueError: A bound is not a number, negative, or 0 where that is not allowed.
    """

    max_message_size: int = 10 * 1024 * 1024
    """Largest message accepted; a larger one ends the connection with 1009."""

    max_hello_size: int = 64 * 1024
    """Largest message accepted from an unauthenticated connection; a larger one ends the
    connection with 1009. What arrives before the connection is accepted counts together."""

    max_send_buffer: int = 4 * 1024 * 1024
    """Bytes that may wait for a slow peer. A server closes with 1013 past it; a blocking
    client's ``send`` waits. A single message larger than this is still sent when nothing waits
    ahead of it."""

    max_queue: int = 1000
    """Messages of one connection that may wait for their handlers before reading pauses. It does
    not pause while a call to that peer is pending, or while a client's ``receive`` waits, because
    the awaited message may be behind those that wait. With ten times as many the connection is
    closed with 1013."""

    max_pending_calls: int = 10_000
    """Calls of one connection that may be pending in each direction. A further one made here
    raises; a further one of the peer is answered with ``wse.too-many-calls``."""

    message_rate: float = 0.0
    """Messages per second that a server accepts from one connection on average (a token bucket);
    above it the connection is closed with 1008. 0 turns it off."""

    message_burst: int = 100
    """Messages that may arrive at once on top of ``message_rate``."""

    max_inbox: int = 1000
    """Messages that may wait for ``receive``; past it the oldest is dropped."""

    max_connections: int = 10_000
    """Connections of one server, unauthenticated ones included; further ones are closed with
    1013."""

    max_unauthenticated: int = 1000
    """Connections that have not been accepted yet; further ones are closed with 1013."""

    max_unauthenticated_per_address: int = 100
    """The same for each remote address. Behind a proxy, all connections have the proxy's address
    unless the server is told to trust its headers (``xheaders``)."""

    auth_timeout: float = 20.0
    """Time in which a connection must be accepted; one that is still unauthenticated then is
    closed with 1013."""

    close_timeout: float = 3.0
    """Time without progress after which a connection that is closing is cut: the peer takes
    nothing of what waits to be sent (less than 4 KiB a second count as nothing), or does not answer
    the close frame. A peer that broke the rules or did not keep up has no more than this in all."""

    heartbeat: float = 25.0
    """Silence after which a ping is sent; 0 turns the heartbeat off."""

    heartbeat_timeout: float = 20.0
    """Further silence after that ping which ends the connection."""

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

    @property
    def max_strangers(self) -> int:
        """The old name of ``max_unauthenticated``."""
        return self.max_unauthenticated

    @property
    def max_strangers_per_address(self) -> int:
        """The old name of ``max_unauthenticated_per_address``."""
        return self.max_unauthenticated_per_address
