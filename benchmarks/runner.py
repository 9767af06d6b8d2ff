"""Rounds: everybody does everything once, side by side; then again."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from .cores import pair, pin, raise_file_limit
from .peers import LIGHT_SERVER, Program
from .process import Process
from .progress import Progress
from .tls import make_certificates
from .workloads import Bench, Effort, Sample, Workload

PACKAGE = f"{__package__}.peers."
Samples = dict[tuple[str, str], Sample]


@dataclass
class Results:
    """What was measured.

    Attributes:
        rounds: One mapping for each round, from workload and peer to its sample; a measurement
            that failed is missing.
        failures: What failed, in words.
        seconds: How long all of it took.
        pinned: Whether both processes had a core of their own.
        cut_short: Whether rounds were left out to end in time.
    """

    rounds: list[Samples] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0
    pinned: bool = False
    cut_short: bool = False


def measure(
    workloads: Sequence[Workload],
    peers: Sequence[str],
    *,
    rounds: int,
    effort: Effort,
    budget: float,
) -> Results:
    """Measure all peers on all workloads, ``rounds`` times.

    In a round every peer has fresh processes, and the peers take turns on one workload before the
    next begins, each round in another order: what disturbs the machine disturbs neighbours alike.

    Args:
        workloads: What to do.
        peers: Who does it.
        rounds: How many times.
        effort: How much each time.
        budget: Seconds; a round that would probably end later is not begun.
    """
    under_test, of_load = pair()
    pin(of_load)
    raise_file_limit()
    results = Results(pinned=under_test is not None)
    cells = sum(1 for workload in workloads for peer in peers if peer in workload.programs)
    progress = Progress(cells * rounds)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        make_certificates(Path(folder))
        for number in range(rounds):
            spent = time.monotonic() - start
            if number and spent * (number + 1) / number > budget:
                results.cut_short = True
                break
            turn = number % len(peers)
            title = f"round {number + 1} of {rounds}"

            def show(what: str, title: str = title) -> None:
                progress.show(f"{title}: {what}")
                progress.step()

            progress.show(f"{title}: starting")
            order = [*peers[turn:], *peers[:turn]]
            cores = (under_test, of_load)
            results.rounds.append(_round(workloads, order, effort, cores, show, results.failures))
    progress.show("done")
    progress.end()
    results.seconds = time.monotonic() - start
    return results


def _round(
    workloads: Sequence[Workload],
    peers: Sequence[str],
    effort: Effort,
    cores: tuple[int | None, int | None],
    show: Callable[[str], None],
    failures: list[str],
) -> Samples:
    under_test, of_load = cores
    turns = [
        (workload, peer, workload.programs[peer])
        for workload in workloads
        for peer in peers
        if peer in workload.programs
    ]
    samples: Samples = {}
    measured: dict[tuple[object, Program], Sample] = {}
    failed: set[Program] = set()
    with ExitStack() as stack:
        light = stack.enter_context(Process(PACKAGE + LIGHT_SERVER.module, core=of_load))
        processes: dict[Program, Process] = {}
        for program in dict.fromkeys(program for _, _, program in turns):
            arguments = program.command(light.port, light.hello["tls_port"])
            processes[program] = Process(PACKAGE + program.module, *arguments, core=under_test)
            stack.callback(processes[program].end)
        for workload, peer, program in turns:
            show(f"{workload.key}, {peer}")
            if program in failed:
                continue
            try:
                # Coming in and staying are measured together.
                one = measured.get((workload.measure, program))
                if one is None:
                    bench = Bench(processes[program].ready(), program, effort, light)
                    one = measured[workload.measure, program] = workload.measure(bench)
                samples[workload.key, peer] = one
            except Exception as exc:
                # A process in an unknown state measures nothing more in this round.
                failed.add(program)
                failures.append(f"{workload.key}, {peer}: {type(exc).__name__}: {exc}")
    return samples
