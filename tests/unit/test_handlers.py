"""Registering handlers: decorators without a name, generator functions, arity by flavour."""

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import pytest

from wse_tornado.events import Channel, ClientChannel, ServerChannel, Signal, check_handler
from wse_tornado.protocol import InternalTypes
from wse_tornado.rpc import Procedures

ROLES = InternalTypes().roles()


def plain(conn: Any, payload: Any) -> int:
    return 1


def rows(conn: Any, payload: Any) -> Iterator[int]:
    yield 1


async def arows(conn: Any, payload: Any) -> AsyncIterator[int]:
    yield 1


class Rows:
    def __call__(self, conn: Any, payload: Any) -> Iterator[int]:
        yield 1

    def method(self, conn: Any, payload: Any) -> Iterator[int]:
        yield 1


def three(more: Any, conn: Any, payload: Any) -> Iterator[int]:
    yield 1


GENERATORS = [rows, arows, Rows(), Rows().method, partial(three, 1)]


@pytest.mark.parametrize("method", ["on", "once"])
def test_a_channel_decorator_without_a_type_raises_at_once(method: str) -> None:
    channel = Channel(("conn", "payload"), ROLES)
    with pytest.raises(ValueError, match=rf'give it first, as in channel\.{method}\("hello"\)'):
        getattr(channel, method)(plain)
    assert repr(channel) == "<Channel types=[]>"


def test_a_register_decorator_without_a_name_raises_at_once() -> None:
    with pytest.raises(ValueError, match=r'give it first, as in @register\("add"\)'):
        Procedures(("conn", "payload")).register(plain)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "fn", GENERATORS, ids=lambda fn: getattr(fn, "__name__", type(fn).__name__)
)
def test_a_generator_function_is_no_handler(fn: Any) -> None:
    channel = Channel(("conn", "payload"), ROLES)
    for subscribe in (channel.on, channel.once):
        with pytest.raises(TypeError, match="a handler of 'a' cannot be a generator function"):
            subscribe("a", fn)
        with pytest.raises(TypeError, match="remove the yield"):
            subscribe("a")(fn)
    assert "a" not in channel
    signal = Signal("connected", ("conn", "payload"))
    with pytest.raises(TypeError, match=r"when\.connected cannot be a generator function"):
        signal(fn)
    assert not signal
    with pytest.raises(TypeError, match="identify cannot be a generator function"):
        check_handler(fn, ("conn", "payload"), "identify")


@pytest.mark.parametrize(
    "fn", GENERATORS, ids=lambda fn: getattr(fn, "__name__", type(fn).__name__)
)
def test_a_generator_function_is_no_procedure_yet(fn: Any) -> None:
    procedures = Procedures(("conn", "payload"))
    with pytest.raises(TypeError, match="generators are not supported as procedures yet"):
        procedures.register("rows", fn)
    assert not procedures


def test_a_class_whose_instances_generate_is_a_handler() -> None:
    class Job:
        def __init__(self, conn: Any, payload: Any) -> None: ...
        def __call__(self) -> Iterator[int]:
            yield 1

    check_handler(Job, ("conn", "payload"), "here")


def test_handlers_of_a_server_take_two_arguments_and_those_of_a_client_one() -> None:
    server, client = ServerChannel(ROLES), ClientChannel(ROLES, inline=True)
    server.on("a", plain)
    with pytest.raises(TypeError, match=r"called with \(conn, payload\)"):
        server.on("a", lambda payload: None)  # type: ignore[call-overload, misc]
    client.on("a", lambda payload: None)
    assert client.take("a")[0].inline
    with pytest.raises(TypeError, match=r"called with \(payload\)"):
        client.on("a", plain)  # type: ignore[call-overload]
