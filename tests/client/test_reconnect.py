"""Coming back: a server process killed and restarted, and what a client does meanwhile."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from wse_tornado import (
    AlreadyConnected,
    ConnectionFailed,
    ConnectionNotReady,
    ConnectTimeout,
    NotAuthorized,
    RpcDisconnected,
    RpcTimeout,
    Status,
    WaitTimeout,
    WseClient,
)

from ..support import (
    NEVER,
    QUICK,
    RawPeer,
    RawServer,
    beside,
    let_in,
    outcome,
    seconds,
    use,
    wait_until,
)
from ..support.process import environment

RESTARTS = 10

SERVER = """
import os, sys
from wse_tornado import WseServer

def identify(auth):
    auth.accept(auth.identity, os.getpid())

def ask_back(conn, payload):
    return conn.call("double", payload)

port = int(sys.stdin.readline())
server = WseServer(port, identify=identify, host="127.0.0.1")
server.register("pid", lambda conn, payload: [os.getpid(), payload])
server.register("ask_back", ask_back)
server.channel.on("note", lambda conn, payload: conn.send("noted", payload))
with server:
    print(server.port, flush=True)
    sys.stdin.readline()
"""


class Process:
    """A server in a process of its own; it listens when it is told to."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        self.pid = self._process.pid

    def listen(self, port: int) -> int:
        """Open the port."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{port}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


@contextmanager
def processes() -> Iterator[list[Process]]:
    """Server processes, the next one always waiting; all dead at the end."""
    made = [Process()]
    try:
        yield made
    finally:
        for process in made:
            process.kill()


def test_a_blocking_script_survives_ten_deaths_of_its_server() -> None:
    documented = (ConnectionNotReady, RpcDisconnected, RpcTimeout, WaitTimeout)
    seen: list[BaseException] = []
    answered: set[int] = set()
    noted: list[Any] = []
    over = threading.Event()

    def script(client: WseClient) -> int:
        """Send and call, whatever happens; how often it worked."""
        done = 0
        while not over.is_set():
            try:
                client.send("note", done)
                pid, payload = client.call("pid", done, timeout=seconds(5))
                assert payload == done  # each result with its own call
                assert client.call("ask_back", done, timeout=seconds(5)) == 2 * done
                answered.add(pid)
                done += 1
            except documented as exc:
                seen.append(exc)
                client.wait_ready(timeout=seconds(20))
        return done

    with processes() as servers:
        port = servers[0].listen(0)
        with WseClient(f"ws://127.0.0.1:{port}", reconnect=QUICK) as client:
            client.register("double", lambda payload: payload * 2)
            client.channel.on("noted", noted.append)
            welcomes: list[int] = []
            client.when.ready(welcomes.append)
            assert client.connect("ann") == servers[0].pid
            running = beside(script, client)
            for _ in range(RESTARTS):
                current = servers[-1]
                servers.append(Process())
                wait_until(lambda pid=current.pid: pid in answered or running.done(), 20)
                noted.clear()
                current.kill()
                servers[-1].listen(port)
                client.wait_ready(timeout=seconds(20))
                pid = servers[-1].pid
                wait_until(lambda pid=pid: pid in welcomes, 20)
                assert client.status is Status.READY
                wait_until(lambda pid=pid: pid in answered or running.done(), 20)
                wait_until(lambda: noted)
            over.set()
            assert outcome(running, 20) > RESTARTS
            assert len(seen) >= 1
            assert welcomes == [server.pid for server in servers]
        assert client.status is Status.OFFLINE


def test_identity_meta_and_url_are_asked_again(flavour: str) -> None:
    said: list[Any] = []

    def script(peer: RawPeer) -> None:
        said.append(let_in(peer, len(said)))
        if len(said) < 3:
            peer.kill()
        else:
            peer.wait_closed()

    asked = {"url": 0, "identity": 0, "meta": 0}

    def count(what: str) -> int:
        asked[what] += 1
        return asked[what]

    with RawServer(script) as server:

        def url() -> str:
            count("url")
            return server.url

        async def identity() -> str:
            return f"token {count('identity')}"

        with use(flavour, url, reconnect=QUICK) as used:
            used.connect(identity, lambda: {"try": count("meta")})
            used.happened("ready", 2)
        assert said == [{"identity": f"token {n}", "meta": {"try": n}} for n in (1, 2, 3)]
        assert asked["url"] == 3


def test_handlers_and_procedures_stay_registered(flavour: str) -> None:
    answers: list[Any] = []

    def script(peer: RawPeer) -> None:
        let_in(peer)
        peer.send("double", 4, "s1")
        answers.append(peer.recv())
        peer.send("mark", len(server.peers), None)
        if len(server.peers) < 3:
            peer.close(1012, "restart")
        else:
            peer.wait_closed()

    heard: list[Any] = []
    with RawServer(script) as server, use(flavour, server.url, reconnect=QUICK) as used:
        used.client.register("double", lambda payload: payload * 2)
        used.client.channel.on("mark", heard.append)
        used.connect("ann")
        wait_until(lambda: heard == [1, 2, 3])
        assert answers == ['["~wse:response",8,"s1"]'] * 3
        again = ["RE_CONNECTING", "READY"]
        assert used.statuses() == ["IDLE", "CONNECTING", "READY", *again, *again]


def test_a_refusal_on_coming_back_is_final_and_raised_to_who_waits(flavour: str) -> None:
    waiting = threading.Event()

    def script(peer: RawPeer) -> None:
        if len(server.peers) == 1:
            let_in(peer)
            assert waiting.wait(seconds(10))
            peer.kill()
        else:
            peer.recv()
            peer.close(1000, "wse.not-authorized")

    with RawServer(script) as server, use(flavour, server.url, reconnect=QUICK) as used:
        used.connect("ann")
        client = used.client
        limit = seconds(10)
        waits = [
            beside(used.do, client.receive, timeout=limit),
            beside(used.do, client.wait_for, "never", timeout=limit),
            beside(used.do, client.wait, timeout=limit),
        ]
        # They wait before the connection goes: a wait that came later gets the same error.
        waiting.set()
        for wait in waits:
            with pytest.raises(NotAuthorized):
                outcome(wait)
        with pytest.raises(NotAuthorized):
            used.do(client.wait_ready, timeout=limit)
        with pytest.raises(NotAuthorized):
            used.do(client.receive, timeout=limit)
        assert str(client.status) == "OFFLINE"
        assert ("error", "wse.not-authorized") in used.events
        assert len(server.peers) == 2
        with pytest.raises(ConnectionNotReady):
            used.send("more")


def test_close_during_backoff_stops_it(flavour: str) -> None:
    def script(peer: RawPeer) -> None:
        let_in(peer)
        peer.kill()

    with RawServer(script) as server, use(flavour, server.url, reconnect=NEVER) as used:
        used.connect("ann")
        used.has_status("RE_CONNECTING")
        ready = beside(used.do, used.client.wait_ready, timeout=seconds(20))
        message = beside(used.do, used.client.receive, timeout=seconds(20))
        used.close()
        for wait in (ready, message):
            with pytest.raises(ConnectionNotReady):
                outcome(wait)
        assert str(used.client.status) == "OFFLINE"
        wait_until(lambda: used.statuses()[-2:] == ["RE_CONNECTING", "OFFLINE"])
        assert len(server.peers) == 1
        used.connect("ann")  # and it may connect again


def test_nothing_is_sent_again_after_coming_back(flavour: str) -> None:
    heard: list[Any] = []

    def script(peer: RawPeer) -> None:
        let_in(peer)
        if len(server.peers) == 1:
            peer.recv()  # the call
            peer.kill()
            return
        heard.append(peer.recv_message())
        peer.wait_closed()

    with RawServer(script) as server, use(flavour, server.url, reconnect=QUICK) as used:
        used.connect("ann")
        with pytest.raises(RpcDisconnected) as caught:
            used.call("once", 1)
        assert caught.value.sent
        used.do(used.client.wait_ready, timeout=seconds(10))
        used.send("first", "of the new connection")
        wait_until(lambda: heard)
        assert heard == [["first", "of the new connection", None]]


def test_sending_meanwhile_is_an_error_not_a_queue(flavour: str) -> None:
    def script(peer: RawPeer) -> None:
        let_in(peer)
        peer.kill()

    with RawServer(script) as server, use(flavour, server.url, reconnect=NEVER) as used:
        used.connect("ann")
        used.has_status("RE_CONNECTING")
        with pytest.raises(ConnectionNotReady):
            used.send("more")
        with pytest.raises(ConnectionNotReady, match=r"RE_CONNECTING; wait_ready\(\) waits"):
            used.call("more")
        with pytest.raises(AlreadyConnected):
            used.connect("ann")
        with pytest.raises(WaitTimeout):
            used.do(used.client.wait_ready, timeout=0.02)


def test_without_reconnect_a_loss_is_final(flavour: str) -> None:
    def script(peer: RawPeer) -> None:
        let_in(peer)
        peer.kill()

    with RawServer(script) as server, use(flavour, server.url) as used:
        used.connect("ann")
        assert used.do(used.client.wait, timeout=seconds(10)) is True
        wait_until(lambda: used.statuses() == ["IDLE", "CONNECTING", "READY", "OFFLINE"])
        assert len(server.peers) == 1


def test_failed_attempts_are_told_and_connect_tries_until_its_time_is_over(flavour: str) -> None:
    with RawServer(lambda peer: None) as gone:
        url = gone.url
    with use(flavour, url, reconnect=QUICK) as used:
        with pytest.raises((ConnectionFailed, ConnectTimeout)):  # the last try may be cut short
            used.connect("ann", timeout=0.3)
        used.has_status("OFFLINE")

    def script(peer: RawPeer) -> None:
        let_in(peer)
        gone.wait(seconds(10))
        peer.kill()

    gone = threading.Event()
    with RawServer(script) as server, use(flavour, server.url, reconnect=QUICK) as used:
        used.connect("ann")
        server.refuse()
        gone.set()
        used.happened("error", "wse.client.ws-error")
        used.has_status("RE_CONNECTING")
