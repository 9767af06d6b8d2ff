"""What only a process of its own can show: kill signals, Ctrl-C, the exit, forks.

Each script has a hard limit, so that a hang is a failure.
"""

import os
import signal
import threading

import pytest

from wse_tornado import Limits, RpcDisconnected, WseClient

from ..support import seconds, serve, wait_until
from ..support.process import run_script, start_script

posix = pytest.mark.skipif(os.name != "posix", reason="signals and forks of POSIX")

SERVER = """
    import sys, time
    from wse_tornado import WseServer
    server = WseServer(identify=lambda auth: auth.identity, host="127.0.0.1", conn_per_user=100)
    seen = 0

    def count(conn, payload):
        global seen
        seen += 1
        print("call", flush=True)

    @server.register("never")
    async def never(conn, payload):
        import asyncio
        count(conn, payload)
        await asyncio.sleep(600)

    with server:
        print(server.port, flush=True)
        sys.stdin.read()
"""


def fifty_calls(client, process):
    """Fifty threads that wait in a call which the server has got."""
    ended = {}

    def call(number):
        try:
            client.call("never", timeout=60)
        except BaseException as exc:
            ended[number] = exc

    threads = [threading.Thread(target=call, args=(n,), daemon=True) for n in range(50)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert process.stdout.readline().strip() == "call"
    return threads, ended


def end(process):
    process.kill()
    process.wait(10)
    process.stdout.close()
    process.stdin.close()


@posix
def test_a_killed_server_fails_fifty_waiting_calls_at_once():
    process = start_script(SERVER)
    try:
        with WseClient(f"ws://127.0.0.1:{process.stdout.readline().strip()}") as client:
            client.connect("a")
            threads, ended = fifty_calls(client, process)
            process.send_signal(signal.SIGKILL)
            for thread in threads:
                thread.join(seconds(10))
            assert len(ended) == 50
            assert {type(exc) for exc in ended.values()} == {RpcDisconnected}
    finally:
        end(process)


@posix
def test_a_stopped_server_fails_fifty_waiting_calls_within_the_heartbeat():
    limits = Limits(heartbeat=0.3, heartbeat_timeout=0.5, close_timeout=0.2)
    process = start_script(SERVER)
    try:
        url = f"ws://127.0.0.1:{process.stdout.readline().strip()}"
        with WseClient(url, limits=limits) as client:
            client.connect("a")
            threads, ended = fifty_calls(client, process)
            process.send_signal(signal.SIGSTOP)
            for thread in threads:
                thread.join(seconds(10))
            assert len(ended) == 50
            assert {type(exc) for exc in ended.values()} == {RpcDisconnected}
    finally:
        process.send_signal(signal.SIGCONT)
        end(process)


# -- Ctrl-C

INTERRUPT = """
    import os, signal, sys, threading, time
    from support import RawServer, seconds
    from wse_tornado import *

    over = threading.Event()

    def welcome(peer):
        assert peer.recv_message()[0] == "~wse:hi"
        peer.send("~wse:welcome", None, None)

    def stall(peer):  # the first client waits for its welcome; the next ones are served
        if len(raw.peers) > 1:
            return serve(peer)
        over.wait()

    def deaf(peer):  # reads nothing until the test is over
        welcome(peer)
        over.wait()
        serve_on(peer)

    def serve(peer):
        welcome(peer)
        serve_on(peer)

    def serve_on(peer):
        while True:
            type, payload, stamp = peer.recv_message()
            if type == "add":
                peer.send("~wse:response", payload + 1, stamp)
            if type == "news please":
                peer.send("news", payload, None)

    def interrupted(fn, *args, **kwargs):
        '''Run it and press Ctrl-C while it waits. How it ended, and how soon after.'''
        pressed = []

        def press():
            time.sleep(0.3)  # there is no event for "it waits now"
            pressed.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=press, daemon=True).start()
        try:
            fn(*args, **kwargs)
        except KeyboardInterrupt:
            took = time.monotonic() - pressed[0]
            assert took < seconds(0.5), took  # of the 60, or 2 in close, that it would wait
        else:
            raise AssertionError("it was not interrupted")

    script = globals()[sys.argv[1]]
    raw = RawServer(script)
    client = WseClient(raw.url, timeout=60, dispatch=sys.argv[2],
                       limits=Limits(max_send_buffer=100_000, close_timeout=seconds(2)))
"""

CONNECTED = """
    client.connect("a")
    {during}
    assert client.status == Status.READY, client.status
    over.set()
    assert client.call("add", 1, timeout=seconds(5)) == 2
    {after}
    client.close()
    assert client.status == Status.OFFLINE
    print("fine")
"""

WAITS = {
    "call": ("serve", "threads", 'interrupted(client.call, "never")', ""),
    "receive": ("serve", "threads", "interrupted(client.receive)", ""),
    "wait_for": ("serve", "threads", 'interrupted(client.wait_for, "news")', ""),
    "iterate": ("serve", "threads", "interrupted(list, client)", ""),
    "wait": ("serve", "threads", "interrupted(client.wait)", ""),
    "run": (
        "serve",
        "manual",
        "interrupted(client.run)",
        """got = []
    client.channel.on("news", got.append)
    client.send("news please", 1)
    while not got:
        client.run(timeout=0.05)""",
    ),
    "a handler in run": (
        "serve",
        "manual",
        """client.channel.once("news", lambda payload: time.sleep(60))
    client.send("news please", 1)
    client.send("news please", 2)
    interrupted(client.run)""",
        """got = []
    client.channel.on("news", got.append)
    client.send("news please", 3)
    while got[-1:] != [3]:
        client.run(timeout=0.05)""",
    ),
    "send": (
        "deaf",
        "threads",
        """def flood():
        while True:
            client.send("fill", "x" * 50_000)
    interrupted(flood)""",
        "",
    ),
}


@posix
@pytest.mark.parametrize("what", WAITS)
def test_ctrl_c_ends_a_wait_and_leaves_the_client_usable(what):
    script, dispatch, during, after = WAITS[what]
    done = run_script(
        INTERRUPT + CONNECTED.replace("{during}", during).replace("{after}", after),
        script,
        dispatch,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("fine\n", "", 0)


CONNECT = """
    interrupted(client.connect, "a")
    assert client.status == Status.OFFLINE or client.status == Status.CONNECTING
    client.connect("a", timeout=seconds(5))
    assert client.call("add", 1) == 2
    over.set()
    client.close()
    print("fine")
"""
BACK_OFF = """
    raw.close()
    client = WseClient(raw.url, reconnect=Backoff(initial=60, maximum=60), timeout=200)
    interrupted(client.connect, "a")
    client.close()
    print("fine")
"""
CLOSE = """
    client.connect("a")
    interrupted(client.close)  # the peer does not answer the close frame
    over.set()
    raw.script = serve
    client.connect("a", timeout=seconds(5))
    assert client.call("add", 1) == 2
    client.close()
    print("fine")
"""


@posix
@pytest.mark.parametrize(
    ("source", "script", "dispatch"),
    [
        (CONNECT, "stall", "threads"),
        (CONNECT, "stall", "manual"),
        (BACK_OFF, "serve", "threads"),
        (CLOSE, "deaf", "threads"),
    ],
    ids=["connect", "connect by hand", "connect in back-off", "close"],
)
def test_ctrl_c_ends_connect_and_close_and_the_client_connects_again(source, script, dispatch):
    done = run_script(INTERRUPT + source, script, dispatch)
    assert (done.stdout, done.stderr, done.returncode) == ("fine\n", "", 0)


@posix
@pytest.mark.parametrize("wait", ["server.stop(grace=60)", "server.wait()"])
def test_ctrl_c_ends_a_servers_wait_and_the_server_still_works(wait):
    stop = """
    def hold(conn, payload):
        called.set()
        over.wait()

    def use():
        with WseClient(server.url) as other:
            other.connect("b")
            assert other.call("add", 1) == 2

    called = threading.Event()
    server = WseServer(identify=lambda auth: auth.identity, host="127.0.0.1")
    server.register("hold", hold)
    server.register("add", lambda conn, payload: payload + 1)
    server.start()
    with WseClient(server.url) as caller:
        caller.connect("a")
        caller.submit("hold")
        called.wait()
        interrupted(lambda: WAIT)
        over.set()
        server.stop()
        assert server.port is None
        server.start()
        use()
        server.stop()
    print("fine")
    """.replace("WAIT", wait)
    done = run_script(INTERRUPT + stop, "serve", "threads")
    assert (done.stdout, done.stderr, done.returncode) == ("fine\n", "", 0)


# -- the end of the process

# Measured in the process itself, from its last statement to the last of its exit handlers: how long
# Python takes to start and to be taken down is not the library's. The first to register is the last
# to run, after the threads were joined.
STOPWATCH = """
    import atexit, sys, threading, time

    def took():
        print(time.monotonic() - ended, flush=True)

    atexit.register(took)
"""
END = """
    ended = time.monotonic()
    sys.exit(7)
"""
SOON = seconds(1)

EXIT = """
    import sys, threading, time
    from wse_tornado import *

    server = WseServer(identify=lambda auth: auth.identity, host="127.0.0.1", conn_per_user=9)
    stuck = threading.Event()

    @server.channel.on("stick")
    def stick(conn, payload):
        stuck.set()
        time.sleep(60)

    @server.register("never")
    def never(conn, payload):
        stuck.set()
        time.sleep(60)

    server.start()
    client = WseClient(server.url, reconnect=Backoff(initial=30, maximum=30))
    client.when.closed(lambda code, reason: None)
    client.connect("a")
"""

ENDINGS = {
    "nothing closed": "",
    "a stuck callback": 'client.send("stick"); stuck.wait()',
    "a stuck callback of the client": """
    client.channel.on("go", lambda payload: (stuck.set(), time.sleep(60)))
    server.send("a", "go"); stuck.wait()""",
    "a pending call": 'client.submit("never"); stuck.wait()',
    "a thread in a call": """
    def call():
        try:
            client.call("never")
        except RpcDisconnected:
            pass
    threading.Thread(target=call, daemon=True).start(); stuck.wait()""",
    "reconnect in back-off": """
    lost = threading.Event()
    client.when.closed(lambda code, reason: lost.set())
    server.stop(); lost.wait()
    assert client.status == Status.RE_CONNECTING""",
    "many private loops": """
    extra = [WseClient(server.url, loop=LoopThread()) for _ in range(8)]
    for number, each in enumerate(extra): each.connect(f"user {number}")""",
    "a manual client": """
    other = WseClient(server.url, dispatch="manual"); other.connect("b")""",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_interpreter_exits_soon_whatever_is_open(ending):
    done = run_script(STOPWATCH + EXIT + f"    {ENDINGS[ending].strip()}\n" + END)
    assert (done.returncode, done.stderr) == (7, "")
    assert float(done.stdout) < SOON  # of 60


def test_the_interpreter_exits_soon_while_a_server_does_not_answer():
    source = """
    from support import RawServer
    from wse_tornado import *

    def deaf(peer):
        peer.recv()
        peer.send("~wse:welcome", None, None)
        time.sleep(60)

    url = RawServer(deaf).url
    clients = [WseClient(url, loop=LoopThread()) for _ in range(4)] + [WseClient(url)]
    for client in clients:
        client.connect("a")
    """
    done = run_script(STOPWATCH + source + END)
    assert (done.returncode, done.stderr) == (7, "")
    assert float(done.stdout) < SOON  # of 60


def test_an_exception_at_the_end_keeps_its_exit_code():
    done = run_script(EXIT + '    raise ValueError("mine")\n')
    assert done.returncode == 1
    assert "ValueError: mine" in done.stderr


def test_an_open_client_says_goodbye_at_exit():
    with serve("blocking") as served:
        done = run_script(
            """
            import sys
            from wse_tornado import WseClient
            WseClient(sys.argv[1]).connect("a")
            """,
            served.url,
        )
        assert done.returncode == 0
        wait_until(lambda: "disconnected" in served.names())
        (gone,) = [event for event in served.events if event[0] == "disconnected"]
        assert gone == ("disconnected", "a", 1000, "wse.by-client")


# -- forks

FORK = """
    import multiprocessing, os, sys, threading, warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
    from wse_tornado import *

    server = WseServer(identify=lambda auth: auth.identity, host="127.0.0.1", conn_per_user=9)
    server.register("add", lambda conn, payload: payload + 1)
    server.start()
    client = WseClient(server.url)
    client.connect("a")
    assert client.call("add", 1) == 2
    (conn,) = server.clients["a"].conns.values()
    user = server.clients["a"]
    loop = client._loop
    manual = WseClient(server.url, dispatch="manual")
    manual.connect("m")

    def child(url):
        uses = {
            "call": lambda: client.call("add", 1),
            "submit": lambda: client.submit("add", 1),
            "send": lambda: client.send("news"),
            "receive": lambda: client.receive(timeout=1),
            "wait_for": lambda: client.wait_for("news", timeout=1),
            "wait": lambda: client.wait(timeout=1),
            "wait_ready": lambda: client.wait_ready(timeout=1),
            "iterate": lambda: next(iter(client)),
            "connect": lambda: client.connect("b"),
            "jump": lambda: client.jump(url),
            "close": client.close,
            "drop": client.drop,
            "run": lambda: manual.run(timeout=1),
            "poll": manual.poll,
            "broadcast": lambda: server.broadcast("news"),
            "server.send": lambda: server.send("a", "news"),
            "drop_client": lambda: server.drop_client("a"),
            "start": server.start,
            "stop": server.stop,
            "server.wait": lambda: server.wait(timeout=1),
            "conn.call": lambda: conn.call("anything"),
            "conn.send": lambda: conn.send("news"),
            "conn.drop": conn.drop,
            "user.send": lambda: user.send("news"),
            "user.drop": user.drop,
            "loop": loop.acquire,
        }
        for name, use in uses.items():
            try:
                use()
            except WrongThread as exc:
                assert "make a new one in the child" in str(exc), (name, exc)
            else:
                raise AssertionError(name)
        assert "left behind by a fork" in repr(loop)
        repr(client), repr(server), repr(conn), repr(user)
        with WseClient(url) as own:
            own.connect("child")
            assert own.call("add", 2) == 3
        with WseServer(identify=lambda auth: auth.identity, host="127.0.0.1") as own_server:
            with WseClient(own_server.url) as own:
                own.connect("child")
        print("child fine", flush=True)

    def check_parent():
        assert client.call("add", 3) == 4
        assert client.status == Status.READY
        assert conn.send("news") == 1
        assert client.receive(timeout=5).type == "news"
        client.close()
        manual.close()
        server.stop()
        print("parent fine", flush=True)
"""


FORKS = {
    "os.fork": """
    pid = os.fork()
    if pid == 0:
        child(server.url)
        sys.exit(5)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 5
    """,
    "multiprocessing": """
    process = multiprocessing.get_context("fork").Process(target=child, args=(server.url,))
    process.start()
    process.join()
    assert process.exitcode == 0
    """,
    "in a callback": """
    outcome = []

    @client.channel.on("fork")
    def fork(payload):
        pid = os.fork()
        if pid == 0:
            try:
                child(server.url)
            except BaseException as exc:
                print(exc, flush=True)
                os._exit(1)
            os._exit(5)
        outcome.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        done.set()

    done = threading.Event()
    server.send("a", "fork")
    done.wait()
    assert outcome == [5]
    """,
}


@posix
@pytest.mark.parametrize("how", FORKS)
def test_a_fork_leaves_the_parent_unharmed_and_the_child_can_begin_anew(how):
    done = run_script(FORK + FORKS[how] + "check_parent()\n")
    assert (done.stdout, done.stderr, done.returncode) == ("child fine\nparent fine\n", "", 0)


# -- threads


@pytest.mark.timeout(90)
def test_twenty_thousand_messages_keep_their_order_on_few_threads():
    done = run_script(
        """
        import random, threading, time
        from collections import defaultdict
        from wse_tornado import Limits, WseClient, WseServer

        CLIENTS, EACH = 20, 1000
        limits = Limits(max_workers=8)
        server = WseServer(identify=lambda auth: auth.identity, host="127.0.0.1", limits=limits)
        got = defaultdict(list)
        busiest = 0
        left = CLIENTS
        lock = threading.Lock()
        over = threading.Event()
        random.seed(4)

        @server.channel.on("number")
        def number(conn, payload):
            global busiest, left
            if random.random() < 0.02:
                time.sleep(random.random() / 200)
            got[conn.cid].append(payload)
            if payload % 100 == 0:
                count = sum(t.name.startswith("wse-tornado-server") for t in threading.enumerate())
                busiest = max(busiest, count)
            if payload == EACH - 1:
                with lock:
                    left -= 1
                    if not left:
                        over.set()

        def send(number):
            with WseClient(server.url) as client:
                client.connect(f"user-{number}")
                for value in range(EACH):
                    client.send("number", value)
                over.wait(60)

        with server:
            threads = [threading.Thread(target=send, args=(n,)) for n in range(CLIENTS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert len(got) == CLIENTS
        for values in got.values():
            assert values == list(range(EACH)), (len(values), values[:20])
        assert 1 < busiest <= limits.max_workers, busiest
        print("fine")
        """,
        limit=80,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("fine\n", "", 0)
