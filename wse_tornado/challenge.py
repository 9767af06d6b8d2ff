"""A ready-made challenge-response: the client proves that it knows a secret without sending it.

The server's quest carries one string; the client answers with the hexadecimal HMAC-SHA256 of that
string under the shared secret (RFC 2104). The string holds 256 random bits, the time by the
server's monotonic clock, and a digest of the identity: an answer is valid for one quest, one
identity and a short time only. No I/O.

Any language can answer::

    quest     {"scheme": "wse-hmac-sha256", "message": "wse-hmac-sha256:5181.204:4f…:9c…"}
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


def _key(secret: object) -> bytes:
    """The key of an HMAC.

    Raises:
        TypeError: It is not a non-empty ``str`` or ``bytes``. An empty key proves nothing, and
            ``bytes()`` would turn False, 0 and every int into zeros that anybody can guess.
    """
    if not isinstance(secret, (str, bytes)) or not secret:
        what = "an empty one" if isinstance(secret, (str, bytes)) else type(secret).__name__
        raise TypeError(f"a secret is a non-empty str or bytes, not {what}")
    return secret.encode("utf-8") if isinstance(secret, str) else secret


def _digest_of(identity: Any) -> str:
    try:
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"), default=repr)
    except TypeError:  # keys that JSON does not have, or that do not sort: MessagePack's bytes
        text = repr(identity)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


class HmacChallenge:
    """The server's side: ``server.use_challenge(HmacChallenge(secret_of))``.

    It makes the quest, and checks the answer before ``identify`` runs, so that ``identify`` is
    only called for clients that have proved to know their secret. Unknown identities get a quest,
    too, so that nobody learns which identities exist.

    Args:
        secret_of: Returns the secret of an identity, a non-empty ``str`` or ``bytes``, or None
            for an unknown identity. A plain or a coroutine function; ``dict.get`` will do: an
            identity that cannot be a key, such as a list, counts as unknown. With any other
            result the client is refused, and a `TypeError` goes to the ``error`` signal.
        lifetime: Seconds within which the answer must arrive.

    Raises:
        TypeError: ``secret_of`` is not a function.
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
        message = f"{SCHEME}:{time.monotonic():.3f}:{nonce}:{_digest_of(auth.identity)}"
        return {"scheme": SCHEME, "message": message}

    def verify(self, auth: AuthRequest) -> bool | Awaitable[bool]:
        """Whether the client's answer is right, in time, and for this identity.

        Awaitable where ``secret_of`` is a coroutine function.

        Raises:
            TypeError: ``secret_of`` returned what is neither a secret nor None.
        """
        try:
            found = self._secret_of(auth.identity)
        except TypeError:
            if _is_hashable(auth.identity):
                raise
            found = None  # no mapping has such a key
        if inspect.isawaitable(found):
            return self._verify_later(auth, found)
        return self._matches(auth, found)

    async def _verify_later(self, auth: AuthRequest, found: Awaitable[Secret | None]) -> bool:
        try:
            secret = await found
        except TypeError:
            if _is_hashable(auth.identity):
                raise
            secret = None
        return self._matches(auth, secret)

    def _matches(self, auth: AuthRequest, secret: Secret | None) -> bool:
        challenge = auth.challenge
        if challenge is None or not isinstance(challenge.response, str):
            return False
        message: str = challenge.quest["message"]
        _, stamp, _, digest = message.split(":")
        age = time.monotonic() - float(stamp)
        # An unknown identity costs as much time as a wrong answer.
        key = _key(secret) if secret is not None else secrets.token_bytes(32)
        expected = hmac.new(key, message.encode("ascii"), hashlib.sha256).hexdigest()
        given = challenge.response.encode("utf-8", "replace")
        right = hmac.compare_digest(expected.encode("ascii"), given)
        bound = hmac.compare_digest(digest, _digest_of(auth.identity))
        return right and bound and secret is not None and age <= self._lifetime


class HmacSolver:
    """The client's side: ``client.challenge(HmacSolver(secret))``.

    It signs quests of this scheme only, so that a hostile server cannot have other texts signed.

    Raises:
        TypeError: The secret is not a non-empty ``str`` or ``bytes``.
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
