"""Challenge-response: the client proves that it knows a secret, and never sends it.

First written by hand, then with the ready-made scheme in one line on each side. Blocking code only.
Run it: ``python examples/challenge_response.py``. It prints what happens and ends by itself.
"""

import hashlib
import hmac
import secrets
import time

from wse_tornado import HmacChallenge, HmacSolver, NotAuthorized, WseClient, WseServer

SECRETS = {"alice": "alice's secret", "bob": "bob's secret"}


# -- written by hand: any scheme can be built of these three functions


def sign(secret, quest):
    text = f"{quest['timestamp']}{quest['nonce']}"
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def set_quest(auth):
    """The server's first step: return the quest, or refuse."""
    if not isinstance(auth.identity, str) or auth.identity not in SECRETS:
        auth.refuse()
        return None
    return {"timestamp": int(time.time()), "nonce": secrets.token_hex(16)}


def check_response(auth):
    """The server's second step: look at the response."""
    expected = sign(SECRETS[auth.identity], auth.challenge.quest)
    response = auth.challenge.response
    if isinstance(response, str) and hmac.compare_digest(response.encode(), expected.encode()):
        auth.accept(auth.identity, {"message": f"Welcome, {auth.identity}!"})
    else:
        auth.refuse()


def by_hand():
    print("-- written by hand")
    server = WseServer(port=0, identify=check_response)
    server.use_challenge(set_quest)
    with server:
        alice = WseClient(server.url)

        @alice.challenge
        def solve(quest):
            print("alice: the quest is", ", ".join(sorted(quest)))
            return sign("alice's secret", quest)

        with alice:
            print("alice:", alice.connect("alice")["message"])

        with WseClient(server.url) as mallory:
            mallory.challenge(lambda quest: sign("a guess", quest))
            try:
                mallory.connect("alice")
            except NotAuthorized as error:
                print("mallory:", error)


# -- ready-made: HMAC-SHA256, bound to the identity, good for one answer and 30 seconds


def ready_made():
    print("-- ready-made")
    server = WseServer(port=0, identify=lambda auth: auth.identity)
    server.use_challenge(HmacChallenge(SECRETS.get))
    with server:
        with WseClient(server.url) as bob:
            bob.challenge(HmacSolver("bob's secret"))
            bob.connect("bob")
            print("bob: in")

        with WseClient(server.url) as mallory:
            mallory.challenge(HmacSolver("a guess"))
            try:
                mallory.connect("bob")
            except NotAuthorized as error:
                print("mallory:", error)

        with WseClient(server.url) as forgetful:
            try:
                forgetful.connect("bob")
            except NotAuthorized as error:
                print("forgetful:", error)


if __name__ == "__main__":
    by_hand()
    ready_made()
    print("done")
