"""Who gets in: the server's states of a connection before it belongs to a user (WIRE.md 3).

No I/O: messages and verdicts go in, actions come out, and the connection carries them out. The
same object drives plain, coroutine and threaded handlers.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from .errors import ErrorCode, ProtocolError, Reason, WseError, origin_of, text_of

if TYPE_CHECKING:
    from tornado.httputil import HTTPServerRequest
    from tornado.websocket import WebSocketHandler

__all__ = ["Admission", "AuthRequest", "Challenge"]


class State(Enum):
    """Where a connection stands. VALIDATING waits for a handler, CHALLENGED for the peer."""

    STRANGER = "stranger"
    VALIDATING = "validating"
    CHALLENGED = "challenged"
    VALID = "valid"
    REFUSED = "refused"


@dataclass(frozen=True)
class Challenge:
    """What was asked and what was answered.

    Attributes:
        quest: What the challenge handler returned.
        response: What the client answered; anything the protocol can carry.
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
    """Run the challenge's own check of the answer on ``auth``."""

    auth: AuthRequest


@dataclass(frozen=True)
class SendQuest:
    """Send the challenge to the peer."""

    quest: Any


@dataclass(frozen=True)
class Admit:
    """The peer is the user ``cid``: register it, then send ``welcome``."""

    cid: Hashable
    welcome: Any


@dataclass(frozen=True)
class Reject:
    """Close with 1000 and ``reason``; tell ``error`` where there is one."""

    reason: str
    error: WseError | None = None


Action = Ignore | AskChallenge | AskVerify | AskIdentify | SendQuest | Admit | Reject


class AuthRequest:
    """What ``identify`` and the challenge handler are given to judge.

    A verdict is final: the first of `accept` and `refuse` counts. It may come after the handler
    has returned, and from any thread; without one the connection is closed after
    ``Limits.auth_timeout``.

    Attributes:
        identity: What the client says it is; anything JSON can hold.
        meta: What the client tells about this device; a dictionary.
        challenge: The `Challenge` it was set and its answer, or None where none was set.
        conn_id: The connection's id.
        remote_addr: The peer's address (behind a proxy: see ``xheaders`` of Tornado).
        request: Tornado's ``HTTPServerRequest`` of the handshake.
        handler: Tornado's handler of the handshake, for cookies, path arguments and settings. Its
            own ``current_user`` is None: call what your pages find their user with.
        certificate: The client's certificate as ``ssl.SSLSocket.getpeercert`` gives it, where the
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
        """Let the client in as the user ``cid``.

        Args:
            cid: The user's id, hashable. A falsy one refuses.
            welcome: What the client's ``connect`` returns; anything the protocol can pack.

        Raises:
            RuntimeError: There is a verdict already.
            TypeError: The id is not hashable, or it is True, which is nobody's id.
        """
        hash(cid)
        if cid is True:
            raise TypeError("accept() and identify take the client's id; True is no id")
        self._settle(Admit(cid, welcome) if cid else Reject(Reason.NOT_AUTHORIZED))

    def refuse(self) -> None:
        """Keep the client out: it is closed with 1000 ``wse.not-authorized``.

        Raises:
            RuntimeError: There is a verdict already.
        """
        self._settle(Reject(Reason.NOT_AUTHORIZED))

    def _settle(self, verdict: Admit | Reject) -> None:
        if self._verdict is not None:
            done = "accepted" if isinstance(self._verdict, Admit) else "refused"
            raise RuntimeError(f"this connection was {done} already; the first verdict counts")
        self._verdict = verdict
        self._decide(self, verdict)

    def __repr__(self) -> str:
        # The identity is a credential and stays out of logs.
        state = "open" if self._verdict is None else type(self._verdict).__name__.lower()
        return f"<AuthRequest conn_id={self.conn_id!r} from={self.remote_addr!r} {state}>"


class Admission:
    """The state machine of one connection, from its first message to the verdict.

    Args:
        challenges: Whether a challenge handler stands before ``identify``.
        verifies: Whether that handler checks the answers itself.
        make_auth: Makes the `AuthRequest` from identity and meta.

    Attributes:
        state: Where the connection stands.
        auth: The request to judge, from the first message on.
    """

    __slots__ = ("_challenges", "_make_auth", "_quest", "_verifies", "auth", "state")

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

    def receive(self, role: str | None, payload: Any) -> Action:
        """A message of an internal ``role`` (None for any other type) arrived."""
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
                f"a peer's first message was malformed: {what} is not an object",
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
        """The challenge's own check of the answer is done."""
        if self.state is not State.VALIDATING or self.auth is None or self.auth.decided:
            return Ignore()
        return AskIdentify(self.auth) if right else self._reject(Reject(Reason.NOT_AUTHORIZED))

    def verdict(self, verdict: Admit | Reject) -> Action:
        """A handler accepted or refused."""
        if self.state is not State.VALIDATING:
            return Ignore()
        if isinstance(verdict, Reject):
            return self._reject(verdict)
        self.state = State.VALID
        return verdict

    def failed(self, exc: BaseException) -> Action:
        """A handler raised. An earlier verdict stands."""
        error = WseError(
            ErrorCode.HANDLER_FAILED,
            {"origin": origin_of(exc)},
            f"a handler of the admission raised {type(exc).__name__}: {text_of(exc)}",
        )
        error.__cause__ = exc
        if self.state is State.VALIDATING:
            return self._reject(Reject(Reason.NOT_AUTHORIZED, error))
        return Reject("", error)

    def _reject(self, rejection: Reject) -> Reject:
        self.state = State.REFUSED
        return rejection
