"""What all connections of one server, or of one client, share. It does no I/O of its own."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Generic, TypeVar

from ..errors import ErrorCode, WseError, origin_of, text_of
from ..events import Channel, Handler, Signal
from ..limits import Limits
from ..protocol import Protocol, internal_types_of
from ..rpc import Procedures
from ..stats import Counters
from ..transport.frames import may_be_sent
from .dispatch import Dispatcher, Done, Lane

__all__ = [
    "Shared",
    "check_closing",
    "check_timeout",
    "handler_error",
    "ignore_transport",
    "tell",
    "tell_error",
]

S = TypeVar("S")
C = TypeVar("C", bound=Channel)


class Shared(Generic[S, C]):
    """What the connections of one server, or one client, have in common.

    Args:
        when: The signals, `ServerSignals` or `ClientSignals`.
        channel: Makes the channel, `ServerChannel` or `ClientChannel`.
        protocol: How messages are written.
        limits: The bounds.
        dispatcher: Runs users' handlers.
        inline: Whether the loop itself runs plain handlers.
        timeout: Seconds that a call waits for its answer by default.
        expose_errors: Tell callers the traceback of a procedure that raised.
        logger: Where problems go that nobody listens to.
    """

    def __init__(
        self,
        *,
        when: S,
        channel: Callable[..., C],
        protocol: Protocol,
        limits: Limits,
        dispatcher: Dispatcher,
        inline: bool,
        timeout: float,
        expose_errors: bool,
        logger: logging.Logger,
    ) -> None:
        self.when = when
        self.protocol = protocol
        self.types = internal_types_of(protocol)
        self.roles: Mapping[Hashable, str] = dict(self.types.roles())
        self.legacy_prefix = f"{self.types.call}:"
        self.limits = limits
        self.dispatcher = dispatcher
        self.inline = inline
        self.channel: C = channel(self.roles, inline=inline)
        self.procedures = Procedures(self.channel.params, inline=inline)
        self.timeout = timeout
        self.counters = Counters()
        self.on_served: set[Callable[[], None]] = set()  # told when a call of a peer has ended
        self.expose_errors = expose_errors
        self.logger = logger


def ignore_transport(transport: Any) -> None:
    """Warn the caller of a constructor that was given ``transport=``."""
    if transport is not None:
        warnings.warn(
            "transport= has no effect any more: all connections use the library's own frames",
            DeprecationWarning,
            stacklevel=3,
        )


def tell(lane: Lane, signal: Signal, *args: Any) -> None:
    """Run the handlers of an event, in order, on a lane."""
    for handler in signal.take(*args):
        lane.post(handler, args)


def tell_error(
    lane: Lane, signal: Signal, logger: logging.Logger, where: object, *args: Any
) -> None:
    """Tell a problem that has no caller to raise in: by the error signal, or in the log.

    Args:
        lane: Where the handlers run.
        signal: The error signal.
        logger: For a problem that nobody listens to.
        where: What the log names as its place.
        args: The arguments of the handlers; the first one is the `WseError`.
    """
    handlers = signal.take(*args)
    if not handlers:
        _log_error(logger, args[0], where)
    for handler in handlers:
        lane.post(handler, args, _log_failure(logger, handler))


def handler_error(handler: Handler, exc: BaseException) -> WseError:
    """What the error signal tells when a handler raised."""
    error = WseError(
        ErrorCode.HANDLER_FAILED,
        {"handler": getattr(handler.fn, "__qualname__", ""), "origin": origin_of(exc)},
        f"{handler!r} raised {type(exc).__name__}: {text_of(exc)}",
    )
    error.__cause__ = exc
    return error


# Users' own code raised: an ERROR with its traceback. All else comes from the peer or the network
# and is a WARNING.
_OWN_FAULTS = frozenset({ErrorCode.HANDLER_FAILED.value, ErrorCode.RP_EXECUTION_FAILED.value})


def _log_error(logger: logging.Logger, error: WseError, where: object) -> None:
    if error.code in _OWN_FAULTS:
        logger.error("%s [%r]", error, where, exc_info=error.__cause__)
    else:
        logger.warning("%s [%r]", error, where)


def _log_failure(logger: logging.Logger, handler: Handler) -> Done:
    """What to do when a handler of errors raises itself: log it, or it would call itself."""

    def done(_result: Any, exc: BaseException | None) -> None:
        if exc is not None and isinstance(exc, Exception):
            logger.error("%r, a handler of errors, raised", handler, exc_info=exc)

    return done


def check_timeout(timeout: Any) -> float:
    """A usable time-out in seconds.

    Raises:
        ValueError: It is not a number above 0.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
        raise ValueError(f"a time-out is a number of seconds above 0, not {timeout!r}")
    return float(timeout)


def check_closing(code: Any, reason: Any) -> None:
    """Refuse what a close frame cannot hold.

    Raises:
        ValueError: The code may not be sent (RFC 6455 7.4), or the reason is not a string.
    """
    if isinstance(code, bool) or not isinstance(code, int) or not may_be_sent(code):
        raise ValueError(f"{code!r} is not a valid close code; use 1000 or 3000 to 4999")
    if not isinstance(reason, str):
        raise ValueError(f"the reason of a close is a string, not {reason!r}")
