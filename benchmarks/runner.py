"""Rounds: everybody does everything once, side by side; then again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from .cores import pair, pin, raise_file_limit
from .peers import LIGHT_SERVER, Program
from .process import Process
from .progress import Progress
from .workloads import CLIENTS_ALONE, CLIENTS_SHARED, Bench, Effort, Sample, Workload

CLIENTS = frozenset((*CLIENTS_ALONE.values(), *CLIENTS_SHARED.values()))
PACKAGE = f"{__package__}.peers."


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

    rounds: list[dict[tuple[str, str], Sample]] = field(default_factory=list)
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
    for number in range(rounds):
        spent = time.monotonic() - start
        if number and spent * (number + 1) / number > budget:
            results.cut_short = True
            break
        turn = number % len(peers)
        order = [*peers[turn:], *peers[:turn]]
        samples = _one_round(
            workloads,
            order,
            effort,
            (under_test, of_load),
            progress,
            f"round {number + 1} of {rounds}",
            results.failures,
        )
        results.rounds.append(samples)
    progress.show("done")
    progress.end()
    results.seconds = time.monotonic() - start
    return results


def _one_round(
    workloads: Sequence[Workload],
    peers: Sequence[str],
    effort: Effort,
    cores: tuple[int | None, int | None],
    progress: Progress,
    title: str,
    failures: list[str],
) -> dict[tuple[str, str], Sample]:
    under_test, of_load = cores
    samples: dict[tuple[str, str], Sample] = {}
    failed: set[Program] = set()
    with ExitStack() as stack:
        progress.show(f"{title}: starting")
        light = Process(PACKAGE + LIGHT_SERVER.module, core=of_load)
        port = str(stack.enter_context(light).port)
        processes: dict[Program, Process] = {}
        for workload in workloads:
            for peer in peers:
                program = workload.programs.get(peer)
                if program is None or program in processes:
                    continue
                arguments = (*program.arguments, port) if program in CLIENTS else program.arguments
                process = Process(PACKAGE + program.module, *arguments, core=under_test)
                processes[program] = process
                stack.callback(process.end)
        for workload in workloads:
            for peer in peers:
                program = workload.programs.get(peer)
                if program is None:
                    continue
                progress.show(f"{title}: {workload.key}, {peer}")
                progress.step()
                if (workload.key, peer) in samples or program in failed:
                    continue  # measured together with another workload
                try:
                    process = processes[program].ready()
                    found = workload.measure(Bench(process, program, effort, light))
                except Exception as exc:
                    # A process in an unknown state measures nothing more in this round.
                    failed.add(program)
                    failures.append(f"{title}: {workload.key}, {peer}: {type(exc).__name__}: {exc}")
                else:
                    samples.update({(key, peer): sample for key, sample in found.items()})
    return samples
