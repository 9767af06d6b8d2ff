"""What a hostile peer can try, and what stops it (docs/threats.md). Each test fails without the
defence it is named after."""

import contextlib
import json
import zlib

import pytest

from wse_tornado import HmacChallenge, HmacSolver, Limits, NotAuthorized, WseClient

from .support import Closed, RawPeer, seconds, serve, wait_until
from .support.peer import BINARY, TEXT


def enter(served, name: str = "user") -> RawPeer:
    peer = served.peer()
    peer.hi(name)
    assert peer.recv_message()[0] == "~wse:welcome"
    return peer


def alive(served) -> bool:
    """Whether the server still serves others."""
    with enter(served, "witness"):
        return True


def test_of_a_thousand_guesses_on_one_challenge_one_is_judged(flavour: str) -> None:
    judged = []

    def identify(auth):
        judged.append(auth.challenge.response)
        if auth.challenge.response == "999":
            auth.accept("thief")
        else:
            auth.refuse()

    def setup(server):
        server.use_challenge(lambda auth: {"nonce": "n"})

    with serve(flavour, identify=identify, setup=setup) as served, served.peer() as peer:
        peer.hi("user")
        assert peer.recv_message()[0] == "~wse:challenge"
        guesses = [
            peer.frame(TEXT, json.dumps(["~wse:challenge", str(i), None]).encode())
            for i in range(1000)
        ]
        with contextlib.suppress(OSError):
            peer.sock.sendall(b"".join(guesses))
        assert peer.wait_closed() in [(1000, "wse.not-authorized"), (1006, "")]
        assert judged == ["0"]
        assert not served.core.clients


def test_an_answer_fits_one_quest_only(flavour: str) -> None:
    quests, answers = [], []

    def setup(server):
        server.use_challenge(HmacChallenge(lambda identity: "secret"))

    with serve(flavour, setup=setup) as served:
        for _ in range(2):
            with served.peer() as peer:
                peer.hi("user")
                quests.append(peer.recv_message()[1])
                answers.append(HmacSolver("secret")(quests[-1]))
                peer.send("~wse:challenge", answers[0], None)
                if len(answers) == 1:
                    assert peer.recv_message()[0] == "~wse:welcome"
                else:  # the first answer, heard on the line and sent again
                    assert peer.wait_closed() == (1000, "wse.not-authorized")
        assert quests[0] != quests[1]


def test_an_unknown_identity_is_challenged_like_a_known_one(flavour: str) -> None:
    def setup(server):
        server.use_challenge(HmacChallenge({"known": "secret"}.get))

    with serve(flavour, setup=setup) as served, served.peer() as peer:
        peer.hi("unknown")
        assert set(peer.recv_message()[1]) == {"scheme", "message"}
        peer.send("~wse:challenge", "0" * 64, None)
        assert peer.wait_closed() == (1000, "wse.not-authorized")


def test_a_client_signs_no_text_of_the_servers_choice() -> None:
    def setup(server):
        server.use_challenge(lambda auth: {"message": "transfer 1000 to mallory"})

    with serve("blocking", setup=setup) as served, WseClient(served.url) as client:
        client.challenge(HmacSolver("secret"))
        with pytest.raises(NotAuthorized, match="wse-hmac-sha256"):
            client.connect("user")


def test_messages_after_a_refusal_reach_nobody(flavour: str) -> None:
    reached = []

    def setup(server):
        server.channel.on("order", lambda conn, payload: reached.append(payload))
        server.register("order", lambda conn, payload: reached.append(payload))

    with serve(flavour, setup=setup) as served, served.peer() as peer:
        frames = [
            '["~wse:hi",{"identity":"nobody"},null]',
            '["order",1,null]',
            '["order",2,"stamp"]',
            '["~wse:hi",{"identity":"user"},null]',
        ]
        peer.sock.sendall(b"".join(peer.frame(TEXT, text.encode()) for text in frames))
        assert peer.wait_closed() == (1000, "wse.not-authorized")
        assert reached == []
        assert served.events == []


def test_messages_during_validation_are_ignored_and_kept_from_handlers(flavour: str) -> None:
    reached = []

    def setup(server):
        server.channel.on("early", lambda conn, payload: reached.append(payload))

    with serve(flavour, setup=setup, identify=lambda auth: None) as served:
        with served.peer() as peer:
            peer.hi("user")
            for _ in range(50):
                peer.send("early", None, None)
            wait_until(lambda: served.core.stats()["messages"]["in"] == 51)
            assert reached == []


def test_a_compressed_bomb_is_not_unpacked() -> None:
    """Some kilobytes that would become 50 MB."""
    with serve("async", compression=True) as served:
        with served.peer(headers={"Sec-WebSocket-Extensions": "permessage-deflate"}) as peer:
            assert "permessage-deflate" in peer.response_headers["sec-websocket-extensions"]
            packer = zlib.compressobj(9, zlib.DEFLATED, -15)
            bomb = packer.compress(b" " * 50_000_000) + packer.flush(zlib.Z_SYNC_FLUSH)
            with contextlib.suppress(OSError):
                peer.send_frame(TEXT, bomb[:-4], rsv=0x40)
            assert peer.wait_closed()[0] == 1009
        wait_until(lambda: not served.core._open)


def test_pages_of_foreign_origins_are_refused_at_the_handshake(flavour: str) -> None:
    allowed = ["https://good.example"]
    with serve(flavour, allowed_origins=allowed) as served:
        for origin in ["https://evil.example", "null", "https://good.example.evil.example"]:
            with pytest.raises(AssertionError, match="403"):
                served.peer(headers={"Origin": origin})
        for origin in [f"http://127.0.0.1:{served.port}", "https://good.example"]:
            served.peer(headers={"Origin": origin}).kill()


def test_an_answer_to_someone_elses_call_resolves_nothing(flavour: str) -> None:
    answers = []

    def setup(server):
        if flavour == "blocking":

            @server.register("ask")
            def ask(conn, payload):
                answers.append(conn.call("question", timeout=seconds(10)))
                return "asked"
        else:

            @server.register("ask")
            async def ask(conn, payload):
                answers.append(await conn.call("question", timeout=seconds(10)))
                return "asked"

    with serve(flavour, setup=setup) as served:
        with enter(served, "victim") as victim, enter(served, "thief") as thief:
            victim.send("ask", None, "s")
            name, _, stamp = victim.recv_message()
            assert name == "question"
            thief.send("~wse:response", "forged", stamp)
            thief.send("~wse:response-err", {"code": "forged"}, stamp)
            thief.send("ping", None, "p")  # answered after what came before it was read
            assert thief.recv_message()[2] == "p"
            assert answers == []
            victim.send("~wse:response", "true", stamp)
            assert victim.recv_message() == ["~wse:response", "asked", "s"]
            assert answers == ["true"]


@pytest.mark.parametrize(
    "message",
    [
        ["~wse:hi", {"identity": "other"}, None],
        ["~wse:welcome", None, None],
        ["~wse:challenge", None, None],
        ["~wse:call", None, None],
        ["~wse:call", None, "stamp"],
        ["~wse:response", None, None],
        ["~wse:response-err", None, None],
        ["~wse:unknown", None, None],
        ["~wse:unknown", None, "stamp"],
    ],
)
def test_reserved_types_of_a_user_are_a_violation(flavour: str, message: list) -> None:
    with serve(flavour) as served, enter(served) as peer:
        peer.send(*message)
        assert peer.wait_closed() == (1000, "wse.protocol-error")
        wait_until(lambda: ("error", "wse.server.protocol-violation") in served.events)
        assert alive(served)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        '["x",' + "[" * 200_000 + "]" * 200_000 + ",null]",
        '["x",{"a":' * 50_000,
        '["x",' + "9" * 10_000 + ",null]",  # more digits than Python converts
        '["x",NaN,null]',
        '["x",-Infinity,null]',
        "",
        "[]",
        "null",
        "{}",
        "[1,2,3]",
        "[[],[],[]]",
        '[{"a":1},2,3]',
        '["x",1,null] trailing',
        '["x",1,{"not":"a stamp"}]',
        '["x",1,7]',
    ],
)
def test_texts_that_are_no_message_end_one_connection_only(flavour: str, text: str) -> None:
    with serve(flavour) as served, enter(served) as peer:
        peer.send_text(text)
        assert peer.wait_closed() == (1000, "wse.protocol-error")
        assert alive(served)


def test_invalid_utf8_in_a_binary_frame_is_a_protocol_error(flavour: str) -> None:
    with serve(flavour) as served, enter(served) as peer:
        peer.send_frame(BINARY, b'["x","\xff",null]')
        assert peer.wait_closed() == (1000, "wse.protocol-error")
        assert alive(served)


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ('{"a":1,"a":2}', {"a": 2}),  # duplicate keys: the last one counts, as in JavaScript
        ('"\\ud800"', "\ud800"),  # a lone surrogate travels as its escape
        ("18446744073709551617", 18446744073709551617),
        ('"\\u0000"', "\x00"),
        ('{"__proto__":1,"constructor":2}', {"__proto__": 1, "constructor": 2}),
    ],
)
def test_odd_but_legal_values_are_carried_unharmed(flavour: str, sent: str, value) -> None:
    got = []

    def setup(server):
        server.register("echo", lambda conn, payload: got.append(payload) or payload)

    with serve(flavour, setup=setup) as served, enter(served) as peer:
        peer.send_text(f'["echo",{sent},"s"]')
        assert peer.recv_message() == ["~wse:response", value, "s"]
        assert got == [value]


def test_a_number_that_is_infinite_here_cannot_be_sent_back(flavour: str) -> None:
    def setup(server):
        server.register("echo", lambda conn, payload: payload)

    with serve(flavour, setup=setup) as served, enter(served) as peer:
        peer.send_text('["echo",1e999,"s"]')
        kind, error, stamp = peer.recv_message()
        assert (kind, error["code"], stamp) == (
            "~wse:response-err",
            "wse.server.rp.failed",
            "s",
        )
        assert alive(served)


def test_a_reason_cannot_carry_more_than_a_reason(flavour: str) -> None:
    """Line breaks, headers and frames inside a reason text stay text of one close frame."""
    reason = "bye\r\nX-Evil: 1\r\n\r\n\x81\x05hello" + "é" * 200
    with serve(flavour) as served, enter(served) as peer:
        served.do(served.server.drop_client, "user", reason)
        with pytest.raises(Closed) as caught:
            peer.recv()
        assert caught.value.code == 1000
        assert reason.startswith(caught.value.reason)
        assert len(caught.value.reason.encode()) <= 123
        with pytest.raises(Closed):
            peer.recv_frame()


def test_a_peers_reasons_do_not_fill_the_statistics(flavour: str) -> None:
    with serve(flavour) as served:
        for i in range(20):
            enter(served).close(1000, f"reason {i}")
        wait_until(lambda: not served.core._open)
        assert served.core.stats()["closings"] == {"1000": 20}


def test_forwarded_for_is_not_believed(flavour: str) -> None:
    seen = []

    def identify(auth):
        seen.append(auth.remote_addr)
        auth.refuse()

    headers = {"X-Forwarded-For": "10.1.2.3", "X-Real-Ip": "10.1.2.3"}
    with serve(flavour, identify=identify) as served, served.peer(headers=headers) as peer:
        peer.hi("user")
        peer.wait_closed()
        assert seen == ["127.0.0.1"]


def test_a_flood_of_pings_is_answered_within_the_send_buffer(flavour: str) -> None:
    """A peer that pings and never reads must not make the server hold its pongs for ever."""
    limits = Limits(max_send_buffer=100_000, close_timeout=0.2)
    with serve(flavour, limits=limits) as served, enter(served) as peer:
        (conn,) = served.core.connections.values()
        pings = peer.frame(9, b"x" * 125) * 500
        peer.sock.settimeout(0.5)
        with contextlib.suppress(OSError):
            for _ in range(400):
                peer.sock.sendall(pings)
                assert conn.buffered < 1_000_000
        assert alive(served)
