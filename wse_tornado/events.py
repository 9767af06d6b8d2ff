"""Who listens to what: Channel (messages by type) and Signal (what happens to connections).

They keep handlers and find them; running them is left to a lane (``aio/dispatch.py``,
``blocking/dispatch.py``). No I/O, no threads: subscribing is safe from any thread because every
change replaces a tuple.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

from .protocol import RESERVED_PREFIX

__all__ = ["Channel", "Handler", "Signal"]

F = TypeVar("F", bound=Callable[..., Any])


class Handler:
    """A user's function and what has to be known to run it.

    Attributes:
        fn: The function itself.
        is_coroutine: It is a coroutine function, so it runs on the loop.
        inline: It is a quick plain function that the loop may run itself.
        once: It is forgotten when it is taken for its first event.
    """

    __slots__ = ("fn", "inline", "is_coroutine", "once")

    def __init__(self, fn: Callable[..., Any], *, inline: bool = False, once: bool = False) -> None:
        self.fn = fn
        self.is_coroutine = is_coroutine_callable(fn)
        self.inline = inline and not self.is_coroutine
        self.once = once

    def __repr__(self) -> str:
        return f"<Handler {getattr(self.fn, '__qualname__', self.fn)!s}>"


def is_coroutine_callable(fn: Callable[..., Any]) -> bool:
    """Whether calling ``fn`` makes a coroutine: a coroutine function, or an object whose
    ``__call__`` is one."""
    if inspect.iscoroutinefunction(fn):
        return True
    method = getattr(fn, "__call__", None)  # noqa: B004 - the method itself is wanted
    return not inspect.isclass(fn) and inspect.iscoroutinefunction(method)


def check_handler(fn: Callable[..., Any], params: tuple[str, ...], what: str) -> None:
    """Refuse a handler that could not be called, in the caller that registers it.

    Raises:
        TypeError: ``fn`` is not callable, or does not take these arguments.
    """
    if not callable(fn):
        raise TypeError(f"{what} takes a function, not {fn!r}")
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # builtins without a signature
        return
    try:
        signature.bind(*params)
    except TypeError:
        name = getattr(fn, "__qualname__", repr(fn))
        raise TypeError(
            f"{what} is called with ({', '.join(params)}); {name}{signature} cannot take that"
        ) from None


def check_user_type(type: Any, reserved: Mapping[Hashable, str], what: str) -> None:
    """Refuse a message type that users may not use.

    Raises:
        ValueError: It is empty, not hashable, or belongs to the library.
    """
    try:
        internal = type in reserved
    except TypeError:
        raise ValueError(f"{what}: {type!r} is not hashable; use a non-empty string") from None
    if internal or (isinstance(type, str) and type.startswith(RESERVED_PREFIX)):
        raise ValueError(f"{what}: {type!r} belongs to the library; choose another name")
    if not type or isinstance(type, bool):
        raise ValueError(f"{what}: the type of a message is a non-empty string, not {type!r}")


class Channel:
    """Handlers of messages, by type.

    ``on`` and ``once`` work as calls, ``channel.on("hello", fn)``, and as decorators,
    ``@channel.on("hello")``. They may be called from any thread.
    """

    def __init__(
        self,
        params: tuple[str, ...],
        reserved: Mapping[Hashable, str],
        *,
        inline: bool = False,
    ) -> None:
        self._params = params
        self._reserved = reserved
        self._inline = inline
        self._handlers: dict[Any, tuple[Handler, ...]] = {}
        self._lock = threading.Lock()

    def on(self, type: Any, fn: F | None = None, *, inline: bool = False) -> Any:
        """Call ``fn`` for every message of this type.

        Args:
            type: The message type, a non-empty string.
            fn: The handler, a plain or a coroutine function; left out, a decorator is returned.
            inline: Run a quick plain function on the loop itself, ahead of everything queued.
                It must not block.

        Returns:
            The handler, so that the call can decorate it.

        Raises:
            ValueError: The type is empty or belongs to the library.
            TypeError: The handler cannot be called with what it will be given.
        """
        return self._subscribe(type, fn, inline=inline, once=False)

    def once(self, type: Any, fn: F | None = None, *, inline: bool = False) -> Any:
        """Like `on`, for the next message of this type only."""
        return self._subscribe(type, fn, inline=inline, once=True)

    def _subscribe(self, type: Any, fn: F | None, *, inline: bool, once: bool) -> Any:
        check_user_type(type, self._reserved, "channel.on")
        if fn is None:
            return lambda fn: self._subscribe(type, fn, inline=inline, once=once)
        check_handler(fn, self._params, f"a handler of {type!r}")
        handler = Handler(fn, inline=inline or self._inline, once=once)
        with self._lock:
            self._handlers[type] = (*self._handlers.get(type, ()), handler)
        return fn

    def off(self, type: Any, fn: Callable[..., Any] | None = None) -> None:
        """Forget ``fn`` for this type, or every handler of the type. Unknown ones are no error."""
        with self._lock:
            left = tuple(
                handler
                for handler in self._handlers.get(type, ())
                if fn is not None and handler.fn != fn
            )
            if left:
                self._handlers[type] = left
            else:
                self._handlers.pop(type, None)

    def take(self, type: Any) -> tuple[Handler, ...]:
        """The handlers to run for one message of this type; ``once`` handlers are forgotten.

        Called on the loop thread only.
        """
        handlers = self._handlers.get(type, ())
        for handler in handlers:
            if handler.once:
                with self._lock:
                    # One that another thread has subscribed since is for the next message.
                    left = tuple(
                        h for h in self._handlers.get(type, ()) if not h.once or h not in handlers
                    )
                    if left:
                        self._handlers[type] = left
                    else:
                        self._handlers.pop(type, None)
                break
        return handlers

    def __contains__(self, type: Any) -> bool:
        """Whether anybody listens to this type."""
        return type in self._handlers

    def __repr__(self) -> str:
        return f"<Channel types={sorted(map(str, self._handlers))}>"


class Signal:
    """Handlers of one kind of event.

    Call it, ``when.joined(fn)``, or use it as a decorator, ``@when.joined``; ``off`` undoes it.
    Subscribing is safe from any thread.

    Attributes:
        name: What it is called.
        params: The names of the arguments that handlers get.
    """

    def __init__(
        self,
        name: str,
        params: tuple[str, ...],
        *,
        replays: Callable[[Signal, Handler, tuple[Any, ...]], None] | None = None,
        inline: bool = False,
    ) -> None:
        self.name = name
        self.params = params
        self._replay = replays
        self._inline = inline
        self._last: tuple[Any, ...] | None = None
        self._handlers: tuple[Handler, ...] = ()
        self._lock = threading.Lock()

    def __call__(self, fn: F, *, once: bool = False) -> F:
        """Call ``fn`` whenever this happens.

        Returns:
            The handler itself.

        Raises:
            TypeError: The handler cannot be called with what it will be given.
        """
        check_handler(fn, self.params, f"a handler of when.{self.name}")
        handler = Handler(fn, inline=self._inline, once=once)
        with self._lock:
            last = self._last
            if last is None or not once:
                self._handlers = (*self._handlers, handler)
        if last is not None and self._replay is not None:
            self._replay(self, handler, last)
        return fn

    def on(self, fn: F) -> F:
        """The same as calling the signal."""
        return self(fn)

    def once(self, fn: F) -> F:
        """Call ``fn`` the next time only."""
        return self(fn, once=True)

    def off(self, fn: Callable[..., Any]) -> None:
        """Forget ``fn``. An unknown one is no error."""
        with self._lock:
            self._handlers = tuple(h for h in self._handlers if h.fn != fn)

    def take(self, *args: Any) -> tuple[Handler, ...]:
        """The handlers to run for one event; remembered for late subscribers where the signal
        replays. Called on the loop thread only."""
        with self._lock:
            if self._replay is not None:
                self._last = args
            handlers = self._handlers
            if any(handler.once for handler in handlers):
                self._handlers = tuple(h for h in handlers if not h.once)
        return handlers

    def is_last(self, args: tuple[Any, ...]) -> bool:
        """Whether nothing has happened since that event."""
        return self._last is args

    def forget(self) -> None:
        """Late subscribers get nothing until the next event."""
        with self._lock:
            self._last = None

    def __bool__(self) -> bool:
        """Whether anybody listens."""
        return bool(self._handlers)

    def __repr__(self) -> str:
        return f"<Signal {self.name}({', '.join(self.params)}) handlers={len(self._handlers)}>"
