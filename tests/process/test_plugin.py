"""The pytest plugin of the testing kit, in a pytest of its own, and the page about it."""

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ..support import ROOT, require, seconds
from ..support.process import TESTS, environment

EXAMPLE = ROOT / "examples" / "test_with_wse_tornado.py"
DOC = ROOT / "docs" / "testing.md"


pytestmark = pytest.mark.once


def run_pytest(*args: str, cwd: Path = TESTS) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *[sys.executable, "-W", "error", "-m", "pytest", "-p", "pytest_wse_tornado"],
            *["-p", "no:cacheprovider", "-W", "error", "-rA", *args],
        ],
        capture_output=True,
        text=True,
        timeout=seconds(60),
        cwd=cwd,
        env=environment(),
    )


def test_the_example_of_a_users_test_file_passes() -> None:
    result = run_pytest("-c", os.devnull, "--rootdir", str(ROOT), str(EXAMPLE))
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"\b7 passed", result.stdout)


def test_the_plugin_imports_the_library_only_for_a_test_that_asks(tmp_path: Path) -> None:
    (tmp_path / "test_lazy.py").write_text(
        "import sys\n"
        "def test_before():\n"
        "    assert 'wse_tornado' not in sys.modules\n"
        "    assert 'tornado' not in sys.modules\n"
        "def test_after(wse_connect, wse_recorder):\n"
        "    assert wse_connect('alice').status == 'READY'\n"
        "    assert wse_recorder.events == []\n"
    )
    result = run_pytest(str(tmp_path), cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_failing_test_still_closes_what_the_fixtures_opened(tmp_path: Path) -> None:
    (tmp_path / "test_failing.py").write_text(
        "import threading, time\n"
        "def test_failing(wse_server, wse_connect):\n"
        "    wse_connect('alice', reconnect=True)\n"
        "    wse_server.stall()\n"
        "    assert False\n"
        "def test_nothing_is_left():\n"
        "    def left():\n"
        "        names = [thread.name for thread in threading.enumerate()]\n"
        "        return [name for name in names if name.startswith('wse-tornado')]\n"
        "    deadline = time.monotonic() + 5\n"  # idle workers are told to end, not waited for
        "    while left() and time.monotonic() < deadline:\n"
        "        time.sleep(0.01)\n"
        "    assert not left()\n"
    )
    result = run_pytest(str(tmp_path), cwd=tmp_path)
    assert re.search(r"\b1 failed, 1 passed", result.stdout), result.stdout + result.stderr


def test_the_plugin_is_registered_with_pytest() -> None:
    found = [
        point.value
        for point in importlib.metadata.entry_points(group="pytest11")
        if point.name == "pytest_wse_tornado"
    ]
    require(bool(found), "an installed wse-tornado")
    assert found == ["pytest_wse_tornado"]


def test_the_kit_needs_no_pytest() -> None:
    program = (
        "import sys\n"
        "sys.modules['pytest'] = None\n"
        "from wse_tornado.testing import connect, serving\n"
        "with serving() as served, connect(served) as client:\n"
        "    print(client.status)\n"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=seconds(30),
        cwd=TESTS,
        env=environment(),
    )
    assert (result.stdout, result.stderr) == ("READY\n", "")


# -- docs/testing.md


def test_every_block_of_the_documentation_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", DOC.read_text("utf-8"), re.M | re.S)
    assert len(blocks) >= 3
    assert set(re.findall(r"^```(\w+)$", DOC.read_text("utf-8"), re.M)) == {"python"}
    tests = 0
    for index, block in enumerate(blocks):
        (tmp_path / f"test_block_{index}.py").write_text(block)
        tests += len(re.findall(r"^def test_", block, re.M))
    result = run_pytest(str(tmp_path), cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{tests} passed" in result.stdout
