"""A server of either flavour behind one face, so that the same test runs over both."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from wse_tornado import AsyncWseServer, LoopThread, WseServer
from wse_tornado.blocking.loop import Deadline

from .leaks import wait_until
from .peer import RawPeer
from .timing import seconds

FLAVOURS = ("blocking", "async")
LISTENING = ("handlers", "path", "ssl_options", "xheaders")  # arguments of ``listen``


class Served:
    """A running server.

    Attributes:
        server: The `WseServer` or `AsyncWseServer` itself.
        do: ``do(fn, *args)`` calls ``fn`` where the server wants it called, and waits.
        events: Names and arguments of the signals, in the order they came.
    """

    def __init__(self, server: Any, do: Callable[..., Any]) -> None:
        self.server = server
        self.do = do
        self.tls: Any = None
        self.events: list[tuple[Any, ...]] = []
        when, add = server.when, self.events.append
        when.joined(lambda client, meta: add(("joined", client.cid, meta)))
        when.left(lambda client, code, reason: add(("left", client.cid, code, reason)))
        when.connected(lambda conn: add(("connected", conn.cid)))
        when.disconnected(lambda conn, code, reason: add(("disconnected", conn.cid, code, reason)))
        when.error(lambda error, conn: add(("error", error.code)))
        when.ignored(lambda conn, message: add(("ignored", message.type, message.payload)))

    @property
    def port(self) -> int:
        assert self.server.port is not None
        return int(self.server.port)

    @property
    def url(self) -> str:
        return f"{'ws' if self.tls is None else 'wss'}://127.0.0.1:{self.port}"

    def stats(self) -> dict[str, Any]:
        """The server's statistics."""
        return dict(self.server.stats())

    def peer(self, **options: Any) -> RawPeer:
        """A raw client, connected."""
        return RawPeer.connect(self.port, **options)

    def enter(self, name: str = "ann", meta: Any = None, **options: Any) -> RawPeer:
        """A raw client that is in."""
        peer = self.peer(**options)
        peer.hi(name, meta)
        assert peer.recv_message() == ["~wse:welcome", {"message": "Welcome!"}, None]
        return peer

    def conn(self, cid: str = "ann") -> Any:
        """The user's newest connection, as the server's handlers see it."""
        return list(self.server.clients[cid].conns.values())[-1]

    def call(self, cid: str, *args: Any, **kwargs: Any) -> Any:
        """Call a procedure of the user's newest device and wait for the answer."""
        return self.do(lambda: self.conn(cid).call(*args, **kwargs))

    def names(self) -> list[str]:
        """The names of the recorded signals."""
        return [event[0] for event in self.events]

    def of(self, name: str) -> list[tuple[Any, ...]]:
        """The arguments of the signals of one name."""
        return [event[1:] for event in self.events if event[0] == name]

    def happened(self, *event: Any) -> None:
        """Wait for a signal; ``("error",)`` is any of its name."""
        size = len(event)
        wait_until(
            lambda: any(each[:size] == event for each in self.events), 5, f"{event}, {self.events}"
        )

    def alive(self) -> bool:
        """Whether it still serves others."""
        with self.enter("witness"):
            return True

    # What only the engine knows; nothing else in the tests asks it.

    @property
    def hub(self) -> Any:
        """What has the connections."""
        return self.server._hub

    def sockets(self, count: int) -> None:
        """Wait until so many connections are open, those that are not in and those that close
        included."""
        wait_until(lambda: len(self.hub.connections) == count, 5, f"{count} open of {self.server}")

    def stopping(self) -> None:
        """Wait until a stop has begun."""
        wait_until(lambda: self.hub.stopping)

    def paused(self, cid: str = "ann") -> bool:
        """Whether nothing is read from the user's newest device."""
        conn = self.conn(cid)
        return bool(conn._conn._paused)

    def tasks(self) -> set[Any]:
        """The tasks on its loop, but for the one that asks."""

        async def ask() -> set[Any]:
            return asyncio.all_tasks() - {asyncio.current_task()}

        loop = getattr(self.server, "_loop", None)
        return set(loop.run(ask, Deadline(seconds(10)), "tasks") if loop else self.do(ask))


def accept_all(auth: Any) -> None:
    """The user is who it says it is; "nobody" is refused."""
    if auth.identity and auth.identity != "nobody":
        auth.accept(auth.identity, {"message": "Welcome!"})
    else:
        auth.refuse()


def on_loop(loop: LoopThread) -> Callable[..., Any]:
    """``do(fn, *args, **kwargs)`` calls ``fn`` on a loop and returns its result, awaited if need
    be."""

    def do(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        async def call() -> Any:
            result = fn(*args, **kwargs)
            return await result if asyncio.iscoroutine(result) else result

        return loop.run(call, Deadline(seconds(30)), "do")

    return do


def here(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The `do` of blocking objects."""
    return fn(*args, **kwargs)


@contextmanager
def serve(
    flavour: str,
    *,
    identify: Callable[..., Any] | None = accept_all,
    setup: Callable[[Any], None] | None = None,
    **options: Any,
) -> Iterator[Served]:
    """Run a server of a flavour on a free port of 127.0.0.1. ``setup(server)`` runs before."""
    if flavour == "blocking":
        server = WseServer(identify=identify, host="127.0.0.1", **options)
        served = Served(server, here)
        served.tls = options.get("ssl_options")
        if setup is not None:
            setup(server)
        with server:
            yield served
        return

    listening = {name: options.pop(name) for name in LISTENING if name in options}
    on_own_loop = AsyncWseServer(identify=identify, **options)
    with LoopThread("wse-tornado-test-loop") as loop:
        served = Served(on_own_loop, on_loop(loop))
        served.tls = listening.get("ssl_options")
        if setup is not None:
            setup(on_own_loop)
        served.do(on_own_loop.listen, 0, "127.0.0.1", **listening)
        try:
            yield served
        finally:
            served.do(on_own_loop.stop)
