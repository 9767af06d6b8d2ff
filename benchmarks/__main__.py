"""``python -m benchmarks``: this library beside its peers, on the same work in the same run."""

from __future__ import annotations

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from . import report
from .peers import PAIRS, PEERS
from .peers.flavour import BEFORE
from .runner import measure
from .workloads import BY_KEY, Effort

QUICK = Effort(seconds=0.08, arrivals=200, audience=100)


def names(known: object) -> object:
    """A parser for a comma-separated choice."""
    assert isinstance(known, dict)

    def parse(text: str) -> list[str]:
        chosen = [name.strip() for name in text.split(",") if name.strip()]
        unknown = [name for name in chosen if name not in known]
        if unknown or not chosen:
            raise argparse.ArgumentTypeError(
                f"unknown: {', '.join(unknown)}; there are {', '.join(known)}"
            )
        return [name for name in known if name in chosen]

    return parse


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: does it all run?")
    parser.add_argument("--rounds", type=int, help="how many rounds (5; 1 with --quick)")
    parser.add_argument("--seconds", type=float, help="of each measurement (0.3)")
    parser.add_argument(
        "--budget", type=float, default=330, help="seconds; no round is begun that would end later"
    )
    parser.add_argument(
        "--workloads", type=names(BY_KEY), default=list(BY_KEY), help=", ".join(BY_KEY)
    )
    parser.add_argument("--peers", type=names(PEERS), help=", ".join(PEERS))
    parser.add_argument(
        "--before",
        type=Path,
        metavar="CHECKOUT",
        help="compare with another checkout of this library in interleaved rounds; without --peers "
        "nothing else is measured",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="folder for results.md and results.svg (this package's; with --before, none)",
    )
    options = parser.parse_args(arguments)
    others = PAIRS.values()
    if options.before is not None:
        if not (options.before / "wse_tornado").is_dir():
            parser.error(f"no wse_tornado in {options.before}")
        os.environ[BEFORE] = str(options.before.resolve())
        options.peers = options.peers or [*PAIRS, *others]
        options.peers = [
            peer
            for peer in PEERS
            if peer in options.peers or any(PAIRS.get(one) == peer for one in options.peers)
        ]
    elif options.peers is None:
        options.peers = [peer for peer in PEERS if peer not in others]
    elif any(peer in others for peer in options.peers):
        parser.error("the peers of another checkout need --before")
    return options


def main() -> int:
    """Measure, print, write. Returns 1 where a measurement failed."""
    options = parse_arguments()
    needed = {"trustme", *(package for peer in options.peers for package in PEERS[peer][1])}
    missing = sorted(package for package in needed if not find_spec(package))
    if missing:
        sys.exit(
            f"not installed: {', '.join(missing)}; "
            "pip install 'wse-tornado[bench]', or choose others with --peers"
        )
    effort = QUICK if options.quick else Effort()
    if options.seconds is not None:
        effort = Effort(options.seconds, effort.arrivals, effort.audience)
    rounds = options.rounds or (1 if options.quick else 5)
    workloads = [BY_KEY[key] for key in options.workloads]
    results = measure(workloads, options.peers, rounds=rounds, effort=effort, budget=options.budget)
    print(report.markdown(results, workloads, effort))
    if options.output is not None or options.before is None:
        report.write(results, workloads, effort, options.output or report.HERE)
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
