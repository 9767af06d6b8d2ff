"""The admission of a connection, before it belongs to a user (docs/wire.md 3).

No I/O: messages and verdicts go in, actions come out, and the connection performs them. The same
state machine serves plain, coroutine and threaded handlers.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from .errors import (
    CloseCode,
    ErrorCode,
    ProtocolError,
    Reason,
    WseError,
    origin_of,
    printable,
    repr_of,
    text_of,
)

if TYPE_CHECKING:
    from tornado.httputil import HTTPServerRequest
    from tornado.websocket import WebSocketHandler

__all__ = ["Admission", "AuthRequest", "Challenge"]


class State(Enum):
    """The state of an admission. STRANGER (the wire's word for an unauthenticated connection)
    waits for the first message, VALIDATING for a handler, CHALLENGED for the peer's answer."""

    STRANGER = "stranger"
    VALIDATING = "validating"
    CHALLENGED = "challenged"
    VALID = "valid"
    REFUSED = "refused"


@dataclass(frozen=True)
class Challenge:
    """The server's challenge and the client's answer.

    Attributes:
        quest: What the challenge handler returned.
        response: What the client answered; any value that the protocol can carry.
    """

    quest: Any
    response: Any


@dataclass(frozen=True)
class Ignore:
    """Do nothing."""


@dataclass(frozen=True)
class AskChallenge:
    """Run the challenge handler on ``auth``."""

    auth: AuthRequest


@dataclass(frozen=True)
class AskIdentify:
    """Run the identify handler on ``auth``."""

    auth: AuthRequest


@dataclass(frozen=True)
class AskVerify:
    """Run the challenge's own check of the answer, ``verify``, on ``auth``."""

    auth: AuthRequest


@dataclass(frozen=True)
class SendQuest:
    """Send the challenge to the peer."""

    quest: Any


@dataclass(frozen=True)
class Admit:
    """The peer is the user ``cid``: add the connection to it, then send ``welcome``."""

    cid: Hashable
    welcome: Any


@dataclass(frozen=True)
class Reject:
    """Close with ``code`` and ``reason``, and report ``error`` where there is one. An empty reason
    closes nothing."""

    reason: str
    error: WseError | None = None
    code: int = CloseCode.NORMAL_CLOSURE


Action = Ignore | AskChallenge | AskVerify | AskIdentify | SendQuest | Admit | Reject


class AuthRequest:
    """What ``identify`` and the challenge handler decide on.

    The first call of `accept` or `refuse` is final. It may come after the handler has returned,
    and from any thread; without one the connection is closed with 1013 ``wse.auth-timeout`` after
    ``Limits.auth_timeout``, and the ``error`` signal says why.

    Attributes:
        identity: What the client presented to be identified by; anything JSON can hold.
        meta: What the client says about this device; a dictionary.
        challenge: The `Challenge` with the client's answer, or None where there was none.
        conn_id: The connection's id.
        remote_addr: The peer's address (behind a proxy: see ``xheaders`` of Tornado).
        request: Tornado's ``HTTPServerRequest`` of the handshake.
        handler: Tornado's handler of the handshake, for cookies, path arguments and settings. Its
            own ``current_user`` is None: call what your pages find their user with.
        certificate: The client's certificate as ``ssl.SSLSocket.getpeercert`` returns it, if the
            server's ``ssl_options`` ask for one; else None.
    """

    def __init__(
        self,
        identity: Any,
        meta: dict[str, Any],
        *,
        decide: Callable[[AuthRequest, Admit | Reject], None],
        conn_id: str = "",
        remote_addr: str = "",
        request: HTTPServerRequest | None = None,
        handler: WebSocketHandler | None = None,
        certificate: dict[str, Any] | None = None,
    ) -> None:
        self.identity = identity
        self.meta = meta
        self.challenge: Challenge | None = None
        self.conn_id = conn_id
        self.remote_addr = remote_addr
        self.request: HTTPServerRequest = request  # type: ignore[assignment]
        self.handler: WebSocketHandler = handler  # type: ignore[assignment]
        self.certificate = certificate
        self._decide = decide
        self._verdict: Admit | Reject | None = None

    @property
    def decided(self) -> bool:
        """Whether `accept` or `refuse` was called."""
        return self._verdict is not None

    def accept(self, cid: Any, welcome: Any = None) -> None:
        """Accept the client as the user ``cid``.

        Args:
            cid: The user's id, hashable. A falsy one is no id and refuses the client; unless it
                is None or False, the ``error`` signal says so.
            welcome: What the client's ``connect`` returns; any value that the protocol can pack.

        Raises:
            RuntimeError: The client has been accepted or refused already.
            TypeError: The id is not hashable, or it is True, which is no user's id.
        """
        hash(cid)
        if cid is True:
            raise TypeError("accept() and identify take the user's id; True is not an id")
        self._settle(Admit(cid, welcome) if cid else Reject(Reason.NOT_AUTHORIZED, _no_id(cid)))

    def refuse(self) -> None:
        """Refuse the client: its connection is closed with 1000 ``wse.not-authorized``.

        Raises:
            RuntimeError: The client has been accepted or refused already.
        """
        self._settle(Reject(Reason.NOT_AUTHORIZED))

    def _settle(self, verdict: Admit | Reject) -> None:
        if self._verdict is not None:
            done = "accepted" if isinstance(self._verdict, Admit) else "refused"
            raise RuntimeError(f"this client was {done} already; the first verdict counts")
        self._verdict = verdict
        self._decide(self, verdict)

    def __repr__(self) -> str:
        # Without the identity, which is a credential and must not get into logs.
        state = "open" if self._verdict is None else type(self._verdict).__name__.lower()
        return f"<AuthRequest conn_id={self.conn_id!r} from={self.remote_addr!r} {state}>"


def _no_id(cid: Any) -> WseError | None:
    """Why accepting a falsy id refuses. None and False are a plain "no"; a 0 that somebody took
    from a database would be looked for in vain."""
    if cid is None or cid is False:
        return None
    return WseError(
        ErrorCode.HANDLER_FAILED,
        {},
        f"accept() and identify take the user's id; {printable(repr_of(cid))} is falsy and not an "
        "id, so the client was refused",
    )


class Admission:
    """The state machine of one connection, from its first message to the verdict.

    Args:
        challenges: Whether a challenge handler runs before ``identify``.
        verifies: Whether that handler checks the answers itself.
        make_auth: Makes the `AuthRequest` from identity and meta.

    Attributes:
        state: The present state.
        auth: The request to decide on, from the first message on.
    """

    __slots__ = ("_challenges", "_make_auth", "_quest", "_returned", "_verifies", "auth", "state")

    def __init__(
        self,
        *,
        challenges: bool,
        make_auth: Callable[[Any, dict[str, Any]], AuthRequest],
        verifies: bool = False,
    ) -> None:
        self.state = State.STRANGER
        self._challenges = challenges
        self._verifies = verifies
        self._make_auth = make_auth
        self.auth: AuthRequest | None = None
        self._quest: Any = None
        self._returned = False  # identify has returned and left the verdict open

    def receive(self, role: str | None, payload: Any) -> Action:
        """A message arrived; ``role`` is that of its internal type, None for any other type."""
        if self.state is State.STRANGER:
            return self._hello(role, payload)
        if self.state is State.CHALLENGED:
            if role != "challenge":
                return self._reject(Reject(Reason.PROTOCOL_ERR))
            assert self.auth is not None
            self.state = State.VALIDATING
            self.auth.challenge = Challenge(self._quest, payload)
            return AskVerify(self.auth) if self._verifies else AskIdentify(self.auth)
        return Ignore()

    def _hello(self, role: str | None, payload: Any) -> Action:
        if role != "hi":
            return self._reject(Reject(Reason.PROTOCOL_ERR))
        meta = payload.get("meta") if isinstance(payload, dict) else None
        if not isinstance(payload, dict) or not (meta is None or isinstance(meta, dict)):
            what = "its meta" if isinstance(payload, dict) else "its payload"
            error = ProtocolError(
                ErrorCode.PROTOCOL_VIOLATION,
                {"type": "hi"},
                f"the first message of a peer is malformed: {what} is not an object",
            )
            return self._reject(Reject(Reason.PROTOCOL_ERR, error))
        self.state = State.VALIDATING
        self.auth = self._make_auth(payload.get("identity"), meta or {})
        return AskChallenge(self.auth) if self._challenges else AskIdentify(self.auth)

    def challenged(self, quest: Any) -> Action:
        """The challenge handler returned ``quest``."""
        if self.state is not State.VALIDATING or self.auth is None or self.auth.decided:
            return Ignore()
        if quest is None:
            error = WseError(
                ErrorCode.INVALID_CRA_GENERATOR,
                {},
                "the challenge handler returned no quest and did not refuse; return the quest",
            )
            return self._reject(Reject(Reason.NOT_AUTHORIZED, error))
        self._quest = quest
        self.state = State.CHALLENGED
        return SendQuest(quest)

    def verified(self, right: bool) -> Action:
        """The challenge's own check of the answer returned ``right``."""
        if self.state is not State.VALIDATING or self.auth is None or self.auth.decided:
            return Ignore()
        return AskIdentify(self.auth) if right else self._reject(Reject(Reason.NOT_AUTHORIZED))

    def identified(self, result: Any) -> Action:
        """The identify handler returned: an id is accepted, None leaves the verdict open. What is
        decided here goes through `AuthRequest.accept`, and so to `verdict`."""
        if self.auth is None or self.auth.decided:
            return Ignore()
        if result is None:
            self._returned = True
            return Ignore()
        try:
            self.auth.accept(result)
        except Exception as exc:
            return self.failed(exc)
        return Ignore()

    def timed_out(self, seconds: float) -> Reject:
        """There is no verdict after ``seconds``. Closed with 1013, on which clients come back:
        1000 would keep those away for good that were only slow, or badly served."""
        error = None
        if self.state is State.VALIDATING:
            if self._returned:
                what = (
                    "identify returned without a verdict, and none came within "
                    f"{seconds:g} s: call auth.accept(id) or auth.refuse(), or return the id"
                )
            else:
                what = (
                    f"identify, or the challenge handler, has not returned within {seconds:g} s "
                    "and gave no verdict"
                )
            error = WseError(ErrorCode.AUTH_TIMEOUT, {"timeout": seconds}, what)
        return self._reject(Reject(Reason.AUTH_TIMEOUT, error, CloseCode.TRY_AGAIN_LATER))

    def verdict(self, verdict: Admit | Reject) -> Action:
        """The client was accepted or refused."""
        if self.state is not State.VALIDATING:
            return Ignore()
        if isinstance(verdict, Reject):
            return self._reject(verdict)
        self.state = State.VALID
        return verdict

    def failed(self, exc: BaseException) -> Action:
        """A handler raised. A verdict that it gave before stands."""
        error = WseError(
            ErrorCode.HANDLER_FAILED,
            {"origin": origin_of(exc)},
            f"identify, or the challenge handler, raised {type(exc).__name__}: {text_of(exc)}",
        )
        error.__cause__ = exc
        if self.state is State.VALIDATING:
            return self._reject(Reject(Reason.NOT_AUTHORIZED, error))
        return Reject("", error)

    def _reject(self, rejection: Reject) -> Reject:
        self.state = State.REFUSED
        return rejection
