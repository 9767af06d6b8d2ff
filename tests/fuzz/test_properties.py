"""What holds for all values and all sequences of frames (hypothesis)."""

import asyncio
import json
import queue
import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wse_tornado import Limits

from ..support import (
    Closed,
    RawPeer,
    beside,
    outcome,
    seconds,
    serve,
    use,
    wait_until,
)
from ..support.peer import BINARY, CLOSE, PING, PONG, TEXT

pytestmark = pytest.mark.once


BOUNDED = settings(
    max_examples=60,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

# All that json.dumps takes, not only what it gives back unchanged: tuples, keys that are no
# strings, lone surrogates.
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.text(st.characters(min_codepoint=0xD700, max_codepoint=0xE000), max_size=4)
    | st.text(st.characters(max_codepoint=0x2F), max_size=4)
)
keys = st.text() | st.integers() | st.none() | st.booleans()
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.dictionaries(keys, inner, max_size=5)
    ),
    max_leaves=20,
)


def test_any_json_value_survives_send_and_call_in_both_directions(flavour: str, kind: str) -> None:
    at_server: queue.Queue[Any] = queue.Queue()
    at_client: queue.Queue[Any] = queue.Queue()

    def setup(server: Any) -> None:
        server.register("echo", lambda conn, payload: payload)
        server.channel.on("value", lambda conn, payload: at_server.put(payload))

    with serve(flavour, setup=setup) as served, use(kind, served.url) as used:
        used.client.register("echo", lambda payload: payload)
        used.client.channel.on("value", at_client.put)
        used.connect("ann")
        conn = served.conn()
        limit = seconds(10)

        @BOUNDED
        @given(values)
        def check(value: Any) -> None:
            expected = json.loads(json.dumps(value))
            used.send("value", value)
            assert at_server.get(timeout=limit) == expected
            assert served.do(conn.send, "value", value) == 1
            assert at_client.get(timeout=limit) == expected
            assert used.call("echo", value, timeout=limit) == expected
            assert served.do(conn.call, "echo", value) == expected

        check()
        assert "error" not in served.names()
        assert not [event for event in used.events if event[0] == "error"]


def test_any_json_value_can_be_identity_meta_welcome_and_quest(flavour: str, kind: str) -> None:
    seen: list[Any] = []

    def identify(auth: Any) -> None:
        seen.append((auth.identity, auth.meta["value"], auth.challenge.response))
        auth.accept("ann", auth.identity)

    def setup(server: Any) -> None:
        server.use_challenge(lambda auth: [auth.identity])

    with (
        serve(flavour, identify=identify, setup=setup) as served,
        use(kind, served.url) as used,
    ):
        used.client.challenge(lambda quest: quest[0])

        @settings(BOUNDED, max_examples=15)
        @given(values)
        def check(value: Any) -> None:
            expected = json.loads(json.dumps(value))
            assert used.connect(value, {"value": value}) == expected
            assert seen.pop() == (expected, expected, expected)
            used.close()

        check()


internal = st.sampled_from(
    ["hi", "challenge", "welcome", "call", "response", "response-err", "unknown"]
).map(lambda name: f"~wse:{name}")
hello = st.fixed_dictionaries(
    {"identity": st.sampled_from(["ann", "eve", None, 0])}, optional={"meta": scalars}
)
stamps = st.sampled_from([None, "", "s1", "~wse:call:add:s1", 7, True, {}, {"success": True}])
types = internal | st.sampled_from(["hello", "add", "", None, 7, [], {}])
messages = st.builds(
    lambda *message: json.dumps(message).encode(), types, hello | values, stamps
) | st.builds(lambda payload: json.dumps(["~wse:hi", payload, None]).encode(), hello)
payloads = messages | st.binary(max_size=40) | st.sampled_from([b"[]", b"{", b'["~wse:hi"]', b""])
frames = st.one_of(
    st.tuples(st.just(TEXT), payloads, st.just({})),
    st.tuples(st.just(TEXT), messages, st.just({})),
    st.tuples(st.just(BINARY), payloads, st.just({})),
    st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125), st.just({})),
    st.tuples(
        st.just(CLOSE),
        st.binary(max_size=5)
        | st.builds(lambda code: struct.pack("!H", code) + b"why", st.integers(0, 65535)),
        st.just({}),
    ),
    st.tuples(
        st.integers(0, 15),
        payloads,
        st.fixed_dictionaries({"fin": st.booleans(), "rsv": st.sampled_from([0, 0, 0x10, 0x40])}),
    ),
)


@pytest.mark.parametrize("challenges", [False, True])
def test_no_sequence_of_frames_gets_a_stranger_in(flavour: str, challenges: bool) -> None:
    reached: list[Any] = []

    async def identify(auth: Any) -> None:
        await asyncio.sleep(0)
        if auth.identity == "eve":
            raise ValueError("no eve")
        if auth.identity is None:
            auth.accept(None)
        auth.refuse()

    def setup(server: Any) -> None:
        server.register("add", lambda conn, payload: reached.append(payload))
        server.channel.on("hello", lambda conn, payload: reached.append(payload))
        if challenges:
            server.use_challenge(lambda auth: {"quest": auth.identity})

    limits = Limits(auth_timeout=seconds(0.1), close_timeout=0.5)
    with serve(flavour, identify=identify, setup=setup, limits=limits) as served:
        before = served.tasks()

        @BOUNDED
        @given(st.lists(frames, max_size=6), st.booleans())
        def check(sequence: list[tuple[int, bytes, dict[str, Any]]], at_once: bool) -> None:
            with served.peer() as peer:
                sent = [peer.frame(opcode, data, **how) for opcode, data, how in sequence]
                try:
                    for packet in [b"".join(sent)] if at_once else sent:
                        peer.sock.sendall(packet)
                except OSError:
                    pass  # the server has closed already
                ends(peer)
            served.sockets(0)
            assert not served.server.clients
            wait_until(lambda: served.tasks() <= before, what="tasks are pending")

        check()
        assert not reached
        assert not {"joined", "connected", "left", "disconnected", "ignored"} & set(served.names())
        with served.peer() as peer:  # and the server still serves
            peer.hi("ann")
            outcome(beside(ends, peer))


def ends(peer: RawPeer) -> None:
    """The server closes the socket by itself."""
    try:
        while True:
            peer.recv()
    except Closed:
        pass
    while True:
        try:
            if not peer.sock.recv(65536):
                return
        except ConnectionError:
            return
