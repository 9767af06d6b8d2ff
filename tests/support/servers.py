"""A server of either flavour behind one face, so that the same test runs over both."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from wse_tornado import AsyncWseServer, LoopThread, WseServer
from wse_tornado.blocking.loop import Deadline

from .peer import RawPeer
from .timing import seconds

FLAVOURS = ("blocking", "async")


class Served:
    """A running server.

    Attributes:
        server: The `WseServer` or `AsyncWseServer` itself.
        core: The `AsyncWseServer` in either case.
        events: Names and arguments of the signals, in the order they came.
    """

    def __init__(self, server: Any, core: AsyncWseServer, do: Callable[..., Any]) -> None:
        self.server = server
        self.core = core
        self.do = do
        self.tls: Any = None
        self.events: list[tuple[Any, ...]] = []

    @property
    def port(self) -> int:
        assert self.core.port is not None
        return self.core.port

    @property
    def url(self) -> str:
        return f"{'ws' if self.tls is None else 'wss'}://127.0.0.1:{self.port}"

    def peer(self, **options: Any) -> RawPeer:
        """A raw client, connected."""
        return RawPeer.connect(self.port, **options)

    def record(self) -> None:
        """Keep all signals in ``events``."""
        when = self.server.when
        add = self.events.append
        when.joined(lambda client, meta: add(("joined", client.cid, meta)))
        when.left(lambda client, code, reason: add(("left", client.cid, code, reason)))
        when.connected(lambda conn: add(("connected", conn.cid)))
        when.disconnected(lambda conn, code, reason: add(("disconnected", conn.cid, code, reason)))
        when.error(lambda error, conn: add(("error", error.code)))
        when.ignored(lambda conn, message: add(("ignored", message.type, message.payload)))

    def names(self) -> list[str]:
        """The names of the recorded signals."""
        return [event[0] for event in self.events]


def accept_all(auth: Any) -> None:
    """The user is who it says it is; "nobody" is refused."""
    if auth.identity and auth.identity != "nobody":
        auth.accept(auth.identity, {"message": "Welcome!"})
    else:
        auth.refuse()


@contextmanager
def serve(
    flavour: str,
    *,
    identify: Callable[..., Any] | None = accept_all,
    setup: Callable[[Any], None] | None = None,
    handlers: Any = (),
    ssl_options: Any = None,
    **options: Any,
) -> Iterator[Served]:
    """Run a server of a flavour on a free port of 127.0.0.1. ``setup(server)`` runs before."""
    if flavour == "blocking":
        server = WseServer(
            identify=identify,
            host="127.0.0.1",
            handlers=handlers,
            ssl_options=ssl_options,
            **options,
        )
        served = Served(server, server._core, lambda fn, *args: fn(*args))
        served.tls = ssl_options
        served.record()
        if setup is not None:
            setup(server)
        with server:
            yield served
        return

    core = AsyncWseServer(identify=identify, **options)
    with LoopThread("wse-tornado-test-loop") as loop:

        def do(fn: Callable[..., Any], *args: Any) -> Any:
            """Call ``fn`` on the server's loop and return its result, awaited if need be."""

            async def call() -> Any:
                result = fn(*args)
                return await result if asyncio.iscoroutine(result) else result

            return loop.run(call, Deadline(seconds(10)), "do")

        served = Served(core, core, do)
        served.tls = ssl_options
        served.record()
        if setup is not None:
            setup(core)
        do(lambda: core.listen(0, "127.0.0.1", handlers=handlers, ssl_options=ssl_options))
        try:
            yield served
        finally:
            do(core.stop)
