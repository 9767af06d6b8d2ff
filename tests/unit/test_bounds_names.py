"""Limits under their present and their old names, and how many attempts a Backoff allows."""

import copy
import dataclasses
import inspect
import pickle
from typing import Any

import pytest

from wse_tornado import Backoff, Limits


def test_unauthenticated_connections_are_bounded_per_address_below_the_total() -> None:
    limits = Limits()
    assert limits.max_unauthenticated == 1000
    assert limits.max_unauthenticated_per_address == 100
    assert limits.max_hello_size == 64 * 1024


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("max_strangers", "max_unauthenticated"),
        ("max_strangers_per_address", "max_unauthenticated_per_address"),
    ],
)
def test_an_old_name_is_taken_with_a_warning_and_can_be_read(old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"now called {new}$") as caught:
        limits = Limits(**{old: 7})  # type: ignore[arg-type]
    assert caught[0].filename == __file__
    assert getattr(limits, new) == getattr(limits, old) == 7
    assert old not in {field.name for field in dataclasses.fields(Limits)}
    with pytest.raises(ValueError, match=new), pytest.warns(DeprecationWarning, match=old):
        Limits(**{old: -1})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not both"), pytest.warns(DeprecationWarning, match=old):
        Limits(**{old: 1, new: 1})  # type: ignore[arg-type]


def test_limits_are_still_a_dataclass() -> None:
    limits = dataclasses.replace(Limits(max_queue=5), max_unauthenticated=7)
    assert (limits.max_queue, limits.max_unauthenticated) == (5, 7)
    assert limits == Limits(max_queue=5, max_unauthenticated=7)
    assert pickle.loads(pickle.dumps(limits)) == copy.copy(limits) == limits
    assert "max_hello_size" in inspect.signature(Limits).parameters
    with pytest.raises(TypeError, match="unknown"):
        Limits(unknown=1)  # type: ignore[call-arg]


def test_a_backoff_may_have_an_end() -> None:
    assert Backoff().attempts is None
    assert Backoff(attempts=3).attempts == 3
    assert repr(Backoff(attempts=3)).endswith("attempts=3)")


@pytest.mark.parametrize("attempts", [0, -1, 1.5, True, "3"], ids=repr)
def test_a_number_of_attempts_is_at_least_one(attempts: Any) -> None:
    with pytest.raises(ValueError, match="attempts of at least 1, or None"):
        Backoff(attempts=attempts)
