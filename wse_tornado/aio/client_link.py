"""The client's side of one connection: how it gets in, and where its messages go."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from ..errors import (
    ConnectionFailed,
    ErrorCode,
    NotAuthorized,
    ProtocolError,
    Reason,
    WseError,
    origin_of,
    text_of,
)
from ..protocol import Message
from .link import NORMAL, Link

if TYPE_CHECKING:
    from .client import AsyncWseClient

__all__ = ["ClientLink"]

logger = logging.getLogger("wse_tornado.client")


class ClientLink(Link):
    """One connection of a client, from the open socket to its end."""

    def __init__(self, client: AsyncWseClient) -> None:
        self._client = client
        super().__init__(client.endpoint, client.lane)
        # A client refuses to send past the bound; what it must answer may go beyond.
        self._send_limit *= 2
        self.over = asyncio.Event()
        self.welcomed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def _handler_args(self, payload: Any) -> tuple[Any, ...]:
        return (payload,)

    def say_hi(self, identity: Any, meta: Any) -> None:
        """Introduce this client (WIRE.md 3)."""
        self._send(self._endpoint.types.hi, {"identity": identity, "meta": meta})

    def _before_ready(self, role: str | None, type: Any, payload: Any) -> None:
        if role == "welcome":
            self.ready = True
            if not self.welcomed.done():
                self.welcomed.set_result(payload)
            self._client.on_welcome(self, payload)
        elif role == "challenge":
            self._solve(payload)
        else:
            self._client.on_ignored(type, payload)

    def _solve(self, quest: Any) -> None:
        solver = self._client.solver
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
            if self.ended is not None:
                return
            if exc is None:
                try:
                    self._send(self._endpoint.types.challenge, solution)
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

        self._endpoint.dispatcher.ask(solver, (quest,), solved)

    def _give_up(self, error: WseError) -> None:
        if not self.welcomed.done():
            self.welcomed.set_exception(error)
        self.close(NORMAL, Reason.BY_CLIENT)

    def _odd_stamp(self, type: Any, payload: Any, stamp: Any) -> None:
        # An answer of the older generation: the stamp comes back as the type (WIRE.md 6).
        if isinstance(stamp, dict):
            if type in self.pending:
                if stamp.get("success") is True:
                    self.pending.resolve(type, payload)
                else:
                    self.pending.reject(type, stamp)
                return
            if isinstance(type, str) and type.startswith(self._endpoint.legacy_prefix):
                return  # it came after its time-out
        super()._odd_stamp(type, payload, stamp)

    def _deliver(self, type: Any, payload: Any) -> None:
        if self._client.legacy and str(type).startswith(self._endpoint.legacy_prefix):
            self.pending.reject(type, None)  # an error answer that lacks its error (WIRE.md 6)
            return
        inbox = self._client.inbox
        if type in self._endpoint.channel:
            inbox.offer(Message(type, payload), keep=False)
        super()._deliver(type, payload)

    def _must_read(self) -> bool:
        return bool(self.pending) or self._client.inbox.awaited

    def _unheard(self, type: Any, payload: Any) -> None:
        inbox = self._client.inbox
        dropped = inbox.dropped
        if not inbox.offer(Message(type, payload), keep=True):
            self._client.on_ignored(type, payload)
        if inbox.dropped == 1 and not dropped:
            logger.warning(
                "%r: nobody receives; from now on the oldest message is dropped for each new one",
                self._client,
            )

    def _report(self, error: WseError) -> None:
        self._client.report(error)

    def _bad_message(self, error: WseError) -> None:
        if not self.welcomed.done():
            self.welcomed.set_exception(error)
        self._report(error)
        self.close(NORMAL, Reason.PROTOCOL_ERR)

    def send_buffer_drained(self) -> None:
        self._client.on_drained()

    def connection_lost(self, code: int, reason: str) -> None:
        super().connection_lost(code, reason)
        self._client.on_socket_closed(self)

    def _on_end(self, code: int, reason: str) -> None:
        if not self.welcomed.done():
            self.welcomed.set_exception(hung_up(code, reason))
        self._client.on_link_ended(self, code, reason)


def hung_up(code: int, reason: str) -> WseError:
    """Why a connection ended before it was ready."""
    details = {"code": code, "reason": reason}
    if code == NORMAL and reason == Reason.NOT_AUTHORIZED:
        return NotAuthorized(None, details, "the server refused this identity")
    if code == NORMAL and reason == Reason.PROTOCOL_ERR:
        return ProtocolError(
            None, details, "the server closed with wse.protocol-error: it speaks another protocol"
        )
    why = f"{code} {reason}".strip()
    return ConnectionFailed(None, details, f"the server hung up before the client was ready: {why}")
