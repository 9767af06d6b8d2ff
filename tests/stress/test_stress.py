"""Random operations from random threads against a server that misbehaves at random.

``WSE_TEST_STRESS_SECONDS`` sets how long (the long run is 300), ``WSE_TEST_SEED`` repeats the
random choices of a failed run; how threads interleave it cannot repeat.
"""

import faulthandler
import os
import random
import struct
import sys
import threading
import time
import traceback
from collections import Counter

import pytest

from wse_tornado import Backoff, Limits, LoopThread, WaitTimeout, WseClient, WseError

from ..support import RawServer, seconds, wait_until
from ..support.leaks import library_threads, stacks
from ..support.peer import CLOSE, PING, TEXT, Closed

DURATION = float(os.environ.get("WSE_TEST_STRESS_SECONDS", "5"))
SEED = int(os.environ.get("WSE_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
THREADS, CLIENTS = 12, 4
CLOSE_TIMEOUT = 0.3


class BadServer:
    """Scripts for a `RawServer`: each connection behaves in its own way, drawn at random."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.over = threading.Event()

    def __call__(self, peer) -> None:
        peer.sock.settimeout(0.5)
        try:
            self._misbehave(peer, random.Random(self.dice.random()))
        except (Closed, OSError, AssertionError):
            pass

    def _misbehave(self, peer, dice) -> None:
        start = dice.random()
        if start < 0.05:
            return  # hangs up after the handshake
        if start < 0.1:
            self.over.wait(dice.random() * 2)  # silence
            return
        if start < 0.15:
            peer.close(1000, "wse.not-authorized")
            return
        peer.recv()
        if dice.random() < 0.2:
            time.sleep(dice.random() / 10)
        peer.send("~wse:welcome", {"hello": 1}, None)
        while not self.over.is_set():
            try:
                message = peer.recv_message()
            except TimeoutError:
                peer.send("tick", dice.random(), None)
                continue
            self._answer(peer, dice, *message)

    def _answer(self, peer, dice, type, payload, stamp) -> None:
        move = dice.random()
        if move < 0.005:
            peer.kill()
        elif move < 0.01:
            peer.close(dice.choice([1000, 1001, 1011, 1012, 1013, 4000]), "moody")
        elif move < 0.015:
            peer.send_text(dice.choice(["{", "null", "[]", '["~wse:hi",null,null]', '[1,2,"x"]']))
        elif move < 0.02:
            peer.sock.sendall(dice.choice([b"\xff\xff\xff", b"\x81", peer.frame(TEXT, b"\xff")]))
        elif move < 0.025:
            self.over.wait(dice.random())  # reads nothing for a while
        elif move < 0.05:
            for number in range(dice.randrange(50)):
                peer.send(dice.choice(["tick", "news", "odd"]), number, None)
        elif move < 0.1:
            peer.send(dice.choice(["work", "missing"]), payload, f"s{dice.random()}")
        elif move < 0.12:
            peer.send_frame(PING, b"hello")
        elif move < 0.125:
            peer.send_frame(CLOSE, struct.pack("!H", 1012))
        if not stamp:
            return
        if move < 0.2:
            peer.send("~wse:response", "of nobody", "stale")
        elif move < 0.3:
            peer.send("~wse:response-err", dice.choice([None, {}, {"code": "x"}, 7]), stamp)
        elif move < 0.95:
            peer.send("~wse:response", payload, stamp)


def operations(client, dice, urls):
    """Name, deadline in seconds, and the operation: one of each kind."""
    timeout = dice.choice([0.05, 0.2, 0.5, 1.0])
    payload = "x" * dice.choice([1, 10, 1000, 100_000])

    def submit():
        futures = [client.submit("echo", n, timeout=timeout) for n in range(5)]
        futures[0].cancel()
        for future in futures[1:]:
            future.result(timeout + 5)

    def listen():
        def handler(payload):
            time.sleep(0.001)

        client.channel.on("news", handler)
        client.channel.off("news", handler)

    def iterate():
        for _ in zip(range(3), client, strict=False):
            return

    return {
        "connect": (timeout, lambda: client.connect("a", timeout=timeout)),
        "jump": (timeout, lambda: client.jump(dice.choice(urls), timeout=timeout)),
        "call": (timeout, lambda: client.call("echo", payload, timeout=timeout)),
        "send": (timeout, lambda: client.send("text", payload, timeout=timeout)),
        "submit": (timeout, submit),
        "receive": (timeout, lambda: client.receive(timeout=timeout)),
        "wait_for": (timeout, lambda: client.wait_for("tick", timeout=timeout)),
        "wait_ready": (timeout, lambda: client.wait_ready(timeout=timeout)),
        "wait": (timeout, lambda: client.wait(timeout=timeout)),
        "listen": (0, listen),
        "repr": (0, lambda: (repr(client), client.status, client.latency)),
        "drop": (0, client.drop),
        "close": (CLOSE_TIMEOUT, client.close),
    }


WEIGHTS = {"connect": 6, "call": 12, "send": 8, "submit": 3, "close": 0.3, "drop": 0.3, "jump": 0.5}


class Run:
    """The threads of one run and what went wrong in them."""

    def __init__(self, clients, urls) -> None:
        self.clients = clients
        self.urls = urls
        self.ends = time.monotonic() + DURATION
        self.wrong = []
        self.done = Counter()
        self.now = {}

    def work(self, number: int) -> None:
        dice = random.Random(SEED * 1000 + number)
        while time.monotonic() < self.ends and not self.wrong:
            client = dice.choice(self.clients)
            moves = operations(client, dice, self.urls)
            (name,) = dice.choices(list(moves), [WEIGHTS.get(name, 1) for name in moves])
            deadline, move = moves[name]
            began = time.monotonic()
            self.now[number] = (name, began, deadline)
            outcome = "fine"
            try:
                move()
            except WseError as exc:
                outcome = type(exc).__name__
                if isinstance(exc, WaitTimeout) and name != "wait_ready":
                    self.wrong.append(f"{name} ended without a reason of its own: {exc}")
            except BaseException:
                self.wrong.append(f"{name} raised\n{traceback.format_exc()}")
            took = time.monotonic() - began
            if took > deadline + seconds(0.5):
                self.wrong.append(f"{name} took {took:.2f} s, its deadline was {deadline} s")
            self.done[f"{name}: {outcome}"] += 1
        del self.now[number]


@pytest.mark.long
@pytest.mark.timeout(60 + 2 * DURATION)
@pytest.mark.parametrize("private", [False, True], ids=["shared", "private"])
def test_random_operations_on_a_misbehaving_server_all_end_in_time(private, caplog):
    caplog.set_level("CRITICAL")
    bad = BadServer(SEED)
    limits = Limits(
        max_send_buffer=300_000,
        close_timeout=CLOSE_TIMEOUT,
        heartbeat=0.3,
        heartbeat_timeout=0.3,
        max_inbox=50,
        max_queue=20,
        max_workers=3,
    )
    with RawServer(bad) as one, RawServer(bad) as two:
        urls = [one.url, two.url]
        clients = [
            WseClient(
                urls[number % 2],
                reconnect=number % 2 == 0 and Backoff(initial=0.02, maximum=0.2),
                limits=limits,
                loop=LoopThread("wse-tornado-stress") if private else None,
            )
            for number in range(CLIENTS)
        ]
        for client in clients:
            client.channel.on("odd", lambda payload, client=client: nested(client))
            client.when.error(lambda error: None)
            client.register("work", lambda payload, client=client: nested(client))
        run = Run(clients, urls)
        threads = [
            threading.Thread(target=run.work, args=(number,), daemon=True)
            for number in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, run.ends - time.monotonic()) + seconds(10))
        if run.now:
            faulthandler.dump_traceback(sys.stdout)
        for client in clients:
            client.close()
        bad.over.set()
        assert not run.now, f"seed {SEED}: operations never ended: {run.now}"
        assert not run.wrong, f"seed {SEED}, {dict(run.done)}: " + "\n".join(run.wrong)
        assert sum(run.done.values()) > THREADS
        try:
            wait_until(lambda: not library_threads(), 5)
        except AssertionError:
            pytest.fail(f"seed {SEED}: threads were left\n" + stacks(library_threads()))


def nested(client):
    """A callback that waits in a call."""
    try:
        return client.call("echo", 1, timeout=0.2)
    except WseError:
        return None
