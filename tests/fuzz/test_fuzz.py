"""Arbitrary input over the frame parser, the protocols and the admission (hypothesis).

``WSE_TEST_FUZZ`` sets how many inputs there are in all: 5,000 by default, 200,000 in the long run.
"""

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wse_tornado.transport.frames import BINARY, CLOSE, PING, PONG, TEXT, encode_frame

from ..support import require
from . import targets

try:
    from wse_tornado.msgpack import MsgpackProtocol
except ImportError:
    MsgpackProtocol = None  # type: ignore[assignment, misc]

INPUTS = int(os.environ.get("WSE_TEST_FUZZ", "5000"))
TESTS = 7
SHARE = max(1, INPUTS // TESTS)

fuzz = settings(
    max_examples=SHARE,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
pytestmark = [pytest.mark.once, pytest.mark.timeout(60 + INPUTS / 50)]

# -- frames

MASK = b"\x01\x82\x03\xfe"
small = st.binary(max_size=30)
bodies = (
    small
    | st.text(max_size=30).map(str.encode)
    | st.sampled_from([0, 124, 125, 126, 127, 299, 300, 301]).map(lambda size: b"x" * size)
)
valid = st.builds(
    lambda opcode, body: (0x80 | opcode, body), st.sampled_from([TEXT, BINARY, PING, PONG]), bodies
)
fragments = st.lists(bodies, min_size=2, max_size=4).map(
    lambda parts: [
        ((0x80 if i == len(parts) - 1 else 0) | (0 if i else TEXT), part)
        for i, part in enumerate(parts)
    ]
)
closings = st.builds(lambda body: (0x80 | CLOSE, body[:125]), bodies)
broken = st.tuples(st.integers(0, 255), bodies)
frame_lists = st.lists(
    valid.map(lambda frame: [frame])
    | fragments
    | closings.map(lambda frame: [frame])
    | broken.map(lambda frame: [frame]),
    max_size=5,
).map(lambda groups: [frame for group in groups for frame in group])
cuts = st.lists(st.integers(1, 40), max_size=20)


def write(frames: list[tuple[int, bytes]], masked: bool, noise: bytes, at: int) -> bytes:
    """A stream of frames with some noise in it."""
    stream = b"".join(
        bytes([first])
        + encode_frame(BINARY, body, MASK if masked else None)[1:]  # the head's size and mask
        for first, body in frames
    )
    at = at % (len(stream) + 1)
    return stream[:at] + noise + stream[at + len(noise) :]


@fuzz
@given(
    frames=frame_lists,
    masked=st.booleans(),
    masks=st.booleans(),
    noise=st.just(b"") | st.binary(max_size=4),
    at=st.integers(0, 500),
    cuts=cuts,
)
def test_a_stream_of_frames_means_the_same_however_it_is_cut(
    frames: list[tuple[int, bytes]], masked: bool, masks: bool, noise: bytes, at: int, cuts: Any
) -> None:
    targets.check_frames(write(frames, masks, noise, at), cuts, masked=masked)


@fuzz
@given(data=st.binary(max_size=400), masked=st.booleans(), cuts=cuts)
def test_any_bytes_for_frames_are_read_or_refused_with_a_code(
    data: bytes, masked: bool, cuts: Any
) -> None:
    targets.check_frames(data, cuts, masked=masked)


# -- messages

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**70), max_value=2**70)
    | st.floats()
    | st.text(max_size=10)
    | st.text(st.characters(min_codepoint=0xD7FF, max_codepoint=0xE001), max_size=3)
)
odd = st.binary(max_size=5) | st.complex_numbers() | st.datetimes() | st.just(object())
keys = st.text(max_size=5) | st.integers() | st.none() | st.booleans() | st.binary(max_size=3)
values = st.recursive(
    scalars | odd,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(keys, inner, max_size=4)
    ),
    max_leaves=10,
)
types = st.text(max_size=8) | st.sampled_from(["~wse:hi", "~wse:call", "", None, 7, b"x", (1,)])
pieces = st.sampled_from(
    [
        *'[]{},:"',
        "null",
        "true",
        "NaN",
        "-Infinity",
        "1e999",
        '"~wse:hi"',
        '"x"',
        "0",
        "-0",
        "1.5",
        '"\\ud800"',
        '"\\u0000"',
        " ",
        "\ufeff",
        "[[[[",
        "9" * 25,
        '{"a":',
        '{"a":1,"a":2}',
    ]
)
texts = st.lists(pieces, max_size=12).map("".join)
messages = st.builds(lambda inner: f'["x",{inner},null]', texts)


@fuzz
@given(texts.map(str.encode) | messages.map(str.encode) | st.binary(max_size=60))
def test_any_json_is_a_message_or_a_documented_error(data: bytes) -> None:
    targets.check_text(data)


@fuzz
@given(types, values, scalars)
def test_what_json_packs_is_read_as_the_same(type: Any, payload: Any, stamp: Any) -> None:
    targets.check_pack(targets.json_protocol, type, payload, stamp)


@fuzz
@given(types, values, scalars)
def test_what_msgpack_packs_is_read_as_the_same(type: Any, payload: Any, stamp: Any) -> None:
    require(MsgpackProtocol is not None, "msgpack")
    targets.check_pack(MsgpackProtocol(), type, payload, stamp)


@fuzz
@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda data: b"\x93\xa1x" + data))
def test_any_msgpack_is_a_message_or_a_documented_error(data: bytes) -> None:
    require(MsgpackProtocol is not None, "msgpack")
    targets.check_unpack(MsgpackProtocol(), data)


# -- the admission

hellos = st.fixed_dictionaries(
    {}, optional={"identity": scalars, "meta": st.none() | st.just({"a": 1}) | scalars}
)
received = st.tuples(
    st.just("receive"), st.tuples(st.sampled_from(targets.ROLES), hellos | scalars)
)
hello = st.just(("receive", ("hi", {"identity": "me"})))
answer = st.just(("receive", ("challenge", "answer")))
results = st.tuples(st.sampled_from(targets.MOVES[1:]), scalars | st.just([]))
moves = st.lists(received | hello | answer | results | results, max_size=14)


@fuzz
@given(
    greets=st.booleans(),
    rest=moves,
    challenges=st.booleans(),
    verifies=st.booleans(),
)
def test_no_order_of_events_lets_anybody_in_unasked(
    greets: bool, rest: list[tuple[str, Any]], challenges: bool, verifies: bool
) -> None:
    first = [("receive", ("hi", {"identity": "me"}))] if greets else []
    targets.check_admission([*first, *rest], challenges=challenges, verifies=verifies)
