"""The server's end of one connection: how a device gets in, and what the hub is told of it."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Hashable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

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
)
from ..errors import CloseCode, Reason, WseError, printable, repr_of
from ..events import Handler, ServerChannel
from ..protocol import Message, encode
from ..signals import ServerSignals
from .connection import BaseConnection, Life, TokenBucket
from .shared import Shared, tell, tell_error
from .users import User

if TYPE_CHECKING:
    from tornado.httputil import HTTPServerRequest
    from tornado.websocket import WebSocketHandler

__all__ = ["Gate", "ServerConnection"]


class Gate(Protocol):
    """What a connection needs of the hub that it belongs to."""

    identify_handler: Handler
    challenge_handler: Handler | None
    verify_handler: Handler | None

    def enter(self, conn: ServerConnection) -> bool:
        """It is accepted: make it a device of its user. True if the user has just come."""

    def entered(self, conn: ServerConnection, *, joined: bool) -> None:
        """It has its welcome: tell handlers, and close the devices it displaces."""

    def leave(self, conn: ServerConnection, code: int, reason: str) -> None:
        """It is over for the program."""

    def closed(self, conn: ServerConnection) -> None:
        """Its socket is closed."""


class ServerConnection(BaseConnection):
    """One device of one user.

    Args:
        shared: What the connections of this server share.
        gate: The hub.
        make_face: Makes what users' handlers are given in place of this object.
        remote_addr: The peer's address.
        request: The request of the handshake.
        handler: Tornado's handler of the handshake.
        certificate: The client's certificate, where it had to show one.

    Attributes:
        conn_id: Its id, unique on this server.
        cid: The user's id, None before the device is let in.
        user: The user; exists once the device is let in.
        identity: What the client presented to get in.
        meta: What the client told about this device.
        face: What users' handlers are given.
    """

    user: User
    _shared: Shared[ServerSignals, ServerChannel]

    def __init__(
        self,
        shared: Shared[ServerSignals, ServerChannel],
        gate: Gate,
        make_face: Callable[[ServerConnection], Any],
        *,
        remote_addr: str,
        request: HTTPServerRequest | None = None,
        handler: WebSocketHandler | None = None,
        certificate: dict[str, Any] | None = None,
    ) -> None:
        self.face = make_face(self)
        super().__init__(shared, first_args=(self.face,))
        self._gate = gate
        self.conn_id = secrets.token_hex(8)
        self.remote_addr = remote_addr
        self.cid: Hashable = None
        self.identity: Any = None
        self.meta: dict[str, Any] = {}
        self._asked: asyncio.Task[Any] | None = None  # the admission's handler, a coroutine
        self._hello_size = 0  # what came before the admission
        limits = shared.limits
        if limits.message_rate:
            self._bucket = TokenBucket(limits.message_rate, limits.message_burst, time.monotonic())
        self._admission: Admission | None = Admission(
            challenges=gate.challenge_handler is not None,
            verifies=gate.verify_handler is not None,
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

    def _may_decode(self, data: str | bytes) -> bool:
        # Nested lists of some megabytes would stop the loop for seconds.
        self._hello_size += len(data) if isinstance(data, bytes) else len(data.encode())
        if self._hello_size <= self._shared.limits.max_hello_size:
            return True
        self.close(CloseCode.MESSAGE_TOO_BIG, "message too big")
        return False

    def _before_ready(self, role: str | None, type: Any, payload: Any) -> None:
        if self._admission is not None:
            self._carry_out(self._admission.receive(role, payload))

    def _carry_out(self, action: Action) -> None:
        """Do what the admission says."""
        admission = self._admission
        if isinstance(action, Reject) and action.error is not None:
            self._report(action.error)
        if admission is None or self.life is Life.ENDED:
            return
        gate = self._gate
        match action:
            case AskChallenge(auth):
                assert gate.challenge_handler is not None
                self._ask(gate.challenge_handler, auth, admission.challenged)
            case AskVerify(auth):
                assert gate.verify_handler is not None
                self._ask(gate.verify_handler, auth, admission.verified)
            case AskIdentify(auth):
                self._ask(gate.identify_handler, auth, admission.identified)
            case SendQuest(quest):
                self._send_or_reject(self._shared.types.challenge, quest)
            case Admit(cid, welcome):
                self._admit(cid, welcome)
            case Reject(reason, code=code):
                if reason:
                    self.close(code, reason)

    def _ask(self, handler: Handler, auth: AuthRequest, then: Any) -> None:
        """Run a handler of the admission; ``then`` turns its result into the next action."""

        def done(result: Any, exc: BaseException | None) -> None:
            if self._admission is None or self.life is Life.ENDED:
                if exc is not None and isinstance(exc, Exception):
                    self._handler_failed(handler, exc)
                return
            if exc is None:
                action = then(result)
                if action is not None:
                    self._carry_out(action)
            else:
                self._carry_out(self._admission.failed(exc))

        run = handler
        if handler.is_coroutine:
            run = Handler(partial(self._run_cancellable, handler.fn))
        self.lane.post(run, (auth,), done)

    async def _run_cancellable(self, fn: Callable[..., Any], auth: AuthRequest) -> Any:
        """Await a handler of the admission, so that the connection's end can cancel it."""
        if self._admission is None or self.life is Life.ENDED:
            return None
        self._asked = asyncio.current_task()
        try:
            return await fn(auth)
        finally:
            self._asked = None

    def _decided(self, auth: AuthRequest, verdict: Admit | Reject) -> None:
        self._shared.dispatcher.on_loop(self._judge, verdict)

    def _judge(self, verdict: Admit | Reject) -> None:
        if self._admission is not None:
            self._carry_out(self._admission.verdict(verdict))

    def _admit(self, cid: Hashable, welcome: Any) -> None:
        """Join the user, then send the welcome, then tell ``joined`` and ``connected``
        (docs/wire.md 3)."""
        auth = self._admission.auth if self._admission is not None else None
        assert auth is not None
        try:
            packed = encode(self._shared.protocol, self._shared.types.welcome, welcome)
        except WseError as exc:
            self._report(exc)
            self.close(CloseCode.NORMAL_CLOSURE, Reason.NOT_AUTHORIZED)
            return
        self._drop_admission()
        self.identity = auth.identity
        self.meta = auth.meta
        self.cid = cid
        self.life = Life.READY
        joined = self._gate.enter(self)
        self.send_packed(*packed)
        self._gate.entered(self, joined=joined)

    def _send_or_reject(self, type: Any, payload: Any) -> None:
        try:
            self._send(type, payload)
        except WseError as exc:
            self._report(exc)
            self.close(CloseCode.NORMAL_CLOSURE, Reason.NOT_AUTHORIZED)

    def _auth_timed_out(self) -> None:
        self._auth_timer = None
        if self._admission is not None:
            rejection = self._admission.timed_out(self._shared.limits.auth_timeout)
            if rejection.error is not None:
                # On a lane of its own: this connection's waits for the handler that hangs.
                shared = self._shared
                lane = shared.dispatcher.lane(self._handler_failed)
                tell_error(lane, shared.when.error, shared.logger, self, rejection.error, self.face)
            self.close(rejection.code, rejection.reason)

    def _drop_admission(self) -> None:
        self._admission = None
        task = self._asked
        if task is not None and self.life is Life.ENDED:
            task.cancel()
        if self._auth_timer is not None:
            self._auth_timer.cancel()
            self._auth_timer = None

    # -- what happens to it

    def _unheard(self, type: Any, payload: Any) -> None:
        if not self._is_reserved(type):
            if self._shared.logger.isEnabledFor(logging.DEBUG):
                self._shared.logger.debug(
                    "unknown type %s from %s",
                    printable(repr_of(type)),
                    printable(self.remote_addr),
                )
            tell(self.lane, self._shared.when.ignored, self.face, Message(type, payload))

    def connection_lost(self, code: int, reason: str) -> None:
        """The transport is gone."""
        super().connection_lost(code, reason)
        self._gate.closed(self)

    def _on_end(self, code: int, reason: str) -> None:
        self._drop_admission()
        self._gate.leave(self, code, reason)

    def __repr__(self) -> str:
        state = {Life.OPENING: "unauthenticated", Life.READY: "open"}.get(self.life)
        if state is None:
            code, reason = self.ended_with
            state = f"closed {code} {printable(reason)}".rstrip()
        # The reason is the peer's, and so may be the address (``xheaders``) and the id.
        cid, address = printable(repr_of(self.cid)), printable(self.remote_addr)
        return f"<Connection {self.conn_id} of {cid} from {address} {state}>"
