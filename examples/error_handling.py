"""What can go wrong, and where it shows: in the caller, in a signal, or in the log. Blocking code.

Run it: ``python examples/error_handling.py``. It prints what happens and ends by itself.
"""

import queue
import threading

from wse_tornado import (
    ConnectionFailed,
    ConnectionNotReady,
    ErrorCode,
    NotAuthorized,
    NotSerializable,
    Reason,
    RpcDisconnected,
    RpcFailed,
    RpcNotRegistered,
    RpcTimeout,
    WseClient,
    WseError,
    WseServer,
)


def identify(auth):
    if auth.identity == "alice-key":
        auth.accept("alice")
    else:
        auth.refuse()


server = WseServer(port=0, identify=identify)
released = threading.Event()
problems = queue.Queue()


@server.register("divide")
def divide(conn, payload):
    return payload["a"] / payload["b"]


@server.register("order")
def order(conn, payload):
    # A code and details of your own reach the caller as they are.
    raise WseError("shop.sold-out", {"item": payload["item"], "back_on": "Monday"})


@server.register("wait")
def wait(conn, payload):
    released.wait(10)


@server.register("hang up")
def hang_up(conn, payload):
    conn.drop("the shop closes")


@server.channel.on("boom")
def boom(conn, payload):
    raise RuntimeError("a bug in a handler")


@server.when.error
def on_error(error, conn):
    # Problems that no caller can be told of. Without a handler here they are logged.
    problems.put((error, conn))


def calls(client):
    print("-- calls")
    try:
        client.call("divide", {"a": 1, "b": 0})
    except RpcFailed as error:
        print("RpcFailed:", error)
        print("  the type at the other end:", error.details["origin"]["name"])
    print("  the server heard of it too:", problems.get(timeout=5)[0])

    try:
        client.call("order", {"item": "tea"})
    except RpcFailed as error:
        print("RpcFailed:", error.code, "- back on", error.details["back_on"])

    try:
        client.call("subtract")
    except RpcNotRegistered as error:
        print("RpcNotRegistered:", error)

    try:
        client.call("wait", timeout=0.2)
    except RpcTimeout as error:
        print("RpcTimeout:", error)
    finally:
        released.set()

    # Codes work as in the JavaScript library, and builtin exceptions as everywhere in Python.
    try:
        client.call("subtract")
    except WseError as error:
        print("by its code:", error.code == ErrorCode.RP_NOT_REGISTERED)
    try:
        client.call("subtract")
    except LookupError:
        print("by its builtin class: LookupError")


def handlers(client):
    print("-- an exception in a handler closes nothing")
    client.send("boom")
    error, conn = problems.get(timeout=5)
    print(f"the server's error signal, about {conn.cid}:", error)
    print("the client is", client.status)


def mistakes(client):
    print("-- mistakes raise at once, and nothing is sent")
    try:
        client.send("photo", object())
    except NotSerializable as error:
        print("NotSerializable:", error)
    try:
        client.send("~wse:hi", {})
    except ValueError as error:
        print("ValueError:", error)


def endings(client):
    print("-- the end of a connection")
    closed = queue.Queue()
    client.when.closed(lambda code, reason: closed.put((code, reason)))
    try:
        client.call("hang up")
    except RpcDisconnected as error:
        print("RpcDisconnected:", error)
    code, reason = closed.get(timeout=5)
    print("closed:", code, reason)
    if reason not in (Reason.BY_CLIENT, Reason.NOT_AUTHORIZED, Reason.CLIENTS_CONCURRENCY):
        print("that is a reason of the server's own")
    try:
        client.send("hello")
    except ConnectionNotReady as error:
        print("ConnectionNotReady:", error)


def connecting(client):
    print("-- connecting")
    try:
        client.connect("a wrong key")
    except NotAuthorized as error:
        print("NotAuthorized:", error)
    server.stop()
    try:
        client.connect("alice-key")
    except ConnectionFailed as error:
        print("ConnectionFailed:", error)


def main():
    with server, WseClient(server.url) as client:
        client.connect("alice-key")
        calls(client)
        handlers(client)
        mistakes(client)
        endings(client)
        connecting(client)
    print("done")


if __name__ == "__main__":
    main()
