"""Every example runs as a reader runs it, and its transcript says what it promises."""

import importlib.util
import signal
import subprocess
import sys

import pytest

from ..support import ROOT, require, seconds
from ..support.process import environment, without_slowness

pytestmark = pytest.mark.once


EXAMPLES = ROOT / "examples"

# What the transcript must say, in any order: handlers of different connections run beside one
# another.
TELLING = {
    "quickstart.py": """
        bob: the server refused this identity
        server: alice joined, first device: phone
        server: alice has 2 devices
        server: alice on the phone says 'Hello, server!'
        phone: Hello, phone!
        server: the announcement went to 3 devices
        bob: Server is ready!
        laptop: 5 + 3 = 8
        laptop: no answer to the call of 'sleep' within 0.2 s
        laptop: the other end has no procedure named 'subtract'
        server: bob left (1000 wse.by-client)
    """,
    "tornado_app.py --demo": """
        page: <title>wse_tornado</title>
        client: the server refused this identity
        client: {'message': 'Welcome!'}
        client: {'message': 'Hello back!'}
        client: 5 + 3 = 8
        page: {"users": ["user-123"], "reached": 1}
    """,
    "authentication.py": """
        alice: {'hello': 'alice', 'from': '127.0.0.1'}
        server: alice joined, meta {'device': 'phone'}
        'guess': the server refused this identity
        {'user': 'alice'}: the server refused this identity
        carol: getting token-2
        carol: back after the server's restart
        bob: closed with 1000 account suspended
    """,
    "challenge_response.py": """
        -- written by hand
        alice: the quest is nonce, timestamp
        alice: Welcome, alice!
        mallory: the server refused this identity
        -- ready-made
        bob: in
        mallory: the server refused this identity
        forgetful: the server sets a challenge and this client has no solver; \
set one with client.challenge(fn)
    """,
    "custom_protocol.py": """
        -- example-json-objects
        one message: a str of 59
        5 + 3 = 8
        a client of the default protocol: the server does not speak 'wse-default-json'
        -- example-zlib
        5 + 3 = 8
        news of 10000 characters
        a client of the default protocol: the server does not speak 'wse-default-json'
    """,
    "error_handling.py": """
        RpcFailed: 'divide' failed at the other end: ZeroDivisionError: division by zero
        RpcFailed: shop.sold-out - back on Monday
        RpcNotRegistered: the other end has no procedure named 'subtract'
        RpcTimeout: no answer to the call of 'wait' within 0.2 s
        by its code: True
        by its builtin class: LookupError
        the client is READY
        closed: 1000 the shop closes
        NotAuthorized: the server refused this identity
    """,
    "broadcasting.py": """
        server: handed to 4 devices
        alice's laptop: Your report is ready
        server: devices of somebody who is away: 0
        bob: {'devices': 3}
        carol: {'from': 'bob', 'text': 'Good morning!'}
        carol: dave is not here
    """,
    "multi_device.py": """
        server: alice joined with a phone
        alice's devices: ['phone', 'laptop']
        server: reached 2 devices
        laptop: {'theme': 'dark'}
        server: the laptop's battery is at 80 %
        server: the phone of alice is gone (1000 wse.clients-concurrency)
        phone: wse.clients-concurrency True
        alice's devices: ['laptop', 'tablet']
        server: alice left
        server: users left: []
    """,
    "integration.py": """
        page: Hello, guest!
        unauthenticated: the server refused this identity
        page: Hello, alice!
        alice: Welcome, alice!
        robot: in the kitchen
        alice: {'of': 'robot in kitchen', 'degrees': 21.5}
        robot: {'devices': 1}
    """,
    "flask_app.py --demo": """
        page: <title>Flask and wse_tornado</title>
        unauthenticated: {}
        forger: the server refused this identity
        phone: Welcome, ann!
        page: {'ann': 1}
        page: {'devices': 1}
        phone: Dinner is ready
        page: {'phone': 80}
    """,
    "lab_monitor.py --demo": """
        intruder: the server refused this identity
        watch: 50 readings
        file: 50 rows
        file: none is missing: True
    """,
}

NEEDED = {"flask_app.py": "flask"}


def start(command: str, **options) -> subprocess.Popen[str]:
    name, *args = command.split()
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-X", "dev", "-u", str(EXAMPLES / name), *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        **options,
    )


def finish(process: subprocess.Popen[str]) -> list[str]:
    """Wait for its good end: code 0 and nothing on stderr. The lines it printed."""
    try:
        out, err = process.communicate(timeout=seconds(20))
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"it did not end:\n{out}\n{err}")
    assert without_slowness(err) == ""
    assert process.returncode == 0, out
    return out.splitlines()


@pytest.mark.parametrize("command", TELLING)
def test_it_runs_to_its_end_without_a_warning_and_tells(command):
    package = NEEDED.get(command.split()[0])
    require(not package or importlib.util.find_spec(package), f"{package}")
    lines = finish(start(command))
    missing = [line.strip() for line in TELLING[command].strip().splitlines()]
    for line in lines:
        if line in missing:
            missing.remove(line)
    assert not missing, "\n".join(lines)
    assert lines[-1] == "done"


def test_every_example_is_run_here():
    assert {command.split()[0] for command in TELLING} == {
        path.name for path in EXAMPLES.glob("*.py") if not path.name.startswith("test_")
    }


def test_the_tornado_app_serves_until_ctrl_c():
    process = start("tornado_app.py --port 0")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("server: http://localhost:")
    process.send_signal(signal.SIGINT)
    assert finish(process) == []


def test_one_command_publishes_and_another_draws(tmp_path):
    require(importlib.util.find_spec("matplotlib"), "matplotlib")
    publisher = start("lab_monitor.py publish --port 0 --period 0.01")
    try:
        assert publisher.stdout is not None
        url = publisher.stdout.readline().removeprefix("publish: ").strip()
        png, table = tmp_path / "readings.png", tmp_path / "readings.csv"
        # Other people's warnings, of fonts and caches, are not ours to judge.
        watcher = subprocess.run(
            [
                *(sys.executable, str(EXAMPLES / "lab_monitor.py"), "watch", url),
                *("--count", "20", "--csv", str(table), "--png", str(png)),
            ],
            capture_output=True,
            text=True,
            timeout=seconds(40),
            env=environment(),
        )
        assert watcher.returncode == 0, watcher.stderr
        assert png.read_bytes().startswith(b"\x89PNG")
        assert len(table.read_text("utf-8").splitlines()) == 21
    finally:
        publisher.send_signal(signal.SIGINT)
        finish(publisher)
