"""limits.py: every bound is checked, and has the default that the docs promise."""

import dataclasses
import inspect

import pytest

from wse_tornado import Limits
from wse_tornado import limits as module

NAMES = [field.name for field in dataclasses.fields(Limits)]


def test_the_defaults_are_those_documented() -> None:
    limits = Limits()
    assert limits.max_message_size == 10 * 1024 * 1024
    assert limits.max_send_buffer == 4 * 1024 * 1024
    assert limits.max_queue == 1000
    assert limits.max_inbox == 1000
    assert limits.max_connections == 10_000
    assert limits.max_unauthenticated == 1000
    assert limits.auth_timeout == 20
    assert limits.close_timeout == 3
    assert limits.heartbeat == 25
    assert limits.heartbeat_timeout == 20
    assert limits.max_workers == 32


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [-1, -0.5, True, "10", None, float("nan")], ids=repr)
def test_a_bound_that_makes_no_sense_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"Limits\.{name} .*{value!r}"):
        Limits(**{name: value})  # type: ignore[arg-type]


MAY_BE_OFF = ["heartbeat", "message_rate"]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in MAY_BE_OFF])
def test_zero_is_no_bound(name: str) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Limits(**{name: 0})


@pytest.mark.parametrize("name", MAY_BE_OFF)
def test_zero_turns_off_what_may_be_off(name: str) -> None:
    assert getattr(Limits(**{name: 0}), name) == 0


def test_limits_cannot_be_changed_afterwards() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Limits().max_queue = 1  # type: ignore[misc]


def test_every_bound_is_explained_where_it_stands() -> None:
    source = inspect.getsource(module)
    for name in NAMES:
        assert f"    {name}: " in source
        assert '"""' in source.split(f"    {name}: ")[1].splitlines()[1], name
