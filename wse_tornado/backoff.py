"""The delays between attempts to reconnect. No I/O."""

from __future__ import annotations

import random

__all__ = ["Backoff"]


class Backoff:
    """Exponential back-off with full jitter: each delay is drawn evenly from zero to a ceiling
    that starts at ``initial``, grows by ``factor`` and stops at ``maximum``.

    Full jitter spreads clients that lost the same server best
    (M. Brooker, "Exponential Backoff And Jitter", 2015).

    Args:
        initial: First ceiling, seconds.
        maximum: Last ceiling, seconds.
        factor: What the ceiling is multiplied by after each attempt.
        lasting: Seconds that a connection must have been ready for the next loss to start again
            at ``initial``.
        attempts: Attempts in a row after which the client gives up; None for no end.

    Raises:
        ValueError: A value is out of its range.
    """

    def __init__(
        self,
        initial: float = 0.5,
        maximum: float = 30.0,
        factor: float = 2.0,
        lasting: float = 10.0,
        *,
        attempts: int | None = None,
    ) -> None:
        if not (0 < initial <= maximum) or not (factor >= 1 and lasting >= 0):
            raise ValueError(
                "Backoff needs 0 < initial <= maximum, factor >= 1 and lasting >= 0, not "
                f"initial={initial!r}, maximum={maximum!r}, factor={factor!r}, lasting={lasting!r}"
            )
        if attempts is not None and not (
            isinstance(attempts, int) and not isinstance(attempts, bool) and attempts >= 1
        ):
            raise ValueError(f"Backoff needs attempts of at least 1, or None, not {attempts!r}")
        self.initial = initial
        self.maximum = maximum
        self.factor = factor
        self.lasting = lasting
        self.attempts = attempts

    def ceiling(self, attempt: int) -> float:
        """The longest delay before attempt number ``attempt`` (the first is 0), in seconds."""
        try:
            return min(self.maximum, self.initial * self.factor**attempt)
        except OverflowError:
            return self.maximum

    def delay(self, attempt: int) -> float:
        """A random delay before attempt number ``attempt``, in seconds."""
        return random.uniform(0, self.ceiling(attempt))  # noqa: S311 - not a secret

    def __repr__(self) -> str:
        return (
            f"Backoff(initial={self.initial}, maximum={self.maximum}, factor={self.factor}, "
            f"lasting={self.lasting}, attempts={self.attempts})"
        )
