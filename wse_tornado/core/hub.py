"""What the connections of one server share: who may come, who is in, and how all of it stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..admission import AuthRequest
from ..errors import CloseCode, ErrorCode, Reason, WseError, printable, repr_of
from ..events import Handler, ServerChannel, check_handler, check_user_type
from ..limits import Limits
from ..protocol import Protocol, check_protocol, encode
from ..signals import ServerSignals
from ..transport.base import SharedMessage
from .dispatch import Dispatcher
from .server_connection import ServerConnection
from .shared import Shared, check_timeout, tell
from .users import Device, User, Users, deliver

if TYPE_CHECKING:
    from tornado.httputil import HTTPServerRequest
    from tornado.websocket import WebSocketHandler

__all__ = ["Hub"]

logger = logging.getLogger("wse_tornado.server")


class Hub:
    """The engine of one server. On its loop, unless a method says otherwise.

    Args:
        dispatcher: Runs users' handlers.
        inline: Whether the loop itself runs plain handlers.
        connection_face: Makes what users' handlers are given in place of a `ServerConnection`.
        user_face: Makes what they are given in place of a `User`.

    The others are those of the public classes.
    """

    def __init__(
        self,
        *,
        dispatcher: Dispatcher,
        inline: bool,
        connection_face: Callable[[ServerConnection], Any],
        user_face: Callable[[User], Any],
        identify: Callable[[AuthRequest], Any] | None,
        conn_per_user: int,
        protocol: Protocol | None,
        timeout: float,
        linger: float,
        limits: Limits | None,
        expose_errors: bool,
        allowed_origins: Iterable[str] | None,
        compression: bool | Mapping[str, Any],
    ) -> None:
        if isinstance(conn_per_user, bool) or not isinstance(conn_per_user, int):
            raise TypeError(f"conn_per_user is a number of devices, not {conn_per_user!r}")
        if conn_per_user < 1:
            raise ValueError(f"conn_per_user must be at least 1, not {conn_per_user!r}")
        if not linger >= 0:
            raise ValueError(f"linger must not be below 0 seconds, not {linger!r}")
        self.when = ServerSignals(inline=inline)
        self.shared: Shared[ServerSignals, ServerChannel] = Shared(
            when=self.when,
            channel=ServerChannel,
            protocol=check_protocol(protocol),
            limits=limits or Limits(),
            dispatcher=dispatcher,
            inline=inline,
            timeout=check_timeout(timeout),
            expose_errors=expose_errors,
            logger=logger,
        )
        self.conn_per_user = conn_per_user
        self.compression: dict[str, Any] | None = None
        if compression:
            self.compression = {} if compression is True else dict(compression)
        if identify is not None:
            check_handler(identify, ("auth",), "identify")
        self.identify_handler = Handler(identify or _missing_identify, inline=inline)
        self.challenge_handler: Handler | None = None
        self.verify_handler: Handler | None = None
        self._origins = _origins(allowed_origins)
        self._connection_face = connection_face
        self.users: Users[ServerConnection] = Users(linger, user_face, self._tell_left)
        self.connections: set[ServerConnection] = set()  # those whose sockets are open
        self.stopping = False
        self._all_closed: asyncio.Future[None] | None = None

    def use_challenge(self, fn: Callable[..., Any]) -> None:
        """Put a challenge before ``identify``."""
        check_handler(fn, ("auth",), "use_challenge")
        verify = getattr(fn, "verify", None)
        if verify is not None:
            check_handler(verify, ("auth",), "use_challenge: verify")
        inline = self.shared.inline
        self.verify_handler = Handler(verify, inline=inline) if verify is not None else None
        self.challenge_handler = Handler(fn, inline=inline)

    # -- who may come

    def refusal(self, address: str) -> tuple[int, str] | None:
        """Why no further connection is taken now: close code and reason."""
        limits = self.shared.limits
        if self.stopping:
            return CloseCode.SERVICE_RESTART, Reason.SERVER_STOPPING.value
        if (
            len(self.connections) >= limits.max_connections
            or len(self.users.unauthenticated) >= limits.max_unauthenticated
            or self.users.unauthenticated_from(address) >= limits.max_unauthenticated_per_address
        ):
            return CloseCode.TRY_AGAIN_LATER, Reason.SERVER_FULL.value
        return None

    def allows_origin(self, origin: str) -> bool:
        """Whether ``allowed_origins`` names it."""
        return "*" in self._origins or origin.rstrip("/").lower() in self._origins

    def accept(
        self,
        *,
        remote_addr: str,
        request: HTTPServerRequest,
        handler: WebSocketHandler,
        certificate: dict[str, Any] | None,
    ) -> ServerConnection:
        """A connection for a socket whose handshake is done."""
        conn = ServerConnection(
            self.shared,
            self,
            self._connection_face,
            remote_addr=remote_addr,
            request=request,
            handler=handler,
            certificate=certificate,
        )
        self.connections.add(conn)
        self.users.arrive(conn)
        return conn

    # -- what its connections tell it

    def enter(self, conn: ServerConnection) -> bool:
        """It is accepted: make it a device of its user. True if the user has just come."""
        return self.users.enter(conn)

    def entered(self, conn: ServerConnection, *, joined: bool) -> None:
        """It has its welcome: tell handlers, and close the devices it displaces."""
        when, user = self.when, conn.user
        jobs: list[tuple[Handler, tuple[Any, ...]]] = []
        if joined:
            args = (user.face, conn.meta)
            jobs += [(handler, args) for handler in when.joined.take(*args)]
        jobs += [(handler, (conn.face,)) for handler in when.connected.take(conn.face)]
        # In one go: a handler of the first may drop the connection, which is told after the last.
        conn.lane.post_all(jobs)
        devices = list(user.devices.values())
        address = printable(conn.remote_addr)
        if joined:
            logger.info("%s joined from %s", printable(repr_of(conn.cid)), address)
        for displaced in devices[: max(0, len(devices) - self.conn_per_user)]:
            logger.info(
                "a device of %s at %s is pushed out: %s",
                printable(repr_of(conn.cid)),
                printable(displaced.remote_addr),
                Reason.CLIENTS_CONCURRENCY.value,
            )
            displaced.close(CloseCode.NORMAL_CLOSURE, Reason.CLIENTS_CONCURRENCY)

    def leave(self, conn: ServerConnection, code: int, reason: str) -> None:
        """It is over for the program."""
        left = self.users.leave(conn, code, reason)
        if conn.cid is None:
            refused = reason.startswith("wse.") or code == CloseCode.MESSAGE_TOO_BIG
            logger.info(
                "%s %s: %s %s",
                "refused" if refused else "not admitted",
                printable(conn.remote_addr),
                code,
                printable(reason),
            )
        elif code == CloseCode.MESSAGE_TOO_BIG:
            logger.info("a message from %s is too large: 1009", printable(conn.remote_addr))
        if conn.cid is not None:
            tell(conn.lane, self.when.disconnected, conn.face, code, reason)
        if left:
            self._tell_left(conn.user)

    def closed(self, conn: ServerConnection) -> None:
        """Its socket is closed."""
        self.connections.discard(conn)
        for notify in tuple(self.shared.on_served):  # nobody waits for the calls of who has gone
            notify()
        if not self.connections and self._all_closed is not None and not self._all_closed.done():
            self._all_closed.set_result(None)

    def _tell_left(self, user: User) -> None:
        assert user.last is not None
        conn, code, reason = user.last
        logger.info(
            "%s left from %s: %s %s",
            printable(repr_of(user.cid)),
            printable(conn.remote_addr),
            code,
            printable(reason),
        )
        tell(conn.lane, self.when.left, user.face, code, reason)

    # -- sending

    def pack(self, type: Any, payload: Any) -> SharedMessage:
        """Pack a user's message once, for any number of devices. Any thread.

        Raises:
            NotSerializable: The payload cannot be packed.
            ValueError: The type is empty or belongs to the library.
        """
        check_user_type(type, self.shared.roles, "send")
        return SharedMessage(*encode(self.shared.protocol, type, payload))

    def deliver(self, message: SharedMessage, devices: Iterable[Device]) -> int:
        """Hand a message to devices. Returns to how many."""
        return deliver(message, devices)

    def drop(self, devices: Iterable[Device], reason: str) -> None:
        """Close devices with 1000 and ``reason``."""
        for conn in devices:
            conn.close(CloseCode.NORMAL_CLOSURE, reason)

    # -- watching

    def stats(self) -> dict[str, Any]:
        """Totals and levels; see the public classes. Any thread."""
        conns = tuple(self.connections)
        totals = self.shared.counters.as_dict()
        for conn in conns:
            bytes_in, bytes_out = conn.traffic
            totals["bytes"]["in"] += bytes_in
            totals["bytes"]["out"] += bytes_out
        latencies = [conn.latency for conn in conns if conn.latency is not None]
        return {
            "connections": len(self.users.devices),
            "users": len(self.users.by_id),
            "strangers": len(self.users.unauthenticated),
            "queued": sum(conn.lane.waiting for conn in conns),
            "send_buffer": sum(conn.buffered for conn in conns),
            "calls_running": sum(conn.serving for conn in conns),
            "calls_pending": sum(len(conn.pending) for conn in conns),
            "latency": {
                "mean": sum(latencies) / len(latencies) if latencies else None,
                "max": max(latencies, default=None),
            },
            **totals,
        }

    # -- the end

    async def stop(self, grace: float) -> None:
        """Refuse newcomers, let running calls finish, close with 1012, wait for the sockets."""
        self.stopping = True
        if grace > 0:
            await self._calls_served(grace)
        for conn in tuple(self.connections):
            conn.close(CloseCode.SERVICE_RESTART, Reason.SERVER_STOPPING)
        self.users.end_lingering()
        if self.connections:
            # One future for all who stop at once, and none of them can cancel it for the others.
            if self._all_closed is None or self._all_closed.done():
                self._all_closed = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._all_closed)
        self.shared.dispatcher.cancel_calls()  # nobody waits for their answers any more

    async def _calls_served(self, grace: float) -> None:
        """Wait until no call is being served, or the grace is over."""
        served = asyncio.Event()
        notify = served.set
        self.shared.on_served.add(notify)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace
        try:
            while any(conn.serving for conn in self.connections):
                served.clear()
                await asyncio.wait_for(served.wait(), deadline - loop.time())
        except asyncio.TimeoutError:
            pass
        finally:
            self.shared.on_served.discard(notify)


def _missing_identify(auth: AuthRequest) -> None:
    """Stands where no identify handler was given: nobody gets in."""
    raise WseError(
        ErrorCode.IDENTIFY_HANDLER_MISSING,
        {},
        "the server has no identify handler; pass identify= to let anybody in",
    )


def _origins(origins: Iterable[str] | None) -> frozenset[str]:
    if origins is None:
        return frozenset()
    if isinstance(origins, str):
        raise TypeError("allowed_origins takes a list of origins, not one string")
    return frozenset(origin.rstrip("/").lower() for origin in origins)
