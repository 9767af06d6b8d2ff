"""The frame codec, without a socket: RFC 6455 section 5, rule by rule."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wse_tornado.transport.frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    FrameError,
    FrameParser,
    _mask_in_python,
    close_payload,
    encode_frame,
    mask_bytes,
    parse_close,
)

MASK = b"\x01\x02\x03\x04"


def parser(*, masked: bool = False, limit: int = 1 << 20) -> FrameParser:
    return FrameParser(masked=masked, max_message_size=limit)


def raw(first: int, payload: bytes = b"", *, mask: bytes | None = None) -> bytes:
    """A frame from its first byte, built independently of the codec."""
    bit = 0x80 if mask else 0
    if len(payload) < 126:
        head = bytes([first, bit | len(payload)])
    elif len(payload) < 65536:
        head = struct.pack("!BBH", first, bit | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, bit | 127, len(payload))
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 125, 126, 127, 65535, 65536, 70000])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_every_length_form_is_written_and_read(size: int, masked: bool, opcode: int) -> None:
    payload = (b"abcdefg" * 10001)[:size]
    frame = encode_frame(opcode, payload, MASK if masked else None)
    assert frame == raw(0x80 | opcode, payload, mask=MASK if masked else None)
    expected = payload.decode() if opcode == TEXT else payload
    assert parser(masked=masked).feed(frame) == [(opcode, expected)]


def test_frames_split_at_every_byte_give_the_same_messages() -> None:
    stream = (
        raw(0x81, "Привіт".encode(), mask=MASK)
        + raw(0x02, b"one ", mask=MASK)
        + raw(0x89, b"ping", mask=MASK)
        + raw(0x00, b"message ", mask=MASK)
        + raw(0x80, b"x" * 200, mask=MASK)
        + raw(0x81, b"", mask=MASK)
        + raw(0x88, close_payload(1000, "bye"), mask=MASK)
    )
    whole = parser(masked=True).feed(stream)
    assert whole == [
        (TEXT, "Привіт"),
        (PING, b"ping"),
        (BINARY, b"one message " + b"x" * 200),
        (TEXT, ""),
        (CLOSE, b"\x03\xe8bye"),
    ]
    for cut in range(len(stream) + 1):
        split = parser(masked=True)
        assert split.feed(stream[:cut]) + split.feed(stream[cut:]) == whole, cut
    bytewise = parser(masked=True)
    assert [e for i in range(len(stream)) for e in bytewise.feed(stream[i : i + 1])] == whole


@settings(max_examples=200, deadline=None)
@given(
    messages=st.lists(st.tuples(st.booleans(), st.text(max_size=300)), max_size=12),
    cuts=st.lists(st.integers(min_value=1, max_value=97), min_size=1, max_size=40),
    masked=st.booleans(),
)
def test_any_chunks_of_any_messages_give_the_messages(
    messages: list[tuple[bool, str]], cuts: list[int], masked: bool
) -> None:
    mask = MASK if masked else None
    stream = b"".join(
        encode_frame(BINARY if binary else TEXT, text.encode(), mask) for binary, text in messages
    )
    subject = parser(masked=masked)
    got = []
    position = 0
    for i in range(len(stream)):
        if position >= len(stream):
            break
        step = cuts[i % len(cuts)]
        got += subject.feed(stream[position : position + step])
        position += step
    assert got == [(BINARY, text.encode()) if binary else (TEXT, text) for binary, text in messages]
    assert subject.error is None


@settings(max_examples=500, deadline=None)
@given(data=st.binary(max_size=400), masked=st.booleans())
def test_garbage_raises_nothing_and_ends_in_one_documented_code(data: bytes, masked: bool) -> None:
    subject = parser(masked=masked, limit=1000)
    for i in range(0, len(data), 7):
        for opcode, payload in subject.feed(data[i : i + 7]):
            assert opcode in (TEXT, BINARY, CLOSE, PING, PONG)
            assert isinstance(payload, str if opcode == TEXT else bytes)
            if opcode == CLOSE:
                try:
                    parse_close(payload)
                except FrameError as error:
                    assert error.code in (1002, 1007)
    if subject.error is not None:
        assert subject.error.code in (1002, 1007, 1009)
        assert subject.feed(raw(0x81, b"more")) == []


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        (raw(0xC1, b"x"), 1002),  # RSV1 without an extension
        (raw(0xA1, b"x"), 1002),
        (raw(0x91, b"x"), 1002),
        (raw(0x83, b"x"), 1002),  # reserved opcodes
        (raw(0x87, b"x"), 1002),
        (raw(0x8B, b"x"), 1002),
        (raw(0x8F, b"x"), 1002),
        (raw(0x80, b"x"), 1002),  # a continuation of nothing
        (raw(0x00, b"x"), 1002),
        (raw(0x01, b"x") + raw(0x81, b"y"), 1002),  # a message inside a message
        (raw(0x01, b"x") + raw(0x02, b"y"), 1002),
        (raw(0x09, b"x"), 1002),  # a fragmented control frame
        (raw(0x89, b"x" * 126), 1002),  # a long control frame
        (raw(0x88, b"x" * 126), 1002),
        (raw(0x81, b"x", mask=MASK), 1002),  # masked by a server
        (raw(0x81, b"\xff\xfe"), 1007),
        (raw(0x81, "\ud800".encode("utf-8", "surrogatepass")), 1007),
        (raw(0x01, b"\xc3") + raw(0x80, b"\x28"), 1007),
        (raw(0x81, b"x" * 101), 1009),
        (raw(0x82, b"x" * 101), 1009),
        (raw(0x01, b"x" * 60) + raw(0x80, b"x" * 41), 1009),
        (struct.pack("!BBQ", 0x82, 127, 1 << 63), 1009),
        (struct.pack("!BBH", 0x81, 126, 50000), 1009),  # known before the payload comes
    ],
)
def test_broken_rules_end_with_the_right_code(stream: bytes, code: int) -> None:
    subject = parser(limit=100)
    subject.feed(stream)
    assert subject.error is not None
    assert subject.error.code == code
    assert len(subject.error.reason.encode()) <= 123


def test_unmasked_frames_of_a_client_are_refused() -> None:
    subject = parser(masked=True)
    assert subject.feed(raw(0x81, b"x")) == []
    assert subject.error is not None
    assert subject.error.code == 1002


def test_what_came_before_an_error_is_delivered() -> None:
    subject = parser()
    assert subject.feed(raw(0x81, b"good") + raw(0x83, b"bad")) == [(TEXT, "good")]
    assert subject.error is not None


def test_a_character_may_be_split_between_fragments() -> None:
    euro = "€".encode()
    stream = raw(0x01, euro[:1]) + raw(0x00, euro[1:2]) + raw(0x80, euro[2:])
    assert parser().feed(stream) == [(TEXT, "€")]


def test_a_message_at_the_bound_passes_and_one_above_does_not() -> None:
    at, above = parser(limit=100), parser(limit=100)
    assert at.feed(raw(0x81, b"x" * 100)) == [(TEXT, "x" * 100)]
    assert above.feed(raw(0x81, b"x" * 101)) == []
    assert above.error is not None


def test_nothing_is_parsed_after_a_close_frame() -> None:
    assert parser().feed(raw(0x88) + raw(0x81, b"late")) == [(CLOSE, b"")]


@pytest.mark.parametrize(
    ("payload", "parsed"),
    [
        (b"", (1005, "")),
        (close_payload(1000), (1000, "")),
        (close_payload(4000, "jump"), (4000, "jump")),
        (close_payload(1012, "é"), (1012, "é")),
    ],
)
def test_close_frames_are_read(payload: bytes, parsed: tuple[int, str]) -> None:
    assert parse_close(payload) == parsed


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
def test_codes_that_may_not_be_sent_are_refused(code: int) -> None:
    with pytest.raises(FrameError) as caught:
        parse_close(struct.pack("!H", code))
    assert caught.value.code == 1002


def test_odd_close_payloads_are_refused() -> None:
    with pytest.raises(FrameError, match="half a code"):
        parse_close(b"\x03")
    with pytest.raises(FrameError) as caught:
        parse_close(b"\x03\xe8\xff")
    assert caught.value.code == 1007


def test_1005_is_written_as_an_empty_payload() -> None:
    assert close_payload(1005) == b""


@given(data=st.binary(max_size=70), mask=st.binary(min_size=4, max_size=4))
def test_masking_in_python_and_in_c_agree(data: bytes, mask: bytes) -> None:
    assert _mask_in_python(mask, data) == mask_bytes(mask, data)
    assert _mask_in_python(mask, _mask_in_python(mask, data)) == data
