"""The whole library in one blocking script: a server, two users, three devices.

Run it: ``python examples/quickstart.py``. It prints what happens and ends by itself.
"""

import threading

from wse_tornado import NotAuthorized, RpcNotRegistered, RpcTimeout, WseClient, WseServer

KEYS = {"alice-key": "alice", "bob-key": "bob"}


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
    print(f"server: {conn.cid} on the {conn.meta['device']} says {data['message']!r}")
    conn.send("greeting", {"message": f"Hello, {conn.meta['device']}!"})


@server.register("add")
def add(conn, payload):
    return payload["a"] + payload["b"]


@server.register("sleep")
def sleep(conn, payload):
    stop_sleeping.wait(payload["seconds"])


@server.when.joined
def joined(client, meta):
    print(f"server: {client.cid} joined, first device: {meta['device']}")


@server.when.left
def left(client, code, reason):
    print(f"server: {client.cid} left ({code} {reason})")
    if client.cid == "bob":
        bob_left.set()


def main():
    with server:
        print(f"server: listening on {server.url}")
        phone, laptop = WseClient(server.url), WseClient(server.url)
        bob = WseClient(server.url)
        with phone, laptop, bob:
            try:
                bob.connect("a wrong key")
            except NotAuthorized as error:
                print(f"bob: {error}")

            print("phone:", phone.connect("alice-key", {"device": "phone"})["message"])
            print("laptop:", laptop.connect("alice-key", {"device": "laptop"})["message"])
            print("bob:", bob.connect("bob-key", {"device": "desktop"})["message"])
            print(f"server: alice has {len(server.clients['alice'].conns)} devices")

            greeted = threading.Event()

            @phone.channel.on("greeting")
            def greeting(data):
                print("phone:", data["message"])
                greeted.set()

            phone.send("hello", {"message": "Hello, server!"})
            greeted.wait(5)

            reached = server.broadcast("announcement", {"message": "Server is ready!"})
            print(f"server: the announcement went to {reached} devices")
            for name, client in [("phone", phone), ("laptop", laptop), ("bob", bob)]:
                print(f"{name}:", client.wait_for("announcement", timeout=5)["message"])

            server.send("alice", "note", "for both of alice's devices")
            print("phone:", phone.receive(timeout=5))
            print("laptop:", laptop.receive(timeout=5))

            print("laptop: 5 + 3 =", laptop.call("add", {"a": 5, "b": 3}))
            try:
                laptop.call("sleep", {"seconds": 5}, timeout=0.2)
            except RpcTimeout as error:
                print("laptop:", error)
            stop_sleeping.set()
            try:
                laptop.call("subtract", {"a": 5, "b": 3})
            except RpcNotRegistered as error:
                print("laptop:", error)

            bob.close()
            bob_left.wait(5)
    print("done")


if __name__ == "__main__":
    main()
