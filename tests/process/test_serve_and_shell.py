"""`wse-tornado` as a process: SIGTERM, the addresses that it prints, commands from a pipe."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import wse_tornado
from wse_tornado import WseClient
from wse_tornado.cli import main

from ..support import seconds
from ..support.process import without_slowness

ROOT = Path(wse_tornado.__file__).parents[1]
PROGRAM = [sys.executable, "-W", "error", "-m", "wse_tornado"]


def environ() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WSE_")}
    return {**kept, "PYTHONPATH": str(ROOT), "WSE_IDENTITY": "alice"}


@contextmanager
def serving(
    *args: str, prefix: tuple[str, ...] = ()
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [*prefix, *PROGRAM, "serve", "--port", "0", *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ(),
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url, process.stderr.read() if process.stderr else ""
        yield process, url
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, err = process.communicate(timeout=seconds(20))
    return process.returncode, without_slowness(err)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"wse-tornado {wse_tornado.__version__}\n"


def test_sigterm_closes_with_1012_and_exits_with_0() -> None:
    with serving() as (process, url), WseClient(url) as client:
        closed: list[tuple[int, str]] = []
        over = threading.Event()
        client.when.closed(lambda code, reason: (closed.append((code, reason)), over.set()))
        client.connect("alice")
        process.send_signal(signal.SIGTERM)
        assert over.wait(seconds(10))
        code, err = end(process)
    assert code == 0
    assert "Traceback" not in err
    assert closed[0][0] == 1012


def test_sigterm_lets_a_running_call_finish() -> None:
    with serving() as (process, url), WseClient(url, timeout=seconds(10)) as client:
        client.connect("alice")
        answer = client.submit("sleep", {"seconds": 1})
        assert client.call("echo", 1) == 1  # the call before it has been taken
        process.send_signal(signal.SIGTERM)
        assert answer.result(seconds(10)) is None
        assert end(process)[0] == 0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_sigterm_ends_it_as_process_1() -> None:
    """A container's process 1 gets no default action for SIGTERM."""
    prefix = ("unshare", "--pid", "--fork", "--kill-child")
    if subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("PID namespaces are not allowed here")
    with serving(prefix=prefix) as (process, url):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        status = Path(f"/proc/{children[0]}/status").read_text()
        assert [line.split()[-1] for line in status.splitlines() if line.startswith("NSpid")] == [
            "1"
        ]
        with WseClient(url) as client:
            client.connect("alice")
            os.kill(int(children[0]), signal.SIGTERM)
            assert end(process)[0] == 0


def ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "name"), [("::", "[::1]"), ("0.0.0.0", "127.0.0.1"), ("", "localhost")]
)
def test_serve_prints_addresses_that_answer(host: str, name: str) -> None:
    if host == "::" and not ipv6():
        pytest.skip("this machine has no IPv6")
    with serving("--host", host) as (process, url):
        assert url.startswith(f"ws://{name}:")
        with WseClient(url) as client:
            client.connect("alice")
            assert client.call("echo", 1) == 1
        process.send_signal(signal.SIGINT)
        code, err = end(process)
        assert code == 130
        told = [line for line in err.splitlines() if "other computers connect to" in line]
    for line in told:  # none on a machine without a network
        address = line.rpartition("ws://")[2].rpartition(":")[0].strip("[]")
        assert not address.startswith(("127.", "0.")) and address not in ("::", "::1")


@pytest.mark.parametrize(
    ("commands", "code", "out"),
    [
        ("call echo 1\n", 0, "1\n"),
        ("call absent\ncall echo 2\n", 6, "2\n"),  # a script goes on; its first failure counts
        ("huh\ncall absent\nquit\n", 2, ""),
        ("call add [1]\n", 6, ""),
    ],
)
def test_a_shell_fed_by_a_pipe_tells_of_a_failed_command(
    commands: str, code: int, out: str
) -> None:
    with serving() as (_, url):
        done = subprocess.run(
            [*PROGRAM, "shell", url],
            input=commands,
            capture_output=True,
            text=True,
            env=environ(),
            timeout=seconds(20),
        )
    assert (done.returncode, done.stdout) == (code, out)
    assert "Traceback" not in done.stderr
