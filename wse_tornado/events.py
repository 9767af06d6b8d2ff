"""The handlers of users: Channel (messages, by type) and Signal (events of connections).

They store handlers and look them up; a lane of the dispatcher runs them. No I/O and no threads:
subscribing is safe from any thread because every change replaces a tuple.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .protocol import RESERVED_PREFIX

__all__ = ["Channel", "ClientChannel", "Handler", "ServerChannel", "Signal"]

F = TypeVar("F", bound=Callable[..., Any])

# A decorated function keeps its own type, and a type checker refuses one of the wrong arity.
ClientHandler = TypeVar("ClientHandler", bound=Callable[[Any], Any])
ServerHandler = TypeVar("ServerHandler", bound=Callable[[Any, Any], Any])


class Handler:
    """A user's function and what has to be known to run it.

    Attributes:
        fn: The function itself.
        is_coroutine: Whether it is a coroutine function, which runs on the loop.
        inline: Whether it is a quick plain function that the loop may run itself.
        once: Whether it is removed when it is taken for its first event.
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
    """Whether calling ``fn`` returns a coroutine: ``fn`` is a coroutine function, or an object
    whose ``__call__`` is one."""
    if inspect.iscoroutinefunction(fn):
        return True
    method = getattr(fn, "__call__", None)  # noqa: B004 - the method itself is wanted
    return not inspect.isclass(fn) and inspect.iscoroutinefunction(method)


def is_generator_callable(fn: Any) -> bool:
    """Whether calling ``fn`` returns a generator or an asynchronous one, without running any of
    its code: ``fn`` is a generator function, or an object whose ``__call__`` is one."""
    method = getattr(fn, "__call__", None)  # noqa: B004 - the method itself is wanted
    return any(
        inspect.isgeneratorfunction(candidate) or inspect.isasyncgenfunction(candidate)
        for candidate in ((fn,) if inspect.isclass(fn) else (fn, method))
    )


def check_handler(fn: Callable[..., Any], params: tuple[str, ...], what: str) -> None:
    """Refuse a handler that could not be called, in the code that registers it.

    Raises:
        TypeError: ``fn`` is not callable, does not take these arguments, or is a generator
            function, of which a call would run nothing.
    """
    if not callable(fn):
        raise TypeError(f"{what} takes a function, not {fn!r}")
    if is_generator_callable(fn):
        name = getattr(fn, "__qualname__", repr(fn))
        raise TypeError(
            f"{what} cannot be a generator function: calling {name} would run none of its code; "
            "remove the yield"
        )
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
    """Refuse a message type that users may not use. ``what`` names the method, for the error.

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
    if callable(type):
        raise ValueError(
            f"{what}: the type of a message is a non-empty string, not {type!r}; give it first, "
            f'as in {what}("hello")'
        )


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
        self.params = params
        self._reserved = reserved
        self._inline = inline
        self._handlers: dict[Any, tuple[Handler, ...]] = {}
        self._lock = threading.Lock()

    @overload
    def on(self, type: Any, fn: F, *, inline: bool = ...) -> F: ...
    @overload
    def on(self, type: Any, fn: None = None, *, inline: bool = ...) -> Callable[[F], F]: ...
    def on(self, type: Any, fn: F | None = None, *, inline: bool = False) -> Any:
        """Call ``fn`` for every message of this type.

        Args:
            type: The message type, a non-empty string.
            fn: The handler, a plain or a coroutine function; without it, a decorator is returned.
            inline: Run a quick plain function on the loop itself, ahead of everything queued.
                It must not block.

        Returns:
            The handler, so that ``on`` can be a decorator.

        Raises:
            ValueError: The type is missing, empty or belongs to the library.
            TypeError: The handler cannot be called with the arguments of a handler, or is a
                generator function.
        """
        return self._subscribe(type, fn, inline=inline, once=False)

    @overload
    def once(self, type: Any, fn: F, *, inline: bool = ...) -> F: ...
    @overload
    def once(self, type: Any, fn: None = None, *, inline: bool = ...) -> Callable[[F], F]: ...
    def once(self, type: Any, fn: F | None = None, *, inline: bool = False) -> Any:
        """Like `on`, for the next message of this type only."""
        return self._subscribe(type, fn, inline=inline, once=True)

    def _subscribe(self, type: Any, fn: F | None, *, inline: bool, once: bool) -> Any:
        check_user_type(type, self._reserved, "channel.once" if once else "channel.on")
        if fn is None:
            return lambda fn: self._subscribe(type, fn, inline=inline, once=once)
        check_handler(fn, self.params, f"a handler of {type!r}")
        handler = Handler(fn, inline=inline or self._inline, once=once)
        with self._lock:
            self._handlers[type] = (*self._handlers.get(type, ()), handler)
        return fn

    def off(self, type: Any, fn: Callable[..., Any] | None = None) -> None:
        """Remove the handler ``fn`` of this type, or, without ``fn``, all of them. It is not an
        error if there is none."""
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
        """The handlers to run for one message of this type; ``once`` handlers are removed.

        Called on the loop thread only.
        """
        handlers = self._handlers.get(type, ())
        for handler in handlers:
            if handler.once:
                with self._lock:
                    # Keep what is not in `handlers`: a `once` handler that another thread added
                    # after we read them is for the next message.
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
        """Whether this type has a handler."""
        return type in self._handlers

    def __repr__(self) -> str:
        return f"<Channel types={sorted(map(str, self._handlers))}>"


class ServerChannel(Channel):
    """The channel of a server: its handlers are called with ``(conn, payload)``."""

    def __init__(self, reserved: Mapping[Hashable, str], *, inline: bool = False) -> None:
        super().__init__(("conn", "payload"), reserved, inline=inline)

    if TYPE_CHECKING:  # the same methods, for handlers of two arguments

        @overload
        def on(self, type: Any, fn: ServerHandler, *, inline: bool = ...) -> ServerHandler: ...
        @overload
        def on(
            self, type: Any, fn: None = None, *, inline: bool = ...
        ) -> Callable[[ServerHandler], ServerHandler]: ...
        def on(self, type: Any, fn: Any = None, *, inline: bool = False) -> Any: ...

        @overload
        def once(self, type: Any, fn: ServerHandler, *, inline: bool = ...) -> ServerHandler: ...
        @overload
        def once(
            self, type: Any, fn: None = None, *, inline: bool = ...
        ) -> Callable[[ServerHandler], ServerHandler]: ...
        def once(self, type: Any, fn: Any = None, *, inline: bool = False) -> Any: ...


class ClientChannel(Channel):
    """The channel of a client: its handlers are called with ``(payload)``."""

    def __init__(self, reserved: Mapping[Hashable, str], *, inline: bool = False) -> None:
        super().__init__(("payload",), reserved, inline=inline)

    if TYPE_CHECKING:  # the same methods, for handlers of one argument

        @overload
        def on(self, type: Any, fn: ClientHandler, *, inline: bool = ...) -> ClientHandler: ...
        @overload
        def on(
            self, type: Any, fn: None = None, *, inline: bool = ...
        ) -> Callable[[ClientHandler], ClientHandler]: ...
        def on(self, type: Any, fn: Any = None, *, inline: bool = False) -> Any: ...

        @overload
        def once(self, type: Any, fn: ClientHandler, *, inline: bool = ...) -> ClientHandler: ...
        @overload
        def once(
            self, type: Any, fn: None = None, *, inline: bool = ...
        ) -> Callable[[ClientHandler], ClientHandler]: ...
        def once(self, type: Any, fn: Any = None, *, inline: bool = False) -> Any: ...


class Signal:
    """Handlers of one kind of event.

    Call it, ``when.joined(fn)``, or use it as a decorator, ``@when.joined``; ``off`` undoes it.
    Subscribing is safe from any thread.

    Attributes:
        name: The signal's name.
        params: The names of the arguments that its handlers are called with.
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
            TypeError: The handler cannot be called with these arguments, or is a generator
                function.
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
        """Remove the handler ``fn``. It is not an error if there is none."""
        with self._lock:
            self._handlers = tuple(h for h in self._handlers if h.fn != fn)

    def take(self, *args: Any) -> tuple[Handler, ...]:
        """The handlers to run for one event. A signal that replays keeps the event's arguments for
        late subscribers. Called on the loop thread only."""
        with self._lock:
            if self._replay is not None:
                self._last = args
            handlers = self._handlers
            if any(handler.once for handler in handlers):
                self._handlers = tuple(h for h in handlers if not h.once)
        return handlers

    def is_last(self, args: tuple[Any, ...]) -> bool:
        """Whether that event is the latest one."""
        return self._last is args

    def forget(self) -> None:
        """Replay nothing to late subscribers until the next event."""
        with self._lock:
            self._last = None

    def __bool__(self) -> bool:
        """Whether there is a handler."""
        return bool(self._handlers)

    def __repr__(self) -> str:
        return f"<Signal {self.name}({', '.join(self.params)}) handlers={len(self._handlers)}>"
