"""A ready-made challenge-response: the client proves that it knows a secret without sending it.

The server's quest carries one string; the client answers with the hexadecimal HMAC-SHA256 of that
string under the shared secret (RFC 2104). The string holds 256 random bits, the time, and a digest
of the identity, so an answer fits one quest, one identity and a short time only. No I/O.

Any language can answer::

    quest     {"scheme": "wse-hmac-sha256", "message": "wse-hmac-sha256:1767225600:4f…:9c…"}
    response  hex(hmac_sha256(secret, quest.message))
"""

from __future__ import annotations

import hashlib
import hmac
import inspect
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

from .admission import AuthRequest

__all__ = ["HmacChallenge", "HmacSolver"]

SCHEME = "wse-hmac-sha256"
Secret = str | bytes
SecretLookup = Callable[[Any], "Secret | Awaitable[Secret | None] | None"]


def _key(secret: Secret) -> bytes:
    return secret.encode("utf-8") if isinstance(secret, str) else bytes(secret)


def _digest_of(identity: Any) -> str:
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), default=repr)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


class HmacChallenge:
    """The server's side: ``server.use_challenge(HmacChallenge(secret_of))``.

    The server asks it for a quest, and checks the answer with it before ``identify`` runs, so that
    ``identify`` sees only clients that proved themselves. Unknown identities get a quest too, so
    that nobody learns which exist.

    Args:
        secret_of: Gives the secret of an identity, or None for an unknown one. A plain or a
            coroutine function.
        lifetime: Seconds within which the answer must come.

    Raises:
        TypeError: ``secret_of`` is no function.
        ValueError: The lifetime is not above 0.
    """

    def __init__(self, secret_of: SecretLookup, *, lifetime: float = 30.0) -> None:
        if not callable(secret_of):
            raise TypeError("HmacChallenge takes a function from identity to secret")
        if not lifetime > 0:
            raise ValueError(f"lifetime must be above 0 seconds, not {lifetime!r}")
        self._secret_of = secret_of
        self._lifetime = lifetime

    def __call__(self, auth: AuthRequest) -> dict[str, Any]:
        """A fresh quest for this request."""
        nonce = secrets.token_hex(32)
        message = f"{SCHEME}:{time.time():.3f}:{nonce}:{_digest_of(auth.identity)}"
        return {"scheme": SCHEME, "message": message}

    def verify(self, auth: AuthRequest) -> bool | Awaitable[bool]:
        """Whether the client's answer is right, in time, and for this identity.

        Awaitable where the function that finds the secret is a coroutine function.
        """
        found = self._secret_of(auth.identity)
        if inspect.isawaitable(found):
            return self._verify_later(auth, found)
        return self._matches(auth, found)

    async def _verify_later(self, auth: AuthRequest, found: Awaitable[Secret | None]) -> bool:
        return self._matches(auth, await found)

    def _matches(self, auth: AuthRequest, secret: Secret | None) -> bool:
        challenge = auth.challenge
        if challenge is None or not isinstance(challenge.response, str):
            return False
        message: str = challenge.quest["message"]
        _, stamp, _, digest = message.split(":")
        age = time.time() - float(stamp)
        # An unknown identity costs the same work as a wrong answer.
        key = _key(secret) if secret is not None else secrets.token_bytes(32)
        expected = hmac.new(key, message.encode("ascii"), hashlib.sha256).hexdigest()
        given = challenge.response.encode("utf-8", "replace")
        right = hmac.compare_digest(expected.encode("ascii"), given)
        bound = hmac.compare_digest(digest, _digest_of(auth.identity))
        return right and bound and secret is not None and -1.0 <= age <= self._lifetime


class HmacSolver:
    """The client's side: ``client.challenge(HmacSolver(secret))``.

    It signs quests of this scheme only, so a hostile server cannot have other texts signed.
    """

    def __init__(self, secret: Secret) -> None:
        self._key = _key(secret)

    def __call__(self, quest: Any) -> str:
        """The answer to a quest.

        Raises:
            ValueError: The quest is of another scheme.
        """
        message = quest.get("message") if isinstance(quest, dict) else None
        if not isinstance(message, str) or not message.startswith(SCHEME + ":"):
            raise ValueError(f"the server's challenge is not of the scheme {SCHEME}")
        return hmac.new(self._key, message.encode("utf-8"), hashlib.sha256).hexdigest()
