"""Time-outs of tests, scaled by one environment variable for slow machines."""

import os

SCALE = float(os.environ.get("WSE_TEST_TIMESCALE", "1"))


def seconds(value: float) -> float:
    """A time-out of so many seconds on a machine of ordinary speed."""
    return value * SCALE
