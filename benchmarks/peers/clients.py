"""Clients under test: ``clients NAME FLAVOUR alone|shared URL``. They call ``add`` and time it.

A library without calls has a script's own: alone with the socket, send and receive; shared by
threads, a lock around sending, a thread that reads, and a slot for each call by its stamp.
"""

from __future__ import annotations

import queue
import socket
import sys
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from ..control import cpu_seconds, obey, report
from ..tls import client_context
from . import flavour
from .servers import SUBPROTOCOL, decode, encode

Call = Callable[[], Any]
clock = time.perf_counter
EXPECTED = 8
ARGUMENT = {"a": 5, "b": 3}
STAMP = "Zk3vQ0aPq1"


def alone(send: Callable[[str], Any], receive: Callable[[], str | bytes]) -> Call:
    """Calls of a script that has the socket to itself."""

    def call() -> Any:
        send(encode(("add", ARGUMENT, STAMP)))
        type, payload, answered = decode(receive())
        if type != "~wse:response" or answered != STAMP:
            raise ValueError(f"not the answer: {type!r}")
        return payload

    return call


def shared(send: Callable[[str], Any], receive: Callable[[], str | bytes]) -> Call:
    """Calls of several threads on one socket."""
    lock = threading.Lock()
    slots: dict[str, queue.SimpleQueue[Any]] = {}
    numbers = count()

    def read() -> None:
        while True:
            _type, payload, stamp = decode(receive())
            slots.pop(stamp).put(payload)

    def call() -> Any:
        slot: queue.SimpleQueue[Any] = queue.SimpleQueue()
        stamp = f"{next(numbers):010}"
        slots[stamp] = slot
        text = encode(("add", ARGUMENT, stamp))
        with lock:
            send(text)
        return slot.get(timeout=20)

    threading.Thread(target=read, daemon=True).start()
    return call


def wse(url: str, tls: Any, way: Any) -> Call:
    from wse_tornado import WseClient

    client = WseClient(url, ssl_options=tls)
    client.connect("user-1")
    return lambda: client.call("add", ARGUMENT)


def websockets(url: str, tls: Any, way: Any) -> Call:
    from websockets.sync.client import connect

    ws = connect(url, subprotocols=[SUBPROTOCOL], compression=None, ssl=tls)
    return enter(ws, way)


def websocket_client(url: str, tls: Any, way: Any) -> Call:
    import websocket

    ws = websocket.create_connection(
        url,
        subprotocols=[SUBPROTOCOL],
        sockopt=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        sslopt={"context": tls} if tls else None,
    )
    return enter(ws, way)


def enter(ws: Any, way: Any) -> Call:
    """Authenticate, and call as the script does."""
    ws.send(encode(("~wse:hi", {"identity": "user-1"}, None)))
    ws.recv()
    call: Call = way(ws.send, ws.recv)
    call.socket = ws  # type: ignore[attr-defined]  # some close when they are collected
    return call


def socketio(url: str, tls: Any, way: Any) -> Call:
    import socketio

    sio = socketio.Client()
    sio.connect(url.replace("ws", "http", 1), auth={"identity": "user-1"}, transports=["websocket"])
    return lambda: sio.call("add", ARGUMENT)


CLIENTS = {each.__name__: each for each in (wse, websockets, websocket_client, socketio)}


def run(call: Call, *, threads: int, seconds: float) -> dict[str, Any]:
    """Call in a loop on each thread until the time is over.

    Returns:
        ``operations``, ``seconds``, ``cpu`` (seconds) and ``waits`` (seconds, each call's).
    """
    if call() != EXPECTED:
        raise ValueError("add answered something else")
    waits: list[list[float]] = [[] for _ in range(threads)]
    failures: list[BaseException] = []
    end = 0.0
    go = threading.Event()

    def loop(mine: list[float]) -> None:
        try:
            go.wait()
            asked = clock()
            while asked < end:
                if call() != EXPECTED:
                    raise ValueError("add answered something else")
                answered = clock()
                mine.append(answered - asked)
                asked = answered
        except BaseException as exc:
            failures.append(exc)

    # A single caller is the script's main thread itself.
    others = [threading.Thread(target=loop, args=(mine,)) for mine in waits[1:]]
    for thread in others:
        thread.start()
    cpu, start = cpu_seconds(), clock()
    end = start + seconds
    go.set()
    loop(waits[0])
    for thread in others:
        thread.join()
    spent, lasted = cpu_seconds() - cpu, clock() - start
    if failures:
        raise failures[0]
    together = [wait for mine in waits for wait in mine]
    return {"operations": len(together), "seconds": lasted, "cpu": spent, "waits": together}


def main(name: str, kind: str, way: str, url: str) -> None:
    flavour.choose(kind)
    tls = client_context() if url.startswith("wss:") else None
    call = CLIENTS[name](url, tls, {"alone": alone, "shared": shared}[way])
    report(connected=True)
    obey({"calls": lambda threads, seconds: run(call, threads=threads, seconds=seconds)})


if __name__ == "__main__":
    main(*sys.argv[1:])
