"""The server's side of one device: how it gets in, and what handlers can do with it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Hashable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..admission import (
    Action,
    Admission,
    Admit,
    AskChallenge,
    AskIdentify,
    AskVerify,
    AuthRequest,
    Reject,
    SendQuest,
    State,
)
from ..errors import ErrorCode, Reason, WseError
from ..events import Handler
from ..rpc import check_rpc_name
from .link import NORMAL, TRY_AGAIN, Link, TokenBucket, check_timeout

if TYPE_CHECKING:
    from tornado.httputil import HTTPServerRequest
    from tornado.websocket import WebSocketHandler

    from .identity import ClientIdentity
    from .server import AsyncWseServer

__all__ = ["Connection"]


class Connection(Link):
    """One device of one user, as the server sees it. Use it on the server's loop.

    Attributes:
        conn_id: Its id, unique on this server.
        cid: The user's id.
        client: The user, with all devices.
        identity: What the client presented to get in.
        meta: What the client told about this device.
        remote_addr: The peer's address.
        latency: Seconds the last ping took, None before the first.
    """

    client: ClientIdentity

    def __init__(
        self,
        server: AsyncWseServer,
        *,
        remote_addr: str,
        request: HTTPServerRequest | None = None,
        handler: WebSocketHandler | None = None,
        certificate: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(server.endpoint)
        self._server = server
        self.conn_id = secrets.token_hex(8)
        self.remote_addr = remote_addr
        self.cid: Hashable = None
        self.identity: Any = None
        self.meta: dict[str, Any] = {}
        self.handle: Any = self  # what users' handlers are given: this, or the blocking facade
        limits = server.endpoint.limits
        if limits.message_rate:
            self._bucket = TokenBucket(limits.message_rate, limits.message_burst, time.monotonic())
        challenge = server.challenge_handler
        self._admission: Admission | None = Admission(
            challenges=challenge is not None,
            verifies=server.verify_handler is not None,
            make_auth=partial(
                AuthRequest,
                decide=self._decided,
                conn_id=self.conn_id,
                remote_addr=remote_addr,
                request=request,
                handler=handler,
                certificate=certificate,
            ),
        )
        self._auth_timer: asyncio.TimerHandle | None = asyncio.get_running_loop().call_later(
            limits.auth_timeout, self._auth_timed_out
        )

    # -- getting in

    def _before_ready(self, role: str | None, type: Any, payload: Any) -> None:
        if self._admission is not None:
            self._carry_out(self._admission.receive(role, payload))

    def _carry_out(self, action: Action) -> None:
        """Do what the admission says."""
        admission = self._admission
        if isinstance(action, Reject) and action.error is not None:
            self._report(action.error)
        if admission is None or self.ended is not None:
            return
        server = self._server
        match action:
            case AskChallenge(auth):
                assert server.challenge_handler is not None
                self._ask(server.challenge_handler, auth, admission.challenged)
            case AskVerify(auth):
                assert server.verify_handler is not None
                self._ask(server.verify_handler, auth, admission.verified)
            case AskIdentify(auth):
                self._ask(server.identify_handler, auth, partial(self._identified, auth))
            case SendQuest(quest):
                self._send_or_reject(server.endpoint.types.challenge, quest)
            case Admit(cid, welcome):
                self._admit(cid, welcome)
            case Reject(reason):
                if reason:
                    self.close(NORMAL, reason)

    def _ask(self, handler: Handler, auth: AuthRequest, then: Any) -> None:
        """Run a handler of the admission; ``then`` turns its result into the next action."""

        def done(result: Any, exc: BaseException | None) -> None:
            if self._admission is None or self.ended is not None:
                if exc is not None and isinstance(exc, Exception):
                    self._handler_failed(handler, exc)
                return
            if exc is None:
                action = then(result)
                if action is not None:
                    self._carry_out(action)
            else:
                self._carry_out(self._admission.failed(exc))

        self.lane.post(handler, (auth,), done)

    def _identified(self, auth: AuthRequest, result: Any) -> Action | None:
        """``identify`` returned: a client id counts as acceptance, None leaves the verdict open."""
        if result is None or auth.decided:
            return None
        try:
            auth.accept(result)
        except Exception as exc:
            assert self._admission is not None
            return self._admission.failed(exc)
        return None

    def _decided(self, auth: AuthRequest, verdict: Admit | Reject) -> None:
        self._endpoint.dispatcher.on_loop(self._judge, verdict)

    def _judge(self, verdict: Admit | Reject) -> None:
        if self._admission is not None:
            self._carry_out(self._admission.verdict(verdict))

    def _admit(self, cid: Hashable, welcome: Any) -> None:
        """Join the user, then welcome, then joined, then connected (WIRE.md 3)."""
        server = self._server
        auth = self._admission.auth if self._admission is not None else None
        assert auth is not None
        try:
            packed = server.pack_internal(server.endpoint.types.welcome, welcome)
        except WseError as exc:
            self._report(exc)
            self.close(NORMAL, Reason.NOT_AUTHORIZED)
            return
        self._drop_admission()
        self.identity = auth.identity
        self.meta = auth.meta
        self.cid = cid
        self.ready = True
        joined, displaced = server.enter(self)
        self.send_packed(*packed)
        server.announce(self, joined=joined)
        for conn in displaced:
            conn.close(NORMAL, Reason.CLIENTS_CONCURRENCY)

    def _send_or_reject(self, type: Any, payload: Any) -> None:
        try:
            self.send_packed(*self._server.pack_internal(type, payload))
        except WseError as exc:
            self._report(exc)
            self.close(NORMAL, Reason.NOT_AUTHORIZED)

    def _auth_timed_out(self) -> None:
        self._auth_timer = None
        admission = self._admission
        if admission is not None and admission.state is State.VALIDATING:
            seconds = self._endpoint.limits.auth_timeout
            self._report(
                WseError(
                    ErrorCode.AUTH_TIMEOUT,
                    {"timeout": seconds},
                    f"identify, or the challenge handler, gave no verdict within {seconds:g} s",
                )
            )
        # Not with 1000, which would keep away for good who was merely slow, or badly served.
        self.close(TRY_AGAIN, Reason.AUTH_TIMEOUT)

    def _drop_admission(self) -> None:
        self._admission = None
        if self._auth_timer is not None:
            self._auth_timer.cancel()
            self._auth_timer = None

    # -- what happens to it

    def _handler_args(self, payload: Any) -> tuple[Any, ...]:
        return (self.handle, payload)

    def _unheard(self, type: Any, payload: Any) -> None:
        self._server.ignored(self, type, payload)

    def _report(self, error: WseError) -> None:
        self._server.report(error, self)

    def _bad_message(self, error: WseError) -> None:
        self._report(error)
        self.close(NORMAL, Reason.PROTOCOL_ERR)

    def connection_lost(self, code: int, reason: str) -> None:
        """The transport is gone."""
        super().connection_lost(code, reason)
        self._server.transport_gone(self)

    def _on_end(self, code: int, reason: str) -> None:
        self._drop_admission()
        self._server.leave(self, code, reason)

    # -- for handlers

    def send(self, type: Any, payload: Any = None) -> int:
        """Send to this device only. Never waits; a device that does not keep up is closed with
        1013 (``Limits.max_send_buffer``).

        Returns:
            1, or 0 where the connection is over.

        Raises:
            NotSerializable: The payload cannot be packed; nothing was sent.
            ValueError: The type is empty or belongs to the library.
        """
        message = self._server.pack(type, payload)
        return 1 if self.send_packed(message.payload, message.binary) else 0

    async def call(self, rp: str, payload: Any = None, *, timeout: float | None = None) -> Any:
        """Call a procedure that this device has registered.

        Args:
            rp: Its name.
            payload: Its argument.
            timeout: Seconds to wait for the answer; the server's ``timeout`` by default.

        Raises:
            RpcTimeout: No answer in time.
            RpcNotRegistered: The device has no such procedure.
            RpcDisconnected: The connection ended first.
            RpcFailed: The procedure raised.
            NotSerializable: The payload cannot be packed; nothing was sent.
            ValueError: The name is not a non-empty string, or the time-out is not above 0.
        """
        check_rpc_name(rp)
        seconds = self._endpoint.timeout if timeout is None else check_timeout(timeout)
        return await self.call_and_wait(rp, payload, seconds)

    def drop(self, reason: str = Reason.BY_SERVER) -> None:
        """Close this connection with 1000 and ``reason``; it is out of its user at once."""
        self.close(NORMAL, reason)

    def __repr__(self) -> str:
        state = "open" if self.ready else "stranger"
        if self.ended is not None:
            state = f"closed {self.ended[0]} {self.ended[1]}".rstrip()
        return f"<Connection {self.conn_id} of {self.cid!r} from {self.remote_addr} {state}>"


def missing_identify(auth: AuthRequest) -> None:
    """Stands where no identify handler was given: nobody gets in."""
    raise WseError(
        ErrorCode.IDENTIFY_HANDLER_MISSING,
        {},
        "the server has no identify handler; pass identify= to let anybody in",
    )
