"""Who gets in: keys, tokens that change, and showing somebody out. Blocking code only.

Run it: ``python examples/authentication.py``. It prints what happens and ends by itself.
"""

import itertools
import queue

from wse_tornado import Backoff, NotAuthorized, WseClient, WseServer

KEYS = {"alice-key": "alice", "bob-key": "bob"}
tokens = {}  # token -> user; a token is good for one connection


def identify(auth):
    # The identity is whatever the client sent: check its type before you use it.
    if not isinstance(auth.identity, str):
        auth.refuse()
    elif auth.identity in KEYS:
        user = KEYS[auth.identity]
        auth.accept(user, {"hello": user, "from": auth.remote_addr})  # id, and the welcome
    elif auth.identity in tokens:
        auth.accept(tokens.pop(auth.identity))
    else:
        auth.refuse()


server = WseServer(port=0, identify=identify)
events = queue.Queue()


@server.when.joined
def joined(client, meta):
    events.put(f"server: {client.cid} joined, meta {meta}")


def keys():
    print("-- a key")
    with WseClient(server.url) as client:
        print("alice:", client.connect("alice-key", {"device": "phone"}))
        print(events.get(timeout=5))

    print("-- a wrong key, and no key at all")
    for wrong in ("guess", None, {"user": "alice"}):
        with WseClient(server.url) as client:
            try:
                client.connect(wrong)
            except NotAuthorized as error:
                print(f"{wrong!r}: {error}")


def changing_tokens():
    print("-- a token per connection: identity is a function, asked at every connect")
    numbers = itertools.count(1)

    def fresh_token():
        token = f"token-{next(numbers)}"
        tokens[token] = "carol"
        print(f"carol: getting {token}")
        return token

    # The server comes back on another port, so the URL is a function here too.
    client = WseClient(lambda: server.url, reconnect=Backoff(initial=0.1, maximum=0.5))
    ready = queue.Queue()
    client.when.ready(ready.put)
    with client:
        client.connect(fresh_token)
        ready.get(timeout=5)
        print(events.get(timeout=5))
        server.stop()
        server.start()
        ready.get(timeout=5)
        print("carol: back after the server's restart")
        print(events.get(timeout=5))


def showing_out():
    print("-- showing somebody out")
    closed = queue.Queue()
    with WseClient(server.url) as client:
        client.when.closed(lambda code, reason: closed.put((code, reason)))
        client.connect("bob-key")
        print(events.get(timeout=5))
        print("server: connections closed:", server.drop_client("bob", "account suspended"))
        print("bob: closed with", *closed.get(timeout=5))


def main():
    with server:
        keys()
        changing_tokens()
        showing_out()
    print("done")


if __name__ == "__main__":
    main()
