"""The whole library in one blocking script: a server, two users, three devices.

Run it: ``python examples/quickstart.py``. It prints what happens and ends by itself.
"""

import sys
import threading

from wse_tornado import NotAuthorized, RpcNotRegistered, RpcTimeout, WseClient, WseServer

KEYS = {"alice-key": "alice", "bob-key": "bob"}


def say(*words):
    # One write for each line: print() takes two, and handlers run on threads of their own.
    sys.stdout.write(" ".join(map(str, words)) + "\n")


def identify(auth):
    user = KEYS.get(auth.identity)
    if user:
        auth.accept(user, {"message": f"Welcome, {user}!"})
    else:
        auth.refuse()


server = WseServer(port=0, identify=identify, conn_per_user=2)
bob_left = threading.Event()
stop_sleeping = threading.Event()


@server.channel.on("hello")
def hello(conn, data):
    say(f"server: {conn.cid} on the {conn.meta['device']} says {data['message']!r}")
    conn.send("greeting", {"message": f"Hello, {conn.meta['device']}!"})


@server.register("add")
def add(conn, payload):
    return payload["a"] + payload["b"]


@server.register("sleep")
def sleep(conn, payload):
    stop_sleeping.wait(payload["seconds"])


@server.when.joined
def joined(client, meta):
    say(f"server: {client.cid} joined, first device: {meta['device']}")


@server.when.left
def left(client, code, reason):
    say(f"server: {client.cid} left ({code} {reason})")
    if client.cid == "bob":
        bob_left.set()


def main():
    with server:
        say(f"server: listening on {server.url}")
        phone, laptop = WseClient(server.url), WseClient(server.url)
        bob = WseClient(server.url)
        with phone, laptop, bob:
            try:
                bob.connect("a wrong key")
            except NotAuthorized as error:
                say(f"bob: {error}")

            say("phone:", phone.connect("alice-key", {"device": "phone"})["message"])
            say("laptop:", laptop.connect("alice-key", {"device": "laptop"})["message"])
            say("bob:", bob.connect("bob-key", {"device": "desktop"})["message"])
            say(f"server: alice has {len(server.clients['alice'].conns)} devices")

            greeted = threading.Event()

            @phone.channel.on("greeting")
            def greeting(data):
                say("phone:", data["message"])
                greeted.set()

            phone.send("hello", {"message": "Hello, server!"})
            greeted.wait(5)

            reached = server.broadcast("announcement", {"message": "Server is ready!"})
            say(f"server: the announcement went to {reached} devices")
            for name, client in [("phone", phone), ("laptop", laptop), ("bob", bob)]:
                say(f"{name}:", client.wait_for("announcement", timeout=5)["message"])

            server.send("alice", "note", "for both of alice's devices")
            say("phone:", phone.receive(timeout=5))
            say("laptop:", laptop.receive(timeout=5))

            say("laptop: 5 + 3 =", laptop.call("add", {"a": 5, "b": 3}))
            try:
                laptop.call("sleep", {"seconds": 5}, timeout=0.2)
            except RpcTimeout as error:
                say("laptop:", error)
            stop_sleeping.set()
            try:
                laptop.call("subtract", {"a": 5, "b": 3})
            except RpcNotRegistered as error:
                say("laptop:", error)

            bob.close()
            bob_left.wait(5)
    say("done")


if __name__ == "__main__":
    main()
