"""What must hold for any input, as functions that hypothesis and atheris drive alike.

Each takes bytes or values from outside and raises AssertionError, or anything undocumented, where
the product breaks its word.
"""

import json
from collections.abc import Iterable
from typing import Any

from wse_tornado import JsonProtocol, NotSerializable
from wse_tornado.admission import (
    Action,
    Admission,
    Admit,
    AskChallenge,
    AskIdentify,
    AskVerify,
    AuthRequest,
    Ignore,
    Reject,
    SendQuest,
    State,
)
from wse_tornado.protocol import Protocol, internal_types_of
from wse_tornado.transport.frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Event,
    FrameError,
    FrameParser,
    parse_close,
)

MAX_SIZE = 300  # bytes of a message; small, so that the bound is met often
MAX_HEAD = 14  # bytes before a payload
FRAME_CODES = (1002, 1007, 1009)

json_protocol = JsonProtocol()


# -- frames


def read_whole(data: bytes, *, masked: bool) -> tuple[list[Event], FrameError | None]:
    """All of it as one chunk."""
    parser = FrameParser(masked=masked, max_message_size=MAX_SIZE)
    return parser.feed(data), parser.error


def check_frames(data: bytes, cuts: Iterable[int], *, masked: bool) -> None:
    """However a stream is cut, it gives the same events, the same end, and holds a bounded rest."""
    whole, whole_error = read_whole(data, masked=masked)
    code = whole_error.code if whole_error is not None else None
    assert (whole, code) == read_plainly(data, masked=masked)
    parser = FrameParser(masked=masked, max_message_size=MAX_SIZE)
    events: list[Event] = []
    position = 0
    for cut in (*cuts, len(data)):
        chunk, position = data[position : position + cut], min(len(data), position + cut)
        events += parser.feed(memoryview(chunk) if cut % 2 else chunk)
        held = len(parser._held or b"") + len(parser._fragments or b"")
        assert held <= 2 * MAX_SIZE + MAX_HEAD + len(chunk)
        if any(opcode == CLOSE for opcode, _ in events):
            break  # nothing counts after it
    if all(opcode != CLOSE for opcode, _ in whole):
        assert _described(parser.error) == _described(whole_error)
    assert events == whole
    for opcode, payload in events:
        assert isinstance(payload, str if opcode == TEXT else bytes)
        assert opcode in (TEXT, BINARY, CLOSE, PING, PONG)
        if opcode in (TEXT, BINARY):
            size = len(payload.encode() if isinstance(payload, str) else payload)
            assert size <= MAX_SIZE
        else:
            assert len(payload) <= 125
        if opcode == CLOSE:
            assert isinstance(payload, bytes)
            _check_close(payload)
    if parser.error is not None:
        assert parser.error.code in FRAME_CODES
        assert len(parser.error.reason.encode()) <= 123
        assert parser._fragments is None
        assert parser.feed(data) == []


def read_plainly(data: bytes, *, masked: bool) -> tuple[list[Event], int | None]:
    """RFC 6455 section 5 once more, the plain way and all at once: events, and the code of an
    error. Lengths are looked at before anything else of a frame, reserved bits after them."""
    events: list[Event] = []
    message: bytearray | None = None
    kind = at = 0
    while len(data) - at >= 2:
        first, second = data[at], data[at + 1]
        opcode, final, control = first & 0x0F, bool(first & 0x80), bool(first & 0x08)
        size, start = second & 0x7F, at + 2
        if bool(second & 0x80) != masked or (size > 125 and control):
            return events, 1002
        if size > 125:
            start += 2 if size == 126 else 8
            if len(data) < start:
                break
            size = int.from_bytes(data[at + 2 : start], "big")
            if size > MAX_SIZE:
                return events, 1009
        begins = opcode in (TEXT, BINARY)
        if (
            first & 0x70
            or opcode not in (0, TEXT, BINARY, CLOSE, PING, PONG)
            or (control and not final)
            or (begins and message is not None)
            or (opcode == 0 and message is None)
        ):
            return events, 1002
        if not control and size + len(message or b"") > MAX_SIZE:
            return events, 1009
        key, start = data[start : start + 4 * masked], start + 4 * masked
        if len(data) < start + size:
            break
        payload = bytes(
            byte ^ (key[i % 4] if key else 0) for i, byte in enumerate(data[start : start + size])
        )
        at = start + size
        if control:
            events.append((opcode, payload))
            if opcode == CLOSE:
                break
            continue
        kind = opcode or kind
        message = (message or bytearray()) + payload
        if final:
            whole, message = bytes(message), None
            try:
                events.append((kind, whole if kind == BINARY else whole.decode("utf-8")))
            except UnicodeDecodeError:
                return events, 1007
    return events, None


def _described(error: FrameError | None) -> tuple[int, str] | None:
    return (error.code, error.reason) if error is not None else None


def _check_close(payload: bytes) -> None:
    try:
        code, reason = parse_close(payload)
    except FrameError as error:
        assert error.code in (1002, 1007)
    else:
        assert 1000 <= code <= 4999
        reason.encode()


# -- messages


def check_unpack(protocol: Protocol, data: str | bytes) -> None:
    """It is a message, or a documented exception; a message can be asked for its role."""
    try:
        type, _payload, stamp = protocol.unpack(data)
    except (ValueError, RecursionError):
        return
    assert type is None or isinstance(type, str)
    internal_types_of(protocol).roles().get(type)
    bool(stamp)


def check_pack(protocol: Protocol, type: Any, payload: Any, stamp: Any) -> None:
    """What can be packed is read again as the same; the rest is a documented exception."""
    try:
        packed = protocol.pack(type, payload, stamp)
    except (NotSerializable, TypeError, ValueError, OverflowError):
        return
    read = protocol.unpack(packed)
    assert read[0] == type
    if isinstance(packed, str):
        json.loads(packed.encode("utf-8"), parse_constant=_fail)
        assert repr(read[1:]) == repr(tuple(json.loads(json.dumps([payload, stamp]))))
    again = protocol.unpack(protocol.pack(*read))
    assert repr(again) == repr(read)  # as text, because NaN is not equal to itself


def _fail(name: str) -> Any:
    raise AssertionError(f"{name} was written")


def check_text(data: bytes) -> None:
    """Bytes of a text frame, as the transport decodes them, and of a binary one."""
    check_unpack(json_protocol, data)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return
    check_unpack(json_protocol, text)
    try:
        expected = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        expected = None
    is_message = isinstance(expected, list) and expected
    if not is_message or (expected[0] and not isinstance(expected[0], str)):
        try:
            json_protocol.unpack(text)
        except (ValueError, RecursionError):
            return
        raise AssertionError(f"no message was read as one: {text!r}")
    assert isinstance(expected, list)
    padded = [expected[0] if isinstance(expected[0], str) else None, *expected[1:], None, None]
    assert repr(json_protocol.unpack(text)) == repr(tuple(padded[:3]))


def _refuse(name: str) -> Any:
    raise ValueError(name)


# -- the admission

ROLES = (None, "hi", "challenge", "welcome", "call", "response", "response_error")


class Door:
    """An `Admission` and the connection's part around it: runs handlers, in any order and late.

    Attributes:
        admitted: What `Admit` said, as often as it came.
    """

    def __init__(self, *, challenges: bool, verifies: bool) -> None:
        self.challenges = challenges
        self.verifies = challenges and verifies
        self.verdicts: list[Admit | Reject] = []
        self.admission = Admission(
            challenges=challenges,
            verifies=self.verifies,
            make_auth=lambda identity, meta: AuthRequest(
                identity, meta, decide=lambda auth, verdict: self.verdicts.append(verdict)
            ),
        )
        self.running: list[str] = []
        self.asked: list[str] = []
        self.admitted: list[Admit] = []
        self.rejected: list[Reject] = []
        self.verified_right = False
        self.accepted = False

    def step(self, move: str, value: Any) -> None:
        """One event, if it can happen now; then what must hold always."""
        before = self.admission.state
        getattr(self, "_" + move)(value)
        self.check(before)

    # what comes from the peer

    def _receive(self, value: tuple[str | None, Any]) -> None:
        before, asked = self.admission.state, len(self.asked)
        self._do(self.admission.receive(*value))
        expected = {State.STRANGER: "hi", State.CHALLENGED: "challenge"}.get(before)
        if expected is None:  # nothing is waited for
            assert (self.admission.state, len(self.asked)) == (before, asked)
        elif value[0] != expected:
            assert (self.admission.state, len(self.asked)) == (State.REFUSED, asked)

    # what handlers do, each in its own time

    def _challenged(self, value: Any) -> None:
        if self._finish("challenge"):
            self._do(self.admission.challenged(value))

    def _verified(self, value: Any) -> None:
        if self._finish("verify"):
            decided = self.admission.auth is not None and self.admission.auth.decided
            waiting = self.admission.state is State.VALIDATING
            self.verified_right |= bool(value) and waiting and not decided
            self._do(self.admission.verified(bool(value)))

    def _identified(self, value: Any) -> None:
        self._finish("identify")

    def _failed(self, value: Any) -> None:
        if self.running:
            self.running.pop(0)
            self._do(self.admission.failed(ValueError(value)))

    def _accept(self, value: Any) -> None:
        auth = self.admission.auth
        if auth is None:
            return
        try:
            auth.accept(value, "welcome")
        except RuntimeError:
            assert auth.decided
        except TypeError:
            pass  # not hashable
        else:
            self.accepted |= bool(value)

    def _refuse(self, value: Any) -> None:
        auth = self.admission.auth
        if auth is None:
            return
        try:
            auth.refuse()
        except RuntimeError:
            assert auth.decided

    def _judge(self, value: Any) -> None:
        """The verdict arrives on the loop; it may come from a thread, and late."""
        if self.verdicts:
            self._do(self.admission.verdict(self.verdicts.pop(0)))

    def _finish(self, what: str) -> bool:
        if what in self.running:
            self.running.remove(what)
            return True
        return False

    def _do(self, action: Action) -> None:
        match action:
            case AskChallenge():
                self.running.append("challenge")
                self.asked.append("challenge")
            case AskVerify():
                self.running.append("verify")
                self.asked.append("verify")
            case AskIdentify():
                self.running.append("identify")
                self.asked.append("identify")
            case Admit():
                self.admitted.append(action)
            case Reject():
                if action.reason:
                    self.rejected.append(action)
            case SendQuest() | Ignore():
                pass
            case _:
                raise AssertionError(f"an undocumented action: {action!r}")

    def check(self, before: State) -> None:
        """Whatever happened."""
        state = self.admission.state
        assert len(self.admitted) <= 1
        assert not self.admitted or self.accepted
        assert all(verdict.cid for verdict in self.admitted)
        assert len(self.asked) == len(set(self.asked)), "a handler was asked twice"
        assert not (self.admitted and self.rejected)
        assert len(self.rejected) <= 1
        assert bool(self.admitted) == (state is State.VALID)
        assert bool(self.rejected) == (state is State.REFUSED)
        if before in (State.VALID, State.REFUSED):
            assert state is before, "the end is no end"
        if "identify" in self.asked:
            assert not self.challenges or self.admission.auth is not None
            assert not self.verifies or self.verified_right
            if self.challenges:
                assert self.admission.auth is not None
                assert self.admission.auth.challenge is not None
        if state is State.STRANGER:
            assert self.admission.auth is None
            assert not self.asked


MOVES: tuple[str, ...] = (
    "receive",
    "challenged",
    "verified",
    "identified",
    "failed",
    "accept",
    "refuse",
    "judge",
)


def check_admission(moves: Iterable[tuple[str, Any]], *, challenges: bool, verifies: bool) -> State:
    """Any order of messages, results and verdicts lets in once, and only whom a handler accepts."""
    door = Door(challenges=challenges, verifies=verifies)
    for move, value in moves:
        door.step(move, value)
    return door.admission.state
