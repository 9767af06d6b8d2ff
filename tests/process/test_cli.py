"""The command line, run as processes: results, exit codes, Ctrl-C, and the shell on a terminal."""

import base64
import fcntl
import hashlib
import importlib.util
import json
import os
import pty
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from email.message import Message
from pathlib import Path

import pytest

import wse_tornado
from wse_tornado import HmacChallenge, WseClient, WseServer
from wse_tornado.cli import main

from ..support import ROOT, seconds
from ..support.process import environment, without_slowness

pytestmark = pytest.mark.once


DOC = ROOT / "docs" / "command-line.md"
PAGE = Path(wse_tornado.__file__).parent / "static" / "playground.html"
PROGRAM = [sys.executable, "-W", "error", "-m", "wse_tornado"]
# On the terminal given as standard input: the process gets it as its controlling terminal.
ON_TERMINAL = """\
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-W", "error", "-m", "wse_tornado", *sys.argv[1:]])
"""


def environ(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in environment().items() if not name.startswith("WSE_")}
    return {**kept, "TERM": "dumb", **changes}


def start(*args: str, **options) -> subprocess.Popen[str]:
    """A command in a session of its own, so that it finds no terminal to ask at."""
    return subprocess.Popen(
        [*PROGRAM, *args],
        stdin=options.pop("stdin", subprocess.DEVNULL),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ(**options.pop("env", {"WSE_IDENTITY": "alice"})),
        start_new_session=True,
        **options,
    )


def finish(process: subprocess.Popen[str], stdin: str | None = None) -> tuple[int, str, str]:
    """Its exit code, output and errors, within a hard limit."""
    try:
        out, err = process.communicate(stdin, timeout=seconds(20))
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"it did not end:\n{out}\n{err}")
    assert "Traceback" not in err, err
    return process.returncode, out, err


def interrupt(process: subprocess.Popen[str]) -> None:
    """Ctrl-C until it ends: a signal just before Python waits for input is seen with the next."""
    for _ in range(10):
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds(2))
            return


def run(*args: str, **options) -> tuple[int, str, str]:
    return finish(start(*args, **options))


class Playground:
    """A server in this process, and what it saw."""

    def __init__(self, server: WseServer) -> None:
        self.server = server
        self.connected = threading.Event()
        self.called = threading.Event()
        self.release = threading.Event()
        self.got: list[object] = []
        self.heard = threading.Event()
        self.metas: list[object] = []
        server.register("add", lambda conn, payload: payload["a"] + payload["b"])
        server.register("wait", self.wait)
        server.register("echo", lambda conn, payload: payload)
        server.register("fall", lambda conn, payload: conn.drop("fallen"))
        server.register("news", lambda conn, payload: conn.send("news", payload))
        server.channel.on("note", self.note)
        server.when.connected(self.on_connected)

    @property
    def url(self) -> str:
        return self.server.url

    def on_connected(self, conn) -> None:
        self.metas.append(conn.meta)
        self.connected.set()

    def wait(self, conn, payload) -> None:
        self.called.set()
        self.release.wait(seconds(20))

    def note(self, conn, payload) -> None:
        self.got.append(payload)
        self.heard.set()


def identify(auth) -> None:
    if auth.identity in ("alice", "s3cret-id"):
        auth.accept("alice")
    else:
        auth.refuse()


@pytest.fixture
def playground() -> Iterator[Playground]:
    made = Playground(WseServer(host="127.0.0.1", identify=identify, conn_per_user=5))
    with made.server:
        yield made
        made.release.set()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


# -- results and exit codes


def test_call_prints_the_result_and_ends_with_0(playground: Playground) -> None:
    assert run("call", playground.url, "add", '{"a":5,"b":3}') == (0, "8\n", "")


def test_call_prints_json_that_no_terminal_takes_for_commands(playground: Playground) -> None:
    payload = {"text": "é", "bad": "\x1b[2J\x9b2J\u2028\ud800"}
    env = {"WSE_IDENTITY": "alice", "PYTHONIOENCODING": "utf-8"}
    process = start("call", playground.url, "echo", "-", stdin=subprocess.PIPE, env=env)
    code, out, _ = finish(process, json.dumps(payload))
    assert code == 0
    assert json.loads(out) == payload
    assert '"é"' in out
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", out)


def test_send_delivers_and_ends_with_0(playground: Playground) -> None:
    assert run("send", playground.url, "note", '{"text":"hi"}') == (0, "", "")
    assert playground.heard.wait(seconds(5))
    assert playground.got == [{"text": "hi"}]


def test_meta_reaches_the_server(playground: Playground) -> None:
    assert run("call", playground.url, "echo", "--meta", '{"device":"cron"}')[0] == 0
    assert playground.metas == [{"device": "cron"}]


def test_listen_prints_json_lines_of_the_wanted_types_and_ends_after_count(
    playground: Playground,
) -> None:
    process = start("listen", playground.url, "--type", "a", "--type", "b", "--count", "2")
    assert playground.connected.wait(seconds(20))
    for type, payload in [("x", 0), ("a", 1), ("x", 0), ("b", {"n": 2}), ("a", 3)]:
        playground.server.broadcast(type, payload)
    code, out, err = finish(process)
    assert (code, err) == (0, "")
    assert [json.loads(line) for line in out.splitlines()] == [
        {"type": "a", "payload": 1},
        {"type": "b", "payload": {"n": 2}},
    ]


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["call"],
        ["call", "ws://127.0.0.1:1"],
        ["call", "http://127.0.0.1:1", "add"],
        ["call", "ws://127.0.0.1:1", "add", "{"],
        ["call", "ws://127.0.0.1:1", "add", "NaN"],
        ["call", "ws://127.0.0.1:1", "add", "--meta", "[]"],
        ["call", "ws://127.0.0.1:1", "add", "--timeout", "0"],
        ["call", "ws://127.0.0.1:1", ""],
        ["send", "ws://127.0.0.1:1", "~wse:hi"],
        ["listen", "ws://127.0.0.1:1", "--count", "0"],
        ["serve", "--port", "65536"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2_before_anything_is_tried(
    args: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WSE_IDENTITY", "alice")
    with pytest.raises(SystemExit) as ended:  # a process of its own would take longer
        main(args)
    assert ended.value.code == 2
    assert capsys.readouterr().out == ""


def test_a_string_without_its_quotes_is_told_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["send", "ws://127.0.0.1:1", "chat", "hi", "--identity", "alice"])
    assert "'\"hi\"'" in capsys.readouterr().err


def test_without_an_identity_or_a_terminal_it_is_wrong_usage() -> None:
    code, _, err = run("call", "ws://127.0.0.1:1", "add", env={})
    assert code == 2
    assert err.startswith("usage: wse-tornado call")
    assert "WSE_IDENTITY" in err


def test_refused_ends_with_3(playground: Playground) -> None:
    code, out, err = run("call", playground.url, "add", "--identity", "mallory-id")
    assert (code, out) == (3, "")
    assert without_slowness(err) == "wse-tornado: the server refused this identity\n"


def test_unreachable_ends_with_4() -> None:
    code, out, err = run("call", f"ws://127.0.0.1:{closed_port()}", "add")
    assert (code, out) == (4, "")
    assert "cannot reach" in err


def test_a_server_that_never_answers_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"ws://127.0.0.1:{silent.getsockname()[1]}"
        assert run("call", url, "add", "--timeout", "0.3")[:2] == (4, "")


def test_reconnect_waits_for_a_server_to_come(playground: Playground) -> None:
    port = playground.server.port
    assert port is not None
    playground.server.stop()
    process = start("call", f"ws://127.0.0.1:{port}", "echo", "1", "--reconnect")
    later = WseServer(port, host="127.0.0.1", identify=identify)
    later.register("echo", lambda conn, payload: payload)
    with later:
        code, out, _ = finish(process)
    assert (code, out) == (0, "1\n")


def test_no_answer_in_time_ends_with_5(playground: Playground) -> None:
    # Long enough to connect on a slow machine; the answer never comes.
    code, out, err = run("call", playground.url, "wait", "--timeout", str(seconds(1)))
    assert (code, out) == (5, "")
    assert "no answer" in err


def test_no_message_in_time_ends_with_5(playground: Playground) -> None:
    code, out, err = run("listen", playground.url, "--timeout", str(seconds(1)))
    assert (code, out) == (5, "")
    assert "no message came within" in err


def test_messages_of_other_types_do_not_count_as_news(playground: Playground) -> None:
    process = start("listen", playground.url, "--type", "a", "--timeout", str(seconds(1)))
    assert playground.connected.wait(seconds(20))
    while process.poll() is None:
        playground.server.broadcast("x")
        select.select([], [], [], 0.01)
    assert finish(process)[0] == 5


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("absent", ["no procedure named 'absent'", "wse.server.rp.not-registered"]),
        ("add", ["'add' failed at the other end", "wse.server.rp.failed", '"name": "TypeError"']),
    ],
)
def test_remote_error_ends_with_6(playground: Playground, name: str, told: list[str]) -> None:
    playground.server.when.error(lambda error, conn: None)
    code, out, err = run("call", playground.url, name, "[]")
    assert (code, out) == (6, "")
    for part in told:
        assert part in err


def test_connection_lost_in_a_call_ends_with_7(playground: Playground) -> None:
    process = start("call", playground.url, "wait")
    assert playground.called.wait(seconds(20))
    playground.server.drop_client("alice", "out you go")
    code, out, err = finish(process)
    assert (code, out) == (7, "")
    assert "1000 out you go" in err


def test_connection_lost_while_listening_ends_with_7(playground: Playground) -> None:
    process = start("listen", playground.url)
    assert playground.connected.wait(seconds(20))
    playground.server.broadcast("last", 1)
    playground.server.drop_client("alice", "out you go")
    code, out, err = finish(process)
    assert (code, out) == (7, '{"type": "last", "payload": 1}\n')
    assert "1000 out you go" in err


@pytest.mark.parametrize("args", [["call", "URL", "wait"], ["listen", "URL"], ["shell", "URL"]])
def test_ctrl_c_ends_with_130_and_no_traceback(playground: Playground, args: list[str]) -> None:
    process = start(
        *[playground.url if arg == "URL" else arg for arg in args], stdin=subprocess.PIPE
    )
    event = playground.called if "wait" in args else playground.connected
    assert event.wait(seconds(20))
    interrupt(process)
    assert finish(process) == (130, "", "")


def test_ctrl_c_while_connecting_ends_with_130() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = start("listen", f"ws://127.0.0.1:{silent.getsockname()[1]}")
        silent.settimeout(seconds(20))
        peer, _ = silent.accept()
        process.send_signal(signal.SIGINT)
        assert finish(process) == (130, "", "")
        peer.close()


def test_a_reader_that_has_gone_ends_it_with_141(playground: Playground) -> None:
    process = start("listen", playground.url)
    assert playground.connected.wait(seconds(20))
    assert process.stdout is not None
    playground.server.broadcast("a", 1)
    assert process.stdout.readline()
    process.stdout.close()
    playground.server.broadcast("a", 2)
    assert process.wait(seconds(20)) == 141
    assert process.stderr is not None
    assert without_slowness(process.stderr.read()) == ""
    process.stderr.close()


def test_help_tells_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ([], ["call"], ["serve"], ["listen"], ["send"], ["shell"]):
        with pytest.raises(SystemExit) as ended:
            main([*command, "--help"])
        assert ended.value.code == 0
        out = capsys.readouterr().out
        for exit_code in (0, 1, 2, 3, 4, 5, 6, 7, 130, 141):
            assert re.search(rf"^  {exit_code} +\w", out, re.MULTILINE), exit_code


# -- credentials


@pytest.fixture
def challenging(playground: Playground) -> Playground:
    playground.server.use_challenge(HmacChallenge(lambda identity: "s3cret"))
    return playground


def test_the_secret_from_the_environment_answers_the_challenge(challenging: Playground) -> None:
    env = {"WSE_IDENTITY": "alice", "WSE_SECRET": "s3cret"}
    assert run("call", challenging.url, "echo", "1", env=env) == (0, "1\n", "")


def test_a_wrong_or_missing_secret_is_refused_and_not_shown(challenging: Playground) -> None:
    code, _, err = run("call", challenging.url, "echo", "--secret", "wr0ng")
    assert code == 3
    assert "wr0ng" not in err
    code, _, err = run("call", challenging.url, "echo")
    assert code == 3
    assert "WSE_SECRET" in err


# -- serve


@contextmanager
def served(*args: str, **env: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = start("serve", "--port", "0", *args, env=env)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        url = process.stdout.readline().strip()
        page = url.replace("ws://", "http://")
        assert (
            process.stderr.readline() == f"wse-tornado: open {page}/ in a browser; Ctrl-C ends it\n"
        )
        yield process, url
    finally:
        process.send_signal(signal.SIGINT)
        assert finish(process) == (130, "", "")


def test_serve_tells_its_url_and_lets_everybody_play_until_ctrl_c() -> None:
    with served() as (_, url):
        assert re.fullmatch(r"ws://localhost:\d+", url)
        assert run("call", url, "add", '{"a":5,"b":3}') == (0, "8\n", "")
        assert run("call", url, "whoami")[1] == '{"user": "alice", "meta": {}, "devices": 1}\n'
        assert run("call", url, "add", '{"a":5}')[0] == 6
        assert run("call", url, "sleep", '{"seconds":60}', "--timeout", "1")[0] == 5
        assert run("call", url, "add", "--identity", "")[0] == 3


def test_serve_relays_the_chat() -> None:
    with served() as (_, url):
        listener = start("listen", url, "--type", "chat", "--count", "1", "--reconnect")
        # The server tells when the listener is in.
        while (
            "bob" not in run("call", url, "users", "--identity", "bob")[1]
            or '"alice"' not in (run("call", url, "users", "--identity", "bob")[1])
        ):
            assert listener.poll() is None
        assert run("send", url, "chat", '{"text":"hi"}', "--identity", "bob")[0] == 0
        code, out, _ = finish(listener)
        assert code == 0
        assert json.loads(out) == {"type": "chat", "payload": {"text": "hi", "from": "bob"}}


def test_serve_with_a_key_and_a_secret_lets_in_who_has_both() -> None:
    with served("--key", "k3y", WSE_SECRET="s3cret") as (_, url):
        good = {"WSE_IDENTITY": "k3y", "WSE_SECRET": "s3cret"}
        code, out, _ = run("call", url, "whoami", "--meta", '{"user":"bob"}', env=good)
        assert (code, json.loads(out)["user"]) == (0, "bob")
        assert run("call", url, "whoami", env={**good, "WSE_SECRET": "other"})[0] == 3
        assert run("call", url, "whoami", env={**good, "WSE_IDENTITY": "other"})[0] == 3


def fetch(url: str, path: str) -> tuple[Message, str]:
    with urllib.request.urlopen(url.replace("ws://", "http://") + path, timeout=seconds(10)) as got:
        return got.headers, got.read().decode()


def test_serve_has_a_page_and_the_script_that_it_imports() -> None:
    with served() as (_, url):
        headers, page = fetch(url, "/")
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert page == PAGE.read_text("utf-8").replace('data-asks="key secret"', 'data-asks=""')
        assert 'from "./wse.js"' in page
        assert "export class WseClient" in fetch(url, "/wse.js")[1]
        assert run("call", url, "echo", "1") == (0, "1\n", "")
    with served("--key", "k3y", WSE_SECRET="s3cret") as (_, url):
        page = fetch(url, "/")[1]
        assert 'data-asks="key secret"' in page
        assert "k3y" not in page
        assert "s3cret" not in page


def test_nothing_runs_in_the_page_but_what_the_file_has() -> None:
    with served() as (_, url):
        headers, page = fetch(url, "/")
    policy = headers["Content-Security-Policy"]
    for tag in ("script", "style"):
        (part,) = re.findall(rf"<{tag}.*?>(.*?)</{tag}>", page, re.S)
        digest = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        assert re.search(rf"{tag}-src ('self' )?'sha256-{re.escape(digest)}';", policy)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write", page)


def test_serve_tells_who_is_there_to_those_who_watch() -> None:
    with served() as (_, url), WseClient(url) as alice, WseClient(url) as bob:
        alice.connect("alice")
        alice.send("watch")
        assert alice.wait_for("users", timeout=seconds(5)) == ["alice"]
        bob.connect("bob")
        assert alice.wait_for("users", timeout=seconds(5)) == ["alice", "bob"]
        bob.close()
        assert alice.wait_for("users", timeout=seconds(5)) == ["alice"]


def test_serve_on_a_taken_port_ends_with_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        code, out, err = run("serve", "--host", "127.0.0.1", "--port", port)
    assert (code, out) == (1, "")
    assert err.startswith("wse-tornado: cannot listen on port")
    assert "--port 0" in err


# -- on a terminal


class Terminal:
    """A command on a pseudo-terminal."""

    def __init__(self, *args: str, **env: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, b"\x28\x00\xa0\x00\x00\x00\x00\x00")
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_TERMINAL, *args],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environ(**env),
            start_new_session=True,
        )
        os.close(slave)
        self.output = ""
        self._read_to = 0

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C at the prompt, until there is a new one: a signal that comes just before Python
        waits for a key is only seen with the next key."""
        for _ in range(20):
            self.type("\x03")
            deadline = time.monotonic() + 1
            while (left := deadline - time.monotonic()) > 0:
                self._read(left)
                if "wse> " in self.output[self._read_to :]:
                    self.expect("wse> ")
                    return
        pytest.fail("Ctrl-C gave no new prompt")

    def expect(self, text: str, within: float = 20) -> str:
        """Read until ``text`` comes, after what was expected before. What came up to it."""
        deadline = time.monotonic() + seconds(within)
        while (found := self.output.find(text, self._read_to)) < 0:
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                pytest.fail(f"{text!r} did not come:\n{self.output[self._read_to :]}")
        came = self.output[self._read_to : found + len(text)]
        self._read_to = found + len(text)
        return came

    def _read(self, within: float) -> bool:
        if not select.select([self.master], [], [], within)[0]:
            return False
        try:
            chunk = os.read(self.master, 65536)
        except OSError:  # the other end is closed
            return False
        self.output += chunk.decode("utf-8", "replace")
        return bool(chunk)

    def finish(self) -> int:
        deadline = time.monotonic() + seconds(20)
        while self._read(max(0, deadline - time.monotonic())):
            pass
        code = self.process.wait(seconds(5))
        assert "Traceback" not in self.output
        return code

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)


def test_identity_and_secret_are_asked_for_without_an_echo(challenging: Playground) -> None:
    with Terminal("call", challenging.url, "add", '{"a":5,"b":3}') as terminal:
        terminal.expect("Identity: ")
        terminal.type("s3cret-id\n")
        terminal.expect("Secret: ")
        terminal.type("s3cret\n")
        terminal.expect("8")
        assert terminal.finish() == 0
        assert "s3cret" not in terminal.output


def test_ctrl_c_at_the_question_ends_with_130(playground: Playground) -> None:
    with Terminal("call", playground.url, "add") as terminal:
        terminal.expect("Identity: ")
        terminal.type("\x03")
        assert terminal.finish() == 130


def test_the_shell_calls_sends_and_shows_messages(playground: Playground, tmp_path: Path) -> None:
    history = tmp_path / "history"
    args = ["shell", playground.url, "--history", str(history)]
    with Terminal(*args, WSE_IDENTITY="alice") as terminal:
        terminal.expect("wse> ")
        terminal.type('call add {"a":5,"b":3}\n')
        terminal.expect("\n8")
        terminal.expect("wse> ")
        terminal.type("call absent\n")
        terminal.expect("no procedure named 'absent'")
        terminal.expect("wse> ")
        terminal.type("call add {\n")
        terminal.expect("not JSON")
        terminal.expect("wse> ")
        terminal.type('send note {"text":"hi"}\n')
        assert playground.heard.wait(seconds(5))
        terminal.expect("wse> ")
        terminal.type("call ec")
        terminal.expect("call ec")
        playground.server.broadcast("news", {"n": 1})
        terminal.expect('< news {"n": 1}')
        terminal.expect("wse> call ec")  # what was being typed shows again
        long = json.dumps({"key": "x" * 80})
        terminal.type(f"ho {long}\n")
        terminal.expect('{\r\n  "key": "xxx')
        terminal.expect("wse> ")
        terminal.type("\x04")
        assert terminal.finish() == 0
    assert playground.got == [{"text": "hi"}]
    if importlib.util.find_spec("readline"):
        assert 'call add {"a":5,"b":3}' in history.read_text()
        assert history.stat().st_mode & 0o077 == 0


def test_the_shell_completes_procedures_seen_here_and_in_the_history(
    playground: Playground, tmp_path: Path
) -> None:
    pytest.importorskip("readline")
    history = tmp_path / "history"
    args = ["shell", playground.url, "--history", str(history)]
    with Terminal(*args, WSE_IDENTITY="alice") as terminal:
        terminal.expect("wse> ")
        terminal.type("call echo 1\n")
        terminal.expect("\n1")
        terminal.expect("wse> ")
        terminal.type("ca\tec\t22\n")
        terminal.expect("\n22")
        terminal.expect("wse> ")
        terminal.type("\x04")
        assert terminal.finish() == 0
    with Terminal(*args, WSE_IDENTITY="alice") as terminal:
        terminal.expect("wse> ")
        terminal.type("call e\t333\n")
        terminal.expect("\n333")
        terminal.expect("wse> ")
        terminal.type("\x1b[A\n")  # the arrow up
        terminal.expect("\n333")
        terminal.expect("wse> ")
        terminal.type("quit\n")
        assert terminal.finish() == 0


def test_ctrl_c_in_the_shell_gives_up_the_call_and_stays(
    playground: Playground, tmp_path: Path
) -> None:
    with Terminal("shell", playground.url, "--history", "", WSE_IDENTITY="alice") as terminal:
        terminal.expect("wse> ")
        terminal.type("call wait\n")
        assert playground.called.wait(seconds(20))
        terminal.type("\x03")
        terminal.expect("wse> ")
        terminal.type("call echo 7")
        terminal.expect("call echo 7")
        terminal.interrupt()
        terminal.type("call echo 8\n")
        terminal.expect("\n8")
        terminal.expect("wse> ")
        terminal.type("\x04")
        assert terminal.finish() == 0


def test_the_shell_ends_with_7_when_the_connection_is_lost(playground: Playground) -> None:
    with Terminal("shell", playground.url, "--history", "", WSE_IDENTITY="alice") as terminal:
        terminal.expect("wse> ")
        playground.server.drop_client("alice", "out you go")
        terminal.expect("the connection is over")
        terminal.type("call echo 1\n")
        assert terminal.finish() == 7


def test_the_shell_reads_commands_from_a_pipe(playground: Playground) -> None:
    process = start("shell", playground.url, stdin=subprocess.PIPE)
    code, out, err = finish(process, 'call add {"a":5,"b":3}\nhuh\nhelp\nquit\n')
    assert code == 2
    assert out.startswith("8\ncall NAME")
    assert "no command 'huh'" in err


# -- docs/command-line.md


@contextmanager
def talking(url: str) -> Iterator[None]:
    """Bob, who says the same thing over and over."""
    enough = threading.Event()
    with WseClient(url) as bob:
        bob.connect("bob")

        def talk() -> None:
            while not enough.wait(0.1):
                bob.send("chat", {"text": "hi"})

        talker = threading.Thread(target=talk)
        talker.start()
        try:
            yield
        finally:
            enough.set()
            talker.join()


def test_every_block_of_the_documentation_runs_as_shown() -> None:
    blocks = re.findall(r"^```console\n(.*?)^```$", DOC.read_text("utf-8"), re.M | re.S)
    assert len(blocks) >= 4
    opening, *others = blocks
    command, told, page = opening.splitlines()
    assert command == "$ wse-tornado serve"
    assert page == f"wse-tornado: open {told.replace('ws', 'http')}/ in a browser; Ctrl-C ends it"
    with served() as (_, url):
        port = url.rpartition(":")[2]
        assert url == told.replace("4200", port)
        for block in others:
            lines = block.replace("4200", port).splitlines()
            commands = [line[2:] for line in lines if line.startswith("$ ")]
            program = f'wse-tornado() {{ {shlex.join(PROGRAM)} "$@"; }}\n' + "\n".join(commands)
            typed = [line[5:] for line in lines if line.startswith("wse> ")]
            shown = [line for line in lines if not line.startswith(("$ ", "wse> "))]
            with talking(url) if "wse-tornado listen" in block else nullcontext():
                result = subprocess.run(
                    ["bash", "-c", program],
                    input="".join(f"{line}\n" for line in typed),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    env=environ(),
                    timeout=seconds(40),
                    start_new_session=True,
                )
            assert result.stdout.splitlines() == shown, block
    every = re.findall(r"^```(\w*)$", DOC.read_text("utf-8"), re.M)
    assert set(every) <= {"console", ""}
