"""examples/chat in real browsers: two of them and a blocking script in one conversation."""

import shutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from wse_tornado import Backoff, NotAuthorized, WseClient

from ..support import ROOT, browser, require, seconds, wait_until
from ..support.process import environment

pytestmark = pytest.mark.once


CHAT = ROOT / "examples" / "chat"
PASSPHRASE = "correct horse battery"
SHOTS = browser.SHOTS  # one of them is in the README


@contextmanager
def program(name, *args):
    """A program of the example, until the end of the block; it must end well."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-u", str(CHAT / name), *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        yield process
        if process.poll() is not None:  # the test ended it
            return
        process.send_signal(signal.SIGTERM if name == "app.py" else signal.SIGINT)
        _, err = process.communicate(timeout=seconds(20))
        assert (process.returncode, err) == (0, "")
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


@contextmanager
def chat(port=0):
    """The web app; its port."""
    with program("app.py", "--port", str(port), "--host", "127.0.0.1") as process:
        line = process.stdout.readline()
        assert line.startswith("chat: http://127.0.0.1:"), process.stderr.read()
        yield int(line.rsplit(":", 1)[1])


class Person(browser.Page):
    """Somebody at a browser."""

    def open(self, port):
        self.driver.get(f"http://127.0.0.1:{port}/")
        self.wait("the sign-in form", lambda: self.find("#sign-in").is_displayed())

    def sign_in(self, name, passphrase=PASSPHRASE, *, create=False):
        for field, text in (("#name", name), ("#passphrase", passphrase)):
            self.find(field).clear()
            self.find(field).send_keys(text)
        self.find(f"button[value={'create' if create else 'sign-in'}]").click()

    def enter(self, port, name, **options):
        self.open(port)
        self.sign_in(name, **options)
        self.wait("the chat", lambda: self.find("#chat").is_displayed())
        self.wait_state("Connected")

    def say(self, text):
        """Write and press Enter."""
        self.find("#text").send_keys(text + "\n")
        assert self.find("#text").get_property("value") == ""

    def talk_to(self, name):
        """Open a conversation."""
        self.wait(name, lambda: name in self.people())
        self.js(
            "for (const b of document.querySelectorAll('nav button'))"
            " if (b.dataset.where === arguments[0]) b.click()",
            "" if name == "Everyone" else name,
        )
        self.wait(f"the talk with {name}", lambda: self.find("#with").text == name)

    def people(self):
        """Names in the list, and what stands below each."""
        return dict(
            self.js(
                "return [...document.querySelectorAll('nav button')].map((b) =>"
                " [b.querySelector('.name').textContent, b.querySelector('.devices').textContent])"
            )
        )

    def unread(self, name):
        return self.js(
            "return [...document.querySelectorAll('nav button')].find((b) =>"
            " b.dataset.where === arguments[0])?.querySelector('.unread')?.textContent",
            name,
        )

    def log(self):
        """What the conversation on the screen says: (who, text)."""
        rows = self.js(
            "return [...document.querySelectorAll('#log .message')].map((m) =>"
            " [m.querySelector('.who').textContent, m.querySelector('.body').firstChild.data])"
        )
        return [tuple(row) for row in rows]

    def notes(self):
        return self.js("return [...document.querySelectorAll('.note')].map((n) => n.textContent)")

    def wait_log(self, *row):
        self.wait(f"{row} among {self.log()}", lambda: row in self.log())

    def wait_state(self, text):
        self.wait(text, lambda: self.find("#state-text").text == text)

    def complaints(self):
        """What the console says of errors, but for sockets that could not be opened."""
        entries = self.driver.get_log("browser")
        return [
            entry["message"]
            for entry in entries
            if entry["level"] == "SEVERE" and "WebSocket connection to" not in entry["message"]
        ]


@pytest.fixture(scope="module")
def drivers():
    """Two browsers with profiles of their own, there before a test begins to count sockets."""
    require(not browser.missing(), browser.missing())
    with browser.chromium() as first, browser.chromium() as second:
        yield first, second


@pytest.fixture(autouse=True)
def fresh(drivers):
    """Pages that know nothing of earlier tests, and no complaint in their consoles at the end."""
    for driver in drivers:
        driver.get_log("browser")
    yield
    for driver in drivers:
        assert Person(driver).complaints() == []
        driver.get("about:blank")


@pytest.fixture
def alice(drivers):
    person = Person(drivers[0])
    person.look(width=1280, dark=False)
    return person


@pytest.fixture
def bob(drivers):
    person = Person(drivers[1])
    person.look(width=390, dark=True)
    return person


@contextmanager
def script(port, name="Carol"):
    """A blocking script in the chat: the client, and the messages it got."""
    got = []
    backoff = Backoff(initial=0.2, maximum=1)
    with WseClient(f"ws://127.0.0.1:{port}/ws", reconnect=backoff, timeout=seconds(10)) as client:
        client.channel.on("message", lambda message: got.append((message["from"], message["text"])))
        client.connect(
            {"name": name, "passphrase": PASSPHRASE, "create": True},
            {"device": "a Python script"},
        )
        yield client, got


def test_two_browsers_and_a_script_talk_and_survive_a_restart(alice, bob):
    with ExitStack() as stack:
        first = stack.enter_context(ExitStack())
        port = first.enter_context(chat())
        alice.enter(port, "Alice", create=True)
        bob.enter(port, "Bob", create=True)
        carol, got = stack.enter_context(script(port))

        # everybody sees who is here
        everybody = {"Everyone": "3 people here", "Carol": "a Python script"}
        alice.wait("all three", lambda: everybody.items() <= alice.people().items())
        bob.wait("all three", lambda: everybody.items() <= bob.people().items())
        assert "Alice" in bob.people()
        assert "Carol joined." in alice.notes()

        # public messages, one of them hostile
        hostile = "<img src=x onerror=document.title='owned'> & \"quotes\" <b>"
        alice.say("Good morning!")
        carol.call("say", {"text": hostile})
        bob.wait_log("Alice", "Good morning!")
        for person in (alice, bob):
            person.wait_log("Carol", hostile)
            assert person.js("return document.querySelectorAll('#log img, #log b').length") == 0
            assert "owned" not in person.driver.title
        wait_until(lambda: ("Alice", "Good morning!") in got, 10)

        # private ones reach one person only
        bob.talk_to("Carol")
        bob.say("Just between us.")
        wait_until(lambda: ("Bob", "Just between us.") in got, 10)
        carol.call("say", {"to": "bob", "text": "Our secret."})
        bob.wait_log("Carol", "Our secret.")
        carol.call("say", {"to": "Alice", "text": "Psst!"})
        alice.wait("a mark of an unread message", lambda: alice.unread("Carol") == "1 unread")
        assert alice.driver.title == "(1) Chat"
        alice.talk_to("Carol")
        assert alice.log() == [("Carol", "Psst!")]
        assert alice.unread("Carol") is None

        # a call
        alice.talk_to("Everyone")
        alice.find("#roll").click()
        alice.wait("dice", lambda: any(t.startswith("rolled 2d6:") for _, t in alice.log()))

        # the server goes away: it shows, and nothing can be lost meanwhile
        first.close()
        alice.wait_state("Reconnecting…")
        bob.wait_state("Reconnecting…")
        assert not alice.find("#send").is_enabled()
        alice.find("#text").send_keys("Are you still there?\n")
        assert alice.find("#text").get_property("value") == "Are you still there?"
        alice.shoot("reconnecting-1280-light")
        bob.shoot("reconnecting-390-dark")

        # it is back, and so is everybody
        stack.enter_context(chat(port))
        carol.wait_ready(timeout=seconds(20))
        alice.wait_state("Connected")
        bob.wait_state("Connected")
        alice.wait("all three", lambda: everybody.items() <= alice.people().items())
        alice.find("#text").send_keys("\n")
        bob.talk_to("Everyone")
        bob.wait_log("Alice", "Are you still there?")
        bob.find("#text").send_keys("Of\ncourse.\n")  # faster than the server answers
        wait_until(lambda: ("Bob", "course.") in got, 10)
        alice.wait_log("Bob", "course.")
        assert alice.log().index(("Bob", "Of")) == alice.log().index(("Bob", "course.")) - 1
        assert ("You", "Good morning!") in alice.log()  # what was on the screen stayed there
        assert any(note.startswith("The connection was lost for") for note in alice.notes())
        for person in (alice, bob):
            person.driver.get("about:blank")


def test_the_door_says_what_is_wrong_and_keeps_who_is_in(alice):
    with chat() as port:
        alice.open(port)

        def refused(*args, **options):
            alice.sign_in(*args, **options)
            alice.wait("an answer", lambda: alice.find("#door-error").text)
            return alice.find("#door-error").text

        assert "wrong" in refused("Alice")
        assert "8 characters" in refused("Alice", "short", create=True)
        assert "taken" in refused("<script>", create=True)
        alice.shoot("door-1280-light")
        alice.sign_in("Alice", create=True)
        alice.wait_state("Connected")
        alice.say("Hello")

        # a reload is not a departure
        alice.driver.refresh()
        alice.wait_state("Connected")
        alice.wait_log("You", "Hello")

        # signing out is
        alice.find("#sign-out").click()
        alice.wait("the door", lambda: alice.find("#sign-in").is_displayed())
        alice.driver.refresh()
        alice.wait("the door", lambda: alice.find("#sign-in").is_displayed())
        assert "wrong" in refused("Alice", "a guess of mine")
        assert "taken" in refused("alice", "another passphrase", create=True)
        alice.sign_in("alice")
        alice.wait_state("Connected")
        assert alice.find("#my-name").text == "Alice"
        alice.driver.get("about:blank")


def test_the_devices_of_a_person_show_the_same_and_the_oldest_of_six_goes(alice, bob):
    with chat() as port, ExitStack() as stack:
        alice.enter(port, "Alice", create=True)
        bob.enter(port, "Alice")
        alice.wait("two devices", lambda: alice.find("#my-devices").text == "2 devices")
        alice.say("From my desk")
        bob.wait_log("You", "From my desk")
        for _ in range(4):
            client = stack.enter_context(WseClient(f"ws://127.0.0.1:{port}/ws"))
            client.connect({"name": "Alice", "passphrase": PASSPHRASE})
        alice.wait("the door", lambda: alice.find("#sign-in").is_displayed())
        assert "another device" in alice.find("#door-error").text
        bob.wait("five devices", lambda: bob.find("#my-devices").text == "5 devices")
        with WseClient(f"ws://127.0.0.1:{port}/ws") as stranger:
            with pytest.raises(NotAuthorized):
                stranger.connect({"name": "Alice", "passphrase": "a guess of mine"})
        for person in (alice, bob):
            person.driver.get("about:blank")


def test_the_bot_joins_and_answers(alice):
    with chat() as port:
        alice.enter(port, "Alice", create=True)
        with program("bot.py", "--url", f"ws://127.0.0.1:{port}/ws"):
            alice.talk_to("Robot")
            alice.say("who is here?")
            alice.wait_log("Robot", "Here are Alice, Robot.")
            alice.say("please roll")
            alice.wait("dice", lambda: any("rolled 2d6" in text for _, text in alice.log()))
            alice.talk_to("Everyone")
            alice.wait_log("Robot", "Hello! Write @Robot time, who or roll.")
        alice.wait("it is away", lambda: "Robot left." in alice.notes())
        alice.driver.get("about:blank")


def test_what_was_not_sent_goes_back_into_the_box(alice):
    with program("app.py", "--port", "0", "--host", "127.0.0.1") as process:
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        alice.enter(port, "Alice", create=True)
        process.send_signal(signal.SIGSTOP)
        alice.say("first")
        alice.find("#text").send_keys("second")
        process.kill()  # in the middle of the call, without a goodbye
        process.communicate()
        problem = alice.find("#compose-problem")
        alice.wait("a complaint", lambda: "connection was lost" in problem.text)
        assert alice.find("#text").get_property("value") == "first\nsecond"
        with chat(port):  # has forgotten everything, and takes her account up again
            alice.wait_state("Connected")
            alice.find("#text").send_keys("\n")
            alice.wait_log("You", "first\nsecond")
            assert problem.text == ""
            alice.driver.get("about:blank")


def test_it_can_be_used_by_keyboard_alone(alice):
    from selenium.webdriver import ActionChains, Keys

    with chat() as port, script(port):
        alice.open(port)
        keys = ActionChains(alice.driver)
        focused = "return document.activeElement.id || document.activeElement.dataset.where"
        assert alice.js(focused) == "name"
        keys.send_keys("Alice", Keys.TAB, PASSPHRASE, Keys.TAB, Keys.TAB, Keys.ENTER).perform()
        alice.wait_state("Connected")
        alice.wait("focus on the message", lambda: alice.js(focused) == "text")
        alice.wait("Carol", lambda: "Carol" in alice.people())
        # back to the list of people, and to Carol in it
        for _ in range(6):
            if alice.js(focused) == "Carol":
                break
            ActionChains(alice.driver).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(
                Keys.SHIFT
            ).perform()
        assert alice.js(focused) == "Carol"
        ActionChains(alice.driver).send_keys(Keys.ENTER).perform()
        alice.wait("Carol's talk", lambda: alice.find("#with").text == "Carol")
        assert alice.js(focused) == "text"
        lines = ActionChains(alice.driver).send_keys("two").key_down(Keys.SHIFT)
        lines.send_keys(Keys.ENTER).key_up(Keys.SHIFT).send_keys("lines", Keys.ENTER).perform()
        alice.wait_log("You", "two\nlines")
        alice.driver.get("about:blank")


def test_every_control_has_a_name_and_nothing_is_wider_than_the_screen(alice):
    with chat() as port, script(port):
        for width in (320, 390, 1280):
            alice.look(width=width, dark=False)
            alice.open(port)
            alice.js("sessionStorage.clear()")
            alice.assert_fits_and_is_named()
            alice.sign_in("Alice", create=width == 320)
            alice.wait_state("Connected")
            alice.say("a" * 300 + " and\nsome more")
            alice.assert_fits_and_is_named()
            alice.find("#sign-out").click()
            alice.wait("the door", lambda: alice.find("#sign-in").is_displayed())
        alice.driver.get("about:blank")


@pytest.mark.skipif(not SHOTS, reason="WSE_TEST_SCREENSHOTS names no folder for screenshots")
def test_screenshots_for_people_to_look_at(alice, bob):
    """Light and dark, a phone and a desk; docs/images/chat.png comes from here."""
    with chat() as port, script(port) as (carol, _):
        alice.open(port)
        for width in (390, 1280):
            for dark in (False, True):
                alice.look(width=width, dark=dark)
                alice.shoot(f"door-{width}-{'dark' if dark else 'light'}")
        alice.look(width=1280, dark=False)
        alice.enter(port, "Alice", create=True)
        bob.enter(port, "Bob", create=True)
        with program("bot.py", "--url", f"ws://127.0.0.1:{port}/ws"):
            alice.say("Good morning! Who has the results of last night's run?")
            bob.wait_log("Alice", "Good morning! Who has the results of last night's run?")
            carol.call("say", {"text": "Sample 17 is done: 21.4 °C, no drift."})
            carol.call("say", {"text": "Sample 18 takes another hour."})
            bob.wait("it", lambda: len(bob.log()) >= 4)
            bob.say("Then there is time for a round of dice :-)")
            bob.say("Who loses makes the coffee.")
            bob.find("#roll").click()
            alice.wait("dice", lambda: any("rolled" in text for _, text in alice.log()))
            alice.find("#roll").click()
            alice.wait("dice", lambda: sum("rolled" in text for _, text in alice.log()) == 2)
            carol.call("say", {"to": "Alice", "text": "Psst: the good cups are in the lab."})
            carol.call("say", {"to": "Bob", "text": "Milk, please."})
            alice.wait("a mark", lambda: alice.unread("Carol"))
            bob.wait("a mark", lambda: bob.unread("Carol"))
            for person, name in ((alice, "alice"), (bob, "bob")):
                for width in (390, 1280):
                    for dark in (False, True):
                        person.look(width=width, dark=dark)
                        person.js("document.getElementById('log').scrollTop = 1e6")
                        person.shoot(f"{name}-{width}-{'dark' if dark else 'light'}")
        shutil.copy(Path(SHOTS) / "alice-1280-light.png", Path(SHOTS) / "chat.png")
        for person in (alice, bob):
            person.driver.get("about:blank")


def test_the_port_is_free_again_at_once():
    with chat() as port:
        pass
    with chat(port) as again:
        assert again == port
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
