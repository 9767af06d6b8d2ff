"""Values of payloads: common types, where an encoder refused, and the fourth element."""

import datetime as dt
import enum
import json
import math
import re
import time
import uuid
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from wse_tornado import JsonProtocol, NotSerializable, Protocol
from wse_tornado.protocol import common_types, encode


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Row:
    when: Any
    n: int = 1


UTC = dt.timezone.utc
VALUES: list[tuple[Any, Any]] = [
    (dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05+00:00"),
    (dt.datetime(2026, 1, 2), "2026-01-02T00:00:00"),
    (dt.date(2026, 1, 2), "2026-01-02"),
    (dt.time(3, 4), "03:04:00"),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (Decimal("1.50"), "1.50"),
    (Path("a") / "b", str(Path("a") / "b")),
    (Colour.RED, "red"),
    ({3, 1, 2}, [1, 2, 3]),
    (frozenset([1]), [1]),
    (Row(dt.date(2026, 1, 2)), {"when": "2026-01-02", "n": 1}),
]


@pytest.mark.parametrize(("value", "written"), VALUES, ids=lambda value: repr(value)[:30])
def test_common_types_are_written(value: Any, written: Any) -> None:
    protocol = JsonProtocol(default=common_types)
    assert protocol.unpack(protocol.pack("t", {"v": [value]}))[1] == {"v": [written]}
    with pytest.raises(NotSerializable, match=r"\$\.v\[0\].*default=wse_tornado\.protocol"):
        JsonProtocol().pack("t", {"v": [value]})


@pytest.mark.parametrize(("value", "written"), VALUES[1:], ids=lambda value: repr(value)[:30])
def test_common_types_are_written_as_messagepack(value: Any, written: Any) -> None:
    pytest.importorskip("msgpack")
    from wse_tornado.msgpack import MsgpackProtocol

    protocol = MsgpackProtocol(default=common_types)
    assert protocol.unpack(protocol.pack("t", {"v": [value]}))[1] == {"v": [written]}
    with pytest.raises(NotSerializable, match=r"\$\.v\[0\].*default=wse_tornado\.protocol"):
        MsgpackProtocol().pack("t", {"v": [value]})


def numpy_like(**members: Any) -> Any:
    """An object as numpy's: known by the module of its type, which is not imported."""
    return type("array", (), {"__module__": "numpy", **members})()


def test_numpy_values_are_written_without_importing_numpy() -> None:
    protocol = JsonProtocol(default=common_types)
    value = numpy_like(tolist=lambda self: [[1, 2.5]])
    assert protocol.pack("t", value) == '["t",[[1,2.5]],null]'
    with pytest.raises(NotSerializable):  # as a long double does
        protocol.pack("t", numpy_like(tolist=lambda self: self))


def test_a_default_must_be_a_function_and_may_raise_anything() -> None:
    with pytest.raises(TypeError, match="default= takes a function"):
        JsonProtocol(default=5)  # type: ignore[arg-type]

    def default(value: Any) -> Any:
        raise KeyError("odd")

    with pytest.raises(NotSerializable, match=r"\$\.a is of type object"):
        JsonProtocol(default=default).pack("t", {"a": object()})


@pytest.mark.parametrize(
    ("payload", "at", "why"),
    [
        ({"rows": [1, 2, 3, {"when": dt.date.today()}]}, "$.rows[3].when", "datetime.date"),
        (b"x", "$", "base64"),
        ({"a": math.nan}, "$.a", r"\$\.a is nan; JSON has no NaN"),
        (
            [0, [{(1, 2): 3}]],
            "$[1][0]",
            r"a map key of \$\[1\]\[0\] is of type tuple; keys are str",
        ),
        ({"odd key": 1j}, '$["odd key"]', "of type complex; convert it"),
        ({"a": (1, object())}, "$.a[1]", "of type object"),
    ],
    ids=lambda value: re.sub(r" at 0x\w+", "", repr(value)),
)
def test_what_cannot_be_written_is_located(payload: Any, at: str, why: str) -> None:
    with pytest.raises(NotSerializable, match=why) as caught:
        JsonProtocol().pack("t", payload)
    assert caught.value.details == {"type": "t", "at": at}
    assert at in str(caught.value) or at == "$"


def test_the_place_leads_through_what_default_wrote() -> None:
    with pytest.raises(NotSerializable, match=r"\$\[0\]\.when is of type object"):
        JsonProtocol(default=common_types).pack("t", [Row(object())])


def test_the_value_itself_is_not_shown() -> None:
    with pytest.raises(NotSerializable) as caught:
        JsonProtocol().pack("t", {"password": b"open sesame"})
    assert "sesame" not in str(caught.value)


def test_a_circle_and_a_depth_without_end_are_told_as_such() -> None:
    circle: dict[str, Any] = {}
    circle["a"] = [circle]
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for payload in (circle, deep):
        with pytest.raises(NotSerializable, match="nested too deeply, or contains itself"):
            JsonProtocol().pack("t", payload)


def test_searching_a_large_payload_costs_a_few_writings() -> None:
    payload = [{"n": n} for n in range(200_000)]
    begun = time.process_time()
    JsonProtocol().pack("t", payload)
    once = time.process_time() - begun
    payload.append({"n": object()})  # type: ignore[dict-item]
    begun = time.process_time()
    with pytest.raises(NotSerializable, match=r"\$\[200000\]\.n"):
        JsonProtocol().pack("t", payload)
    assert time.process_time() - begun < 20 * once + 1


# -- the fourth element


def protocols() -> list[Any]:
    found: list[Any] = [JsonProtocol()]
    try:
        from wse_tornado.msgpack import MsgpackProtocol
    except ImportError:
        return found
    return [*found, MsgpackProtocol()]


@pytest.mark.parametrize("protocol", protocols(), ids=lambda protocol: protocol.name)
def test_a_fourth_element_is_carried_and_ignored_by_plain_readers(protocol: Any) -> None:
    assert protocol.carries_extra
    for payload in ({"a": [1]}, None, "\ud83d" if protocol.name.endswith("json") else "x"):
        packed = protocol.pack_extra("t", payload, "s", {"got": 41})
        assert protocol.unpack_extra(packed) == ("t", payload, "s", {"got": 41})
        assert protocol.unpack(packed) == ("t", payload, "s")
        plain = protocol.pack("t", payload, "s")
        assert protocol.unpack_extra(plain) == ("t", payload, "s", None)
    data, _ = encode(protocol, "t", 1, None, {"x": 1})
    assert protocol.unpack_extra(data) == ("t", 1, None, {"x": 1})


@pytest.mark.parametrize("extra", [None, 5, "x", [1], True], ids=repr)
def test_a_fourth_element_that_is_no_object_is_none(extra: Any) -> None:
    text = json.dumps(["t", 1, None, extra, "more"])
    assert JsonProtocol().unpack_extra(text) == ("t", 1, None, None)


@pytest.mark.parametrize("data", ["[]", "{}", "[5]", "[[1]]", "nonsense"])
def test_what_is_no_message_is_refused_with_extra_too(data: str) -> None:
    with pytest.raises(ValueError):
        JsonProtocol().unpack_extra(data)


def test_a_users_protocol_stays_plain_unless_it_says_otherwise() -> None:
    class Mine(JsonProtocol):
        def pack(self, type: Any, payload: Any = None, stamp: Any = None) -> str:
            return super().pack(type, payload, stamp)

    class Renamed(JsonProtocol):
        name = "mine"

    class Knows(Mine):
        carries_extra = True

        def unpack(self, data: Any) -> Any:
            return super().unpack(data)

    assert (Protocol.carries_extra, Mine().carries_extra) == (False, False)
    assert (Renamed().carries_extra, Knows().carries_extra) == (True, True)
