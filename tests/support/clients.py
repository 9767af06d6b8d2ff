"""A client of either flavour behind one face, so that the same test runs over both."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from wse_tornado import AsyncWseClient, Backoff, LoopThread, WseClient
from wse_tornado.blocking.loop import Deadline

from .leaks import wait_until
from .servers import here, on_loop
from .timing import seconds

QUICK = Backoff(initial=0.01, maximum=0.05)
NEVER = Backoff(initial=1000, maximum=1000)


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
        return self.of("closed")

    def of(self, name: str) -> list[Any]:
        """The arguments of the signals of one name."""
        return [event[1:] for event in self.events if event[0] == name]

    def happened(self, *event: Any) -> None:
        """Wait for a signal; ``("error",)`` is any of its name."""
        size = len(event)
        wait_until(
            lambda: any(each[:size] == event for each in self.events), 5, f"{event}, {self.events}"
        )

    def has_status(self, status: str) -> None:
        """Wait until the client says that it is READY, OFFLINE, ..."""
        wait_until(lambda: str(self.client.status) == status)

    def receive(self, timeout: float = 10) -> Any:
        """The next message that no handler takes."""
        return self.do(self.client.receive, timeout=seconds(timeout))

    def wait_for(self, type: str, *args: Any, timeout: float = 10) -> Any:
        """The payload of the next message of a type."""
        return self.do(self.client.wait_for, type, *args, timeout=seconds(timeout))

    # What only the engine knows; nothing else in the tests asks it.

    @property
    def core(self) -> Any:
        """What has the connection and the inbox."""
        return self.client._connector

    def waiting(self, count: int) -> None:
        """Wait until so many wait for messages."""
        wait_until(lambda: len(self.core.inbox._waiters) == count)

    def paused(self) -> bool:
        """Whether nothing is read from the server."""
        return bool(self.core.conn._paused)

    def tasks(self) -> set[Any]:
        """The tasks on its loop, but for the one that asks."""

        async def ask() -> set[Any]:
            return asyncio.all_tasks() - {asyncio.current_task()}

        loop = getattr(self.client, "_loop", None)
        if loop is None:
            return set(self.do(ask))
        return set(loop.run(ask, Deadline(seconds(10)), "tasks")) if loop.running else set()


@contextmanager
def use(flavour: str, url: Any, **options: Any) -> Iterator[Used]:
    """A client of a flavour, closed at the end."""
    if flavour == "blocking":
        with WseClient(url, **options) as client:
            yield Used(client, here)
        return
    with LoopThread("wse-tornado-test-client") as loop:
        used = Used(AsyncWseClient(url, **options), on_loop(loop))
        try:
            yield used
        finally:
            used.close()
