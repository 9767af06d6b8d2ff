"""Numbers into words: the tables, ``results.md`` and the plot."""

from __future__ import annotations

import platform
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path

from .peers import LABELS
from .runner import Results
from .targets import TARGETS, Target
from .workloads import BY_KEY, Effort, Sample, Workload

HERE = Path(__file__).parent
DISTRIBUTIONS = (
    "tornado",
    "uvloop",
    "msgspec",
    "websockets",
    "picows",
    "websocket-client",
    "python-socketio",
)
COLOURS = {"wse-fast": "#1b6ca8", "wse-plain": "#6fa8d6"}
NAMES = {"cpu": "processor time", "p50": "p50", "memory": "memory"}


@dataclass(frozen=True)
class Verdict:
    """How a target came out: the median of the rounds' ratios, and the least and the greatest."""

    target: Target
    ratio: float
    least: float
    greatest: float

    @property
    def met(self) -> bool:
        """Whether it is reached."""
        return self.ratio <= self.target.limit


def medians(results: Results, workload: str, peer: str) -> Sample | None:
    """The median of each figure over the rounds."""
    samples = [found[workload, peer] for found in results.rounds if (workload, peer) in found]
    if not samples:
        return None

    def middle(name: str) -> float | None:
        values = [getattr(one, name) for one in samples if getattr(one, name) is not None]
        return statistics.median(values) if values else None

    return Sample(**{field.name: middle(field.name) for field in fields(Sample)})


def verdicts(results: Results) -> list[Verdict]:
    """Every target that was measured. Ratios are taken within a round, where both had the same
    conditions; then the median of the ratios counts."""
    found = []
    for target in TARGETS:
        figure = BY_KEY[target.workload].figure
        ratios = []
        for samples in results.rounds:
            ours = samples.get((target.workload, target.ours))
            theirs = samples.get((target.workload, target.theirs))
            if ours is not None and theirs is not None and getattr(theirs, figure):
                ratios.append(getattr(ours, figure) / getattr(theirs, figure))
        if ratios:
            found.append(Verdict(target, statistics.median(ratios), min(ratios), max(ratios)))
    return found


# -- tables


def number(value: float | None) -> str:
    """Three figures, no more: the rest is noise."""
    if value is None:
        return ""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def percent(share: float | None) -> str:
    """A share of a core."""
    return "" if share is None else f"{share:.0%}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table with columns that line up; the first one to the left."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]

    def row(cells: Sequence[str]) -> str:
        first, *rest = cells
        padded = [first.ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([row(lines[0]), row(rule), *map(row, lines[1:])])


def workload_table(results: Results, workload: Workload) -> str:
    """One workload, all peers."""
    rows = []
    for peer in LABELS:
        if peer not in workload.programs or (one := medians(results, workload.key, peer)) is None:
            continue
        if workload.figure == "memory":
            memory = None if one.memory is None else one.memory / 1024
            rows.append([LABELS[peer], number(memory)])
        else:
            cells = [number(one.cpu), number(one.rate), number(one.p50), number(one.p99)]
            rows.append([LABELS[peer], *cells, percent(one.used), percent(one.busy)])
    if workload.figure == "memory":
        return table([workload.title, "KiB"], rows)
    cpu = f"µs of processor per {workload.unit}"
    return table([workload.title, cpu, "per second", "p50 µs", "p99 µs", "used", "load"], rows)


def target_table(results: Results) -> str:
    """Targets and what was reached."""
    rows = []
    for verdict in verdicts(results):
        target = verdict.target
        workload = BY_KEY[target.workload]
        rows.append(
            [
                f"{workload.title}, {NAMES[workload.figure]}",
                LABELS[target.ours],
                LABELS[target.theirs],
                f"≤ {target.limit:.2f}",
                f"{verdict.ratio:.2f}",
                f"{verdict.least:.2f} to {verdict.greatest:.2f}",
                "reached" if verdict.met else "MISSED",
            ]
        )
    head = ["work", "of", "against", "target", "ratio", "rounds", "verdict"]
    return table(head, rows)


def versions() -> str:
    """What was measured, and on what."""
    found = [f"Python {platform.python_version()}", f"{platform.system()} {platform.machine()}"]
    for name in DISTRIBUTIONS:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            pass
    return ", ".join(found)


METHOD = """\
One process is under test, alone on one core; the load comes from another process on another core.
The main figure is processor time, user and system, of the process under test per operation
(`getrusage`); "used" is its share of its core, "load" the share of its core that the load took.
Every round starts fresh processes; within a round the peers take turns on each workload. Figures
are medians over the rounds, ratios are medians of the rounds' ratios.

wse_tornado[fast] has uvloop and msgspec; plain wse_tornado is a process in which neither can be
imported. websockets and picows run on uvloop, Tornado and python-socketio on asyncio's loop.
The minimal servers speak the same wire with the standard library's json, as their authors would
write it, and have no limits, heartbeats or statistics; wse_tornado has all of them on.
python-socketio speaks its own protocol. All clients talk to the same light server."""


def markdown(results: Results, workloads: Sequence[Workload], effort: Effort) -> str:
    """The whole of ``results.md``."""
    count = len(results.rounds)
    facts = [
        f"{count} round{'s' if count != 1 else ''} of {effort.seconds:g} s a measurement, "
        f"{effort.arrivals:,} connections coming in, broadcasts to {effort.audience}; "
        f"{results.seconds:.0f} s in all. {versions()}.",
    ]
    if not results.pinned:
        facts.append("The processes were NOT pinned: this machine has no two cores for that.")
    if results.cut_short:
        facts.append("Rounds were left out to end in time.")
    parts = ["# Benchmarks", METHOD, " ".join(facts)]
    if verdicts(results):
        parts += ["## Targets", target_table(results)]
    parts += ["## Figures", "![Figures by workload](results.svg)"]
    parts += [workload_table(results, workload) for workload in workloads]
    if results.failures:
        parts += ["## Failed", "\n".join(f"- {failure}" for failure in results.failures)]
    return "\n\n".join(parts) + "\n"


# -- the plot


def plot(results: Results, workloads: Sequence[Workload], path: Path) -> None:
    """Bars for each workload, as an SVG without anything that changes from run to run."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "benchmarks"
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text: a tenth of the size
    from matplotlib import pyplot

    columns = 2
    lines = -(-len(workloads) // columns)
    figure, grid = pyplot.subplots(lines, columns, figsize=(12, 2.3 * lines), squeeze=False)
    for axes in grid.flat[len(workloads) :]:
        axes.remove()
    for axes, workload in zip(grid.flat, workloads, strict=False):
        bars = []
        for peer in LABELS:
            one = medians(results, workload.key, peer) if peer in workload.programs else None
            value = getattr(one, workload.figure) if one is not None else None
            if value is not None:
                bars.append((peer, value / 1024 if workload.figure == "memory" else value))
        bars.reverse()
        drawn = axes.barh(
            [LABELS[peer] for peer, _ in bars],
            [value for _, value in bars],
            color=[COLOURS.get(peer, "#b8b8b8") for peer, _ in bars],
        )
        axes.bar_label(drawn, [number(value) for _, value in bars], padding=3, fontsize=7)
        axes.margins(x=0.15)
        unit = {"cpu": f"µs per {workload.unit}", "p50": "µs, p50", "memory": "KiB"}
        axes.set_title(f"{workload.title} ({unit[workload.figure]})", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def write(
    results: Results, workloads: Sequence[Workload], effort: Effort, folder: Path = HERE
) -> None:
    """Write ``results.md`` and ``results.svg``, and say where."""
    (folder / "results.md").write_text(markdown(results, workloads, effort), "utf-8")
    plot(results, workloads, folder / "results.svg")
    sys.stderr.write(f"written: {folder / 'results.md'}, {folder / 'results.svg'}\n")
