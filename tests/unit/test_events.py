"""events.py: who listens to what."""

import functools
import sys
import threading
from typing import Any

import pytest

from wse_tornado.events import (
    Channel,
    Handler,
    Signal,
    check_handler,
    check_user_type,
    is_coroutine_callable,
)
from wse_tornado.protocol import InternalTypes

ROLES = InternalTypes().roles()


def channel(**options: Any) -> Channel:
    return Channel(("conn", "payload"), ROLES, **options)


def fns(handlers: tuple[Handler, ...]) -> list[Any]:
    return [handler.fn for handler in handlers]


def one(conn: Any, payload: Any) -> None: ...
def two(conn: Any, payload: Any) -> None: ...
def plain() -> None: ...


# -- channels


def test_handlers_are_found_by_type_in_the_order_of_subscribing() -> None:
    ch = channel()
    ch.on("a", one)
    ch.on("a", two)
    ch.on("b", two)
    assert fns(ch.take("a")) == [one, two]
    assert fns(ch.take("b")) == [two]
    assert ch.take("c") == ()
    assert "a" in ch
    assert "c" not in ch
    assert repr(ch) == "<Channel types=['a', 'b']>"


def test_on_and_once_decorate() -> None:
    ch = channel()

    @ch.on("a")
    def first(conn: Any, payload: Any) -> None: ...

    @ch.once("a", inline=True)
    def second(conn: Any, payload: Any) -> None: ...

    assert callable(first)
    assert callable(second)
    handlers = ch.take("a")
    assert fns(handlers) == [first, second]
    assert [handler.inline for handler in handlers] == [False, True]
    assert [handler.once for handler in handlers] == [False, True]


def test_on_returns_the_handler() -> None:
    assert channel().on("a", one) is one


def test_once_is_for_one_message() -> None:
    ch = channel()
    ch.once("a", one)
    ch.on("a", two)
    assert fns(ch.take("a")) == [one, two]
    assert fns(ch.take("a")) == [two]
    ch.once("b", one)
    assert fns(ch.take("b")) == [one]
    assert ch.take("b") == ()
    assert "b" not in ch


def test_once_is_never_lost_to_a_message_that_comes_at_the_same_moment() -> None:
    ch = channel()
    total = 3000
    done = threading.Event()

    def subscribe() -> None:
        for _ in range(total):
            ch.once("a", lambda conn, payload: None)
        done.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        thread = threading.Thread(target=subscribe)
        thread.start()
        taken = 0
        while not done.is_set():
            taken += len(ch.take("a"))
        thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert taken + len(ch.take("a")) == total


def test_off_forgets_one_handler_or_all_of_a_type() -> None:
    ch = channel()
    for fn in (one, two, one):
        ch.on("a", fn)
    ch.off("a", one)
    assert fns(ch.take("a")) == [two]
    ch.off("a", one)
    ch.off("unknown", one)
    ch.off("unknown")
    ch.on("a", one)
    ch.off("a")
    assert "a" not in ch


def test_off_finds_bound_methods() -> None:
    class Page:
        def show(self, conn: Any, payload: Any) -> None: ...

    page, ch = Page(), channel()
    ch.on("a", page.show)
    ch.off("a", page.show)  # another object each time it is looked up
    assert "a" not in ch


def test_a_message_keeps_the_handlers_it_has_taken() -> None:
    ch = channel()
    ch.on("a", one)
    taken = ch.take("a")
    ch.off("a")
    assert fns(taken) == [one]


@pytest.mark.parametrize("type", ["~wse:hi", "~wse:response", "~wse:anything", "~wse:"])
@pytest.mark.parametrize("method", ["on", "once"])
def test_types_of_the_library_cannot_be_subscribed(type: str, method: str) -> None:
    with pytest.raises(ValueError, match="belongs to the library"):
        getattr(channel(), method)(type, one)
    with pytest.raises(ValueError, match="belongs to the library"):
        getattr(channel(), method)(type)


@pytest.mark.parametrize("type", ["", None, 0, False, True, [], {}, {"a": 1}], ids=repr)
def test_what_is_no_type_is_refused(type: Any) -> None:
    with pytest.raises(ValueError, match="non-empty string"):
        channel().on(type, one)


def test_other_hashable_types_are_for_custom_protocols() -> None:
    check_user_type(7, {}, "send")
    check_user_type(("a", 1), {}, "send")
    with pytest.raises(ValueError, match="send: 7 belongs to the library"):
        check_user_type(7, {7: "hi"}, "send")


# -- handlers


def test_a_handler_that_cannot_be_called_is_refused_where_it_is_given() -> None:
    with pytest.raises(TypeError, match="a handler of 'a' takes a function, not 5"):
        channel().on("a", 5)  # type: ignore[type-var]
    with pytest.raises(TypeError, match=r"called with \(conn, payload\); plain\(\) -> None cannot"):
        channel().on("a", plain)
    with pytest.raises(TypeError, match="cannot take that"):
        channel().on("a", lambda conn, payload, more: None)


@pytest.mark.parametrize(
    "fn",
    [
        one,
        lambda *args: None,
        lambda conn, payload, more=1: None,
        functools.partial(lambda more, conn, payload: None, 1),
        print,
        max,
    ],
)
def test_whatever_takes_the_arguments_is_a_handler(fn: Any) -> None:
    check_handler(fn, ("conn", "payload"), "here")


def test_a_method_of_a_builtin_is_a_handler() -> None:
    check_handler([].append, ("payload",), "here")


def test_builtins_without_a_signature_are_taken_on_trust() -> None:
    check_handler(iter, ("payload",), "here")
    check_handler(dict, ("payload",), "here")


async def coroutine(conn: Any, payload: Any) -> None: ...


class WithCall:
    async def __call__(self, conn: Any, payload: Any) -> None: ...


def test_coroutine_functions_are_known_in_all_their_forms() -> None:
    assert is_coroutine_callable(coroutine)
    assert is_coroutine_callable(WithCall())
    assert is_coroutine_callable(functools.partial(coroutine, 1))
    assert not is_coroutine_callable(one)
    assert not is_coroutine_callable(WithCall)


def test_a_coroutine_is_never_inline() -> None:
    assert Handler(one, inline=True).inline
    assert not Handler(coroutine, inline=True).inline
    assert Handler(coroutine).is_coroutine


def test_a_handler_is_shown_by_the_name_of_its_function() -> None:
    assert repr(Handler(one)) == "<Handler one>"
    assert repr(Handler(WithCall())).startswith("<Handler <")


# -- signals


def test_a_signal_is_called_or_decorates() -> None:
    signal = Signal("closed", ("code", "reason"))
    assert not signal
    assert signal(one) is one
    assert signal.on(two) is two

    @signal
    def third(code: int, reason: str) -> None: ...

    @signal.once
    def fourth(code: int, reason: str) -> None: ...

    assert signal
    assert fns(signal.take(1000, "")) == [one, two, third, fourth]
    assert fns(signal.take(1000, "")) == [one, two, third]
    assert repr(signal) == "<Signal closed(code, reason) handlers=3>"


def test_off_undoes_subscribing() -> None:
    signal = Signal("closed", ("code", "reason"))
    signal(one)
    signal(two)
    signal.off(one)
    signal.off(one)
    assert fns(signal.take(1, 2)) == [two]


def test_a_handler_of_a_signal_is_checked() -> None:
    with pytest.raises(TypeError, match=r"when\.closed is called with \(code, reason\)"):
        Signal("closed", ("code", "reason"))(plain)


def test_a_late_subscriber_gets_the_last_value() -> None:
    replayed: list[Any] = []
    signal = Signal(
        "ready",
        ("a", "b"),
        replays=lambda signal, handler, args: replayed.append((handler.fn, args)),
    )
    signal(one)
    assert replayed == []
    signal.take(1, 2)
    signal.take(3, 4)
    signal(two)
    assert replayed == [(two, (3, 4))]
    assert fns(signal.take(5, 6)) == [one, two]


def test_a_late_once_subscriber_is_served_by_the_last_value_alone() -> None:
    replayed: list[Any] = []
    signal = Signal(
        "ready", ("a", "b"), replays=lambda signal, handler, args: replayed.append(args)
    )
    signal.take(1, 2)
    signal.once(one)
    assert replayed == [(1, 2)]
    assert signal.take(3, 4) == ()


def test_what_is_forgotten_is_not_replayed() -> None:
    replayed: list[Any] = []
    signal = Signal(
        "ready", ("a", "b"), replays=lambda signal, handler, args: replayed.append(args)
    )
    signal.take(1, 2)
    signal.forget()
    signal.once(one)
    assert replayed == []
    assert fns(signal.take(3, 4)) == [one]


def test_a_signal_that_does_not_replay_holds_nothing() -> None:
    signal = Signal("closed", ("a", "b"))
    signal.take(1, 2)
    signal.once(one)
    assert fns(signal.take(3, 4)) == [one]
