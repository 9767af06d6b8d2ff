"""A client's life: connect, come back, jump, close, and what its callers wait for meanwhile."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Literal

from tornado.websocket import WebSocketClientConnection

from ..backoff import Backoff
from ..errors import (
    AlreadyConnected,
    CloseCode,
    ConnectionFailed,
    ConnectionNotReady,
    ConnectTimeout,
    ErrorCode,
    NotAuthorized,
    ProtocolError,
    Reason,
    Status,
    WaitTimeout,
    WseError,
    origin_of,
    text_of,
)
from ..events import ClientChannel, Handler, Signal, check_handler, check_user_type
from ..limits import Limits
from ..protocol import Message, Protocol, check_protocol, encode
from ..rpc import check_rpc_name
from ..signals import ClientSignals
from .client_connection import ClientConnection
from .connection import Life
from .dial import PASSING_CODES, Dialer, check_url, is_passing
from .dispatch import Dispatcher, Lane
from .inbox import Inbox
from .shared import Shared, check_timeout, handler_error, tell, tell_error

__all__ = ["Connector", "Generation"]

Generation = Literal["current", "older"]

logger = logging.getLogger("wse_tornado.client")


class Connector:
    """The engine of one client. On its loop, unless a method says otherwise.

    Args:
        dispatcher: Runs users' handlers.
        inline: Whether the loop itself runs plain handlers.
        on_change: Called after each change of the status or of what waits to be sent.

    The others are those of the public classes.
    """

    def __init__(
        self,
        *,
        dispatcher: Dispatcher,
        inline: bool,
        on_change: Callable[[], None] | None = None,
        url: str | Callable[[], Any],
        timeout: float,
        reconnect: bool | Backoff,
        protocol: Protocol | None,
        headers: Mapping[str, str] | None,
        ssl_options: ssl.SSLContext | dict[str, Any] | None,
        limits: Limits | None,
        expose_errors: bool,
        generation: Generation,
        compression: bool | Mapping[str, Any],
    ) -> None:
        if not callable(url):
            check_url(url)
        if generation not in ("current", "older"):
            raise ValueError(f'generation is "current" or "older", not {generation!r}')
        if not isinstance(reconnect, (bool, Backoff)):
            raise TypeError(f"reconnect is True, False or a Backoff, not {reconnect!r}")
        self._url = url
        self.url: str | None = None if callable(url) else url  # the last one used
        self._backoff = Backoff() if reconnect is True else reconnect or None
        self.legacy = generation == "older"
        offer: dict[str, Any] | None = None
        if compression:
            offer = {} if compression is True else dict(compression)
        self.when = ClientSignals(inline=inline, replay=self._replay)
        self.shared: Shared[ClientSignals, ClientChannel] = Shared(
            when=self.when,
            channel=ClientChannel,
            protocol=check_protocol(protocol),
            limits=limits or Limits(),
            dispatcher=dispatcher,
            inline=inline,
            timeout=check_timeout(timeout),
            expose_errors=expose_errors,
            logger=logger,
        )
        self._dialer = Dialer(
            self.shared,
            headers=dict(headers or {}),
            ssl_options=ssl_options,
            compression=offer,
            threads=not inline,
        )
        self.when.updated.take(Status.IDLE)
        self.status = Status.IDLE
        self._lane: Lane | None = None
        self.inbox = Inbox(self.shared.limits.max_inbox, self._read_on)
        self._solver: Handler | None = None
        self._identity: Any = None
        self._meta: Any = None
        self.conn: ClientConnection | None = None
        self._admission: asyncio.Future[Any] | None = None  # of `conn`: its welcome, or why not
        self._over: asyncio.Future[None] | None = None  # of `conn`: set at its end
        self._sockets: set[ClientConnection] = set()
        self._runner: asyncio.Task[None] | None = None
        self._settled: asyncio.Future[Any] | None = None  # what the caller of connect() waits for
        self._failure: WseError | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._on_change = on_change
        self.closed_with: tuple[int, str] | None = None

    # -- what it is

    @property
    def where(self) -> str:
        """The server's URL, for messages."""
        return self.url or "the server"

    @property
    def latency(self) -> float | None:
        """Seconds that the last ping took, None before the first."""
        return self.conn.latency if self.conn is not None else None

    @property
    def lane(self) -> Lane:
        """Where the handlers of this client run, in order, across its connections."""
        if self._lane is None:
            self._lane = self.shared.dispatcher.lane(self._handler_failed)
        return self._lane

    def set_solver(self, fn: Callable[..., Any]) -> None:
        """Solve challenges with ``fn(quest)``."""
        check_handler(fn, ("quest",), "challenge")
        self._solver = Handler(fn, inline=self.shared.inline)

    def stats(self) -> dict[str, Any]:
        """Totals and levels; see the public classes. Any thread."""
        totals = self.shared.counters.as_dict()
        conn = self.conn
        if conn is not None:
            bytes_in, bytes_out = conn.traffic
            totals["bytes"]["in"] += bytes_in
            totals["bytes"]["out"] += bytes_out
            totals["messages"]["out"] += conn.sent_from_threads
        return {
            "status": str(self.status),
            "inbox": len(self.inbox),
            "inbox_dropped": self.inbox.dropped,
            "queued": self._lane.waiting if self._lane is not None else 0,
            "send_buffer": conn.buffered if conn is not None else 0,
            "calls_running": conn.serving if conn is not None else 0,
            "calls_pending": len(conn.pending) if conn is not None else 0,
            "latency": self.latency,
            **totals,
        }

    # -- connecting

    async def connect(self, identity: Any, meta: Any, timeout: float | None) -> Any:
        """Connect and get in; the welcome."""
        if self.status in (Status.CONNECTING, Status.READY, Status.RE_CONNECTING):
            raise AlreadyConnected(
                None, {"status": str(self.status)}, f"the client is {self.status} already"
            )
        return await self._begin(identity, meta, timeout)

    async def _begin(self, identity: Any, meta: Any, timeout: float | None) -> Any:
        seconds = self.shared.timeout if timeout is None else check_timeout(timeout)
        if not callable(meta):
            check_meta(meta)
        self._identity, self._meta = identity, meta
        loop = asyncio.get_running_loop()
        self.shared.dispatcher.begin()
        self._failure = None
        self.inbox.begin()
        settled: asyncio.Future[Any] = loop.create_future()
        self._settled = settled
        self._runner = loop.create_task(self._run(loop.time() + seconds))
        self._set_status(Status.CONNECTING)
        try:
            return await asyncio.shield(settled)
        except asyncio.CancelledError:
            self.stop(CloseCode.NORMAL_CLOSURE, Reason.BY_CLIENT)
            raise

    async def jump(
        self, url: str | Callable[[], Any], identity: Any, meta: Any, timeout: float | None
    ) -> Any:
        """Close with 4000 ``jump`` and connect to another server; its welcome."""
        if not callable(url):
            check_url(url)
        if not callable(meta):
            check_meta(meta)
        if timeout is not None:
            check_timeout(timeout)
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.cancel()
        conn = self.conn
        # CONNECTING from here on: who waits for messages goes on waiting.
        self._set_status(Status.CONNECTING)
        if conn is not None:
            conn.close(CloseCode.JUMP, Reason.JUMP)
        self._abandon_connect()
        self._url = url
        return await self._begin(
            self._identity if identity is None else identity,
            self._meta if meta is None else meta,
            timeout,
        )

    async def close(self, code: int, reason: str) -> None:
        """Close, whatever the client is doing, and wait until its sockets are closed."""
        self.stop(code, reason)
        closing = frozenset(self._sockets)  # not those of a connect() that comes later
        while closing & self._sockets:
            await self._wait_for_change()
        if self.status is Status.OFFLINE:  # nobody has connected anew meanwhile
            self.shared.dispatcher.cancel_calls()

    @property
    def taken(self) -> int:
        """Bytes that servers have taken of what these sockets sent. Any thread."""
        return sum(conn.taken for conn in tuple(self._sockets))

    def abort(self) -> None:
        """Cut the sockets of what `close` did not end."""
        for conn in tuple(self._sockets):
            conn.abort()

    def stop(self, code: int, reason: str) -> None:
        """Close without waiting for the sockets."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.cancel()
        if self.conn is not None:
            self.conn.close(code, reason)
        if self.status is not Status.IDLE:
            error = ConnectionNotReady(
                None, {"code": code, "reason": str(reason)}, "the client was closed"
            )
            self._abandon_connect()
            self._finish(error)

    def _abandon_connect(self) -> None:
        if self._settled is not None and not self._settled.done():
            self._settled.set_exception(
                ConnectionFailed(None, {}, "the client was closed while it was connecting")
            )
            self._settled.exception()

    async def _run(self, first_deadline: float) -> None:
        """Connect, and come back for as long as that is wanted; the task of `_runner`."""
        loop = asyncio.get_running_loop()
        attempt = 0
        error: WseError | None = None
        while True:
            earlier, error = error, None
            first = self.status is Status.CONNECTING
            deadline = first_deadline if first else loop.time() + self.shared.timeout
            try:
                over = await self._attempt(deadline)
            except WseError as exc:
                error = exc
            except Exception as exc:
                error = ConnectionFailed(
                    None,
                    {"origin": origin_of(exc)},
                    f"connecting failed: {type(exc).__name__}: {text_of(exc)}",
                )
                error.__cause__ = exc
            else:
                began = loop.time()
                await over  # a final close cancels this task
                if self._backoff is None:
                    return
                if loop.time() - began >= self._backoff.lasting:
                    attempt = 0
                await asyncio.sleep(self._backoff.delay(attempt))
                attempt += 1
                continue
            if isinstance(error, ConnectTimeout) and error.__cause__ is None:
                error.__cause__ = earlier  # what the attempts before it met
            if self._backoff is None or not is_passing(error):
                self._finish(error)
                return
            pause = self._backoff.delay(attempt)
            attempt += 1
            if not first:
                self._report(error)
            elif loop.time() + pause >= deadline:
                self._finish(error)
                return
            await asyncio.sleep(pause)

    async def _attempt(self, deadline: float) -> asyncio.Future[None]:
        """One try: socket, introduction, challenge, welcome. What to await for its end."""
        loop = asyncio.get_running_loop()
        work = loop.create_task(self._get_in(deadline))
        work.add_done_callback(_retrieve)  # it may fail in the very turn that cancels this
        try:
            await asyncio.wait({work}, timeout=max(0.0, deadline - loop.time()))
            if work.done():
                return work.result()
            if self._over is not None and self.conn is not None and self.conn.life is Life.READY:
                return self._over  # the welcome came in this very turn
        finally:
            if not work.done():
                work.cancel()
                if self.conn is not None and self.conn.life is Life.OPENING:
                    self.conn.close(CloseCode.NORMAL_CLOSURE, Reason.BY_CLIENT)
        raise ConnectTimeout(None, {}, f"{self.where} did not let the client in in time")

    async def _get_in(self, deadline: float) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        shared = self.shared
        url = await self._ask(self._url)
        check_url(url)
        self.url = url
        identity = await self._ask(self._identity)
        meta = await self._ask(self._meta)
        check_meta(meta)
        meta = {} if meta is None else meta
        encode(shared.protocol, shared.types.hi, {"identity": identity, "meta": meta})
        ws = await self._dialer.open(url, max(0.05, deadline - loop.time()))
        subprotocol = ws.selected_subprotocol
        conn, admission, over = await self._open(ws)
        tell(self.lane, self.when.connected)
        if subprotocol != shared.protocol.name:
            conn.close(CloseCode.NORMAL_CLOSURE, Reason.PROTOCOL_ERR)
            raise ProtocolError(
                None,
                {"subprotocol": subprotocol},
                f"the server does not speak {shared.protocol.name!r}",
            )
        conn.say_hi(identity, meta)
        await admission
        return over

    async def _open(
        self, ws: WebSocketClientConnection
    ) -> tuple[ClientConnection, asyncio.Future[Any], asyncio.Future[None]]:
        """Make the connection of an open socket the present one."""
        loop = asyncio.get_running_loop()
        conn = ClientConnection(
            self.shared,
            self,
            lane=self.lane,
            inbox=self.inbox,
            solver=self._solver,
            legacy=self.legacy,
            drained=self._changed,
            where=self.where,
        )
        admission: asyncio.Future[Any] = loop.create_future()
        admission.add_done_callback(_retrieve)
        over: asyncio.Future[None] = loop.create_future()
        self.conn, self._admission, self._over = conn, admission, over
        self._sockets.add(conn)
        try:
            await self._dialer.attach(ws, conn)
        except BaseException:
            self._sockets.discard(conn)  # or close() would wait for it
            raise
        return conn, admission, over

    async def _ask(self, value: Any) -> Any:
        """The value, or what the function that stands for it returns."""
        if not callable(value):
            return value
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(result: Any, exc: BaseException | None) -> None:
            if answer.done():
                return
            if exc is None:
                answer.set_result(result)
                return
            if not isinstance(exc, Exception):  # it would end the task that connects, untold
                failed = ConnectionFailed(
                    None,
                    {"origin": origin_of(exc)},
                    f"what connecting asked for ended with {type(exc).__name__}",
                )
                failed.__cause__ = exc
                exc = failed
            answer.set_exception(exc)

        self.shared.dispatcher.ask(Handler(value, inline=self.shared.inline), (), done)
        return await answer

    # -- what its connections tell it

    def welcomed(self, conn: ClientConnection, welcome: Any) -> None:
        """The server has let it in."""
        if conn is not self.conn:
            return
        if self._admission is not None and not self._admission.done():
            self._admission.set_result(welcome)
        self._set_status(Status.READY)
        tell(self.lane, self.when.ready, welcome)
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(welcome)

    def rejected(self, conn: ClientConnection, error: WseError) -> None:
        """It cannot get in, and closes."""
        if conn is self.conn and self._admission is not None and not self._admission.done():
            self._admission.set_exception(error)

    def ended(self, conn: ClientConnection, code: int, reason: str) -> None:
        """It is over for the program: come back, or stay OFFLINE."""
        if conn is not self.conn:
            return
        self.rejected(conn, hung_up(code, reason))
        if self._over is not None and not self._over.done():
            self._over.set_result(None)
        self.conn = self._admission = self._over = None
        self.closed_with = (code, reason)
        self.when.ready.forget()
        was_ready = self.status is Status.READY
        coming_back = (
            was_ready
            and self._runner is not None
            and self._backoff is not None
            and code in PASSING_CODES
        )
        tell(self.lane, self.when.closed, code, reason)
        if coming_back:
            self._set_status(Status.RE_CONNECTING)
        elif was_ready:
            runner, self._runner = self._runner, None
            if runner is not None:
                runner.cancel()
            why = f"{code} {reason}".strip()
            self._finish(
                ConnectionNotReady(
                    None, {"code": code, "reason": reason}, f"the connection is closed: {why}"
                )
            )
        self._changed()

    def closed(self, conn: ClientConnection) -> None:
        """Its socket is closed."""
        self._sockets.discard(conn)
        self._changed()

    def _finish(self, error: WseError) -> None:
        """It is over: everybody who waits gets the error."""
        self._runner = None
        was_coming_back = self.status is Status.RE_CONNECTING
        self._failure = error
        self._set_status(Status.OFFLINE)
        self.inbox.end(error)
        if self._settled is not None and not self._settled.done():
            self._settled.set_exception(error)
            self._settled.exception()
        elif was_coming_back and not isinstance(error, ConnectionNotReady):
            self._report(error)

    def _set_status(self, status: Status) -> None:
        if status is not self.status:
            self.status = status
            tell(self.lane, self.when.updated, status)
            self._changed()

    def _changed(self) -> None:
        if self._on_change is not None:
            self._on_change()
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _wait_for_change(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    # -- talking

    def ready_connection(self, what: str) -> ClientConnection:
        """The connection to do ``what`` on. Any thread.

        Raises:
            ConnectionNotReady: There is none.
        """
        conn = self.conn
        if conn is None or conn.life is not Life.READY:
            hints = {
                Status.IDLE: "call connect() first",
                Status.OFFLINE: "call connect() again",
            }
            hint = hints.get(self.status, "wait_ready() waits for it")
            raise ConnectionNotReady(
                None,
                {"status": str(self.status)},
                f"cannot {what}: the client is {self.status}; {hint}",
            )
        return conn

    def pack(self, type: Any, payload: Any) -> tuple[bytes, bool]:
        """Pack a user's message. Any thread.

        Raises:
            NotSerializable: The payload cannot be packed.
            ValueError: The type is empty or belongs to the library.
        """
        check_user_type(type, self.shared.roles, "send")
        return encode(self.shared.protocol, type, payload)

    def send(self, type: Any, payload: Any) -> None:
        """Send a message, if there is room for it."""
        data, binary = self.pack(type, payload)
        conn = self.ready_connection(f"send {type!r}")
        waiting = conn.buffered
        if waiting and waiting + len(data) > self.shared.limits.max_send_buffer:
            raise WseError(
                ErrorCode.SEND_BUFFER_FULL,
                {"waiting": waiting},
                f"{waiting} bytes wait to be sent already; await client.drain() first",
            )
        conn.send_packed(data, binary)

    def send_if_ready(self, data: bytes, binary: bool) -> None:
        """Send a packed message, if there still is a connection."""
        conn = self.conn
        if conn is not None and conn.life is Life.READY:
            conn.send_packed(data, binary)

    def buffered(self) -> int:
        """Bytes that wait to be sent. Any thread."""
        conn = self.conn
        return conn.buffered if conn is not None else 0

    async def room_for(self, size: int) -> None:
        """Wait until there is room for ``size`` bytes, and half of the buffer is empty."""
        bound = self.shared.limits.max_send_buffer
        low = min(bound // 2, max(0, bound - size))
        while self.conn is not None and self.conn.buffered > low:
            await self._wait_for_change()

    async def call(self, name: str, payload: Any, timeout: float | None) -> Any:
        """Call a procedure of the server."""
        check_rpc_name(name)
        seconds = self.shared.timeout if timeout is None else check_timeout(timeout)
        conn = self.ready_connection(f"call {name!r}")
        return await conn.call_and_wait(name, payload, seconds, legacy=self.legacy)

    async def receive(self, timeout: float | None) -> Message:
        """The next message that no handler takes."""
        self._check_used("receive")
        return (await self.inbox.take(timeout)).message

    async def wait_for(
        self, type: Any, predicate: Callable[[Any], bool] | None, timeout: float | None
    ) -> Any:
        """The payload of the next message of one type."""
        check_user_type(type, self.shared.roles, "wait_for")
        self._check_used("wait_for")

        def wanted(message: Message) -> bool:
            return bool(message.type == type and (predicate is None or predicate(message.payload)))

        entry = await self.inbox.get(wanted, timeout, f"message of the type {type!r}")
        return entry.message.payload

    def _read_on(self) -> None:
        if self.conn is not None:
            self.conn.read_on()

    async def wait_ready(self, timeout: float | None) -> None:
        """Wait until the client is READY."""

        async def ready() -> None:
            while self.status is not Status.READY:
                if self.status in (Status.IDLE, Status.OFFLINE):
                    raise self._not_connected("wait_ready")
                await self._wait_for_change()

        await self._within(ready(), timeout, "the client was not ready")

    async def wait(self, timeout: float | None) -> bool:
        """Wait until the client is OFFLINE for good. False where the time is over first."""

        async def over() -> None:
            while self.status not in (Status.IDLE, Status.OFFLINE):
                await self._wait_for_change()

        try:
            await self._within(over(), timeout, "still connected")
        except WaitTimeout:
            return False
        if self._failure is not None and not isinstance(self._failure, ConnectionNotReady):
            raise self._failure.with_traceback(None)
        return True

    async def _within(self, waiting: Any, timeout: float | None, what: str) -> None:
        try:
            await asyncio.wait_for(waiting, timeout)
        except asyncio.TimeoutError as exc:
            if isinstance(exc, WseError):
                raise
            raise WaitTimeout(None, {"timeout": timeout}, f"{what} within {timeout:g} s") from None

    def _not_connected(self, what: str) -> WseError:
        if self._failure is not None:
            return self._failure.with_traceback(None)  # or it grows with each time it is raised
        return ConnectionNotReady(
            None,
            {"status": str(self.status)},
            f"{what}: the client is {self.status}; call connect() first",
        )

    def _check_used(self, what: str) -> None:
        if self.status is Status.IDLE:
            raise self._not_connected(what)

    # -- telling

    def _replay(self, signal: Signal, handler: Handler, args: tuple[Any, ...]) -> None:
        self.shared.dispatcher.on_loop(self._replay_now, signal, handler, args)

    def _replay_now(self, signal: Signal, handler: Handler, args: tuple[Any, ...]) -> None:
        # If the event has happened again meanwhile, the handler has been told: do not tell it of
        # the older one after that.
        if handler.once or signal.is_last(args):
            self.lane.post(handler, args)

    def _report(self, error: WseError) -> None:
        tell_error(self.lane, self.when.error, logger, self, error)

    def _handler_failed(self, handler: Handler, exc: BaseException) -> None:
        self._report(handler_error(handler, exc))

    def __repr__(self) -> str:
        return f"<client of {self.where} {self.status}>"


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Mark an exception as seen, so that asyncio does not warn of it."""
    if not future.cancelled():
        future.exception()


def check_meta(meta: Any) -> None:
    """Refuse what the server would.

    Raises:
        TypeError: It is neither None nor a dictionary.
    """
    if meta is not None and not isinstance(meta, dict):
        raise TypeError(f"meta is a dictionary that describes this device, not {meta!r}")


def hung_up(code: int, reason: str) -> WseError:
    """Why a connection ended before it was ready."""
    details = {"code": code, "reason": reason}
    if code == CloseCode.NORMAL_CLOSURE and reason == Reason.NOT_AUTHORIZED:
        return NotAuthorized(None, details, "the server refused this identity")
    if code == CloseCode.NORMAL_CLOSURE and reason == Reason.PROTOCOL_ERR:
        return ProtocolError(
            None, details, "the server closed with wse.protocol-error: it speaks another protocol"
        )
    why = f"{code} {reason}".strip()
    return ConnectionFailed(None, details, f"the server hung up before the client was ready: {why}")
