"""wse.js where programs written for the original library expect its names and signatures."""

import pytest

from wse_tornado import WseError

from ..support import RawServer, javascript, require, seconds, serve

pytestmark = pytest.mark.once


@pytest.fixture
def run(tmp_path):
    require(javascript.node_command(), "Node with a WebSocket (20.10, or the package ws)")
    return javascript.node_runner(tmp_path)


def test_close_takes_a_reason_alone(run):
    with serve("blocking") as served:
        result = run(
            served.url,
            """async ({ make }) => {
              const client = make(), closed = []
              client.when.closed((...how) => closed.push(how))
              await client.connect("alice")
              await client.close("off to lunch")
              const status = client.status
              await client.connect("alice")
              await client.close(4100, "both")
              return { closed, status }
            }""",
        )
    assert result == {"closed": [[1000, "off to lunch"], [4100, "both"]], "status": "OFFLINE"}
    assert ("left", "alice", 1000, "off to lunch") in served.events


def test_a_thrown_plain_object_sends_its_keys_in_details(run):
    def script(peer):
        assert peer.recv_message()[0] == "~wse:hi"
        peer.send("~wse:welcome", None, None)
        answers = []
        for index, name in enumerate(("keys", "text", "thrown")):
            peer.send(name, None, f"stamp{index}")
            answers.append(peer.recv_message())
        peer.send("done", answers, None)
        peer.wait_closed()

    with RawServer(script) as server:
        keys, text, thrown = run(
            server.url,
            """async ({ make, next }) => {
              const client = make()
              client.when.error(() => {})
              client.register("keys", () => { throw { reason: "sold out", left: 0, rpc: "mine" } })
              client.register("text", () => { throw { message: "no tea", item: "tea" } })
              client.register("thrown", () => { throw "a string" })
              const done = new Promise((resolve) => client.channel.on("done", resolve))
              await client.connect("alice")
              const answers = await done
              await client.close()
              return answers
            }""",
        )
    assert keys == [
        "~wse:response-err",
        {
            "code": "wse.server.rp.failed",
            "message": "Unexpected error",
            "details": {"rpc": "mine", "reason": "sold out", "left": 0},
        },
        "stamp0",
    ]
    assert text[1]["message"] == "no tea"
    assert text[1]["details"] == {"rpc": "text", "message": "no tea", "item": "tea"}
    assert thrown[1]["details"]["origin"] == {"name": "string", "message": "a string"}


def test_its_own_errors_keep_their_code_and_details(run):
    def setup(server):
        @server.register("fail")
        def fail(conn, payload):
            raise WseError("shop.sold-out", {"item": payload})

    with serve("blocking", setup=setup, timeout=seconds(10)) as served:
        error = run(
            served.url,
            """async ({ make, caught }) => {
              const client = make()
              await client.connect("alice")
              const error = await caught(client.call("fail", "tea"))
              await client.close()
              return error
            }""",
        )
    assert (error["code"], error["details"]["item"]) == ("shop.sold-out", "tea")


def test_url_is_where_it_connects(run):
    with serve("blocking") as served:
        url = served.url.rstrip("/") + "/"
        result = run(
            served.url,
            """async ({ make, url, WSE_REASON }) => {
              const fixed = make({ url: url.replace("ws:", "http:") })
              const asked = make({ url: async () => url })
              const before = asked.url ?? "not known yet"
              await asked.connect("alice")
              const urls = [fixed.url, before, asked.url]
              await asked.close()
              return { urls, none: WSE_REASON.NO_REASON }
            }""",
        )
    assert [each.rstrip("/") + "/" for each in result["urls"]] == [url, "not known yet/", url]
    assert result["none"] == ""
