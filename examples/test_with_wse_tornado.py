"""How to test a program that uses wse_tornado, with pytest and the fixtures of its plugin.

Run it: ``pytest examples/test_with_wse_tornado.py``. The program under test stands first; in real
life it is a module of its own.
"""

import pytest

from wse_tornado import NotAuthorized, RpcTimeout, WseClient, WseServer
from wse_tornado.testing import Connector, serving

# -- the program: a server of votes, and a display that shows them


def make_server():
    votes = {}

    def identify(auth):
        if auth.identity in ("alice", "bob"):
            auth.accept(auth.identity)
        else:
            auth.refuse()

    server = WseServer(identify=identify)

    @server.register("vote")
    def vote(conn, payload):
        votes[conn.cid] = payload
        server.broadcast("votes", votes)
        return len(votes)

    return server


class Display:
    def __init__(self, url):
        self.text = "connecting"
        self.client = WseClient(url, reconnect=True, timeout=2)
        self.client.channel.on("votes", self.show)
        self.client.when.closed(self.lost)

    def show(self, votes):
        self.text = ", ".join(f"{user}: {vote}" for user, vote in sorted(votes.items()))

    def lost(self, code, reason):
        self.text = "offline"

    def refresh(self):
        try:
            self.show(self.client.call("votes", timeout=0.5))
        except RpcTimeout:
            self.text = "the server is slow"


# -- testing the server: start your own with serving(), and connect clients to it


@pytest.fixture
def votes_server():
    with serving(make_server()) as served:
        yield served


@pytest.fixture
def voter(votes_server):
    with Connector(votes_server) as connect:
        yield connect


def test_a_vote_reaches_everybody(voter):
    alice, bob = voter("alice"), voter("bob")
    assert alice.call("vote", "tea") == 1
    assert bob.wait_for("votes", timeout=5) == {"alice": "tea"}


def test_unauthenticated_clients_may_not_vote(voter):
    with pytest.raises(NotAuthorized):
        voter("mallory")


# -- testing a client: wse_server stands in for the real server, faults included


@pytest.fixture
def display(wse_server):
    display = Display(wse_server.url)
    with display.client:
        yield display


def test_the_display_shows_votes(wse_server, display, wse_recorder):
    wse_recorder.watch(display.client, "votes")
    display.client.connect("display")
    wse_server.server.broadcast("votes", {"bob": "tea", "alice": "coffee"})
    wse_recorder.wait_for("votes")
    assert display.text == "alice: coffee, bob: tea"


def test_the_display_tells_a_lost_connection_and_comes_back(wse_server, display, wse_recorder):
    wse_recorder.watch(display.client)
    display.client.connect("display")
    wse_server.drop()
    wse_recorder.wait_for("when.closed")
    assert display.text == "offline"
    wse_recorder.wait_for("when.ready", count=2)


def test_the_display_gives_up_on_a_slow_server(wse_server, display):
    display.client.connect("display")
    with wse_server.stalled():
        display.refresh()
    assert display.text == "the server is slow"


def test_the_display_is_refused(wse_server, display):
    wse_server.refuse_next()
    with pytest.raises(NotAuthorized):
        display.client.connect("display")


def test_the_display_says_hello(wse_server, wse_connect):
    display = wse_connect("display", {"device": "wall"})
    display.send("hello", {"text": "I am new here"})
    hello = wse_server.recorder.wait_for("hello")
    assert hello.payload == {"text": "I am new here"}
    assert hello.args[0].meta == {"device": "wall"}
