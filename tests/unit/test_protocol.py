"""protocol.py: one message and its text, without a socket (docs/wire.md 2)."""

import json
import math
from collections.abc import Hashable
from typing import Any

import pytest

from wse_tornado import InternalTypes, JsonProtocol, Message, NotSerializable, Protocol, WseError
from wse_tornado.protocol import check_protocol, encode, internal_types_of

from ..support import stable

json_protocol = JsonProtocol()


# -- writing


def test_a_message_is_a_compact_array() -> None:
    packed = json_protocol.pack("hello", {"message": "Hello server!", "n": [1, 2]})
    assert packed == '["hello",{"message":"Hello server!","n":[1,2]},null]'


def test_absent_payload_and_stamp_are_null() -> None:
    assert json_protocol.pack("hello") == '["hello",null,null]'


def test_text_is_not_ascii_escaped() -> None:
    assert (
        json_protocol.pack("привіт", "日本 \U0001f600", "s") == '["привіт","日本 \U0001f600","s"]'
    )


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", [lambda n: n, lambda n: [n], lambda n: {"a": {"b": n}}])
def test_nan_and_infinity_are_never_written(number: float, where: Any) -> None:
    with pytest.raises(NotSerializable, match="'hello' cannot be written as JSON") as caught:
        json_protocol.pack("hello", where(number))
    assert caught.value.details["type"] == "hello"


def test_a_lone_surrogate_is_written_as_its_escape() -> None:
    packed = json_protocol.pack("hello", "half \ud83d of a pair, ї")
    assert packed == '["hello","half \\ud83d of a pair, ї",null]'
    assert packed.encode("utf-8")
    assert json_protocol.unpack(packed) == ("hello", "half \ud83d of a pair, ї", None)


# -- reading


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('["hello",1,"s"]', ("hello", 1, "s")),
        ('["hello"]', ("hello", None, None)),
        ('["hello",1]', ("hello", 1, None)),
        ('["hello",1,"s",{"more":1},2]', ("hello", 1, "s")),
        (' [ "hello" , 1 , "s" ] ', ("hello", 1, "s")),
        ('[null,1,"s"]', (None, 1, "s")),
        ('["",1,"s"]', ("", 1, "s")),
        ('[0,1,"s"]', (None, 1, "s")),
        ("[false]", (None, None, None)),
    ],
)
def test_arrays_are_padded_and_cut(text: str, message: tuple[Any, ...]) -> None:
    assert json_protocol.unpack(text) == message
    assert json_protocol.unpack(text.encode()) == message


@pytest.mark.parametrize(
    "data",
    [
        "",
        "nonsense",
        "[]",
        "{}",
        "null",
        '"hello"',
        "1",
        "[1,2,3]",
        '[["hello"]]',
        '[{"a":1}]',
        "[true]",
        '["hello",NaN]',
        '["hello",Infinity]',
        '["hello",{"a":-Infinity}]',
        '["hello"',
        '["hello"] tail',
        "['hello']",
        b"\xff\xfe",
        b'["\xff"]',
        "\ufeff[]",
    ],
)
def test_what_is_no_message_is_refused(data: str | bytes) -> None:
    with pytest.raises(ValueError):
        json_protocol.unpack(data)


# -- protocols of users


class Numbered(Protocol):
    """Binary frames, integers for internal types."""

    name = "numbered"
    internal_types = {"hi": 1, "challenge": 2, "welcome": 3, "call": 4, "response": 5}  # noqa: RUF012

    def pack(self, type: Any, payload: Any = None, stamp: Any = None) -> str | bytes:
        return json.dumps([type, payload, stamp]).encode()

    def unpack(self, data: str | bytes) -> tuple[Any, Any, Any]:
        type, payload, stamp = json.loads(data)
        return type, payload, stamp


def test_a_protocol_cannot_lack_pack_or_unpack() -> None:
    class Half(Protocol):
        name = "half"

        def pack(self, type: Any, payload: Any = None, stamp: Any = None) -> str:
            return ""

    with pytest.raises(TypeError, match="unpack"):
        Half()  # type: ignore[abstract]


def test_internal_types_may_be_a_mapping_that_names_some() -> None:
    types = internal_types_of(Numbered())
    assert types == InternalTypes(1, 2, 3, 4, 5)
    assert types.response_error == "~wse:response-err"
    assert types.roles()[2] == "challenge"


def test_roles_are_the_fields_by_type() -> None:
    assert InternalTypes().roles() == {
        "~wse:hi": "hi",
        "~wse:challenge": "challenge",
        "~wse:welcome": "welcome",
        "~wse:call": "call",
        "~wse:response": "response",
        "~wse:response-err": "response_error",
    }


def test_two_equal_internal_types_are_refused() -> None:
    class Same(Numbered):
        internal_types = InternalTypes(hi="x", welcome="x")  # type: ignore[assignment]

    with pytest.raises(ValueError, match="differ"):
        check_protocol(Same())


def test_without_a_protocol_it_is_the_default_one() -> None:
    assert isinstance(check_protocol(None), JsonProtocol)
    numbered = Numbered()
    assert check_protocol(numbered) is numbered


@pytest.mark.parametrize("wrong", [JsonProtocol, "wse-default-json", object()], ids=stable)
def test_what_is_no_protocol_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="protocol= takes an instance of a Protocol subclass"):
        check_protocol(wrong)


@pytest.mark.parametrize("name", ["", None, 7])
def test_a_protocol_without_a_name_is_refused(name: Any) -> None:
    class Nameless(Numbered):
        pass

    Nameless.name = name
    with pytest.raises(TypeError, match=r"Nameless\.name must be a non-empty string"):
        check_protocol(Nameless())


def test_a_protocol_that_never_names_itself_is_refused() -> None:
    class Anonymous(Protocol):
        def pack(self, type: Any, payload: Any = None, stamp: Any = None) -> str:
            return ""

        def unpack(self, data: str | bytes) -> tuple[Any, Any, Any]:
            return None, None, None

    with pytest.raises(TypeError, match="Anonymous"):
        check_protocol(Anonymous())


def test_str_becomes_a_text_frame_and_bytes_a_binary_one() -> None:
    assert encode(json_protocol, "ї", 1, "s") == ('["ї",1,"s"]'.encode(), False)
    assert encode(Numbered(), "a", 1) == (b'["a", 1, null]', True)


class Returns(Numbered):
    """Packs to whatever it is given."""

    name = "returns"

    def __init__(self, packed: Any) -> None:
        self.packed = packed

    def pack(self, type: Any, payload: Any = None, stamp: Any = None) -> Any:
        if isinstance(self.packed, Exception):
            raise self.packed
        return self.packed


@pytest.mark.parametrize("packed", [b"ab", bytearray(b"ab"), memoryview(b"ab")], ids=stable)
def test_all_kinds_of_bytes_make_a_binary_frame(packed: Any) -> None:
    assert encode(Returns(packed), "t", None) == (b"ab", True)


@pytest.mark.parametrize("packed", [None, 5, [1, 2], 1.5, "\ud800"], ids=stable)
def test_a_protocol_that_packs_to_something_else_is_not_sent(packed: Any) -> None:
    # bytes(5) would be five zero bytes.
    with pytest.raises(NotSerializable, match="cannot be packed by returns"):
        encode(Returns(packed), "t", None)


def test_any_exception_of_pack_is_not_serializable() -> None:
    cause = RuntimeError("no such field")
    with pytest.raises(NotSerializable, match="no such field") as caught:
        encode(Returns(cause), "t", None)
    assert caught.value.__cause__ is cause


def test_an_error_of_this_library_passes_as_it_is() -> None:
    error = WseError("mine.own")
    with pytest.raises(WseError) as caught:
        encode(Returns(error), "t", None)
    assert caught.value is error


def test_a_received_message_is_a_pair() -> None:
    message = Message("hello", 1)
    type, payload = message
    assert (type, payload) == (message.type, message.payload) == ("hello", 1)


def test_internal_types_are_hashable_values() -> None:
    types: InternalTypes = InternalTypes(hi=1)
    first: Hashable = types.hi
    assert first == 1
