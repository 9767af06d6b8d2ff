"""The client's end of one connection: how it gets in, and what its connector is told of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..errors import (
    CloseCode,
    ErrorCode,
    NotAuthorized,
    Reason,
    WseError,
    origin_of,
    text_of,
)
from ..events import ClientChannel, Handler
from ..protocol import Message
from ..signals import ClientSignals
from .connection import BaseConnection, Life
from .dispatch import Lane
from .inbox import Inbox
from .shared import Shared, tell

__all__ = ["ClientConnection", "Owner"]


class Owner(Protocol):
    """What a connection tells the connector that opened it."""

    def welcomed(self, conn: ClientConnection, welcome: Any) -> None:
        """The server has let it in."""

    def rejected(self, conn: ClientConnection, error: WseError) -> None:
        """It cannot get in, and closes."""

    def ended(self, conn: ClientConnection, code: int, reason: str) -> None:
        """It is over for the program."""

    def closed(self, conn: ClientConnection) -> None:
        """Its socket is closed."""


class ClientConnection(BaseConnection):
    """One connection of a client, from the open socket to its end.

    Args:
        shared: What the connections of this client share.
        owner: Who is told.
        lane: Where the client's handlers run.
        inbox: Where messages wait to be received.
        solver: Solves the server's challenges.
        legacy: Whether the server speaks the older generation (docs/wire.md 6).
        drained: Called when what waited to be sent has left.
        where: The server's URL, for the log.
    """

    _inbox: Inbox
    _shared: Shared[ClientSignals, ClientChannel]

    def __init__(
        self,
        shared: Shared[ClientSignals, ClientChannel],
        owner: Owner,
        *,
        lane: Lane,
        inbox: Inbox,
        solver: Handler | None,
        legacy: bool,
        drained: Callable[[], None],
        where: str,
    ) -> None:
        super().__init__(shared, lane=lane, inbox=inbox)
        self._owner = owner
        self._solver = solver
        self._legacy = legacy
        self._drained = drained
        self._where = where
        # A client refuses to send past the bound; what it must answer may go beyond.
        self._send_limit *= 2

    def say_hi(self, identity: Any, meta: Any) -> None:
        """Introduce this client (docs/wire.md 3)."""
        self._send(self._shared.types.hi, {"identity": identity, "meta": meta})

    def _before_ready(self, role: str | None, type: Any, payload: Any) -> None:
        if role == "welcome":
            self.life = Life.READY
            self._owner.welcomed(self, payload)
        elif role == "challenge":
            self._solve(payload)
        else:
            tell(self.lane, self._shared.when.ignored, Message(type, payload))

    def _solve(self, quest: Any) -> None:
        solver = self._solver
        if solver is None:
            self._give_up(
                NotAuthorized(
                    ErrorCode.INVALID_CRA_HANDLER,
                    {},
                    "the server sets a challenge and this client has no solver; "
                    "set one with client.challenge(fn)",
                )
            )
            return

        def solved(solution: Any, exc: BaseException | None) -> None:
            if self.life is Life.ENDED:
                return
            if exc is None:
                try:
                    self._send(self._shared.types.challenge, solution)
                    return
                except WseError as unpackable:
                    exc = unpackable
            error = NotAuthorized(
                ErrorCode.INVALID_CRA_HANDLER,
                {"origin": origin_of(exc)},
                f"the challenge solver raised {type(exc).__name__}: {text_of(exc)}",
            )
            error.__cause__ = exc
            self._give_up(error)

        self._shared.dispatcher.ask(solver, (quest,), solved)

    def _give_up(self, error: WseError) -> None:
        self._owner.rejected(self, error)
        self.close(CloseCode.NORMAL_CLOSURE, Reason.BY_CLIENT)

    def _odd_stamp(self, type: Any, payload: Any, stamp: Any) -> None:
        # An answer of the older generation: the stamp comes back as the type (docs/wire.md 6).
        if isinstance(stamp, dict):
            if type in self.pending:
                if stamp.get("success") is True:
                    self.pending.resolve(type, payload)
                else:
                    self.pending.reject(type, stamp)
                return
            if isinstance(type, str) and type.startswith(self._shared.legacy_prefix):
                return  # it came after its time-out
        super()._odd_stamp(type, payload, stamp)

    def _unheard(self, type: Any, payload: Any) -> None:
        if self._legacy and str(type).startswith(self._shared.legacy_prefix):
            self.pending.reject(type, None)  # an error answer without its error (docs/wire.md 6)
            return
        if self._is_reserved(type):
            return
        inbox, message = self._inbox, Message(type, payload)
        dropping = inbox.dropping
        if not inbox.offer(message, keep=True):
            tell(self.lane, self._shared.when.ignored, message)
        if inbox.dropping and not dropping:
            self._report(
                WseError(
                    ErrorCode.INBOX_OVERFLOW,
                    {"max_inbox": self._shared.limits.max_inbox},
                    "nobody receives: until somebody does, the oldest message is dropped for each "
                    "new one",
                )
            )

    def _bad_message(self, error: WseError) -> None:
        self._owner.rejected(self, error)
        super()._bad_message(error)

    def send_buffer_drained(self) -> None:
        """What waited to be sent has left."""
        self._drained()

    def connection_lost(self, code: int, reason: str) -> None:
        """The transport is gone."""
        super().connection_lost(code, reason)
        self._owner.closed(self)

    def _on_end(self, code: int, reason: str) -> None:
        self._owner.ended(self, code, reason)

    def __repr__(self) -> str:
        return f"<connection to {self._where} {self.life.value}>"
