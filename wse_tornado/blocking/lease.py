"""What keeps the loop running for one client or server, from its first use to its end.

All of it changes on the loop thread, which no signal reaches: an interrupted caller leaves either
the state before or the state after.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from .dispatch import Runner
from .loop import Run, thread_state

__all__ = ["Lease"]


class Lease:
    """The use that one object makes of the loop thread.

    Args:
        goodbye: Closes the object when the interpreter exits.
        runners: Its worker threads, which end with it.
    """

    def __init__(self, goodbye: Callable[[], Coroutine[Any, Any, None]], *runners: Runner) -> None:
        self._goodbye = goodbye
        self._runners = runners
        self._run: Run | None = None  # the run that is kept
        self._user: object = None

    @property
    def active(self) -> bool:
        """Whether it keeps the loop running. Any thread."""
        run = self._run
        return run is not None and not run.over

    def begin(self) -> None:
        """Keep the loop of this thread running; without effect where it does already."""
        run = thread_state.run
        assert run is not None
        if self._run is not run:
            self._run, self._user = run, object()
            run.users.add(self._user)
            run.goodbyes[self._goodbye] = None
            for runner in self._runners:
                runner.resume()

    def take(self) -> object:
        """Begin to end it: what `end` is given then. A `begin` from now on is another use."""
        user, self._user = self._user, None
        self._run = None
        return user

    def end(self, user: object) -> None:
        """Let go of what `take` gave."""
        run = thread_state.run
        assert run is not None
        if self._run is None:  # nobody has begun anew meanwhile
            run.goodbyes.pop(self._goodbye, None)
            for runner in self._runners:
                runner.retire()
        run.leave(user)
