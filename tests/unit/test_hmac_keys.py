"""HmacChallenge and HmacSolver: which keys count, odd identities, the age of an answer."""

import asyncio
import hashlib
import hmac
import inspect
import time
from typing import Any

import pytest

from wse_tornado import AuthRequest, Challenge, HmacChallenge, HmacSolver

NO_SECRETS = ["", b"", False, True, 0, 42, 1.5, bytearray(b"key"), ["key"], {"k": 1}, object()]


def asked(scheme: HmacChallenge, identity: Any, key: bytes) -> AuthRequest:
    """A request whose quest was answered with ``key``."""
    auth = AuthRequest(identity, {}, decide=lambda auth, verdict: None)
    quest = scheme(auth)
    answer = hmac.new(key, quest["message"].encode(), hashlib.sha256).hexdigest()
    auth.challenge = Challenge(quest, answer)
    return auth


def verdict(scheme: HmacChallenge, auth: AuthRequest) -> bool:
    found = scheme.verify(auth)
    if inspect.isawaitable(found):

        async def wait() -> bool:
            return await found

        return asyncio.run(wait())
    return found


def plain(result: Any) -> Any:
    return lambda identity: result


def coroutine(result: Any) -> Any:
    async def secret_of(identity: Any) -> Any:
        return result

    return secret_of


@pytest.mark.parametrize("kind", [plain, coroutine])
@pytest.mark.parametrize("secret", NO_SECRETS, ids=lambda secret: type(secret).__name__)
def test_a_lookup_that_returns_no_secret_lets_nobody_in(kind: Any, secret: Any) -> None:
    scheme = HmacChallenge(kind(secret))
    keys = [b""]
    if isinstance(secret, int):
        keys.append(bytes(secret))
    for key in keys:
        with pytest.raises(TypeError, match="a secret is a non-empty str or bytes, not"):
            verdict(scheme, asked(scheme, "alice", key))


@pytest.mark.parametrize("secret", [*NO_SECRETS, None], ids=lambda secret: type(secret).__name__)
def test_a_solver_without_a_secret_is_refused(secret: Any) -> None:
    with pytest.raises(TypeError, match="a secret is a non-empty str or bytes, not"):
        HmacSolver(secret)


def test_the_error_does_not_show_the_secret() -> None:
    with pytest.raises(TypeError) as caught:
        HmacSolver(["open sesame"])  # type: ignore[arg-type]
    assert "sesame" not in str(caught.value)


SECRETS = {"alice": b"open sesame"}


async def from_dict(identity: Any) -> Any:
    return SECRETS.get(identity)


@pytest.mark.parametrize("secret_of", [SECRETS.get, from_dict], ids=["plain", "coroutine"])
@pytest.mark.parametrize("identity", [["alice"], {"alice": 1}, [[]]], ids=repr)
def test_an_identity_that_cannot_be_a_key_is_an_unknown_one(secret_of: Any, identity: Any) -> None:
    scheme = HmacChallenge(secret_of)
    assert verdict(scheme, asked(scheme, identity, b"open sesame")) is False
    assert verdict(scheme, asked(scheme, "alice", b"open sesame")) is True


def test_a_fault_of_the_lookup_is_still_raised() -> None:
    def secret_of(identity: Any) -> Any:
        raise TypeError("a fault")

    scheme = HmacChallenge(secret_of)
    with pytest.raises(TypeError, match="a fault"):
        scheme.verify(asked(scheme, "alice", b"x"))


@pytest.mark.parametrize("identity", [{b"a": 1, "b": 2}, {b"a": 1}, "\ud800"], ids=repr)
def test_an_identity_that_json_does_not_have_gets_a_quest_of_its_own(identity: Any) -> None:
    scheme = HmacChallenge(lambda identity: "s")
    auth = asked(scheme, identity, b"s")
    assert scheme.verify(auth) is True
    auth.identity = {b"a": 2}
    assert scheme.verify(auth) is False


@pytest.mark.parametrize("jump", [-86_400, 86_400])
def test_a_clock_that_is_set_does_not_change_an_answer_s_age(
    monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    scheme = HmacChallenge(SECRETS.get)
    auth = asked(scheme, "alice", b"open sesame")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + jump)
    assert scheme.verify(auth) is True
    late = time.monotonic() + 31
    monkeypatch.setattr(time, "monotonic", lambda: late)
    assert scheme.verify(auth) is False
