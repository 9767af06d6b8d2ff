"""Scripts in processes of their own, with a hard limit: a hang is a failure, not a wait."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import wse_tornado

from .timing import SCALE, seconds

TESTS = Path(__file__).resolve().parents[1]


def environment(*folders: Path) -> dict[str, str]:
    """What a script needs to find the library under test, installed or not, and ``support``."""
    paths = map(str, [*folders, TESTS, Path(wse_tornado.__file__).parents[1]])
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "WSE_TEST_TIMESCALE": str(SCALE),
    }


def run_script(source: str, *args: str, limit: float = 20) -> subprocess.CompletedProcess[str]:
    """Run a script to its end. Fails the test where it does not end within ``limit`` seconds."""
    try:
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(source), *args],
            capture_output=True,
            text=True,
            timeout=seconds(limit),
            env=environment(),
            cwd=TESTS,
        )
    except subprocess.TimeoutExpired as hung:
        raise AssertionError(
            f"the script hung\n--- stdout\n{_text(hung.stdout)}\n--- stderr\n{_text(hung.stderr)}"
        ) from None
    done.stderr = without_slowness(done.stderr)
    return done


def without_slowness(stderr: str) -> str:
    """What asyncio's debug mode says of a busy machine is no complaint of the program's."""
    return re.sub(r"^Executing <.* took \d+\.\d+ seconds\n", "", stderr, flags=re.MULTILINE)


def start_script(source: str, *args: str) -> "subprocess.Popen[str]":
    """Start a script whose standard output the test reads line by line."""
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(source), *args],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=TESTS,
    )


def _text(output: object) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else str(output or "")
