"""The work that is measured, and how.

Each workload puts one process on one core under load from another and gives a `Sample`. Processor
time is ``getrusage``'s of the process under test, user and system, before and after, so it holds
the kernel's share of every send and receive as well.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from .generator import Crowd, Run
from .peers import (
    BLOCKING_SERVERS,
    CLIENTS_ALONE,
    CLIENTS_SHARED,
    INLINE_SERVERS,
    SERVERS,
    SERVERS_OF_CALLS,
    TLS_CLIENTS,
    TLS_SERVERS,
    Program,
)
from .process import Process

ADD = ("add", {"a": 5, "b": 3}, 8)


@dataclass(frozen=True)
class Sample:
    """One measurement; what a workload does not have is None.

    Attributes:
        cpu: Processor time of the process under test per operation, microseconds.
        rate: Operations per second of wall clock.
        p50: Median wait for an answer, microseconds.
        p99: The same for the slowest hundredth.
        used: Share of its core that the process under test took, 0 to 1.
        busy: Share of its core that the load took; near 1, the load was the limit.
        memory: Resident bytes per connection.
    """

    cpu: float | None = None
    rate: float | None = None
    p50: float | None = None
    p99: float | None = None
    used: float | None = None
    busy: float | None = None
    memory: float | None = None


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        seconds: How long each closed loop runs.
        arrivals: Connections that come in where coming in is measured.
        audience: Connections that a broadcast reaches.
    """

    seconds: float = 0.3
    arrivals: int = 1000
    audience: int = 300

    @property
    def warm_up(self) -> float:
        """Seconds of the same load before, not counted."""
        return self.seconds / 4


@dataclass(frozen=True)
class Bench:
    """What is measured now.

    Attributes:
        process: The process under test.
        program: What it is.
        effort: How much to measure.
        light: The light server, for clients under test.
    """

    process: Process
    program: Program
    effort: Effort
    light: Process

    def crowd(self) -> Crowd:
        """Clients of the server under test, none yet."""
        return Crowd(self.process.port, self.program.wire, tls=self.program.tls)

    def around(self, load: Callable[[], Run]) -> Sample:
        """Processor time of the process under test during a load."""
        before = self.process.ask("cpu")
        run = load()
        return sample(run, self.process.ask("cpu") - before)


@dataclass(frozen=True)
class Workload:
    """One kind of work.

    Attributes:
        key: Its name on the command line.
        title: Its name in tables.
        programs: Who takes part.
        measure: Does it once; those with the same one and the same programs share its sample.
        figure: The attribute of `Sample` that counts.
        unit: Of what that figure is.
    """

    key: str
    title: str
    programs: Mapping[str, Program]
    measure: Measure
    figure: str = "cpu"
    unit: str = "call"


Measure = Callable[[Bench], Sample]


def quantile(values: Iterable[float], share: float) -> float | None:
    """The value below which that share lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def micro(seconds: float | None) -> float | None:
    """Microseconds."""
    return None if seconds is None else seconds * 1e6


def sample(run: Run, cpu: float) -> Sample:
    """What a run of load and ``cpu`` seconds of the process under test come to."""
    return Sample(
        cpu=cpu / run.operations * 1e6,
        rate=run.operations / run.seconds,
        p50=micro(statistics.median(run.waits)) if run.waits else None,
        p99=micro(quantile(run.waits, 0.99)),
        used=cpu / run.seconds,
        busy=run.busy,
    )


# -- how it is measured


def calls(connections: int, in_flight: int, name: str, argument: Any, result: Any) -> Measure:
    """Calls in closed loops."""

    def measure(bench: Bench) -> Sample:
        effort = bench.effort
        with bench.crowd() as crowd:
            crowd.join(connections)
            size = crowd.check(name, argument, result)
            crowd.calls(name, argument, in_flight, size, effort.warm_up)
            load = partial(crowd.calls, name, argument, in_flight, size, effort.seconds)
            return bench.around(load)

    return measure


def arrivals(bench: Bench) -> Sample:
    """Connections come in, each as a user of its own, and stay: processor time and memory."""
    count, process = bench.effort.arrivals, bench.process
    with bench.crowd() as crowd:
        crowd.join(5)  # what is made only once is made now
        crowd.check(*ADD)
    with bench.crowd() as crowd:
        empty = process.ask("memory")
        came = bench.around(lambda: crowd.join(count))
        return replace(came, memory=(process.ask("memory") - empty) / count)


def broadcasts(bench: Bench) -> Sample:
    """One message to everyone, again when everyone has it."""
    payload = {"text": "x" * 64}
    with bench.crowd() as crowd:
        crowd.join(bench.effort.audience)
        crowd.broadcasts(payload, bench.effort.warm_up)
        return bench.around(lambda: crowd.broadcasts(payload, bench.effort.seconds))


def caller(threads: int) -> Measure:
    """A client calls the light server from so many threads."""

    def measure(bench: Bench) -> Sample:
        bench.process.ask("calls", threads=threads, seconds=bench.effort.warm_up)
        before = bench.light.ask("cpu")
        got = bench.process.ask("calls", threads=threads, seconds=bench.effort.seconds)
        busy = (bench.light.ask("cpu") - before) / got["seconds"]
        return sample(Run(got["operations"], got["seconds"], got["waits"], busy), got["cpu"])

    return measure


def echo(key: str, size: int, connections: int) -> Workload:
    """Calls that carry ``size`` bytes there and back."""
    text = "x" * size
    measure = calls(connections, 1, "echo", text, text)
    unit = key.removeprefix("echo-").replace("-", " ")
    return Workload(key, f"echo of {unit}, one in flight on {connections}", SERVERS, measure)


ONE, MANY = calls(50, 1, *ADD), calls(20, 32, *ADD)
WORKLOADS = (
    Workload("connect", "connect and authenticate", SERVERS, arrivals, unit="connection"),
    Workload("memory", "idle connection", SERVERS, arrivals, "memory", "connection"),
    Workload("call-1", "served call, one in flight on 50 connections", SERVERS_OF_CALLS, ONE),
    Workload("call-32", "served call, 32 in flight on 20 connections", SERVERS_OF_CALLS, MANY),
    Workload("broadcast", "broadcast", SERVERS, broadcasts, unit="delivery"),
    echo("echo-64-B", 64, 20),
    echo("echo-1-KB", 1024, 20),
    echo("echo-64-KB", 65_536, 4),
    echo("echo-1-MB", 1_000_000, 2),
    Workload("inline", "blocking server, inline handler, one in flight on 50", INLINE_SERVERS, ONE),
    Workload(
        "worker",
        "blocking server, handler on a thread, one in flight on 50",
        BLOCKING_SERVERS,
        calls(50, 1, "add-worker", *ADD[1:]),
    ),
    Workload("script", "blocking call from a script", CLIENTS_ALONE, caller(1), "p50"),
    Workload("threads", "32 threads call on one client", CLIENTS_SHARED, caller(32)),
    Workload(
        "connect-tls", "connect, TLS handshake included", TLS_SERVERS, arrivals, unit="connection"
    ),
    Workload("memory-tls", "idle TLS connection", TLS_SERVERS, arrivals, "memory", "connection"),
    Workload("call-1-tls", "served call over TLS, one in flight on 50", TLS_SERVERS, ONE),
    Workload("call-32-tls", "served call over TLS, 32 in flight on 20", TLS_SERVERS, MANY),
    Workload("broadcast-tls", "broadcast over TLS", TLS_SERVERS, broadcasts, unit="delivery"),
    Workload("script-tls", "blocking call over wss", TLS_CLIENTS, caller(1), "p50"),
)
BY_KEY = {workload.key: workload for workload in WORKLOADS}
