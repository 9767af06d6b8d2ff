"""backoff.py: delays of reconnecting."""

import math
from typing import Any

import pytest

from wse_tornado import Backoff


def test_ceilings_double_from_half_a_second_to_thirty() -> None:
    ceilings = [Backoff().ceiling(attempt) for attempt in range(9)]
    assert ceilings == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_delays_are_spread_over_the_whole_range_below_the_ceiling() -> None:
    backoff = Backoff()
    for attempt in (0, 3, 10):
        ceiling = backoff.ceiling(attempt)
        delays = [backoff.delay(attempt) for _ in range(500)]
        assert all(0 <= delay <= ceiling for delay in delays)
        # Full jitter: a quarter of them in each quarter, give or take.
        for quarter in range(4):
            low, high = ceiling * quarter / 4, ceiling * (quarter + 1) / 4
            assert 50 < sum(low <= delay <= high for delay in delays) < 250


def test_thousands_of_attempts_do_not_overflow() -> None:
    assert Backoff().ceiling(100_000) == 30
    assert Backoff(factor=1).ceiling(100_000) == 0.5


def test_bounds_can_be_chosen() -> None:
    backoff = Backoff(initial=1, maximum=5, factor=3, lasting=0)
    assert [backoff.ceiling(attempt) for attempt in range(4)] == [1, 3, 5, 5]
    assert repr(backoff) == "Backoff(initial=1, maximum=5, factor=3, lasting=0, attempts=None)"


@pytest.mark.parametrize(
    "bounds",
    [
        {"initial": 0},
        {"initial": -1},
        {"initial": 31},
        {"maximum": 0.1},
        {"factor": 0.5},
        {"lasting": -1},
        {"initial": math.nan},
        {"maximum": math.nan},
        {"factor": math.nan},
        {"lasting": math.nan},
    ],
    ids=repr,
)
def test_bounds_that_make_no_sense_are_refused(bounds: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Backoff needs 0 < initial <= maximum"):
        Backoff(**bounds)
