"""Networks that delay, swallow, stall and cut, between our clients and our server.

Whatever happens: every wait ends in time, nothing arrives twice, order is kept, and no user, task
or socket is left.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from wse_tornado import (
    ConnectionFailed,
    ConnectionNotReady,
    ConnectTimeout,
    Limits,
    WseError,
)

from ..support import QUICK, seconds, serve, wait_until
from ..support.clients import Used, use
from ..support.proxy import DOWN, UP, Fault, FaultProxy

SILENCE = seconds(0.1)
SLACK = seconds(1)
TIMEOUT = seconds(1.5)
IMPATIENT = seconds(0.3)
LIMITS = Limits(
    heartbeat=SILENCE, heartbeat_timeout=SILENCE, auth_timeout=TIMEOUT, close_timeout=SILENCE
)


class Talk:
    """A server, and what has reached it and its client, by number.

    Attributes:
        sent: Messages that reached the server.
        called: Calls that the server has served.
        told: Messages that reached the client.
    """

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.called: list[int] = []
        self.told: list[int] = []
        self._numbers = itertools.count()
        self._news = itertools.count()

    def setup(self, server: Any) -> None:
        server.channel.on("number", lambda conn, payload: self.sent.append(payload[0]))

        @server.register("number")
        def number(conn: Any, payload: Any) -> int:
            self.called.append(payload[0])
            conn.send("news", [next(self._news), "x" * 50])
            return payload[0]

    def hear(self, used: Used) -> None:
        used.client.channel.on("news", lambda payload: self.told.append(payload[0]))

    def round(self, used: Used) -> bool:
        """A message, a call and its answer. False where the network is in the way."""
        number = next(self._numbers)
        try:
            in_time(lambda: used.send("number", [number, "x" * 50]), TIMEOUT)
            got = in_time(lambda: used.call("number", [number, "y" * 50], timeout=TIMEOUT), TIMEOUT)
        except WseError:
            return False
        assert got == number
        return True

    def check(self) -> None:
        """Nothing came twice, and nothing out of order."""
        for numbers in (self.sent, self.called, self.told):
            assert numbers == sorted(set(numbers))


def in_time(wait: Callable[[], Any], deadline: float) -> Any:
    """What it returns or raises, which must not take longer than its deadline and some slack."""
    began = time.monotonic()
    try:
        return wait()
    finally:
        took = time.monotonic() - began
        assert took <= deadline + SLACK, f"took {took:.2f} s"


@contextmanager
def talking(kind: str, reconnect: bool) -> Iterator[tuple[Talk, Used, FaultProxy]]:
    """A server behind a proxy, and a client on the way to it. In the end nothing is left."""
    talk = Talk()
    with serve("async", setup=talk.setup, limits=LIMITS) as served:
        before = served.tasks()
        with (
            FaultProxy(served.port) as proxy,
            use(
                kind,
                proxy.url,
                limits=LIMITS,
                timeout=TIMEOUT,
                reconnect=QUICK if reconnect else False,
            ) as used,
        ):
            talk.hear(used)
            yield talk, used, proxy
            in_time(used.close, LIMITS.close_timeout)
            wait_until(lambda: not used.tasks(), what="the client's tasks are pending")
            # Still behind the proxy: an end that was told nothing has to find out by itself.
            served.sockets(0)
        assert not served.server.clients
        assert served.server.stats()["strangers"] == 0
        wait_until(lambda: served.tasks() <= before, what="the server's tasks are pending")
        talk.check()
        joined = [event for event in served.names() if event in ("joined", "left")]
        assert joined == ["joined", "left"] * (len(joined) // 2)


def get_in(used: Used) -> None:
    """Connect; where the network is in the way, once more."""
    try:
        in_time(lambda: used.connect("ann"), TIMEOUT)
    except WseError:
        in_time(lambda: used.connect("ann"), TIMEOUT)


def go_on(talk: Talk, used: Used, *, reconnect: bool) -> None:
    """After the fault: the client comes back, or is over and may connect again."""
    if reconnect:
        wait_until(lambda: talk.round(used), what="talking again")
    else:
        assert in_time(lambda: used.do(used.client.wait, timeout=TIMEOUT), TIMEOUT)
        assert used.client.status == "OFFLINE"
        assert not talk.round(used)
        get_in(used)
        assert talk.round(used)


HANDSHAKE = 500  # bytes: more than it has, in either direction


def handshake(used: Used, proxy: FaultProxy) -> tuple[int, int]:
    """Bytes up and down until a client is in."""
    used.connect("ann")
    sizes = proxy.passed(0)
    used.close()
    return sizes


STRIKES = ("cut", "reset", "drop", "stall", "half-open")


@pytest.mark.parametrize("reconnect", [False, True], ids=["once", "reconnect"])
@pytest.mark.parametrize("way", [UP, DOWN])
@pytest.mark.parametrize("what", STRIKES)
def test_a_fault_in_the_midst_of_talk_is_noticed_and_over_in_time(
    what: Any, way: str, reconnect: bool, kind: str
) -> None:
    with talking(kind, reconnect) as (talk, used, proxy):
        proxy.fail_next(Fault(what, way, after=HANDSHAKE + 700))
        get_in(used)
        while talk.round(used):
            assert len(talk.sent) < 1000
        assert proxy.struck.is_set()
        assert talk.sent
        go_on(talk, used, reconnect=reconnect)
        used.happened("closed", 1006)  # on a worker of the blocking client: it may be late
        assert used.closings()[0][0] == 1006


@pytest.mark.parametrize("way", [UP, DOWN])
@pytest.mark.parametrize("what", ["cut", "drop", "half-open"])
def test_a_silent_wait_ends_with_the_connection(what: Any, way: str, kind: str) -> None:
    """Nobody says anything but the heartbeats: who only waits learns of the end, too."""
    with talking(kind, reconnect=False) as (_, used, proxy):
        size = handshake(used, proxy)[way == DOWN]
        proxy.fail_next(Fault(what, way, after=size + 1))  # in the first ping, or its answer
        used.connect("ann")
        with pytest.raises(ConnectionNotReady):
            in_time(lambda: used.do(used.client.wait_for, "never", timeout=TIMEOUT), TIMEOUT)
        assert in_time(lambda: used.do(used.client.wait, timeout=TIMEOUT), TIMEOUT)
        assert proxy.struck.is_set()


@pytest.mark.parametrize("reconnect", [False, True], ids=["once", "reconnect"])
@pytest.mark.parametrize(
    "fault",
    [Fault(delay=0.01), Fault(piece=7), Fault(piece=1), Fault(delay=0.01, piece=40)],
    ids=["late", "pieces", "byte by byte", "late pieces"],
)
def test_late_and_broken_chunks_change_nothing(fault: Fault, reconnect: bool, kind: str) -> None:
    with talking(kind, reconnect) as (talk, used, proxy):
        proxy.fail_next(fault)
        used.connect("ann")
        for _ in range(10):
            assert talk.round(used)
        assert talk.sent == talk.called == list(range(10))
        wait_until(lambda: talk.told == list(range(10)))
        assert len(proxy) == 1
        assert not used.closings()


@pytest.mark.parametrize("reconnect", [False, True], ids=["once", "reconnect"])
@pytest.mark.parametrize("way", [UP, DOWN])
def test_a_cut_at_any_byte_of_getting_in_is_survived(way: str, reconnect: bool, kind: str) -> None:
    with talking(kind, reconnect) as (talk, used, proxy):
        get_in(used)
        assert talk.round(used)
        wait_until(lambda: len(talk.told) == 1)
        total = proxy.passed(0)[way == DOWN]
        used.close()
        for number, after in enumerate(range(0, total, 31)):
            proxy.fail_next(Fault("reset" if number % 2 else "cut", way, after))
            get_in(used)
            talk.round(used)
            wait_until(proxy.struck.is_set)
            if reconnect:
                wait_until(lambda: talk.round(used))
            used.close()


@pytest.mark.parametrize("reconnect", [False, True], ids=["once", "reconnect"])
@pytest.mark.parametrize("way", [UP, DOWN])
@pytest.mark.parametrize("what", ["stall", "half-open"])
def test_silence_while_connecting_ends_in_time(
    what: Any, way: str, reconnect: bool, kind: str
) -> None:
    """In the handshake, and right behind it, where the introduction is on its way."""
    with talking(kind, reconnect) as (talk, used, proxy):
        introduction = handshake(used, proxy)[way == DOWN] - 10
        for after in (20, introduction):
            proxy.fail_next(Fault(what, way, after))
            try:
                in_time(lambda: used.do(used.client.connect, "ann", timeout=IMPATIENT), IMPATIENT)
            except (ConnectTimeout, ConnectionFailed):
                used.connect("ann")
            wait_until(proxy.struck.is_set)
            assert talk.round(used)
            used.close()


@pytest.mark.parametrize("what", ["drop", "stall", "half-open"])
def test_close_ends_in_time_whatever_the_network_does(what: Any, kind: str) -> None:
    with talking(kind, reconnect=True) as (talk, used, proxy):
        proxy.fail_next(Fault(what, DOWN, after=HANDSHAKE))
        get_in(used)
        while not proxy.struck.is_set():
            talk.round(used)
        # `talking` closes, with the limit that a close has
