"""Coverage-guided fuzzing with atheris: ``tox -e fuzz``, or in tests/ by hand.

    python -m fuzz.atheris_run frames -runs=100000

The first argument is the target: frames, messages, msgpack or admission; the rest is libFuzzer's.
"""

import contextlib
import sys
import tempfile

import atheris

# What is imported inside is instrumented, so that the fuzzer sees which branches an input takes.
with atheris.instrument_imports(include=["wse_tornado"]):
    from wse_tornado.msgpack import MsgpackProtocol

    from . import targets

msgpack = MsgpackProtocol()


def frames(data: bytes) -> None:
    """A stream of frames, cut as the first bytes say."""
    provider = atheris.FuzzedDataProvider(data)
    masked = provider.ConsumeBool()
    cuts = [provider.ConsumeIntInRange(1, 60) for _ in range(provider.ConsumeIntInRange(0, 8))]
    targets.check_frames(provider.ConsumeBytes(2000), cuts, masked=masked)


def messages(data: bytes) -> None:
    """A text or binary message of the default protocol."""
    targets.check_text(data)


def packed(data: bytes) -> None:
    """A message in MessagePack."""
    targets.check_unpack(msgpack, data)


def admission(data: bytes) -> None:
    """A sequence of events at the door."""
    provider = atheris.FuzzedDataProvider(data)
    challenges, verifies = provider.ConsumeBool(), provider.ConsumeBool()
    moves = []
    while provider.remaining_bytes() and len(moves) < 30:
        move = provider.PickValueInList(list(targets.MOVES))
        value = provider.PickValueInList([None, "", "me", 0, 1, True, [], {"identity": "me"}])
        if move == "receive":
            value = (provider.PickValueInList(list(targets.ROLES)), value)
        moves.append((move, value))
    targets.check_admission(moves, challenges=challenges, verifies=verifies)


TARGETS = {"frames": frames, "messages": messages, "msgpack": packed, "admission": admission}
SEEDS = {
    "frames": [b"\x00\x00\x81\x05hello", b"\x01\x02\x05\x09\x81\x85abcd\x09\x07\x0f\x08\x0e"],
    "messages": [b'["hello",{"a":[1,2.5,null,true]},null]', b'["~wse:hi",{"identity":"\\ud800"}]'],
    "msgpack": [b"\x93\xa5hello\x81\xa1a\x01\xc0", b"\x93\xa1x\xd6\xff\x00\x00\x00\x00\xc0"],
    "admission": [b"\x01\x00\x00\x01\x07", b"\x01\x01" + bytes(range(20))],
}


def main() -> None:
    """Fuzz one target until libFuzzer has had enough, or something is found."""
    name, *options = sys.argv[1:]
    with contextlib.ExitStack() as stack:
        corpus = stack.enter_context(tempfile.TemporaryDirectory(prefix="wse-fuzz-"))
        for number, seed in enumerate(SEEDS[name]):
            with open(f"{corpus}/seed{number}", "wb") as file:
                file.write(seed)
        atheris.Setup([sys.argv[0], *options, corpus], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
