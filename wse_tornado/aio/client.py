"""The client on the caller's loop: connecting, coming back, and what users do with it."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Literal, TypeVar

from ..backoff import Backoff
from ..errors import (
    AlreadyConnected,
    ConnectionFailed,
    ConnectionNotReady,
    ConnectTimeout,
    ErrorCode,
    ProtocolError,
    Reason,
    Status,
    WaitTimeout,
    WseError,
    origin_of,
    text_of,
)
from ..events import Channel, Handler, Signal, check_handler, check_user_type
from ..limits import Limits
from ..protocol import Message, Protocol, check_protocol, encode
from ..rpc import check_rpc_name
from .client_link import ClientLink
from .dial import JUMPING, PASSING_CODES, Dialer, check_url, is_passing
from .dispatch import Dispatcher, Lane, LoopDispatcher
from .inbox import Inbox
from .link import (
    NORMAL,
    Endpoint,
    check_closing,
    check_timeout,
    handler_error,
    ignore_transport,
    log_error,
    log_failure,
)

__all__ = ["AsyncWseClient", "ClientSignals", "Generation"]

F = TypeVar("F", bound=Callable[..., Any])
Generation = Literal["current", "older"]

logger = logging.getLogger("wse_tornado.client")


class ClientSignals:
    """What a client tells; subscribe with ``client.when.ready(fn)`` or as a decorator.

    Attributes:
        connected: ``()``, the socket is open, authentication begins.
        ready: ``(welcome)``, the server has let the client in; told to late subscribers too.
        closed: ``(code, reason)``, a connection is over, a refused one too.
        updated: ``(status)``, the `Status` changed; told to late subscribers too.
        ignored: ``(message)``, a message that no handler takes (it waits for ``receive``).
        error: ``(error)``, a problem without a caller to raise in.
    """

    def __init__(
        self, *, inline: bool, replay: Callable[[Signal, Handler, tuple[Any, ...]], None]
    ) -> None:
        self.connected = Signal("connected", (), inline=inline)
        self.ready = Signal("ready", ("welcome",), inline=inline, replays=replay)
        self.closed = Signal("closed", ("code", "reason"), inline=inline)
        self.updated = Signal("updated", ("status",), inline=inline, replays=replay)
        self.ignored = Signal("ignored", ("message",), inline=inline)
        self.error = Signal("error", ("error",), inline=inline)


class AsyncWseClient:
    """An authenticated WebSocket client, on the Tornado loop it is used on.

    Every method belongs on that loop, except for subscribing and registering.

    Args:
        url: ``ws://`` or ``wss://``; or a function that returns it, asked at every connect.
        timeout: Seconds that `connect` and `call` may take by default.
        reconnect: Come back after a passing loss: True, or a `Backoff` of your own.
        protocol: How messages are written; `JsonProtocol` by default.
        headers: Further HTTP headers of the handshake, such as cookies.
        ssl_options: An ``ssl.SSLContext`` for ``wss://``; by default certificates are verified.
        limits: Bounds; see `Limits`.
        expose_errors: Tell callers the stack of a procedure that raised.
        generation: "older" calls servers of the wire's versions 4.0 to 4.7.
        compression: Offer permessage-deflate (RFC 7692) for messages of 256 bytes and more: True,
            or a dictionary with ``compression_level`` and ``mem_level``.
        transport: Without effect; deprecated.

    Raises:
        TypeError, ValueError: An argument makes no sense; the message says which.
    """

    def __init__(
        self,
        url: str | Callable[[], Any],
        *,
        timeout: float = 20,
        reconnect: bool | Backoff = False,
        protocol: Protocol | None = None,
        headers: Mapping[str, str] | None = None,
        ssl_options: ssl.SSLContext | dict[str, Any] | None = None,
        limits: Limits | None = None,
        expose_errors: bool = False,
        generation: Generation = "current",
        compression: bool | Mapping[str, Any] = False,
        transport: Any = None,
        _dispatcher: Dispatcher | None = None,
    ) -> None:
        ignore_transport(transport)
        if not callable(url):
            check_url(url)
        if generation not in ("current", "older"):
            raise ValueError(f'generation is "current" or "older", not {generation!r}')
        if not isinstance(reconnect, (bool, Backoff)):
            raise TypeError(f"reconnect is True, False or a Backoff, not {reconnect!r}")
        inline = _dispatcher is None
        self._url = url
        self._backoff = Backoff() if reconnect is True else reconnect or None
        self.legacy = generation == "older"
        offer: dict[str, Any] | None = None
        if compression:
            offer = {} if compression is True else dict(compression)
        self.endpoint = Endpoint(
            protocol=check_protocol(protocol),
            limits=limits or Limits(),
            dispatcher=_dispatcher or LoopDispatcher(),
            handler_params=("payload",),
            inline=inline,
            timeout=check_timeout(timeout),
            expose_errors=expose_errors,
        )
        self._dialer = Dialer(
            self.endpoint,
            headers=dict(headers or {}),
            ssl_options=ssl_options,
            compression=offer,
            shared=not inline,
        )
        self._inline = inline
        self.when = ClientSignals(inline=inline, replay=self._replay)
        self.when.updated.take(Status.IDLE)
        self._status = Status.IDLE
        self._lane: Lane | None = None
        self.inbox = Inbox(self.endpoint.limits.max_inbox, self._read_on)
        self.solver: Handler | None = None
        self._identity: Any = None
        self._meta: Any = None
        self.link: ClientLink | None = None
        self._sockets: set[ClientLink] = set()
        self._runner: asyncio.Task[None] | None = None
        self._jumping = False
        self._settled: asyncio.Future[Any] | None = None
        self._failure: WseError | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self.on_change: Callable[[], None] | None = None
        self.closed_with: tuple[int, str] | None = None

    # -- what it is

    @property
    def status(self) -> Status:
        """What the client is doing now."""
        return self._status

    @property
    def channel(self) -> Channel:
        """Handlers of messages: ``@client.channel.on("type")``, called with ``(payload)``."""
        return self.endpoint.channel

    @property
    def latency(self) -> float | None:
        """Seconds the last ping took, None before the first."""
        return self.link.latency if self.link is not None else None

    @property
    def lane(self) -> Lane:
        """Where the handlers of this client run, in order, across its connections."""
        if self._lane is None:
            self._lane = self.endpoint.dispatcher.lane(self._handler_failed)
        return self._lane

    def stats(self) -> dict[str, Any]:
        """Counters and levels as a plain dictionary; cheap enough for every second. Any thread.

        Totals count from the making of this client: ``messages`` and ``bytes`` each way,
        ``calls_served`` and ``calls_made`` by outcome, ``closings`` by code and reason,
        ``inbox_dropped``. Levels are of now: ``status``, ``inbox`` and ``queued`` (messages that
        wait to be received, and for handlers), ``send_buffer`` (bytes), ``calls_running`` and
        ``calls_pending``, ``latency`` (seconds of the last ping, None before the first).
        """
        totals = self.endpoint.counters.as_dict()
        link = self.link
        if link is not None:
            bytes_in, bytes_out = link.traffic
            totals["bytes"]["in"] += bytes_in
            totals["bytes"]["out"] += bytes_out
            totals["messages"]["out"] += link.sent_from_threads
        return {
            "status": str(self._status),
            "inbox": len(self.inbox),
            "inbox_dropped": self.inbox.dropped,
            "queued": self._lane.waiting if self._lane is not None else 0,
            "send_buffer": link.buffered if link is not None else 0,
            "calls_running": link.serving if link is not None else 0,
            "calls_pending": len(link.pending) if link is not None else 0,
            "latency": self.latency,
            **totals,
        }

    # -- connecting

    def challenge(self, fn: F) -> F:
        """Solve the server's challenges with ``fn(quest)``, which returns the solution.

        A plain or a coroutine function; works as a decorator. See `HmacSolver`.

        Raises:
            TypeError: It cannot be called with one argument.
        """
        check_handler(fn, ("quest",), "challenge")
        self.solver = Handler(fn, inline=self._inline)
        return fn

    async def connect(
        self, identity: Any = None, meta: Any = None, *, timeout: float | None = None
    ) -> Any:
        """Connect and get in.

        With ``reconnect``, a server that cannot be reached is tried again until the time is over.

        Args:
            identity: Who this is, anything the protocol can pack; or a function (plain or
                coroutine) that returns it, asked again at every reconnect.
            meta: What to tell about this device, a dictionary; or a function that returns it.
            timeout: Seconds; the client's ``timeout`` by default.

        Returns:
            What the server's ``accept`` passed as welcome.

        Raises:
            NotAuthorized: The server refused, or its challenge could not be answered.
            ConnectTimeout: Not ready in time.
            ConnectionFailed: The server cannot be reached, or hung up.
            ProtocolError: It speaks another protocol.
            AlreadyConnected: The client is connected, or on its way.
            NotSerializable: Identity or meta cannot be packed.
            TypeError: Meta is not a dictionary.
        """
        if self._status in (Status.CONNECTING, Status.READY, Status.RE_CONNECTING):
            raise AlreadyConnected(
                None, {"status": str(self._status)}, f"the client is {self._status} already"
            )
        return await self._begin(identity, meta, timeout)

    async def _begin(self, identity: Any, meta: Any, timeout: float | None) -> Any:
        seconds = self.endpoint.timeout if timeout is None else check_timeout(timeout)
        if not callable(meta):
            check_meta(meta)
        self._identity, self._meta = identity, meta
        loop = asyncio.get_running_loop()
        self.endpoint.dispatcher.begin()
        self._failure = None
        self.inbox.begin()
        self._set_status(Status.CONNECTING)
        settled: asyncio.Future[Any] = loop.create_future()
        self._settled = settled
        self._runner = loop.create_task(self._run(loop.time() + seconds))
        try:
            return await asyncio.shield(settled)
        except asyncio.CancelledError:
            self._stop(NORMAL, Reason.BY_CLIENT)
            raise

    async def jump(
        self, url: str, identity: Any = None, meta: Any = None, *, timeout: float | None = None
    ) -> Any:
        """Leave for another server: close with 4000 ``jump``, connect there.

        Args:
            url: Where to; or a function that returns it.
            identity: Who to be there; the present identity when None.
            meta: What to tell there; the present meta when None.
            timeout: Seconds for all of it; the client's ``timeout`` by default.

        Returns:
            The new server's welcome.

        Raises:
            ValueError: The URL is none.
            TypeError: Meta is not a dictionary.
            WseError: As `connect` does.
        """
        if not callable(url):
            check_url(url)
        if not callable(meta):
            check_meta(meta)
        if timeout is not None:
            check_timeout(timeout)
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.cancel()
        self._jumping = True  # who waits for messages goes on waiting
        try:
            if self.link is not None:
                self.link.close(JUMPING, Reason.JUMP)
        finally:
            self._jumping = False
        self._abandon_connect()
        self._url = url
        return await self._begin(
            self._identity if identity is None else identity,
            self._meta if meta is None else meta,
            timeout,
        )

    async def close(self, code: int = NORMAL, reason: str = Reason.BY_CLIENT) -> None:
        """Close, whatever the client is doing, and wait until its sockets are closed.

        Ends a connect, a reconnection, and every wait. Handlers stay registered, and the client
        may connect again.

        Raises:
            ValueError: The code may not be sent (RFC 6455 7.4), or the reason is not a string.
        """
        check_closing(code, reason)
        self._stop(code, reason)
        closing = frozenset(self._sockets)  # not those of a connect() that comes later
        while closing & self._sockets:
            await self._wait_for_change()
        if self._status is Status.OFFLINE:  # nobody has connected anew meanwhile
            self.endpoint.dispatcher.cancel_calls()

    @property
    def taken(self) -> int:
        """Bytes that servers have taken of what these sockets sent. Any thread."""
        return sum(link.taken for link in tuple(self._sockets))

    def abort(self) -> None:
        """Cut the sockets of what `close` did not end."""
        for link in tuple(self._sockets):
            link.abort()

    def drop(self, reason: str = Reason.BY_CLIENT) -> None:
        """Close with 1000 and ``reason`` without waiting for the socket."""
        self._stop(NORMAL, reason)

    def _stop(self, code: int, reason: str) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.cancel()
        if self.link is not None:
            self.link.close(code, reason)
        if self._status is not Status.IDLE:
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
        """Connect, and come back for as long as that is wanted."""
        loop = asyncio.get_running_loop()
        attempt = 0
        error: WseError | None = None
        while True:
            earlier, error = error, None
            first = self._status is Status.CONNECTING
            deadline = first_deadline if first else loop.time() + self.endpoint.timeout
            try:
                link = await self._attempt(deadline)
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
                await link.over.wait()  # a final closing cancels this task
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
                self.report(error)
            elif loop.time() + pause >= deadline:
                self._finish(error)
                return
            await asyncio.sleep(pause)

    async def _attempt(self, deadline: float) -> ClientLink:
        """One try: socket, introduction, challenge, welcome."""
        loop = asyncio.get_running_loop()
        work = loop.create_task(self._get_in(deadline))
        work.add_done_callback(_retrieve)  # it may fail in the very turn that cancels this
        try:
            await asyncio.wait({work}, timeout=max(0.0, deadline - loop.time()))
            if work.done():
                return work.result()
            if self.link is not None and self.link.ready:
                return self.link  # the welcome came in this very turn
        finally:
            if not work.done():
                work.cancel()
                if self.link is not None and not self.link.ready:
                    self.link.close(NORMAL, Reason.BY_CLIENT)
        raise ConnectTimeout(None, {}, f"{self.where} did not let the client in in time")

    async def _get_in(self, deadline: float) -> ClientLink:
        loop = asyncio.get_running_loop()
        url = await self._ask(self._url)
        check_url(url)
        identity = await self._ask(self._identity)
        meta = await self._ask(self._meta)
        check_meta(meta)
        meta = {} if meta is None else meta
        encode(self.endpoint.protocol, self.endpoint.types.hi, {"identity": identity, "meta": meta})
        ws = await self._dialer.open(url, max(0.05, deadline - loop.time()))
        link = ClientLink(self)
        link.welcomed.add_done_callback(_retrieve)
        self.link = link
        self._sockets.add(link)
        subprotocol = ws.selected_subprotocol
        try:
            await self._dialer.attach(ws, link)
        except BaseException:
            self._sockets.discard(link)  # or close() would wait for it
            raise
        self._emit(self.when.connected)
        if subprotocol != self.endpoint.protocol.name:
            link.close(NORMAL, Reason.PROTOCOL_ERR)
            raise ProtocolError(
                None,
                {"subprotocol": subprotocol},
                f"the server does not speak {self.endpoint.protocol.name!r}",
            )
        link.say_hi(identity, meta)
        await link.welcomed
        return link

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

        self.endpoint.dispatcher.ask(Handler(value, inline=self._inline), (), done)
        return await answer

    @property
    def where(self) -> str:
        """The server's URL, for messages."""
        return str(self._url) if isinstance(self._url, str) else "the server"

    # -- what happens to the connection

    def on_welcome(self, link: ClientLink, welcome: Any) -> None:
        """For its connections: the server let one in."""
        if link is not self.link:
            return
        self._set_status(Status.READY)
        self._emit(self.when.ready, welcome)
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(welcome)

    def on_link_ended(self, link: ClientLink, code: int, reason: str) -> None:
        """A connection is over: come back, or stay OFFLINE."""
        link.over.set()
        self.on_drained()
        if link is not self.link:
            return
        self.link = None
        self.closed_with = (code, reason)
        self.when.ready.forget()
        self._emit(self.when.closed, code, reason)
        if self._status is not Status.READY or self._jumping:
            return
        if self._runner is not None and self._backoff is not None and code in PASSING_CODES:
            self._set_status(Status.RE_CONNECTING)
            return
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.cancel()
        why = f"{code} {reason}".strip()
        error = ConnectionNotReady(
            None, {"code": code, "reason": reason}, f"the connection is closed: {why}"
        )
        self._finish(error)

    def on_socket_closed(self, link: ClientLink) -> None:
        """For its connections: a socket is closed."""
        self._sockets.discard(link)
        self._changed()

    def _finish(self, error: WseError) -> None:
        """It is over: everybody who waits gets the error."""
        self._runner = None
        was_coming_back = self._status is Status.RE_CONNECTING
        self._failure = error
        self._set_status(Status.OFFLINE)
        self.inbox.end(error)
        if self._settled is not None and not self._settled.done():
            self._settled.set_exception(error)
            self._settled.exception()
        elif was_coming_back and not isinstance(error, ConnectionNotReady):
            self.report(error)

    def _set_status(self, status: Status) -> None:
        if status is not self._status:
            self._status = status
            self._emit(self.when.updated, status)
            self._changed()

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def on_drained(self) -> None:
        """For its connections: what had waited to be sent has left."""
        self._changed()

    async def _wait_for_change(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    # -- talking

    def ready_link(self, what: str) -> ClientLink:
        """The connection to do ``what`` on. Any thread.

        Raises:
            ConnectionNotReady: There is none.
        """
        link = self.link
        if link is None or not link.ready:
            hints = {
                Status.IDLE: "call connect() first",
                Status.OFFLINE: "call connect() again",
            }
            hint = hints.get(self._status, "wait_ready() waits for it")
            raise ConnectionNotReady(
                None,
                {"status": str(self._status)},
                f"cannot {what}: the client is {self._status}; {hint}",
            )
        return link

    def send(self, type: Any, payload: Any = None) -> None:
        """Send a message to the server.

        Raises:
            ConnectionNotReady: There is no connection.
            NotSerializable: The payload cannot be packed; nothing was sent.
            ValueError: The type is empty or belongs to the library.
            WseError: ``wse.client.send-buffer-full``, see `drain`.
        """
        check_user_type(type, self.endpoint.roles, "send")
        data, binary = encode(self.endpoint.protocol, type, payload)
        link = self.ready_link(f"send {type!r}")
        self._check_room(link, len(data))
        link.send_packed(data, binary)

    def _check_room(self, link: ClientLink, size: int) -> None:
        waiting = link.buffered
        if waiting and waiting + size > self.endpoint.limits.max_send_buffer:
            raise WseError(
                ErrorCode.SEND_BUFFER_FULL,
                {"waiting": waiting},
                f"{waiting} bytes wait to be sent already; await client.drain() first",
            )

    async def drain(self) -> None:
        """Wait until less than half of ``Limits.max_send_buffer`` waits to be sent."""
        await self._room_for(0)

    async def _room_for(self, size: int) -> None:
        bound = self.endpoint.limits.max_send_buffer
        low = min(bound // 2, max(0, bound - size))
        while self.link is not None and self.link.buffered > low:
            await self._wait_for_change()

    async def drained(self, seconds: float, size: int) -> None:
        """Wait until there is room for ``size`` bytes, so many seconds at most."""
        try:
            await asyncio.wait_for(self._room_for(size), seconds)
        except asyncio.TimeoutError:
            pass

    async def call(self, rp: str, payload: Any = None, *, timeout: float | None = None) -> Any:
        """Call a procedure of the server.

        Args:
            rp: Its name.
            payload: Its argument.
            timeout: Seconds to wait for the answer; the client's ``timeout`` by default.

        Raises:
            RpcTimeout: No answer in time.
            RpcNotRegistered: The server has no such procedure.
            RpcDisconnected: The connection ended first.
            RpcFailed: The procedure raised; its code and details.
            ConnectionNotReady: There is no connection.
            NotSerializable: The payload cannot be packed; nothing was sent.
            ValueError: The name is not a non-empty string, or the time-out is not above 0.
        """
        check_rpc_name(rp)
        seconds = self.endpoint.timeout if timeout is None else check_timeout(timeout)
        link = self.ready_link(f"call {rp!r}")
        return await link.call_and_wait(rp, payload, seconds, legacy=self.legacy)

    def register(self, name: str, fn: F | None = None, *, inline: bool = False) -> Any:
        """Answer calls of ``name`` with what ``fn(payload)`` returns; works as a decorator.

        Raises:
            ValueError: The name is not a non-empty string, or belongs to the library.
            WseError: RP_ALREADY_REGISTERED, the name is taken.
            TypeError: The function cannot be called with one argument.
        """
        return self.endpoint.procedures.register(name, fn, inline=inline)

    def unregister(self, name: str) -> None:
        """Forget a procedure.

        Raises:
            WseError: RP_NOT_REGISTERED, there is none of that name.
        """
        self.endpoint.procedures.unregister(name)

    async def receive(self, *, timeout: float | None = None) -> Message:
        """The next message that no handler on the channel takes; without a time-out, for ever.

        Raises:
            ReceiveTimeout: None came in time.
            ConnectionNotReady: The connection is over and nothing is left to receive.
            NotAuthorized: The client came back and was refused.
        """
        self._check_used("receive")
        return await self.inbox.get(None, timeout, "message")

    async def wait_for(
        self,
        type: Any,
        predicate: Callable[[Any], bool] | None = None,
        *,
        timeout: float | None = None,
    ) -> Any:
        """The payload of the next message of one type; others stay where they are.

        A message that a handler takes as well counts only if it comes during the wait.

        Args:
            type: The message type.
            predicate: ``predicate(payload)`` says whether it is the one.
            timeout: Seconds; without one, for ever.

        Raises:
            ReceiveTimeout: None came in time.
            ConnectionNotReady: The connection is over.
            NotAuthorized: The client came back and was refused.
            ValueError: The type is empty or belongs to the library.
        """
        check_user_type(type, self.endpoint.roles, "wait_for")
        self._check_used("wait_for")

        def wanted(message: Message) -> bool:
            return bool(message.type == type and (predicate is None or predicate(message.payload)))

        message = await self.inbox.get(wanted, timeout, f"message of the type {type!r}")
        return message.payload

    def _read_on(self) -> None:
        if self.link is not None:
            self.link.read_on()

    async def wait_ready(self, *, timeout: float | None = None) -> None:
        """Wait until the client is READY, after a loss for instance.

        Raises:
            WaitTimeout: Not in time.
            ConnectionNotReady: Nobody is connecting.
            NotAuthorized: The client came back and was refused.
        """

        async def ready() -> None:
            while self._status is not Status.READY:
                if self._status in (Status.IDLE, Status.OFFLINE):
                    raise self._over("wait_ready")
                await self._wait_for_change()

        await self._within(ready(), timeout, "the client was not ready")

    async def wait(self, *, timeout: float | None = None) -> bool:
        """Wait until the client is OFFLINE for good.

        Returns:
            True, or False where the time is over first.

        Raises:
            NotAuthorized: The client was refused.
            ConnectTimeout, ConnectionFailed: The last `connect` had failed so.
        """

        async def over() -> None:
            while self._status not in (Status.IDLE, Status.OFFLINE):
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

    def _over(self, what: str) -> WseError:
        if self._failure is not None:
            return self._failure.with_traceback(None)  # or it grows with each time it is raised
        return ConnectionNotReady(
            None,
            {"status": str(self._status)},
            f"{what}: the client is {self._status}; call connect() first",
        )

    def _check_used(self, what: str) -> None:
        if self._status is Status.IDLE:
            raise self._over(what)

    async def __aiter__(self) -> AsyncIterator[Message]:
        """Messages until the connection is over for good."""
        while True:
            try:
                message = await self.receive()
            except ConnectionNotReady:
                return
            yield message

    async def __aenter__(self) -> AsyncWseClient:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    # -- telling

    def _emit(self, signal: Signal, *args: Any) -> None:
        for handler in signal.take(*args):
            self.lane.post(handler, args)

    def _replay(self, signal: Signal, handler: Handler, args: tuple[Any, ...]) -> None:
        self.endpoint.dispatcher.on_loop(self._replay_now, signal, handler, args)

    def _replay_now(self, signal: Signal, handler: Handler, args: tuple[Any, ...]) -> None:
        # What came in the meantime has reached the handler already: the older would come last.
        if handler.once or signal.is_last(args):
            self.lane.post(handler, args)

    def on_ignored(self, type: Any, payload: Any) -> None:
        """For its connections: nobody takes a message."""
        self._emit(self.when.ignored, Message(type, payload))

    def report(self, error: WseError) -> None:
        """For its connections: tell a problem that has no caller, by signal or log."""
        handlers = self.when.error.take(error)
        if not handlers:
            log_error(logger, error, self)
        for handler in handlers:
            self.lane.post(handler, (error,), log_failure(logger, handler))

    def _handler_failed(self, handler: Handler, exc: BaseException) -> None:
        self.report(handler_error(handler, exc))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._status} {self.where}>"


def _retrieve(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()


def check_meta(meta: Any) -> None:
    """Refuse what the server would.

    Raises:
        TypeError: It is neither None nor a dictionary.
    """
    if meta is not None and not isinstance(meta, dict):
        raise TypeError(f"meta is a dictionary that describes this device, not {meta!r}")
