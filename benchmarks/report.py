"""Numbers into words: the tables, ``results.md`` and the plot."""

from __future__ import annotations

import platform
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from xml.sax.saxutils import escape

from .peers import LABELS, PAIRS
from .runner import Results
from .targets import TARGETS
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
WORSE = 1.05  # of the figure before: what a rewrite may cost
NAMES = {"cpu": "processor time", "p50": "p50", "memory": "memory"}


def medians(results: Results, workload: str, peer: str) -> Sample | None:
    """The median of each figure over the rounds."""
    samples = [found[workload, peer] for found in results.rounds if (workload, peer) in found]
    if not samples:
        return None

    def middle(name: str) -> float | None:
        values = [getattr(one, name) for one in samples if getattr(one, name) is not None]
        return statistics.median(values) if values else None

    return Sample(**{field.name: middle(field.name) for field in fields(Sample)})


def ratios(results: Results, workload: str, ours: str, theirs: str, figure: str) -> list[float]:
    """One ratio for each round, in which both had the same conditions; smallest first."""
    found = []
    for samples in results.rounds:
        one, other = samples.get((workload, ours)), samples.get((workload, theirs))
        if one is not None and other is not None and getattr(other, figure):
            found.append(getattr(one, figure) / getattr(other, figure))
    return sorted(found)


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
            rows.append([LABELS[peer], number((one.memory or 0) / 1024)])
        else:
            cells = [number(one.cpu), number(one.rate), number(one.p50), number(one.p99)]
            rows.append([LABELS[peer], *cells, percent(one.used), percent(one.busy)])
    if workload.figure == "memory":
        return table([workload.title, "KiB"], rows)
    cpu = f"µs of processor per {workload.unit}"
    return table([workload.title, cpu, "per second", "p50 µs", "p99 µs", "used", "load"], rows)


def target_table(results: Results) -> str:
    """Targets and what was reached; empty where none was measured."""
    rows = []
    for target in TARGETS:
        workload = BY_KEY[target.workload]
        figure = target.figure or workload.figure
        if not (found := ratios(results, target.workload, target.ours, target.theirs, figure)):
            continue
        middle = statistics.median(found)
        rows.append(
            [
                f"{workload.title}, {NAMES[figure]}",
                LABELS[target.ours],
                LABELS[target.theirs],
                f"≤ {target.limit:.2f}",
                f"{middle:.2f}",
                f"{found[0]:.2f} to {found[-1]:.2f}",
                "reached" if middle <= target.limit else "MISSED",
            ]
        )
    head = ["work", "of", "against", "target", "ratio", "rounds", "verdict"]
    return table(head, rows) if rows else ""


def before_table(results: Results) -> str:
    """This checkout beside another one, figure by figure; empty where that was not asked for."""
    rows = []
    for workload in BY_KEY.values():
        for peer, before in PAIRS.items():
            for figure in dict.fromkeys((workload.figure, "cpu")):
                if figure == "cpu" and workload.figure == "memory":
                    continue  # that is the figure of coming in
                found = ratios(results, workload.key, peer, before, figure)
                then, now = (medians(results, workload.key, one) for one in (before, peer))
                if not found or then is None or now is None:
                    continue
                middle, scale = statistics.median(found), 1024 if figure == "memory" else 1
                rows.append(
                    [
                        f"{workload.title}, {NAMES[figure]}",
                        LABELS[peer],
                        number(getattr(then, figure) / scale),
                        number(getattr(now, figure) / scale),
                        f"{middle:.3f}",
                        f"{found[0]:.2f} to {found[-1]:.2f}",
                        "WORSE" if middle > WORSE else "",
                    ]
                )
    head = ["work", "of", "before", "after", "after / before", "rounds", f"above {WORSE:.2f}"]
    return table(head, rows) if rows else ""


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
    for title, text in (
        ("Before and after", before_table(results)),
        ("Targets", target_table(results)),
    ):
        if text:
            parts += [f"## {title}", text]
    parts += ["## Figures", "![Figures by workload](results.svg)"]
    parts += [workload_table(results, workload) for workload in workloads]
    if results.failures:
        parts += ["## Failed", "\n".join(f"- {failure}" for failure in results.failures)]
    return "\n\n".join(parts) + "\n"


# -- the plot

LEFT, BARS, LINE = 230, 480, 16  # pixels: labels, the longest bar, a line


def plot(results: Results, workloads: Sequence[Workload]) -> str:
    """Bars for each workload, as an SVG."""
    shapes: list[str] = []
    at = 0

    def text(x: float, line: str, **style: str) -> None:
        given = " ".join(f'{name.replace("_", "-")}="{value}"' for name, value in style.items())
        shapes.append(f'<text x="{x:.0f}" y="{at + 12}" {given}>{escape(line)}</text>')

    for workload in workloads:
        scale = 1024 if workload.figure == "memory" else 1
        bars = []
        for peer in LABELS:
            one = medians(results, workload.key, peer) if peer in workload.programs else None
            if one is not None and (value := getattr(one, workload.figure)) is not None:
                bars.append((peer, value / scale))
        longest = max((value for _, value in bars), default=0) or 1
        unit = {"cpu": f"µs per {workload.unit}", "p50": "µs, p50", "memory": "KiB"}
        text(LEFT, f"{workload.title} ({unit[workload.figure]})", font_weight="bold")
        for peer, value in bars:
            at += LINE
            width = max(0, value) / longest * BARS
            colour = COLOURS.get(peer, "#b8b8b8")
            text(LEFT - 6, LABELS[peer], text_anchor="end")
            shapes.append(
                f'<rect x="{LEFT}" y="{at + 2}" width="{width:.1f}" height="12" fill="{colour}"/>'
            )
            text(LEFT + width + 4, number(value))
        at += 2 * LINE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + BARS + 70}" height="{at}" '
        'font-family="sans-serif" font-size="11">\n'
        '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(shapes) + "\n</svg>\n"
    )


def write(
    results: Results, workloads: Sequence[Workload], effort: Effort, folder: Path = HERE
) -> None:
    """Write ``results.md`` and ``results.svg``, and say where."""
    (folder / "results.md").write_text(markdown(results, workloads, effort), "utf-8")
    (folder / "results.svg").write_text(plot(results, workloads), "utf-8")
    sys.stderr.write(f"written: {folder / 'results.md'}, {folder / 'results.svg'}\n")
