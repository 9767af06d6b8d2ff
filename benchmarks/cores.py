"""Which core does what, and how many files a process may open."""

from __future__ import annotations

import os
import resource

FILES = 65_536  # 5,000 connections and room besides


def pin(core: int | None) -> None:
    """Keep this process, and all threads it starts, on one core. None leaves it free."""
    if core is not None:
        os.sched_setaffinity(0, {core})


def pair() -> tuple[int | None, int | None]:
    """A core for the process under test and another one for the load; None where there are not
    two cores, or no way to pin (macOS)."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[-1]) if len(cores) > 1 else (None, None)


def raise_file_limit() -> int:
    """Allow as many open files as the system lets us, up to `FILES`. Returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft if soft != resource.RLIM_INFINITY else FILES
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
