"""MsgpackProtocol without a socket: what it holds, what it refuses to read and to write."""

import datetime as dt
import math
import subprocess
import sys

import pytest

from wse_tornado import NotSerializable
from wse_tornado.protocol import encode

from ..support import require, seconds
from ..support.process import TESTS, environment

try:
    import msgpack

    from wse_tornado.msgpack import MsgpackProtocol
except ImportError:
    msgpack = None

NOON = dt.datetime(2026, 1, 1, 12, 0, tzinfo=dt.timezone.utc)
PAYLOADS = [
    None,
    True,
    0,
    -(2**63),
    2**64 - 1,
    0.1,
    math.inf,
    "",
    "Привіт 🐍",
    b"\x00\xff",
    NOON,
    [1, [2, [3]]],
    {"a": {"b": [b"c", None]}, b"bytes": 1},
]


@pytest.fixture(autouse=True)
def msgpack_is_here() -> None:
    require(msgpack is not None, "msgpack")


@pytest.mark.parametrize("payload", PAYLOADS, ids=repr)
def test_a_payload_survives_a_call(payload):
    protocol = MsgpackProtocol()
    assert protocol.unpack(protocol.pack("add", payload, "x")) == ("add", payload, "x")


MALFORMED = {
    "empty": b"",
    "not MessagePack": b"\xc1",
    "cut short": b"\x93\xa4echo",
    "bytes after the end": b"\x91\xa4echo\x00",
    "no array": b"\x81\xa4echo\x01",
    "an empty array": b"\x90",
    "a number as type": b"\x91\x05",
    "true as type": b"\x91\xc3",
    "number keys": b"\x92\xa4echo\x81\x01\x02",
    "text that is not UTF-8": b"\x92\xa4echo\xa1\xff",
    "a length that lies": b"\xdd\xff\xff\xff\xff",
    "nested too deeply": b"\x91" * 5000 + b"\x90",
    "a date after the last": b"\x92\xa4echo\xc7\x0c\xff" + b"\x00" * 4 + b"\x0f" * 8,
}


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


UNPACKABLE = {
    "an object": object(),
    "a set": {1},
    "65 bits": 2**64,
    "number keys": {"inner": {1: "one"}},
    "tuple keys": {(1, 2): "pair"},
    "a lone surrogate": "\ud800",
    "a date without time zone": dt.datetime(2026, 1, 1),
    "nested too deeply": nested(5000),
    "as deep as it goes": nested(1023),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_message_is_refused(data):
    with pytest.raises((ValueError, RecursionError)):
        MsgpackProtocol().unpack(data)


@pytest.mark.parametrize("payload", UNPACKABLE.values(), ids=UNPACKABLE)
def test_what_cannot_be_packed_is_the_callers_error(payload):
    with pytest.raises(NotSerializable, match="wse-msgpack"):
        encode(MsgpackProtocol(), "echo", payload)


def test_a_type_that_is_no_string_raises_in_the_caller():
    with pytest.raises(TypeError, match="a string"):
        MsgpackProtocol().pack(5, None)


# -- the extra


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=seconds(30),
        env=environment(),
        cwd=TESTS,
    )


def test_without_the_library_the_import_names_the_extra():
    done = run("import sys; sys.modules['msgpack'] = None; import wse_tornado.msgpack")
    assert "ImportError: wse_tornado.msgpack needs the msgpack library" in done.stderr
    assert "pip install 'wse-tornado[msgpack]'" in done.stderr


def test_importing_the_package_does_not_import_msgpack():
    done = run("import sys, wse_tornado; assert 'msgpack' not in sys.modules, 'imported'")
    assert done.returncode == 0, done.stderr
