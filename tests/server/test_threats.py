"""What a hostile peer can try, and what stops it (docs/threats.md). Each test fails without the
defence it is named after.

That nothing reaches handlers before the admission is in wire/, the bounds are in test_bounds.py.
"""

import contextlib
import json
import zlib

import pytest

from wse_tornado import Limits

from ..support import Closed, beside, nothing_sent, outcome, serve
from ..support.peer import TEXT


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
        assert not served.server.clients


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
        served.sockets(0)


def test_a_reason_cannot_carry_more_than_a_reason(flavour: str) -> None:
    """Line breaks, headers and frames inside a reason text stay text of one close frame."""
    reason = "bye\r\nX-Evil: 1\r\n\r\n\x81\x05hello" + "é" * 200
    with serve(flavour) as served, served.enter() as peer:
        served.do(served.server.drop_client, "ann", reason)
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
            served.enter().close(1000, f"reason {i}")
        served.sockets(0)
        assert served.stats()["closings"] == {"1000": 20}


def test_a_flood_of_pings_is_answered_within_the_send_buffer(flavour: str) -> None:
    """A peer that pings and never reads must not make the server hold its pongs for ever."""
    limits = Limits(max_send_buffer=100_000, close_timeout=0.2)
    with serve(flavour, limits=limits) as served, served.enter() as peer:
        pings = peer.frame(9, b"x" * 125) * 500
        peer.sock.settimeout(0.5)
        with contextlib.suppress(OSError):
            for _ in range(400):
                peer.sock.sendall(pings)
                assert served.stats()["send_buffer"] < 1_000_000
        assert served.alive()


def test_what_follows_a_refusal_reaches_nobody(flavour: str) -> None:
    reached = []

    def setup(server):
        server.channel.on("order", lambda conn, payload: reached.append(payload))
        server.register("order", lambda conn, payload: reached.append(payload))

    with serve(flavour, setup=setup) as served, served.enter("bystander") as bystander:
        with served.peer() as peer:
            frames = [
                b'["~wse:hi",{"identity":"nobody"},null]',
                *[b'["order",1,null]', b'["order",2,"stamp"]', b"{garbage", b"\xff\xfe"] * 10,
                b'["~wse:hi",{"identity":"user"},null]',
            ]
            peer.sock.sendall(b"".join(peer.frame(TEXT, frame) for frame in frames))
            # Where `identify` runs on a thread, the garbage may be read before its verdict.
            code, reason = peer.wait_closed()
            assert (code, reason in ("wse.not-authorized", "wse.protocol-error")) == (1000, True)
        served.sockets(1)
        nothing_sent(bystander)
        assert reached == []
        assert set(served.names()) <= {"joined", "connected", "error"}
        assert list(served.server.clients) == ["bystander"]


def test_an_answer_from_another_connection_resolves_nothing(flavour: str) -> None:
    with serve(flavour) as served, served.enter("ann") as ann, served.enter("eve") as eve:
        answer = beside(served.call, "ann", "secret")
        _, _, stamp = ann.recv_message()
        eve.send("~wse:response", "forged", stamp)
        eve.send("~wse:response-err", {"code": "forged"}, stamp)
        nothing_sent(eve)
        assert not answer.done()
        ann.send("~wse:response", "true", stamp)
        assert outcome(answer) == "true"


@pytest.mark.parametrize("believed", [False, True])
def test_forwarded_addresses_are_believed_only_where_told(flavour: str, believed: bool) -> None:
    seen = []

    def identify(auth):
        seen.append(auth.remote_addr)
        auth.accept("ann", {"message": "Welcome!"})

    headers = {"X-Forwarded-For": "203.0.113.9", "X-Real-Ip": "203.0.113.9", "X-Scheme": "https"}
    with serve(flavour, identify=identify, xheaders=believed) as served:
        with served.enter(headers=headers):
            assert seen == ["203.0.113.9" if believed else "127.0.0.1"]
            assert served.conn().remote_addr == seen[0]


OWN = "http://127.0.0.1:{port}"
NAMED = ["https://Example.com", "http://localhost:3000/"]


@pytest.mark.parametrize(
    ("allowed", "admitted", "refused"),
    [
        (None, [OWN], ["http://evil.example", "http://127.0.0.1:1", "null"]),
        (
            NAMED,
            [OWN, "https://example.com", "https://EXAMPLE.com", "http://localhost:3000"],
            [
                "http://example.com",
                "https://example.com.evil.example",
                "https://sub.example.com",
                "null",
            ],
        ),
        (["*"], ["http://evil.example", "null"], []),
    ],
    ids=["Tornado's own rule", "named besides", "a star"],
)
def test_pages_of_foreign_origins_are_refused(flavour: str, allowed, admitted, refused) -> None:
    with serve(flavour, allowed_origins=allowed) as served:
        for origin in admitted:
            served.peer(headers={"Origin": origin.format(port=served.port)}).close()
        for origin in refused:
            with pytest.raises(AssertionError, match="403"):
                served.peer(headers={"Origin": origin})
