"""wse.js against this library's servers, and against raw ones: under Node, and in Chromium."""

import json
import re
import threading

import pytest

from wse_tornado import HmacChallenge, RpcFailed, RpcNotRegistered, WseError, WseServer

from ..support import ROOT, RawPeer, RawServer, browser, javascript, require, seconds, serve
from ..support.clients import beside, outcome
from ..support.peer import CLOSE

pytestmark = pytest.mark.once


EVERYWHERE = {"allowed_origins": ["*"], "timeout": seconds(10)}


@pytest.fixture(scope="module", autouse=True)
def page():
    """One browser for all tests of this file, with a page of this machine open; None elsewhere.

    It is there before any test begins to count its sockets.
    """
    if browser.missing():
        yield None
        return
    with browser.chromium() as driver:
        with WseServer(host="127.0.0.1") as server:
            driver.get(f"http://127.0.0.1:{server.port}/wse.js")
        yield driver


@pytest.fixture(params=["node", "chromium"])
def run(request, page, tmp_path):
    """Runs a JavaScript function with a server's URL."""
    if request.param == "node":
        require(javascript.node_command(), "Node with a WebSocket (20.10, or the package ws)")
        return javascript.node_runner(tmp_path)
    require(page is not None, browser.missing())
    return javascript.page_runner(page)


def with_procedures(server):
    server.register("add", lambda conn, payload: payload["a"] + payload["b"])
    server.register("echo", lambda conn, payload: payload)
    server.register("meta", lambda conn, payload: conn.meta)
    server.register("drop", lambda conn, payload: conn.drop(payload))
    server.channel.on("hello", lambda conn, payload: conn.send("welcome", payload))

    @server.register("sold-out")
    def sold_out(conn, payload):
        raise WseError("shop.sold-out", {"item": payload})

    @server.register("divide")
    def divide(conn, payload):
        return payload["a"] / payload["b"]


def test_it_gets_in_and_tells_what_happens(run, flavour):
    with serve(flavour, setup=with_procedures, **EVERYWHERE) as served:
        result = run(
            served.url,
            """async ({ make }) => {
              const client = make(), events = []
              client.when.connected(() => events.push(["connected"]))
              client.when.ready((welcome) => events.push(["ready", welcome]))
              client.when.updated((status) => events.push(["updated", status]))
              client.when.closed((code, reason) => events.push(["closed", code, reason]))
              await null
              const welcome = await client.connect("älice", { device: "phone" })
              const meta = await client.call("meta")
              const late = []
              client.when.ready((welcome) => late.push(welcome))
              client.when.ready.once((welcome) => late.push(welcome))
              client.when.updated((status) => late.push(status))
              await null
              await client.close()
              return { welcome, meta, events, late, status: client.status }
            }""",
        )
    welcome = {"message": "Welcome!"}
    assert result["welcome"] == welcome
    assert result["meta"] == {"device": "phone"}
    assert result["late"] == [welcome, welcome, "READY", "OFFLINE"]
    assert result["events"] == [
        ["updated", "IDLE"],
        ["updated", "CONNECTING"],
        ["connected"],
        ["updated", "READY"],
        ["ready", welcome],
        ["closed", 1000, "wse.by-client"],
        ["updated", "OFFLINE"],
    ]
    assert ("left", "älice", 1000, "wse.by-client") in served.events


def test_a_refused_client_is_told_so_and_stays_away(run, flavour):
    with serve(flavour, **EVERYWHERE) as served:
        result = run(
            served.url,
            """async ({ make, caught }) => {
              const client = make({ reconnect: true }), closed = []
              client.when.closed((...how) => closed.push(how))
              const error = await caught(client.connect("nobody"))
              const welcome = await client.connect("alice") // another try is allowed
              const again = await caught(client.connect("alice"))
              await client.close()
              return { error, welcome, again, closed }
            }""",
        )
    assert result["error"]["name"] == "WseError"
    assert result["error"]["code"] == "wse.not-authorized"
    assert result["closed"][0] == [1000, "wse.not-authorized"]
    assert result["welcome"] == {"message": "Welcome!"}
    assert result["again"]["code"] == "wse.client.already-connected"


def test_it_solves_challenges(run, flavour):
    challenge = HmacChallenge({"alice": "the secret €"}.get)
    with serve(flavour, setup=lambda s: s.use_challenge(challenge), **EVERYWHERE) as served:
        result = run(
            served.url,
            """async ({ make, caught, hmacSolver }) => {
              const right = make(), wrong = make(), none = make(), broken = make(), own = make()
              right.challenge(hmacSolver("the secret €"))
              wrong.challenge(hmacSolver("a guess"))
              broken.challenge(() => { throw new Error("no key") })
              own.challenge((quest, solve) => {
                setTimeout(async () => solve(await hmacSolver("the secret €")(quest)))
              })
              const result = {
                right: await right.connect("alice"),
                own: await own.connect("alice"),
                wrong: await caught(wrong.connect("alice")),
                none: await caught(none.connect("alice")),
                broken: await caught(broken.connect("alice")),
              }
              await Promise.all([right.close(), own.close()])
              return result
            }""",
        )
    assert result["right"] == result["own"] == {"message": "Welcome!"}
    assert result["wrong"]["code"] == "wse.not-authorized"
    assert result["none"]["code"] == result["broken"]["code"] == "wse.client.invalid-cra-handler"


def test_messages_go_both_ways(run, flavour):
    with serve(flavour, setup=with_procedures, **EVERYWHERE) as served:
        result = run(
            served.url,
            """async ({ make, caught, next }) => {
              const client = make(), got = []
              const early = await caught((async () => client.send("hello"))())
              let off
              const three = new Promise((resolve) => {
                const heard = (by) => (payload) => got.push([by, payload]) === 3 && resolve()
                off = client.channel.on("welcome", heard("on"))
                client.channel.once("welcome", heard("once"))
              })
              await client.connect("alice")
              client.send("hello", { text: "€ 😀\\u2028" })
              client.send("hello")
              await three
              off()
              const ignored = next(client.when.ignored)
              client.send("hello", 3)
              const [type, payload] = await ignored
              client.channel.on("welcome", () => { throw new Error("in a handler") })
              const failed = next(client.when.error)
              client.send("hello", 4)
              const [error] = await failed
              const alive = await client.call("echo", "alive")
              const nan = await caught((async () => client.send("hello", { n: NaN }))())
              const reserved = await caught((async () => client.send("~wse:hi"))())
              const empty = await caught((async () => client.send(""))())
              await client.close()
              const message = [type, payload], { code } = error
              return { early, got, message, code, alive, nan, reserved, empty }
            }""",
        )
    text = {"text": "€ 😀\u2028"}
    assert result["early"]["code"] == "wse.client.not-ready"
    assert sorted(result["got"], key=str) == [["on", None], ["on", text], ["once", text]]
    assert result["message"] == ["welcome", 3]
    assert result["code"] == "wse.handler-failed"
    assert result["alive"] == "alive"
    assert result["nan"]["code"] == "wse.not-serializable"
    assert result["reserved"]["name"] == result["empty"]["name"] == "TypeError"


def test_it_calls_the_server_and_gets_its_errors(run, flavour):
    with serve(flavour, setup=with_procedures, **EVERYWHERE) as served:
        served.server.register("sleep", lambda conn, payload: threading.Event().wait(0.5))
        result = run(
            served.url,
            """async ({ make, caught }) => {
              const client = make()
              await client.connect("alice")
              const many = [...Array(50).keys()].map((n) => client.call("add", { a: n, b: 1 }))
              const result = {
                sum: await client.call("add", { a: 5, b: 3 }),
                many: await Promise.all(many),
                unknown: await caught(client.call("subtract")),
                own: await caught(client.call("sold-out", "tea")),
                other: await caught(client.call("divide", { a: 1, b: 0 })),
                late: await caught(client.call("sleep", null, { timeout: 0.05 })),
                infinite: await caught(client.call("echo", [Infinity])),
                badTime: await caught(client.call("echo", 1, { timeout: 0 })),
              }
              await client.close()
              result.closed = await caught(client.call("echo"))
              return result
            }""",
        )
    assert result["sum"] == 8
    assert result["many"] == [n + 1 for n in range(50)]
    assert result["unknown"]["code"] == "wse.server.rp.not-registered"
    assert result["unknown"]["rpc"] == "subtract"
    assert result["own"]["code"] == "shop.sold-out"
    assert result["own"]["details"] == {"item": "tea", "rpc": "sold-out"}
    assert result["other"]["code"] == "wse.server.rp.failed"
    assert result["other"]["details"]["origin"]["name"] == "ZeroDivisionError"
    assert "division by zero" in result["other"]["message"]
    assert result["late"]["code"] == "wse.client.rp.timeout"
    assert result["infinite"]["code"] == "wse.not-serializable"
    assert result["badTime"]["name"] == "RangeError"
    assert result["closed"]["code"] == "wse.client.not-ready"


def test_the_server_calls_it_and_gets_its_errors(run, flavour):
    def calls_back(server):
        def failed(rp, exc):
            return {"rp": rp, "is": type(exc).__name__, "code": exc.code, "details": exc.details}

        if flavour == "blocking":

            @server.register("go")
            def go(conn, names):
                answers = []
                for rp in names:
                    try:
                        answers.append(conn.call(rp, {"a": 5, "b": 3}))
                    except (RpcFailed, RpcNotRegistered) as exc:
                        answers.append(failed(rp, exc))
                return answers

        else:

            @server.register("go")
            async def go_async(conn, names):
                answers = []
                for rp in names:
                    try:
                        answers.append(await conn.call(rp, {"a": 5, "b": 3}))
                    except (RpcFailed, RpcNotRegistered) as exc:
                        answers.append(failed(rp, exc))
                return answers

    with serve(flavour, setup=calls_back, **EVERYWHERE) as served:
        result = run(
            served.url,
            """async ({ make, caught, WseError }) => {
              const client = make(), errors = []
              client.when.error((error) => errors.push(error.code))
              client.register("add", ({ a, b }) => a + b)
              client.register("slowly", async ({ a }) => { await null; return { a } })
              client.register("nothing", () => {})
              client.register("own", () => { throw new WseError("page.busy", { until: 5 }) })
              client.register("type", async (payload) => payload.missing.property)
              client.register("cycle", () => { const o = {}; o.o = o; return o })
              const taken = await caught((async () => client.register("add", () => 1))())
              await client.connect("alice")
              const names = ["add", "slowly", "nothing", "own", "type", "cycle", "unknown"]
              const answers = await client.call("go", names)
              client.unregister("add")
              const [gone] = await client.call("go", ["add"])
              await client.close()
              return { taken, answers, gone, errors }
            }""",
        )
    add, slowly, nothing, own, kind, cycle, unknown = result["answers"]
    assert (add, slowly, nothing) == (8, {"a": 5}, None)
    assert (own["is"], own["code"]) == ("RpcFailed", "page.busy")
    assert own["details"] == {"until": 5, "rpc": "own"}
    assert kind["code"] == cycle["code"] == "wse.server.rp.failed"
    assert kind["details"]["origin"]["name"] == "TypeError"
    assert kind["details"]["rpc"] == "type"
    assert unknown["is"] == result["gone"]["is"] == "RpcNotRegistered"
    assert result["taken"]["code"] == "wse.server.rp.already-registered"
    assert result["errors"] == ["wse.server.rp.failed"] * 2


def test_it_comes_back_after_a_restart_with_a_fresh_identity(run):
    asked, waiting = threading.Event(), threading.Event()

    def setup(server):
        with_procedures(server)
        server.channel.on("restart", lambda conn, payload: asked.set())
        server.register("wait", lambda conn, payload: waiting.wait(seconds(10)))

    def make(port):
        server = WseServer(port, identify=lambda a: a.identity, host="127.0.0.1", **EVERYWHERE)
        setup(server)
        return server

    with make(0) as server:
        port = server.port
        running = beside(
            run,
            server.url,
            """async ({ make, caught, next }) => {
              const client = make({ reconnect: { initial: 0.05, maximum: 0.5 } })
              const told = [], heard = []
              client.when.updated((status) => told.push(status))
              client.when.closed((...how) => told.push(how))
              client.channel.on("welcome", (payload) => heard.push(payload))
              let times = 0
              await client.connect(() => `alice-${++times}`, async () => ({ times }))
              const pending = caught(client.call("wait"))
              const back = next(client.when.ready, () => times > 1)
              client.send("restart")
              const lost = await pending
              const between = await caught(client.call("echo"))
              await back
              const status = client.status
              client.send("hello", "again")
              const meta = await client.call("meta")
              await client.call("echo")
              await client.close()
              return { lost, between, told, heard, meta, status }
            }""",
        )
        assert asked.wait(seconds(20))
        server.stop()
        waiting.set()
    with make(port):
        result = outcome(running, 30)
    assert result["lost"]["code"] == "wse.client.rp.disconnect"
    assert result["lost"]["details"] == {"disconnected": [1012, "wse.server-stopping"]}
    assert result["between"]["code"] == "wse.client.not-ready"
    assert result["between"]["details"] == {"status": "RE_CONNECTING"}
    assert result["status"] == "READY"
    assert result["heard"] == ["again"]
    assert result["meta"]["times"] > 1
    told = [entry for entry in result["told"] if entry != [1006, ""]]
    assert told == [
        "CONNECTING",
        "READY",
        [1012, "wse.server-stopping"],
        "RE_CONNECTING",
        "READY",
        [1000, "wse.by-client"],
        "OFFLINE",
    ]


def test_it_stays_away_after_any_1000(run, flavour):
    with serve(flavour, setup=with_procedures, **EVERYWHERE) as served:
        result = run(
            served.url,
            """async ({ make, caught, next }) => {
              const client = make({ reconnect: { initial: 0.01, maximum: 0.01 } })
              await client.connect("alice")
              const closed = next(client.when.closed)
              const call = await caught(client.call("drop", "the shop closes"))
              return { call, closed: await closed, status: client.status }
            }""",
        )
    assert result["closed"] == [1000, "the shop closes"]
    # The answer may have been quicker than the closing.
    if result["call"] != "nothing was thrown":
        assert result["call"]["details"] == {"disconnected": [1000, "the shop closes"]}
    assert result["status"] == "OFFLINE"
    assert served.names().count("joined") == 1


@pytest.mark.parametrize("code", [1005, 1006, 1011, 1012, 1013, 1014, 4000])
def test_it_comes_back_on_passing_codes(run, code):
    peers = []

    def script(peer: RawPeer) -> None:
        peers.append(peer)
        assert peer.recv_message()[0] == "~wse:hi"
        peer.send("~wse:welcome", len(peers), None)
        if len(peers) > 1:
            peer.wait_closed()
        elif code == 1006:
            peer.kill()
        else:
            peer.send_frame(CLOSE, b"" if code == 1005 else code.to_bytes(2, "big") + b"why")
            while peer.recv_frame()[0] != CLOSE:  # which is not answered once more
                pass

    with RawServer(script) as server:
        result = run(
            server.url,
            """async ({ make, next }) => {
              const client = make({ reconnect: { initial: 0.05, maximum: 0.05 } })
              const closed = next(client.when.closed)
              const again = next(client.when.ready, (welcome) => welcome === 2)
              await client.connect("alice")
              const how = await closed
              await again
              await client.close()
              return how
            }""",
        )
    assert result == [code, "" if code in (1005, 1006) else "why"]


def test_close_ends_a_reconnection(run):
    came: list[str] = []

    def script(peer: RawPeer) -> None:
        came.append(peer.recv_message()[1]["identity"])
        peer.send("~wse:welcome", None, None)
        if len(came) > 1:
            peer.wait_closed()
            return
        peer.send_frame(CLOSE, (1012).to_bytes(2, "big"))
        while peer.recv_frame()[0] != CLOSE:
            pass

    with RawServer(script) as server:
        result = run(
            server.url,
            """async ({ make, next, WSE_STATUS }) => {
              const client = make({ reconnect: { initial: 60, maximum: 60 } })
              const again = next(client.when.updated, (s) => s === WSE_STATUS.RE_CONNECTING)
              await client.connect("alice")
              await again
              const busy = client.connect("alice").catch((error) => error.code)
              await client.close()
              await client.close()
              const status = client.status
              await client.connect("bob") // which it may, for nothing is under way any more
              await client.close()
              return [await busy, status]
            }""",
        )
    assert result == ["wse.client.already-connected", "OFFLINE"]
    assert came == ["alice", "bob"]


def test_connect_tries_again_until_its_time_is_over(run):
    with RawServer(lambda peer: None) as closed_soon:
        url = closed_soon.url
    result = run(
        url,
        """async ({ make, caught }) => {
          const once = await caught(make().connect("alice", {}, { timeout: 2 }))
          const client = make({ reconnect: { initial: 0.02, maximum: 0.02 } })
          let attempts = 0
          client.when.closed(() => attempts++)
          const error = await caught(client.connect("alice", {}, { timeout: 1 }))
          return { once, error, attempts, status: client.status }
        }""",
    )
    assert result["once"]["code"] == "wse.client.ws-error"
    assert result["error"]["code"] in ("wse.client.ws-error", "wse.client.connect-timeout")
    assert result["attempts"] > 1
    assert result["status"] == "OFFLINE"


def test_a_silent_server_is_a_time_out(run):
    with RawServer(lambda peer: peer.wait_closed()) as server:
        result = run(
            server.url,
            """async ({ make, caught }) => caught(make({ timeout: 0.2 }).connect("alice"))""",
        )
    assert result["code"] == "wse.client.connect-timeout"


def test_it_jumps_to_another_server(run, flavour):
    with (
        serve(flavour, setup=with_procedures, **EVERYWHERE) as first,
        serve(flavour, setup=with_procedures, **EVERYWHERE) as second,
    ):
        result = run(
            first.url,
            """async ({ make, args }) => {
              const client = make({ reconnect: true }), closed = []
              client.when.closed((...how) => closed.push(how))
              await client.connect("alice", { device: "phone" })
              const welcome = await client.jump(args, "bob")
              const meta = await client.call("meta")
              await client.close()
              return { welcome, meta, closed }
            }""",
            second.url,
        )
    assert result["meta"] == {"device": "phone"}
    assert result["closed"] == [[4000, "jump"], [1000, "wse.by-client"]]
    assert ("left", "alice", 4000, "jump") in first.events
    assert ("joined", "bob", {"device": "phone"}) in second.events


def test_the_wire_to_the_letter(run):
    texts: list[str] = []

    def script(peer: RawPeer) -> None:
        offered = peer.response_headers["sec-websocket-protocol"]
        texts.append(offered)
        texts.append(peer.recv())
        peer.send_bytes(b'["~wse:challenge",{"n":1}]')
        texts.append(peer.recv())
        peer.send("early", 1, None)
        peer.send("~wse:welcome")
        texts.append(peer.recv())
        call = peer.recv_message()
        peer.send("~wse:response", "stale", "nobodyasks")
        peer.send("~wse:response-err", None, "nobodyasks")
        peer.send("~wse:response-err", None, call[2])
        peer.send("news", 1, None, "a fourth element")
        peer.send("unknown", None, "stamp-1")
        texts.append(peer.recv())
        peer.send("oops", None, "stamp-2")
        texts.append(peer.recv())
        peer.send("~wse:hi", {}, None)
        texts.append(json.dumps(peer.wait_closed()))

    with RawServer(script) as server:
        result = run(
            server.url,
            """async ({ make, caught, next }) => {
              const client = make(), ignored = [], news = []
              client.when.ignored((type) => ignored.push(type))
              client.channel.on("news", (payload) => news.push(payload))
              client.challenge(async ({ n }) => n + 1)
              client.register("oops", () => { throw new RangeError("no") })
              const errors = []
              client.when.error((error) => errors.push(error.code))
              const closed = next(client.when.closed)
              const welcome = await client.connect("your-secret-key", { device: "läptop" })
              client.send("hello", { message: "Hello €" })
              const error = await caught(client.call("add", { a: 5 }))
              return { welcome, ignored, error, news, closed: await closed, errors }
            }""",
        )
    assert texts == [
        "wse-default-json",
        '["~wse:hi",{"identity":"your-secret-key","meta":{"device":"läptop"}},null]',
        '["~wse:challenge",2,null]',
        '["hello",{"message":"Hello €"},null]',
        '["~wse:response-err",{"code":"wse.server.rp.not-registered"},"stamp-1"]',
        '["~wse:response-err",{"code":"wse.server.rp.failed","message":"no","details":'
        '{"origin":{"name":"RangeError","message":"no"},"rpc":"oops"}},"stamp-2"]',
        '[1000, "wse.protocol-error"]',
    ]
    assert result["welcome"] is None
    assert result["ignored"] == ["early"]
    assert result["news"] == [1]
    assert result["error"]["code"] == "wse.server.rp.failed"
    assert result["closed"] == [1000, "wse.protocol-error"]
    assert result["errors"] == ["wse.server.rp.failed", "wse.server.protocol-violation"]


def test_a_frame_that_does_not_decode_ends_it(run):
    def script(peer: RawPeer) -> None:
        peer.recv()
        peer.send("~wse:welcome", None, None)
        peer.send_text('["news",NaN,null]')
        assert peer.wait_closed() == (1000, "wse.protocol-error")

    with RawServer(script) as server:
        result = run(
            server.url,
            """async ({ make, next }) => {
              const client = make()
              const error = next(client.when.error)
              const closed = next(client.when.closed)
              await client.connect("alice")
              return [(await error)[0].code, await closed]
            }""",
        )
    assert result == ["wse.server.msg-processing-error", [1000, "wse.protocol-error"]]


def test_a_long_reason_is_cut_between_characters(run, flavour):
    with serve(flavour, **EVERYWHERE) as served:
        result = run(
            served.url,
            """async ({ make, next }) => {
              const client = make()
              await client.connect("alice")
              const closed = next(client.when.closed)
              await client.close(4001, "é".repeat(100))
              return closed
            }""",
        )
    assert result == [4001, "é" * 61]
    assert ("left", "alice", 4001, "é" * 61) in served.events


def test_a_custom_protocol_in_binary_frames(run):
    messages: list[object] = []

    def script(peer: RawPeer) -> None:
        hi = peer.recv()
        messages.append(hi)
        peer.send_bytes(b'{"t":3,"p":"in"}')
        messages.append(peer.recv())

    with RawServer(script, protocol="objects") as server:
        result = run(
            server.url,
            """async ({ make }) => {
              const protocol = {
                name: "objects",
                internal_types: { hi: 1, welcome: 3 },
                pack: ({ type, payload, stamp }) =>
                  new TextEncoder().encode(JSON.stringify({ t: type, p: payload, s: stamp })),
                unpack: (data) => {
                  const { t, p, s } = JSON.parse(new TextDecoder().decode(data))
                  return [t, p, s]
                },
              }
              const client = make({ protocol })
              const welcome = await client.connect("alice")
              client.send("hello", 1)
              await client.close()
              return welcome
            }""",
        )
    assert result == "in"
    assert messages == [b'{"t":1,"p":{"identity":"alice","meta":{}}}', b'{"t":"hello","p":1}']


def test_it_may_be_made_with_wrong_options_nowhere(run):
    result = run(
        "ws://127.0.0.1:1",
        """async ({ make, caught, WseClient }) => {
          const tries = [
            () => make({ url: "ftp://example.com" }),
            () => make({ timeout: 0 }),
            () => make({ tO: "20" }),
            () => make({ re: { initial: 0 } }),
            () => make({ WebSocket: 5 }),
            () => make().challenge("secret"),
            () => make().channel.on("~wse:hi", () => {}),
            () => make().when.ready(),
            () => make().register("", () => {}),
            () => make().connect("alice", "laptop"),
            () => make().close(1001),
          ]
          return Promise.all(tries.map(async (attempt) =>
            (await caught((async () => attempt())())).name))
        }""",
    )
    kinds = ["TypeError", "RangeError", "RangeError", "RangeError"]
    assert result == kinds + ["TypeError"] * 6 + ["RangeError"]


def test_the_code_of_the_page_about_it_runs(run):
    page = ROOT / "docs" / "javascript.md"
    blocks = re.findall(r"^```js\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    code = re.sub(r"^import .*\n", "", "\n".join(blocks), flags=re.MULTILINE)
    # Where the code runs, the class is given: Node may have none of its own.
    code = code.replace("new WseClient({ url:", "make({ url:")
    heard = []

    def setup(server):
        with_procedures(server)
        server.channel.on("hello", lambda conn, payload: heard.append(payload))

    with serve("blocking", setup=setup, **EVERYWHERE) as served:
        result = run(
            served.url,
            """async ({ make, hmacSolver, WSE_ERROR, WSE_REASON, WSE_STATUS }) => {
              const told = [], console = { log: (...what) => told.push(...what), warn() {} }
            """
            + code.replace("ws://localhost:4200", served.url)
            + "return told }",
        )
    assert result == [{"message": "Welcome!"}, 8, True]
    assert heard == [{"text": "is it me?"}]
    assert ("joined", "bob", {"device": "browser"}) in served.events
