"""A raw peer gets in and calls ``add``: byte for byte the frames of WIRE.md sections 2 to 4."""

import pytest

from .support import serve


@pytest.mark.parametrize("stamp", ["Zk3vQ0aPq1", "x"])
def test_a_raw_peer_gets_in_and_calls_add(flavour: str, stamp: str) -> None:
    def setup(server):
        server.register("add", lambda conn, payload: payload["a"] + payload["b"])

    with serve(flavour, setup=setup) as served, served.peer() as peer:
        assert peer.response_headers["sec-websocket-protocol"] == "wse-default-json"
        peer.send_text('["~wse:hi",{"identity":"your-secret-key","meta":{"device":"laptop"}},null]')
        assert peer.recv() == '["~wse:welcome",{"message":"Welcome!"},null]'
        peer.send_text(f'["add",{{"a":5,"b":3}},"{stamp}"]')
        assert peer.recv() == f'["~wse:response",8,"{stamp}"]'
        peer.send_text(f'["subtract",{{"a":5,"b":3}},"{stamp}"]')
        assert (
            peer.recv()
            == f'["~wse:response-err",{{"code":"wse.server.rp.not-registered"}},"{stamp}"]'
        )
        served.do(served.server.broadcast, "hello", {"text": "Привіт"})
        assert peer.recv() == '["hello",{"text":"Привіт"},null]'
