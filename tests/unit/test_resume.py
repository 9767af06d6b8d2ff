"""The arithmetic of sessions, against a model: two ends, and a wire that is cut at random."""

import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import pytest

from wse_tornado.resume import ACK_BYTES, ACK_MESSAGES, Resumable

HISTORIES = 150
STEPS = 400

# -- one end by itself


def test_a_message_is_kept_until_it_is_acknowledged() -> None:
    end = Resumable(1000, 10)
    for payload in (b"one", b"two", b"three"):
        end.keep(payload, False)
    end.acknowledged(2)
    assert end.kept == [(b"three", False)]
    assert (end.kept_bytes, len(end), end.sent, end.acked) == (5, 1, 3, 2)
    assert end.resume(2) == [(b"three", False)]
    assert end.resume(3) == []
    assert end.kept_bytes == 0


@pytest.mark.parametrize("count", [0, 3, -1, True, 1.0, "1", None])
def test_an_impossible_acknowledgement_changes_nothing(count: Any) -> None:
    end = Resumable(1000, 10)
    end.keep(b"one", True)
    end.keep(b"two", True)
    end.acknowledged(1)
    for receive in (end.acknowledged, end.resume):
        with pytest.raises(ValueError, match="acknowledgement"):
            receive(count)
    assert end.kept == [(b"two", True)]
    assert end.acked == 1


def test_the_bound_of_messages() -> None:
    end = Resumable(1000, 3)
    for _ in range(3):
        assert end.fits(1)
        end.keep(b"x", False)
    assert not end.fits(1)
    end.acknowledged(1)
    assert end.fits(1)


def test_the_bound_of_bytes_lets_one_large_message_through() -> None:
    end = Resumable(10, 100)
    assert end.fits(11)
    end.keep(b"x" * 4, False)
    assert end.fits(6)
    assert not end.fits(7)


def test_acknowledge_after_so_many_messages() -> None:
    end = Resumable(1000, 10)
    assert [end.took(1) for _ in range(ACK_MESSAGES)].index(True) == ACK_MESSAGES - 1
    assert end.acknowledge() == ACK_MESSAGES
    assert not end.owes
    assert not end.took(1)
    assert end.owes


def test_acknowledge_after_so_many_bytes() -> None:
    end = Resumable(1000, 10)
    assert not end.took(ACK_BYTES - 1)
    assert end.took(1)
    end.acknowledge()
    assert not end.took(1)


# -- two ends


class End:
    """One end of the model: it sends messages and calls, answers, and remembers all it hears."""

    def __init__(self, name: str, session: Resumable) -> None:
        self.name = name
        self.session = session
        self.wire: deque[tuple[Any, ...]] | None = None
        self.sent: list[tuple[Any, ...]] = []
        self.heard: list[tuple[Any, ...]] = []
        self.ran: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.calls = 0
        self.held: dict[bytes, tuple[Any, ...]] = {}

    def emit(self, *message: Any) -> None:
        payload = f"{self.name}{len(self.sent)}".encode()
        self.sent.append(message)
        self.held[payload] = message
        self.session.keep(payload, False)
        self.put(payload)

    def put(self, payload: bytes) -> None:
        if self.wire is not None:
            self.wire.append((payload, self.held[payload]))

    def acknowledge(self) -> None:
        if self.wire is not None:
            self.wire.append((None, self.session.acknowledge()))

    def act(self, dice: random.Random) -> None:
        if dice.random() < 0.6:
            self.emit("message", len(self.sent))
        else:
            self.calls += 1
            self.emit("call", f"{self.name}:{self.calls}")

    def take(self, item: tuple[Any, ...]) -> None:
        payload, message = item
        if payload is None:
            self.session.acknowledged(message)
            return
        due = self.session.took(len(payload))
        self.heard.append(message)
        kind, what = message
        if kind == "call":
            self.ran[what] += 1
            self.emit("answer", what)
        elif kind == "answer":
            self.answers[what] += 1
        if due:
            self.acknowledge()


def run(
    seed: int,
    make: Callable[[], Resumable] = lambda: Resumable(1 << 20, 100_000),
    *,
    reads_after_counting: bool = False,
) -> int:
    """One history; how many cuts it had. AssertionError or ValueError where a promise is broken."""
    dice = random.Random(seed)
    a, b = End("a", make()), End("b", make())
    cuts = 0

    def connect() -> None:
        counts = a.session.got, b.session.got
        if reads_after_counting:  # what the old socket still held is taken all the same
            for end, late in ((a, leftovers[1]), (b, leftovers[0])):
                for item in list(late)[:2]:
                    end.take(item)
        a.wire, b.wire = deque(), deque()
        for end, count in ((a, counts[1]), (b, counts[0])):
            for payload, _ in end.session.resume(count):
                end.put(payload)

    def deliver(count: int) -> None:
        for _ in range(count):
            sender, receiver = dice.choice(((a, b), (b, a)))
            if sender.wire:
                receiver.take(sender.wire.popleft())

    leftovers: tuple[Any, Any] = ((), ())
    connect()
    for _ in range(STEPS):
        what = dice.random()
        if what < 0.5:
            dice.choice((a, b)).act(dice)
        elif what < 0.93:
            deliver(dice.randint(1, 6))
        elif what < 0.96:
            dice.choice((a, b)).acknowledge()  # the timer
        elif a.wire is not None:
            leftovers = (a.wire, b.wire)
            a.wire = b.wire = None
            cuts += 1
        if a.wire is None and dice.random() < 0.3:
            connect()
    if a.wire is None:
        connect()
    while a.wire or b.wire:
        deliver(5)
    for one, other in ((a, b), (b, a)):
        assert other.heard == one.sent
        assert set(other.ran.values()) <= {1}
        assert set(one.answers.values()) <= {1}
        assert len(one.answers) == one.calls
        assert one.session.kept_bytes == sum(len(payload) for payload, _ in one.session.kept)
    return cuts


def test_every_message_is_handed_over_exactly_once_and_in_order() -> None:
    assert sum(run(seed) for seed in range(HISTORIES)) > 5 * HISTORIES


# -- the model finds faults


class AckCountsTwice(Resumable):
    """Forgets one message more than was acknowledged."""

    __slots__ = ()

    def acknowledged(self, count: int) -> None:
        super().acknowledged(count)
        if self._kept:
            super().acknowledged(count + 1)


class MessageNotCounted(Resumable):
    """A path that sends without counting."""

    __slots__ = ()

    def keep(self, payload: bytes, binary: bool) -> None:
        if payload[-1:] != b"7":
            super().keep(payload, binary)


class ArrivalNotCounted(Resumable):
    """A path that takes without counting."""

    __slots__ = ("_all",)

    def took(self, size: int) -> bool:
        self._all = getattr(self, "_all", 0) + 1
        return super().took(size) if self._all % 10 else False


class SendsAgainFromTheEnd(Resumable):
    """The order is lost."""

    __slots__ = ()

    def resume(self, peer_got: int) -> list[tuple[bytes, bool]]:
        return super().resume(peer_got)[::-1]


@pytest.mark.parametrize(
    "fault", [AckCountsTwice, MessageNotCounted, ArrivalNotCounted, SendsAgainFromTheEnd]
)
def test_the_model_finds_a_fault(fault: type[Resumable]) -> None:
    with pytest.raises((AssertionError, ValueError)):
        for seed in range(20):
            run(seed, lambda: fault(1 << 20, 100_000))


def test_the_model_finds_a_counter_that_is_read_before_the_cut() -> None:
    with pytest.raises((AssertionError, ValueError)):
        for seed in range(20):
            run(seed, reads_after_counting=True)
