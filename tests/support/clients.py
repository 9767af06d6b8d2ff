"""A client of either flavour behind one face, so that the same test runs over both."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from wse_tornado import AsyncWseClient, LoopThread, WseClient
from wse_tornado.blocking.loop import Deadline

from .timing import seconds


def beside(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
    """Run ``fn`` on a thread of its own; the future has a bounded ``result()`` in `outcome`."""
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as exc:
            future.set_exception(exc)

    threading.Thread(target=run, name="test-beside", daemon=True).start()
    return future


def outcome(future: concurrent.futures.Future[Any], within: float = 10) -> Any:
    """What it returned or raised."""
    return future.result(seconds(within))


class Used:
    """A client in use.

    Attributes:
        client: The `WseClient` or `AsyncWseClient` itself.
        do: ``do(fn, *args, **kwargs)`` calls ``fn`` where the client wants it called, and waits.
        events: Names and arguments of the signals, in the order they came.
    """

    def __init__(self, client: Any, do: Callable[..., Any]) -> None:
        self.client = client
        self.do = do
        self.events: list[tuple[Any, ...]] = []
        when = client.when
        when.connected(lambda: self.events.append(("connected",)))
        when.ready(lambda welcome: self.events.append(("ready", welcome)))
        when.closed(lambda code, reason: self.events.append(("closed", code, reason)))
        when.updated(lambda status: self.events.append(("updated", str(status))))
        when.ignored(lambda message: self.events.append(("ignored", message.type, message.payload)))
        when.error(lambda error: self.events.append(("error", error.code)))

    def connect(self, *args: Any, **kwargs: Any) -> Any:
        """Connect; the welcome."""
        return self.do(self.client.connect, *args, **kwargs)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Call a procedure and wait for the answer."""
        return self.do(self.client.call, *args, **kwargs)

    def send(self, *args: Any) -> None:
        """Send a message."""
        self.do(self.client.send, *args)

    def close(self) -> None:
        """Close."""
        self.do(self.client.close)

    def statuses(self) -> list[str]:
        """What `updated` told, in order."""
        return [event[1] for event in self.events if event[0] == "updated"]

    def closings(self) -> list[tuple[int, str]]:
        """What `closed` told, in order."""
        return [event[1:] for event in self.events if event[0] == "closed"]


@contextmanager
def use(flavour: str, url: Any, **options: Any) -> Iterator[Used]:
    """A client of a flavour, closed at the end."""
    if flavour == "blocking":
        with WseClient(url, **options) as client:
            yield Used(client, lambda fn, *args, **kwargs: fn(*args, **kwargs))
        return
    with LoopThread("wse-tornado-test-client") as loop:

        def do(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            async def call() -> Any:
                result = fn(*args, **kwargs)
                return await result if asyncio.iscoroutine(result) else result

            return loop.run(call, Deadline(seconds(30)), "do")

        core = AsyncWseClient(url, **options)
        try:
            yield Used(core, do)
        finally:
            do(core.close)
