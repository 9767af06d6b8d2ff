"""challenge.py: the ready-made challenge-response, without a socket."""

import asyncio
import hashlib
import hmac
import inspect
import json
import time
from typing import Any

import pytest

from wse_tornado import AuthRequest, Challenge, HmacChallenge, HmacSolver

SECRETS = {"alice": "open sesame", "bob": b"\x00\xff raw"}


def request(identity: Any = "alice") -> AuthRequest:
    return AuthRequest(identity, {}, decide=lambda auth, verdict: None)


def answered(
    scheme: HmacChallenge, solver: Any, identity: Any = "alice"
) -> tuple[AuthRequest, Any]:
    """A request with a quest set and answered."""
    auth = request(identity)
    quest = json.loads(json.dumps(scheme(auth)))  # over the wire
    auth.challenge = Challenge(quest, solver(quest))
    return auth, quest


def test_who_knows_the_secret_is_verified() -> None:
    scheme = HmacChallenge(SECRETS.get)
    for identity, secret in SECRETS.items():
        auth, _ = answered(scheme, HmacSolver(secret), identity)
        assert scheme.verify(auth) is True


def test_any_language_can_answer() -> None:
    scheme = HmacChallenge(SECRETS.get)

    def by_hand(quest: Any) -> str:
        assert quest["scheme"] == "wse-hmac-sha256"
        message = quest["message"].encode()
        return hmac.new(b"open sesame", message, hashlib.sha256).hexdigest()

    auth, _ = answered(scheme, by_hand)
    assert scheme.verify(auth) is True


@pytest.mark.parametrize("secret", ["wrong", "open sesame ", b"\x00"], ids=repr)
def test_who_does_not_know_it_is_not(secret: Any) -> None:
    scheme = HmacChallenge(SECRETS.get)
    auth, _ = answered(scheme, HmacSolver(secret))
    assert scheme.verify(auth) is False


@pytest.mark.parametrize("response", [None, 7, "", "ї", {}, [], True, "0" * 64, "\ud800"], ids=repr)
def test_an_odd_response_is_wrong_and_harmless(response: Any) -> None:
    scheme = HmacChallenge(SECRETS.get)
    auth, _ = answered(scheme, lambda quest: response)
    assert scheme.verify(auth) is False


def test_an_unknown_identity_gets_a_quest_and_is_not_verified() -> None:
    scheme = HmacChallenge(SECRETS.get)
    auth, quest = answered(scheme, HmacSolver("open sesame"), "mallory")
    assert set(quest) == {"scheme", "message"}
    assert scheme.verify(auth) is False


def test_without_a_challenge_nobody_is_verified() -> None:
    assert HmacChallenge(SECRETS.get).verify(request()) is False


def test_an_answer_fits_its_own_identity_only() -> None:
    scheme = HmacChallenge(lambda identity: "shared by all")
    auth, _ = answered(scheme, HmacSolver("shared by all"), "alice")
    stolen = request("bob")
    stolen.challenge = auth.challenge
    assert scheme.verify(stolen) is False
    assert scheme.verify(auth) is True


def test_an_answer_fits_its_own_quest_only() -> None:
    scheme = HmacChallenge(SECRETS.get)
    first, _ = answered(scheme, HmacSolver("open sesame"))
    second, _ = answered(scheme, HmacSolver("open sesame"))
    assert first.challenge is not None
    assert second.challenge is not None
    second.challenge = Challenge(second.challenge.quest, first.challenge.response)
    assert scheme.verify(second) is False


def test_quests_never_repeat() -> None:
    scheme = HmacChallenge(SECRETS.get)
    messages = {scheme(request())["message"] for _ in range(200)}
    assert len(messages) == 200
    nonces = {message.split(":")[2] for message in messages}
    assert len(nonces) == 200
    assert all(len(nonce) == 64 for nonce in nonces)


@pytest.mark.parametrize(("age", "right"), [(0, True), (29, True), (31, False)])
def test_an_answer_expires(monkeypatch: pytest.MonkeyPatch, age: float, right: bool) -> None:
    scheme = HmacChallenge(SECRETS.get)
    auth, _ = answered(scheme, HmacSolver("open sesame"))
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + age)
    assert scheme.verify(auth) is right


def test_the_lifetime_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    scheme = HmacChallenge(SECRETS.get, lifetime=2)
    auth, _ = answered(scheme, HmacSolver("open sesame"))
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 3)
    assert scheme.verify(auth) is False


def test_the_secret_may_be_looked_up_by_a_coroutine() -> None:
    async def secret_of(identity: Any) -> Any:
        await asyncio.sleep(0)
        return SECRETS.get(identity)

    scheme = HmacChallenge(secret_of)
    auth, _ = answered(scheme, HmacSolver("open sesame"))

    async def verify() -> bool:
        verdict = scheme.verify(auth)
        assert inspect.isawaitable(verdict)
        return await verdict

    assert asyncio.run(verify()) is True


@pytest.mark.parametrize("identity", [None, 5, {"b": 1, "a": [2]}, ["x"], "ї"], ids=repr)
def test_an_identity_may_be_anything_json_holds(identity: Any) -> None:
    scheme = HmacChallenge(lambda identity: "s")
    auth, _ = answered(scheme, HmacSolver("s"), identity)
    assert scheme.verify(auth) is True


@pytest.mark.parametrize(
    "quest",
    [None, "text", 5, {}, {"message": 1}, {"message": "pay 1000 to mallory"}, {"nonce": "x"}],
    ids=repr,
)
def test_the_solver_signs_nothing_but_its_own_scheme(quest: Any) -> None:
    with pytest.raises(ValueError, match="not of the scheme wse-hmac-sha256"):
        HmacSolver("s")(quest)


def test_wrong_use_raises_at_once() -> None:
    with pytest.raises(TypeError, match="function from identity to secret"):
        HmacChallenge({"alice": "secret"})  # type: ignore[arg-type]
    for lifetime in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="lifetime must be above 0"):
            HmacChallenge(SECRETS.get, lifetime=lifetime)
