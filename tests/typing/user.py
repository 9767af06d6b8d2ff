"""What type checkers see of a user's file; checked by mypy --strict and pyright, never run.

Decorated functions keep their own types, and handlers of the wrong arity are errors: an ignore that
ignores nothing is an error, too, in both checkers.
"""

from typing import Any

from typing_extensions import assert_type

from wse_tornado import (
    AsyncConnection,
    AsyncWseClient,
    AsyncWseServer,
    ClientIdentity,
    Connection,
    WseClient,
    WseServer,
)

server = WseServer(port=4200)
async_server = AsyncWseServer()
client = WseClient("ws://localhost:4200")
async_client = AsyncWseClient("ws://localhost:4200")


def add(conn: Connection, payload: dict[str, int]) -> int:
    return payload["a"]


def double(payload: int) -> int:
    return payload * 2


@server.register("sum")
def total(conn: Connection, payload: list[int]) -> int:
    return sum(payload)


@server.channel.on("hello")
def hello(conn: Connection, data: dict[str, str]) -> str:
    assert_type(conn.client, ClientIdentity)
    return data["message"]


@server.channel.once("first", inline=True)
def first(conn: Connection, data: Any) -> None: ...


@server.when.joined
def joined(client: ClientIdentity, meta: dict[str, Any]) -> bytes:
    return b""


@server.use_challenge
def quest(auth: object) -> str:
    return "?"


@async_server.register("later")
async def later(conn: AsyncConnection, payload: str) -> str:
    return str(await conn.call("echo", payload))


@async_server.channel.on("hello")
async def hello_later(conn: AsyncConnection, data: str) -> None: ...


@client.channel.on("welcome")
def welcome(data: dict[str, str]) -> str:
    return data["message"]


@client.challenge
def solve(quest: str) -> str:
    return quest


@async_client.register("echo", inline=True)
def echo(payload: str) -> str:
    return payload


@async_client.channel.once("news")
async def news(payload: str) -> None: ...


def uses(conn: Connection) -> None:
    # The functions' own types, with the names of their parameters.
    assert_type(server.register("add")(add)(conn=conn, payload={}), int)
    assert_type(server.register("plus", add)(conn=conn, payload={}), int)
    assert_type(client.register("double")(double)(payload=1), int)
    assert_type(client.register("twice", double, inline=True)(payload=1), int)
    assert_type(total(conn, [1]), int)
    assert_type(hello(conn, {}), str)
    assert_type(joined(conn.client, {}), bytes)
    assert_type(welcome({}), str)
    assert_type(solve(""), str)
    assert_type(echo(""), str)


# Wrong uses.
server.register("one", double)  # type: ignore[type-var]  # pyright: ignore
server.channel.on("one")(double)  # type: ignore[type-var]  # pyright: ignore
client.channel.on("two", add)  # type: ignore[type-var]  # pyright: ignore
client.register("two")(add)  # type: ignore[type-var]  # pyright: ignore
