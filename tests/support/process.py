"""Scripts in processes of their own, with a hard limit: a hang is a failure, not a wait."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

from .timing import SCALE, seconds

ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, str]:
    """What a script needs to find the library and the test helpers."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
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
            cwd=ROOT,
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
        cwd=ROOT,
    )


def _text(output: object) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else str(output or "")
