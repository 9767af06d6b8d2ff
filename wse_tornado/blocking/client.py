"""The blocking client: `AsyncWseClient` on a loop thread, for code without ``async``."""

from __future__ import annotations

import asyncio
import concurrent.futures
import ssl
import warnings
from collections.abc import Callable, Coroutine, Iterator, Mapping
from functools import partial
from typing import Any, Literal, TypeVar

from ..backoff import Backoff
from ..core.client_connection import ClientConnection
from ..core.connection import Life, PackedCall
from ..core.connector import Connector, Generation
from ..core.shared import check_closing, check_timeout, ignore_transport
from ..errors import (
    CloseCode,
    ConnectionNotReady,
    ConnectTimeout,
    ErrorCode,
    Reason,
    ReceiveTimeout,
    Status,
    WaitTimeout,
    WseError,
)
from ..faces import ClientFace
from ..limits import Limits
from ..protocol import Message, Protocol
from ..rpc import check_rpc_name, timeout_error
from .calling import Outbox
from .dispatch import ManualRunner, Runner, ThreadDispatcher, Workers
from .lease import Lease
from .loop import Deadline, LoopThread, Wait

__all__ = ["WseClient"]

_NO_TIME = 0.001  # seconds: a time-out that is over, where 0 is none

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class WseClient(ClientFace):
    """An authenticated WebSocket client for synchronous code.

    Every method may be called from any thread; those that wait say so and take a ``timeout`` in
    seconds for all of their waiting. Handlers run on a thread of the client's own, in order;
    procedures that the server calls run beside them. It can be a context manager, which closes it.

    Args:
        url: ``ws://`` or ``wss://``; or a function that returns it, asked at every connect.
        timeout: Seconds that `connect`, `call` and `send` may take by default.
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
        dispatch: "threads", or "manual": then nothing runs by itself, and `run` or `poll` run
            handlers and procedures on the thread that calls them.
        loop: A `LoopThread` of your own; by default all blocking objects share one.

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
        dispatch: Literal["threads", "manual"] = "threads",
        loop: LoopThread | None = None,
    ) -> None:
        ignore_transport(transport)
        limits = limits or Limits()
        self._loop = loop or LoopThread.shared()
        self._manual: ManualRunner | None = None
        self._ordered: Runner
        self._calls: Runner
        if dispatch == "manual":
            self._manual = ManualRunner()
            self._ordered = self._calls = self._manual
        elif dispatch == "threads":
            self._ordered = Workers("wse-tornado-client", 1)
            self._calls = Workers("wse-tornado-client-call", limits.max_workers)
        else:
            raise ValueError(f'dispatch is "threads" or "manual", not {dispatch!r}')
        self._connector = Connector(
            dispatcher=ThreadDispatcher(self._loop, self._ordered, self._calls),
            inline=False,
            on_change=self._manual.wake if self._manual is not None else None,
            url=url,
            timeout=timeout,
            reconnect=reconnect,
            protocol=protocol,
            headers=headers,
            ssl_options=ssl_options,
            limits=limits,
            expose_errors=expose_errors,
            generation=generation,
            compression=compression,
        )
        self._lease = Lease(self._goodbye_of(self._connector), self._ordered, self._calls)
        self._outbox = Outbox(
            self._loop,
            limits.max_send_buffer,
            self._connector.buffered,
            self._connector.room_for,
        )

    @staticmethod
    def _goodbye_of(connector: Connector) -> Callable[[], Coroutine[Any, Any, None]]:
        """A function that does not keep this object alive: whoever drops a client closes it."""
        return partial(connector.close, CloseCode.NORMAL_CLOSURE, Reason.BY_CLIENT)

    def __del__(self) -> None:
        lease = getattr(self, "_lease", None)
        if lease is not None and lease.active and not self._loop.detached:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, stacklevel=2, source=self)
            self._loop.post(_close_forgotten, self._connector, lease)

    # -- connecting

    def connect(
        self, identity: Any = None, meta: Any = None, *, timeout: float | None = None
    ) -> Any:
        """Connect, get in, and return the server's welcome. Waits.

        With ``reconnect``, a server that cannot be reached is tried again until the time is over.

        Args:
            identity: Who this is, anything the protocol can pack; or a function that returns it,
                asked again at every reconnect.
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
            WrongThread: On the loop thread, or on a copy left by a fork.
        """
        deadline = Deadline(self._seconds(timeout))

        async def connect() -> Any:
            self._lease.begin()
            return await self._connector.connect(identity, meta, deadline.left() or _NO_TIME)

        return self._run(connect, deadline, "connect", asking=True, late=ConnectTimeout)

    def jump(
        self, url: str, identity: Any = None, meta: Any = None, *, timeout: float | None = None
    ) -> Any:
        """Leave for another server: close with 4000 ``jump``, connect there. Waits.

        Args:
            url: Where to; or a function that returns it.
            identity: Who to be there; the present identity when None.
            meta: What to tell there; the present meta when None.
            timeout: Seconds for all of it; the client's ``timeout`` by default.

        Returns:
            The new server's welcome.

        Raises:
            ValueError: The URL is none.
            WseError: As `connect` does.
        """
        deadline = Deadline(self._seconds(timeout))

        async def jump() -> Any:
            self._lease.begin()
            return await self._connector.jump(url, identity, meta, deadline.left() or _NO_TIME)

        return self._run(jump, deadline, "jump", asking=True, late=ConnectTimeout)

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = Reason.BY_CLIENT) -> None:
        """Close, whatever the client is doing, and wait for its socket.

        What was sent before leaves first, for as long as the server takes it. If it takes nothing
        for ``Limits.close_timeout`` seconds, the rest is lost, and the ``error`` signal tells so.

        Ends a connect, a reconnection, and every wait. Handlers stay registered, and the client
        may connect again. Closing twice is no error.

        Raises:
            ValueError: The code may not be sent (RFC 6455 7.4), or the reason is not a string.
            WrongThread: On the loop thread, or on a copy left by a fork.
        """
        self._loop.check_may_block("close")
        check_closing(code, reason)
        deadline = Deadline(self._connector.shared.limits.close_timeout + 1)

        async def close() -> None:
            user = self._lease.take()
            try:
                await self._connector.close(code, reason)
            except asyncio.CancelledError:
                self._connector.abort()  # Ctrl-C does not wait for the peer
                raise
            finally:
                self._lease.end(user)

        try:
            self._loop.run(close, deadline, "close", waiter=self._wait_while_taken)
        except ConnectionNotReady:
            return  # the loop does not run, and so nothing of this client
        except BaseException:
            self._loop.post(_abandon, self._connector, self._lease)  # where it has not begun
            raise
        self._loop.settled(deadline)

    def _wait_while_taken(self, wait: Wait, seconds: float | None) -> bool:
        """Wait for the closing, for as long as the server takes what was sent before it. An inline
        handler that blocks the loop must not hold it up."""
        before = self._connector.taken
        while not wait.wait(seconds):
            taken = self._connector.taken
            if taken == before:
                return False
            before = taken
        return True

    def drop(self, reason: str = Reason.BY_CLIENT) -> None:
        """Close with 1000 and ``reason``, without waiting.

        Raises:
            WrongThread: On a copy left by a fork.
        """
        self._loop.check_process()
        self._loop.post(self._connector.stop, CloseCode.NORMAL_CLOSURE, reason)

    def __enter__(self) -> WseClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if not self._loop.detached:  # a forked child leaves the parent's block, too
            self.close()

    # -- talking

    def send(self, type: Any, payload: Any = None, *, timeout: float | None = None) -> None:
        """Send a message to the server. Waits only while ``Limits.max_send_buffer`` is full.

        Raises:
            ConnectionNotReady: There is no connection.
            SendTimeout: The server did not take what waits already; this message was not sent.
            NotSerializable: The payload cannot be packed; nothing was sent.
            ValueError: The type is empty or belongs to the library.
            WrongThread: On a copy left by a fork.
        """
        self._loop.check_process()
        connector = self._connector
        data, binary = connector.pack(type, payload)
        what = f"send {type!r}"
        connector.ready_connection(what)
        deadline = Deadline(self._seconds(timeout))
        self._outbox.put(len(data), deadline, what, connector.send_if_ready, data, binary)

    def call(self, name: str, payload: Any = None, *, timeout: float | None = None) -> Any:
        """Call a procedure of the server and wait for its answer.

        Args:
            name: Its name.
            payload: Its argument.
            timeout: Seconds; the client's ``timeout`` by default.

        Raises:
            RpcTimeout: No answer in time.
            RpcNotRegistered: The server has no such procedure.
            RpcDisconnected: The connection ended first.
            RpcFailed: The procedure raised; its code and details.
            ConnectionNotReady: There is no connection.
            SendTimeout: The server did not take what waits to be sent already; nothing was sent.
            NotSerializable: The payload cannot be packed; nothing was sent.
            ValueError: The name is not a non-empty string, or the time-out is not above 0.
            WrongThread: On the loop thread, or on a copy left by a fork.
        """
        seconds = self._seconds(timeout)
        deadline = Deadline(seconds)
        self._loop.check_may_block("call")
        conn, call = self._prepare(name, payload)
        wait = Wait()
        self._loop.track(wait)
        try:
            self._start_call(conn, call, wait.settle, deadline)
            if not wait.wait(deadline.left()):
                raise timeout_error(name, seconds)
            return wait.outcome()
        except BaseException:
            if wait.error is None:  # not failed by its connection: it may be pending
                self._forget(conn, call)
            raise
        finally:
            self._loop.untrack(wait)

    def _prepare(self, name: str, payload: Any) -> tuple[ClientConnection, PackedCall]:
        check_rpc_name(name)
        connector = self._connector
        conn = connector.conn
        if conn is None or conn.life is not Life.READY:
            conn = connector.ready_connection(f"call {name!r}")
        return conn, conn.prepare_call(name, payload, legacy=connector.legacy)

    def _start_call(
        self,
        conn: ClientConnection,
        call: PackedCall,
        settle: Callable[[Any, BaseException | None], Any],
        deadline: Deadline | None,
    ) -> None:
        """Hand a call to its connection: directly, or behind what is on its way to the loop."""
        # Fast path: nothing of ours is queued on the loop, so write from this thread and save two
        # context switches.
        if not self._outbox.idle or not conn.begin_call_from_thread(call, settle):
            size = len(call.data)
            self._outbox.put(size, deadline, f"call {call.rpc!r}", conn.begin_call, call, settle)

    def _forget(self, conn: ClientConnection, call: PackedCall) -> None:
        """Nobody waits for that answer any more. Behind the call, if that is on its way."""
        try:
            self._outbox.put(0, None, "forget a call", conn.recover_call, call)
        except ConnectionNotReady:
            pass  # forgotten with the loop

    def submit(
        self, name: str, payload: Any = None, *, timeout: float | None = None
    ) -> concurrent.futures.Future[Any]:
        """Call a procedure without waiting: many calls can be on their way at once.

        Returns:
            A future of the result; its ``result()`` raises what `call` raises. Cancelling it
            forgets the call.

        Raises:
            ConnectionNotReady: There is no connection.
            NotSerializable: The payload cannot be packed; nothing was sent.
            ValueError: The name is not a non-empty string, or the time-out is not above 0.
            WrongThread: On a copy left by a fork.
        """
        seconds = self._seconds(timeout)
        self._loop.check_process()
        conn, call = self._prepare(name, payload)
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        settled = False

        def settle(result: Any, error: BaseException | None) -> None:  # on the loop thread
            nonlocal settled
            if settled:
                return
            settled = True
            self._loop.untrack(ending)
            if not future.set_running_or_notify_cancel():
                return  # cancelled; until it is told so, `wait` and `as_completed` do not see it
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        def arm() -> None:
            timer = asyncio.get_running_loop().call_later(seconds, give_up)
            future.add_done_callback(lambda _: self._loop.post(timer.cancel))

        def give_up() -> None:
            conn.forget_call(call.stamp)
            settle(None, timeout_error(name, seconds))

        def cancelled(future: concurrent.futures.Future[Any]) -> None:
            if future.cancelled():
                self._forget(conn, call)
                if not self._loop.post(settle, None, None):
                    settle(None, None)

        ending = _Ending(settle)
        self._loop.track(ending)
        try:
            # It never waits: without room the future fails.
            self._start_call(conn, call, settle, None)
            self._outbox.put(0, None, "submit", arm)
        except BaseException:
            self._loop.untrack(ending)
            raise
        future.add_done_callback(cancelled)
        return future

    # -- pulling

    def receive(self, *, timeout: float | None = None) -> Message:
        """Wait for the next message that no handler on the channel takes.

        Args:
            timeout: Seconds; without one, until the connection is over.

        Raises:
            ReceiveTimeout: None came in time.
            ConnectionNotReady: The connection is over and nothing is left to receive.
            NotAuthorized: The client came back and was refused.
            WrongThread: On the loop thread, or on a copy left by a fork.
        """
        self._check_used("receive")
        wait = Wait()
        try:
            self._loop.run(
                lambda: self._connector.inbox.take(timeout),
                Deadline(timeout),
                "receive",
                wait=wait,
                late=ReceiveTimeout,
                undelivered=self._connector.inbox.give_back,
            )
            return wait.result.message  # type: ignore[no-any-return]
        except BaseException:
            # Whatever interrupts this thread, up to the return: the message is not lost.
            self._loop.post(self._give_back, wait)
            raise

    def _give_back(self, wait: Wait) -> None:
        if wait.done and wait.error is None and wait.result is not None:
            self._connector.inbox.give_back(wait.result)

    def wait_for(
        self,
        type: Any,
        predicate: Callable[[Any], bool] | None = None,
        *,
        timeout: float | None = None,
    ) -> Any:
        """Wait for the next message of one type; its payload. Others stay where they are.

        A message that a handler takes as well counts only if it comes during the wait.

        Args:
            type: The message type.
            predicate: ``predicate(payload)`` says whether it is the one; it runs on the loop and
                must be quick.
            timeout: Seconds; without one, until the connection is over.

        Raises:
            ReceiveTimeout: None came in time.
            ConnectionNotReady: The connection is over.
            NotAuthorized: The client came back and was refused.
            WrongThread: On the loop thread, or on a copy left by a fork.
        """
        return self._run(
            lambda: self._connector.wait_for(type, predicate, timeout),
            Deadline(timeout),
            "wait_for",
            late=ReceiveTimeout,
        )

    def wait_ready(self, *, timeout: float | None = None) -> None:
        """Wait until the client is READY, after a loss for instance.

        Raises:
            WaitTimeout: Not in time.
            ConnectionNotReady: Nobody is connecting.
            NotAuthorized: The client came back and was refused.
            WrongThread: On the loop thread, or on a copy left by a fork.
        """
        self._run(
            lambda: self._connector.wait_ready(timeout),
            Deadline(timeout),
            "wait_ready",
            asking=True,
        )

    def wait(self, *, timeout: float | None = None) -> bool:
        """Wait until the client is OFFLINE for good.

        Returns:
            True, or False where the time is over first.

        Raises:
            NotAuthorized: The client was refused.
            ConnectTimeout, ConnectionFailed: The last `connect` had failed so.
            WrongThread: On the loop thread, or on a copy left by a fork.
        """
        self._loop.check_may_block("wait")
        try:
            return self._run(lambda: self._connector.wait(timeout), Deadline(timeout), "wait")
        except WaitTimeout:
            return False
        except ConnectionNotReady:
            return True  # never connected, or closed meanwhile

    def __iter__(self) -> Iterator[Message]:
        """Messages, as `receive` gives them, until the connection is over for good.

        From this call on a full inbox pauses the server instead of dropping messages.
        """
        self._connector.inbox.pull()
        return self._messages()

    def _messages(self) -> Iterator[Message]:
        while True:
            try:
                message = self.receive()
            except ConnectionNotReady:
                return
            yield message

    # -- dispatch="manual"

    def run(self, *, timeout: float | None = None) -> None:
        """Run handlers and procedures on this thread as events come in (``dispatch="manual"``).

        Returns when the time is over, or when the client is OFFLINE and nothing is left to run.

        Raises:
            WseError: The client runs its handlers on threads.
            WrongThread: On the loop thread, or on a copy left by a fork.
        """
        manual = self._check_manual("run")
        connector, loop = self._connector, self._loop

        def over() -> bool:
            ended = connector.status in (Status.IDLE, Status.OFFLINE) or not loop.running
            return ended and not manual.pending

        ending = _Ending(lambda _result, _error: manual.wake())
        loop.track(ending)
        try:
            manual.run_until(over, timeout)
        finally:
            loop.untrack(ending)

    def poll(self) -> int:
        """Run the handlers and procedures that are due (``dispatch="manual"``); never waits.

        Returns:
            How many ran.

        Raises:
            WseError: The client runs its handlers on threads.
            WrongThread: On the loop thread, or on a copy left by a fork.
        """
        return self._check_manual("poll").run_pending()

    def _check_manual(self, what: str) -> ManualRunner:
        self._loop.check_may_block(what)
        if self._manual is None:
            raise WseError(
                ErrorCode.WRONG_THREAD,
                {"call": what},
                f'{what}() is for clients made with dispatch="manual"; this one runs its '
                "handlers on threads",
            )
        return self._manual

    # -- waiting

    def _seconds(self, timeout: float | None) -> float:
        return self._connector.shared.timeout if timeout is None else check_timeout(timeout)

    def _check_used(self, what: str) -> None:
        self._loop.check_may_block(what)
        if not self._lease.active:
            raise ConnectionNotReady(
                None,
                {"status": str(self.status)},
                f"{what}(): the client is {self.status}; call connect() first",
            )

    def _run(
        self,
        make: Callable[[], Coroutine[Any, Any, T]],
        deadline: Deadline,
        what: str,
        *,
        asking: bool = False,
        late: type[WseError] = WaitTimeout,
    ) -> T:
        """Run a coroutine on the loop.

        Args:
            make: Makes it.
            deadline: When to give up.
            what: The public method.
            asking: It may ask the user's functions, for the identity for instance, which a manual
                client runs on this very thread.
            late: What to raise where the loop is too busy.
        """
        starting = what in ("connect", "jump")
        if not starting:
            self._check_used(what)
        manual = self._manual
        if manual is None or not asking:
            return self._loop.run(make, deadline, what, late=late, starting=starting)
        return self._loop.run(
            make,
            deadline,
            what,
            wait=Wait(manual.wake),
            late=late,
            waiter=lambda wait, seconds: manual.run_until(
                lambda: wait.done, seconds, urgent_only=True
            ),
            starting=starting,
        )

    def __repr__(self) -> str:
        return f"<WseClient {self.status} {self._connector.where}>"


def _abandon(connector: Connector, lease: Lease) -> None:
    """On the loop: end a client that nobody waits for any more."""
    user = lease.take()
    connector.stop(CloseCode.NORMAL_CLOSURE, Reason.BY_CLIENT)
    connector.abort()
    lease.end(user)


def _close_forgotten(connector: Connector, lease: Lease) -> None:
    """On the loop: close a client that has been garbage-collected."""

    async def close() -> None:
        user = lease.take()
        try:
            await connector.close(CloseCode.NORMAL_CLOSURE, Reason.BY_CLIENT)
        finally:
            lease.end(user)

    task = asyncio.get_running_loop().create_task(close())
    _closing.add(task)
    task.add_done_callback(_closing.discard)


_closing: set[asyncio.Task[None]] = set()  # or they could be collected, too


class _Ending:
    """Tells that the loop has ended where no `Wait` does."""

    __slots__ = ("settle",)

    def __init__(self, settle: Callable[[Any, BaseException | None], None]) -> None:
        self.settle = settle
