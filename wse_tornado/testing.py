"""For the tests of programs that use the library: a server on a free port, clients, faults.

It needs no pytest; the fixtures over it are in the module ``pytest_wse_tornado``. The faults reach
into the server, which the library's own tests do not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from .admission import AuthRequest
from .blocking.client import WseClient
from .blocking.loop import Deadline
from .blocking.server import WseServer
from .core.server_connection import ServerConnection
from .errors import CloseCode, WaitTimeout
from .events import Handler
from .protocol import Message
from .transport.base import Transport

__all__ = ["Connector", "Event", "Recorder", "Served", "connect", "serving"]

T = TypeVar("T")

FAULT_TIMEOUT = 5.0  # seconds; a fault is a few steps on the loop
WAIT = 5.0
# RFC 6455 7.4.1: what an endpoint may send; 1005, 1006 and 1015 are for reports only.
SENDABLE_CODES = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)})
CLIENT_SIGNALS = ("connected", "ready", "closed", "updated", "error")
SERVER_SIGNALS = ("joined", "left", "connected", "disconnected", "error")


# -- what happened


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Attributes:
        name: The type of a message, or ``when.closed`` and the like for a signal.
        args: What a handler gets: ``(payload,)`` at a client, ``(conn, payload)`` at a server; the
            arguments of a signal.
    """

    name: str
    args: tuple[Any, ...]

    @property
    def payload(self) -> Any:
        """The last argument, a message's payload; None without arguments."""
        return self.args[-1] if self.args else None


class Recorder:
    """Keeps what happened, in order, and waits for what is to happen. Any thread.

    ::

        recorder = Recorder().watch(client, "news")
        server.broadcast("news", 1)
        assert recorder.wait_for("news").payload == 1
    """

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._news = threading.Condition()

    @property
    def events(self) -> list[Event]:
        """What happened so far, oldest first; a copy."""
        with self._news:
            return list(self._events)

    def names(self) -> list[str]:
        """The names of what happened so far, oldest first."""
        return [event.name for event in self.events]

    def payloads(self, name: str) -> list[Any]:
        """The payloads of the messages of one type so far, oldest first."""
        return [event.payload for event in self.events if event.name == name]

    def clear(self) -> None:
        """Forget what happened so far."""
        with self._news:
            self._events.clear()

    def record(self, name: str, *args: Any) -> None:
        """Keep one event."""
        with self._news:
            self._events.append(Event(name, args))
            self._news.notify_all()

    def handler(self, name: str) -> Callable[..., None]:
        """A handler of anything, which keeps what it is called with under ``name``."""

        def handler(*args: Any) -> None:
            self.record(name, *args)

        return handler

    def watch(self, source: WseClient | WseServer | Served, *types: str) -> Recorder:
        """Keep all signals of a client or a server, and messages.

        Args:
            source: Whose.
            types: Types of messages to keep. A server's messages that nobody else handles are kept
                whatever their type; a client's stay with ``client.receive``.

        Returns:
            This recorder.

        Raises:
            ValueError: A type is empty or belongs to the library.
        """
        if isinstance(source, Served):
            source = source.server
        at_server = isinstance(source, WseServer)
        for name in SERVER_SIGNALS if at_server else CLIENT_SIGNALS:
            getattr(source.when, name)(self.handler(f"when.{name}"))
        if at_server:

            def unhandled(conn: Any, message: Message) -> None:
                self.record(str(message.type), conn, message.payload)

            source.when.ignored(unhandled)
        for type in types:
            source.channel.on(type, self.handler(type))
        return self

    def wait_for(
        self,
        name: str,
        predicate: Callable[[Event], bool] | None = None,
        *,
        count: int = 1,
        timeout: float = WAIT,
    ) -> Event:
        """Wait until something has happened, before this call or during it.

        Args:
            name: The event's name.
            predicate: ``predicate(event)`` says whether it is one that counts.
            count: How often it has to have happened.
            timeout: Seconds.

        Returns:
            The event that made the count full.

        Raises:
            WaitTimeout: It did not happen in time; the message tells what did.
        """
        deadline = Deadline(timeout)
        with self._news:
            while True:
                found = [
                    event
                    for event in self._events
                    if event.name == name and (predicate is None or predicate(event))
                ]
                if len(found) >= count:
                    return found[count - 1]
                if not self._news.wait(deadline.left()) and not deadline.left():
                    break
            happened = ", ".join(event.name for event in self._events) or "nothing"
        raise WaitTimeout(
            None,
            {"name": name, "found": len(found), "count": count},
            f"{name!r} happened {len(found)} of {count} times within {timeout:g} s; "
            f"this happened: {happened}",
        )

    def __repr__(self) -> str:
        return f"<Recorder {self.names()}>"


# -- a server and its faults


class Served:
    """A running server, and the faults that a test can give it. Made by `serving`. Any thread.

    Attributes:
        server: The `WseServer` itself.
        recorder: A `Recorder` that watches it.
    """

    def __init__(self, server: WseServer) -> None:
        self.server = server
        self.recorder = Recorder().watch(server)
        self._refusals = 0
        self._lock = threading.Lock()
        self._answering = threading.Event()
        self._answering.set()
        self._stalled: list[_Stalled] = []
        hub = server._hub
        self._identify = hub.identify_handler
        hub.identify_handler = Handler(self._identify_or_not)

    @property
    def url(self) -> str:
        """Where clients reach it.

        Raises:
            ConnectionNotReady: It does not listen.
        """
        return self.server.url

    @property
    def port(self) -> int | None:
        """The port it listens on, None while it does not."""
        return self.server.port

    def refuse_next(self, count: int = 1) -> None:
        """Refuse the next who want to get in, whoever they are.

        Args:
            count: How many of them.

        Raises:
            ValueError: The count is below 0.
        """
        if count < 0:
            raise ValueError(f"count is a number of connections, not {count!r}")
        with self._lock:
            self._refusals = count

    def drop(self, cid: Any = None) -> int:
        """Cut connections now, without a close frame: the other end sees 1006.

        Args:
            cid: The user whose connections these are; everybody's by default.

        Returns:
            How many connections were cut.

        Raises:
            ConnectionNotReady: The server does not run.
            WrongThread: On the loop thread, or on a copy left by a fork.
        """
        return self._each(lambda conn: conn._cut(CloseCode.ABNORMAL_CLOSURE, ""), cid, "drop")

    def close(self, code: int, reason: str = "", cid: Any = None) -> int:
        """Close connections with a code of your choice.

        Args:
            code: What a server may send (RFC 6455 7.4.1): 1000 to 1014, but for 1004 to 1006, or
                3000 to 4999.
            reason: At most 123 bytes of it are sent.
            cid: The user whose connections these are; everybody's by default.

        Returns:
            How many connections were closed.

        Raises:
            ValueError: The code cannot be sent; `drop` is what looks like 1006.
            ConnectionNotReady: The server does not run.
            WrongThread: On the loop thread, or on a copy left by a fork.
        """
        if code not in SENDABLE_CODES:
            raise ValueError(f"{code!r} cannot be sent as a close code; drop() looks like 1006")
        return self._each(lambda conn: conn.close(code, reason), cid, "close")

    def stall(self) -> int:
        """Answer nothing any more, as a process that hangs: no message, no pong, no verdict.

        What the server's handlers send is held back, what clients send is not read, and whoever
        connects waits, until `resume` or the end.

        Returns:
            How many connections hang.

        Raises:
            ConnectionNotReady: The server does not run.
            WrongThread: On the loop thread, or on a copy left by a fork.
        """
        self._answering.clear()

        def stall(conn: ServerConnection) -> None:
            transport = conn._transport
            if transport is not None and not isinstance(transport, _Stalled):
                self._stalled.append(_Stalled(conn, transport))

        return self._each(stall, None, "stall")

    def resume(self) -> None:
        """Undo `stall`: what was held back goes on. Without effect on a server that answers, or
        that does not run.

        Raises:
            WrongThread: On the loop thread, or on a copy left by a fork.
        """
        self._answering.set()
        if self.server.port is not None:
            self._on_loop(self._resume, "resume")

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """`stall` for the length of a block.

        Raises:
            ConnectionNotReady: The server does not run.
            WrongThread: On the loop thread, or on a copy left by a fork.
        """
        self.stall()
        try:
            yield
        finally:
            self.resume()

    def _resume(self) -> None:
        stalled, self._stalled = self._stalled, []
        for each in stalled:
            each.go_on()

    def _identify_or_not(self, auth: AuthRequest) -> Any:
        with self._lock:
            refused = self._refusals > 0
            self._refusals -= refused
        if refused:
            auth.refuse()
            return None
        self._answering.wait()
        return self._identify.fn(auth)

    def _each(self, fn: Callable[[ServerConnection], Any], cid: Any, what: str) -> int:
        def each() -> int:
            conns = [
                conn
                for conn in tuple(self.server._hub.connections)
                if cid is None or conn.cid == cid
            ]
            for conn in conns:
                fn(conn)
            return len(conns)

        return self._on_loop(each, what)

    def _on_loop(self, fn: Callable[[], T], what: str) -> T:
        async def run() -> T:
            return fn()

        return self.server._loop.run(run, Deadline(FAULT_TIMEOUT), what)

    def __repr__(self) -> str:
        return f"<Served {self.server!r}>"


class _Stalled(Transport):
    """Stands in a connection's transport's place: reads nothing, and holds back what is sent."""

    __slots__ = ("_conn", "_held", "_transport")

    def __init__(self, conn: ServerConnection, transport: Transport) -> None:
        self._conn = conn
        self._transport = transport
        self._held: list[tuple[bytes, bool]] = []
        self.congested = True
        self.heard = transport.heard
        conn._paused = True  # the silence is not the peer's fault
        conn._transport = self
        transport.pause_reading()

    def go_on(self) -> None:
        """Give the connection its transport back."""
        conn, transport = self._conn, self._transport
        if conn._transport is not self:
            return
        conn._transport = transport
        for payload, binary in self._held:
            transport.send(payload, binary)
        conn._resume()

    @property
    def bytes_in(self) -> int:  # type: ignore[override]
        """As the transport counts."""
        return self._transport.bytes_in

    @property
    def bytes_out(self) -> int:  # type: ignore[override]
        """As the transport counts."""
        return self._transport.bytes_out

    @property
    def buffered(self) -> int:
        return self._transport.buffered + sum(len(payload) for payload, _ in self._held)

    def send(self, payload: bytes, binary: bool) -> None:
        self._held.append((payload, binary))

    def ping(self, payload: bytes) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def close(self, code: int, reason: str, *, patient: bool = True) -> None:
        self._transport.close(code, reason, patient=patient)

    def abort(self) -> None:
        self._transport.abort()


def let_in(auth: AuthRequest) -> None:
    """The ``identify`` of `serving`: the user is who it says it is, and nobody is refused."""
    identity = auth.identity
    user = identity if isinstance(identity, str) and identity else repr(identity)
    auth.accept(user, {"user": user})


@contextmanager
def serving(server: WseServer | None = None, **options: Any) -> Iterator[Served]:
    """Run a server for the length of a block, on a free port of this machine.

    Args:
        server: Your own, not started; by default one is made that lets everybody in as the user
            that the identity names.
        options: Of the `WseServer` to be made, ``identify`` among them.

    Raises:
        TypeError: Both a server and options are given, or an option makes no sense.
        ValueError: An option makes no sense.
        OSError: The port is taken or not allowed.
        RuntimeError: The server is started already.
        WrongThread: On the loop thread, or on a copy left by a fork.
    """
    if server is None:
        options.setdefault("identify", let_in)
        options.setdefault("host", "127.0.0.1")
        server = WseServer(**options)
    elif options:
        raise TypeError("serving() takes a server, or options to make one with, not both")
    served = Served(server)
    try:
        with server:
            try:
                yield served
            finally:
                served.resume()  # or clients would not hear that the server stops
    finally:
        served._answering.set()
        server._hub.identify_handler = served._identify


# -- clients


@contextmanager
def connect(
    to: str | WseServer | Served,
    identity: Any = "tester",
    meta: Any = None,
    *,
    setup: Callable[[WseClient], Any] | None = None,
    **options: Any,
) -> Iterator[WseClient]:
    """A connected client for the length of a block.

    Args:
        to: A URL or a server.
        identity: Who to be.
        meta: What to tell about the device, a dictionary.
        setup: ``setup(client)`` runs before it connects, to set a challenge's solver or handlers
            that must not miss the first message.
        options: Of the `WseClient`.

    Raises:
        NotAuthorized: The server refused, or its challenge could not be answered.
        ConnectTimeout: Not ready in time.
        ConnectionFailed: The server cannot be reached, or hung up.
        ConnectionNotReady: The server given does not listen.
        ProtocolError: It speaks another protocol.
        NotSerializable: Identity or meta cannot be packed.
        TypeError, ValueError: An argument makes no sense.
        WrongThread: On the loop thread, or on a copy left by a fork.
    """
    with WseClient(to if isinstance(to, str) else to.url, **options) as client:
        if setup is not None:
            setup(client)
        client.connect(identity, meta)
        yield client


class Connector:
    """Makes connected clients and closes them all at the end; a context manager.

    Args:
        to: Where they connect by default: a URL or a server.
    """

    def __init__(self, to: str | WseServer | Served) -> None:
        self._to = to
        self._clients = ExitStack()

    def __call__(
        self,
        identity: Any = "tester",
        meta: Any = None,
        *,
        to: str | WseServer | Served | None = None,
        setup: Callable[[WseClient], Any] | None = None,
        **options: Any,
    ) -> WseClient:
        """A connected client; the arguments are those of `connect`.

        Raises:
            WseError: As `connect` does.
            TypeError, ValueError: An argument makes no sense.
        """
        target = self._to if to is None else to
        return self._clients.enter_context(connect(target, identity, meta, setup=setup, **options))

    def __enter__(self) -> Connector:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._clients.close()
