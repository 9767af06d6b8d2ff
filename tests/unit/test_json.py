"""The fast ways to read and write JSON give what ``json`` gives, to the letter."""

import json
import math
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wse_tornado import JsonProtocol, NotSerializable
from wse_tornado.protocol import json_encoder

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@pytest.mark.skipif("WSE_TEST_FAST" not in os.environ, reason="not the fast environment")
def test_the_fast_environment_is_fast() -> None:
    import msgspec  # noqa: F401
    import uvloop  # noqa: F401


def outcome(read, text: str) -> object:
    try:
        value = read(text)
    except RecursionError:
        return RecursionError
    except ValueError:
        return ValueError
    # repr tells 1 from 1.0, 0.0 from -0.0, and keeps the order of keys.
    return type(value), repr(value)


def reference(text: str) -> object:
    def refuse(name: str) -> object:
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


@settings(max_examples=300, deadline=None)
@given(value=VALUES)
def test_what_json_writes_is_read_as_json_reads_it(value: object) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        assert outcome(JsonProtocol().decode, text) == outcome(reference, text)


@settings(max_examples=500, deadline=None)
@given(text=st.text(alphabet='[]{}:,"\\/0123456789.eE+-truefalsn ud8\x00\n\ufeff', max_size=24))
def test_any_text_is_judged_as_json_judges_it(text: str) -> None:
    assert outcome(JsonProtocol().decode, text) == outcome(reference, text)


@settings(max_examples=200, deadline=None)
@given(digits=st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?\Z"))
def test_any_number_is_read_as_json_reads_it(digits: str) -> None:
    assert outcome(JsonProtocol().decode, digits) == outcome(reference, digits)


@pytest.mark.parametrize(
    "text",
    [
        '"\\ud800"',
        '"\\ude00\\ud83d"',
        "1e999",
        "-1e999",
        '{"a":1,"a":2}',
        "NaN",
        "Infinity",
        "-Infinity",
        "[" * 100_000,
        "[" * 3000,
        "9" * 5000,
        "\ufeff1",
        "-0",
        "-0.0",
    ],
)
def test_odd_texts_are_judged_as_json_judges_them(text: str) -> None:
    assert outcome(JsonProtocol().decode, text) == outcome(reference, text)


@settings(max_examples=300, deadline=None)
@given(value=VALUES)
def test_what_is_written_is_what_json_writes(value: object) -> None:
    expected = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    assert "".join(json_encoder()(value, 0)) == expected


@pytest.mark.parametrize(
    "value",
    [{7: "a", None: "b", True: "c", 1.5: "d"}, (1, 2), "\u2028\x7f", 10**30, {"k": (1, [2])}],
)
def test_what_json_can_write_can_be_written(value: object) -> None:
    expected = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert "".join(json_encoder()(value, 0)) == expected


def deep() -> list[object]:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    return nested


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, {1, 2}, b"x", object(), {(1, 2): 3}, 1j, deep()],
    ids=["nan", "inf", "set", "bytes", "object", "tuple-key", "complex", "deep"],
)
def test_what_json_cannot_write_is_refused(value: object) -> None:
    with pytest.raises(NotSerializable) as caught:
        JsonProtocol().pack("t", value)
    assert "\n" not in str(caught.value)


def test_a_circle_is_refused_and_leaves_nothing_behind() -> None:
    protocol = JsonProtocol()
    circle: list[object] = []
    circle.append(circle)
    for _ in range(3):
        with pytest.raises(NotSerializable):
            protocol.pack("t", circle)
    circle.clear()
    assert protocol.pack("t", circle) == '["t",[],null]'
