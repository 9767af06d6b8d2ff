"""Ctrl-C and signal handlers at any moment: what they leave behind."""

import threading

import pytest

from wse_tornado import Limits, LoopThread, SendTimeout, WseClient

from ..support import seconds, serve, wait_until
from ..support.interrupts import interrupted_at
from ..support.process import run_script

ENOUGH = 100_000  # opcodes: more than any of these functions has


def every_opcode(do, check, *, step=1):
    """Interrupt ``do`` at each opcode in turn, until it comes through; ``check`` after each."""
    for number in range(1, ENOUGH, step):
        interrupted, result = interrupted_at(number, do)
        check(interrupted, result)
        if not interrupted:
            return
    raise AssertionError("it never came through")


@pytest.mark.timeout(120)
def test_a_connect_that_is_interrupted_anywhere_leaves_one_loop_and_a_client_that_works():
    with serve("blocking") as served, LoopThread("wse-tornado-own") as loop:
        served.server.register("add", lambda conn, payload: payload + 1)
        client = WseClient(served.url, loop=loop)

        def check(interrupted, result):
            client.close()
            client.connect("ann")
            assert client.call("add", 1) == 2
            client.close()

        every_opcode(lambda: client.connect("ann"), check, step=7)
        client.close()


@pytest.mark.timeout(120)
def test_a_close_that_is_interrupted_anywhere_can_be_repeated():
    with serve("blocking") as served:
        client = WseClient(served.url)

        def close_connected():
            client.close()

        def check(interrupted, result):
            client.close()
            wait_until(lambda: not threads_named("wse-tornado-loop", but=served))
            client.connect("ann")

        client.connect("ann")
        every_opcode(close_connected, check, step=5)
        client.close()


def threads_named(name, *, but):
    """Loop threads, besides the one that the server keeps."""
    loops = [thread for thread in threading.enumerate() if thread.name == name]
    return loops[1:] if but.server.port is not None else loops


@pytest.mark.timeout(120)
def test_a_call_that_is_interrupted_anywhere_leaves_nothing_pending():
    with serve("blocking") as served, WseClient(served.url) as client:
        served.server.register("add", lambda conn, payload: payload + 1)
        client.connect("ann")

        def check(interrupted, result):
            if client.status.value != "READY":  # half a frame may have left: the connection ends
                client.close()
                client.connect("ann")
            assert client.call("add", 1) == 2
            wait_until(lambda: client.stats()["calls_pending"] == 0)

        every_opcode(lambda: client.call("add", 1), check)


@pytest.mark.timeout(120)
def test_a_receive_that_is_interrupted_anywhere_loses_no_message():
    with serve("blocking") as served, WseClient(served.url) as client:
        client.connect("ann")
        conn = served.conn("ann")
        sent, got = 0, []

        def receive():
            return client.receive(timeout=seconds(10))

        def check(interrupted, message):
            nonlocal sent
            if not interrupted:
                got.append(message.payload)
            while sent - len(got) < 3:
                conn.send("n", sent)
                sent += 1

        check(True, None)
        every_opcode(receive, check)
        while len(got) < sent:
            got.append(client.receive(timeout=seconds(10)).payload)
        assert got == list(range(sent))


def test_ctrl_c_at_random_moments_leaves_no_damage():
    source = """
    import os, random, signal, sys, threading, time
    from wse_tornado import LoopThread, WseClient, WseServer

    own = LoopThread("own")
    server = WseServer(identify=lambda auth: auth.identity, host="127.0.0.1", loop=own)
    server.register("add", lambda conn, payload: payload + 1)
    server.start()

    def once():
        with WseClient(server.url) as client:
            client.connect("a")
            return client.call("add", 1)

    began = time.monotonic()
    once()
    length = time.monotonic() - began
    for _ in range(40):
        timer = threading.Timer(
            random.random() * 1.5 * length, os.kill, (os.getpid(), signal.SIGINT)
        )
        timer.daemon = True
        try:
            timer.start()
            once()
            timer.join()
            time.sleep(0.05)
        except KeyboardInterrupt:
            timer.join()
        assert once() == 2
        assert sum(t.name == "wse-tornado-loop" for t in threading.enumerate()) <= 1
    server.stop()
    print("whole")
    """
    done = run_script(source)
    assert (done.returncode, done.stdout, done.stderr) == (0, "whole\n", "")


@pytest.mark.parametrize("method", ["send", "submit"])
def test_a_signal_handler_may_use_the_client_that_it_interrupts(method):
    source = """
    import signal, sys, time
    from wse_tornado import LoopThread, WseClient, WseServer

    own = LoopThread("own")
    server = WseServer(identify=lambda auth: auth.identity, host="127.0.0.1", loop=own)
    server.register("add", lambda conn, payload: payload + 1)
    server.channel.on("n", lambda conn, payload: None)
    with server, WseClient(server.url) as client:
        client.connect("a")
        count = 0

        def handler(number, frame):
            global count
            count += 1
            if sys.argv[1] == "send":
                client.send("n", 1)
            else:
                client.submit("add", 1)
            if count < 100:
                signal.setitimer(signal.ITIMER_REAL, 0.002)

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.002)
        while count < 100:
            assert client.call("add", 1) == 2
        assert client.call("add", 1) == 2
    print("whole")
    """
    done = run_script(source, method)
    assert (done.returncode, done.stdout, done.stderr) == (0, "whole\n", "")


def test_who_pulls_slower_than_the_sender_sends_gets_everything_in_order():
    with serve("blocking") as served, WseClient(served.url) as client:
        client.connect("ann")
        conn = served.conn("ann")
        count = 20_000

        def send():
            for number in range(count):
                conn.send("n", number)

        sender = threading.Thread(target=send)
        got: list[int] = []
        messages = iter(client)  # from now on somebody pulls
        sender.start()
        for message in messages:
            got.append(message.payload)
            if len(got) == count:
                break
        sender.join()
        assert got == list(range(count))
        assert client.stats()["inbox_dropped"] == 0


def test_a_blocking_server_bounds_what_it_has_not_handed_over():
    held = threading.Event()
    with serve("blocking", timeout=0.3, limits=Limits(max_send_buffer=1_000_000)) as served:
        with served.enter():
            served.server._loop.post(held.wait, seconds(10))
            with pytest.raises(SendTimeout):
                for _ in range(1000):
                    served.server.broadcast("bulk", "x" * 20_000)
            held.set()
            wait_until(lambda: served.server._outbox._size == 0)
            assert served.server.broadcast("after") == 1
