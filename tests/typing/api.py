"""What type checkers see: decorated functions keep their types, wrong arities are errors.

Checked by mypy --strict (which refuses an ignore that ignores nothing) and pyright; never run.
"""

from typing import Any

from typing_extensions import assert_type

from wse_tornado.events import ClientChannel, ServerChannel
from wse_tornado.rpc import Procedures


def two(conn: object, payload: dict[str, int]) -> int:
    return payload["a"]


def one(payload: dict[str, int]) -> int:
    return payload["a"]


async def two_later(conn: object, payload: str) -> str:
    return payload


def server(channel: ServerChannel, procedures: Procedures) -> None:
    @channel.on("a")
    def decorated(conn: object, payload: int) -> int:
        return payload

    @channel.once("a", inline=True)
    def decorated_once(conn: object, payload: int) -> str:
        return ""

    @procedures.register("add")
    def add(conn: object, payload: int) -> int:
        return payload

    assert_type(decorated(None, 1), int)
    assert_type(decorated_once(None, 1), str)
    assert_type(add(None, 1), int)
    assert_type(channel.on("a", two)(None, {}), int)
    assert_type(procedures.register("b")(two)(None, {}), int)
    channel.on("a", two_later)
    channel.on("a", lambda conn, payload: None)
    channel.on("a", one)  # type: ignore[type-var]  # pyright: ignore
    channel.on("a")(one)  # type: ignore[type-var]  # pyright: ignore


def client(channel: ClientChannel) -> None:
    @channel.on("a")
    def decorated(payload: Any) -> bytes:
        return b""

    assert_type(decorated(1), bytes)
    channel.on("a", lambda payload: None)
    channel.once("a", two)  # type: ignore[type-var]  # pyright: ignore
