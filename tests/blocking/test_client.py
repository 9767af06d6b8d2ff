"""The blocking client: its life, and what races with it."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from wse_tornado import ConnectionFailed, ConnectionNotReady, Limits, LoopThread, Status, WseClient

from ..support import RawServer, seconds, serve, wait_until


def test_connect_returns_the_welcome_and_close_ends_the_session():
    with serve("blocking") as served, WseClient(served.url) as client:
        assert client.status == Status.IDLE
        assert client.connect("a", {"device": "laptop"}) == {"message": "Welcome!"}
        assert client.status == Status.READY
        client.close()
        assert client.status == Status.OFFLINE
        client.close()  # no error
        assert client.connect("a") == {"message": "Welcome!"}
        wait_until(lambda: served.names().count("joined") == 2)
    assert ("joined", "a", {"device": "laptop"}) in served.events
    assert ("disconnected", "a", 1000, "wse.by-client") in served.events


def test_closing_before_connecting_is_no_error():
    client = WseClient("ws://127.0.0.1:1")
    client.close()
    client.drop()
    assert client.status == Status.IDLE


def test_close_waits_for_its_own_connection_only():
    deaf = threading.Event()

    def script(peer):
        first = len(raw.peers) == 1
        peer.recv()
        peer.send("~wse:welcome", None, None)
        if first:
            deaf.wait(seconds(20))
        else:
            peer.wait_closed()

    limits = Limits(close_timeout=seconds(0.5))
    with RawServer(script) as raw, ThreadPoolExecutor(1) as pool:
        with LoopThread() as loop, WseClient(raw.url, limits=limits, loop=loop) as client:
            client.connect("a")
            closing = pool.submit(client.close)
            wait_until(lambda: client.status == Status.OFFLINE)
            client.connect("a")
            closing.result(seconds(3))
            assert client.status == Status.READY
            deaf.set()


def test_a_client_can_be_closed_however_connect_and_close_race():
    with serve("blocking", conn_per_user=50) as served, LoopThread() as loop:
        for _ in range(30):
            client = WseClient(served.url, loop=loop, timeout=seconds(5))
            both = threading.Barrier(2)

            def connect(client=client, both=both):
                both.wait()
                try:
                    client.connect("a")
                except ConnectionError:
                    pass

            def close(client=client, both=both):
                both.wait()
                client.close()

            with ThreadPoolExecutor(2) as pool:
                for future in [pool.submit(connect), pool.submit(close)]:
                    future.result(seconds(10))
            client.close()
            assert client.status in (Status.IDLE, Status.OFFLINE)
        wait_until(lambda: not served.server.clients)
        assert "users=1" in repr(loop)


def test_a_close_ends_a_connect_that_is_still_on_its_way_to_the_loop():
    held = threading.Event()
    with serve("blocking") as served, LoopThread() as loop, ThreadPoolExecutor(2) as pool:
        with WseClient(served.url, loop=loop) as client:
            loop.post(held.wait, seconds(10))  # the loop is busy: connect stays on its way
            connecting = pool.submit(client.connect, "a")
            wait_until(lambda: len(loop._run._posts) == 1)
            closing = pool.submit(client.close)
            wait_until(lambda: len(loop._run._posts) == 2)
            held.set()
            with pytest.raises(ConnectionFailed, match="closed while it was connecting"):
                connecting.result(seconds(5))
            closing.result(seconds(5))
        assert not served.server.clients


def test_close_from_many_threads_at_once():
    with serve("blocking") as served, WseClient(served.url) as client:
        for _ in range(10):
            client.connect("a")
            with ThreadPoolExecutor(5) as pool:
                for future in [pool.submit(client.close) for _ in range(5)]:
                    future.result(seconds(5))
            wait_until(lambda: client.status == Status.OFFLINE)


def test_a_handler_may_close_its_own_client():
    over = threading.Event()
    with serve("blocking") as served, WseClient(served.url) as client:
        client.channel.on("go", lambda payload: (client.close(), over.set()))
        client.connect("a")
        served.server.send("a", "go")
        assert over.wait(seconds(5))
        assert client.status == Status.OFFLINE


def test_sending_while_closing_gives_back_the_room_it_took():
    with serve("blocking") as served, WseClient(served.url) as client:
        for _ in range(10):
            client.connect("a")
            closing = threading.Thread(target=client.close)
            closing.start()
            try:
                while True:
                    client.send("news", "x" * 1000)
            except ConnectionNotReady:
                pass
            closing.join()
            wait_until(lambda: client._outbox._size == 0)
