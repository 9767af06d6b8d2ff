"""The page of ``python -m wse_tornado serve`` in a real browser, with a blocking script."""

import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from wse_tornado import WseClient

from ..support import browser, require, seconds
from ..support.process import environment

pytestmark = pytest.mark.once


@contextmanager
def playground(*args, port=0):
    """The server; where its page is."""
    command = [sys.executable, "-W", "error", "-m", "wse_tornado", "serve", "--port", str(port)]
    process = subprocess.Popen(
        [*command, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        url = process.stdout.readline().strip()
        assert url, process.stderr.read()
        yield url
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=seconds(20))
        assert process.returncode == 130
        assert "Traceback" not in err
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


class Page(browser.Page):
    """The page, as a person uses it."""

    def texts(self, selector):
        script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
        return self.js(script, selector)

    def wait_text(self, selector, text):
        self.wait(f"{text!r} in {selector}", lambda: text in self.texts(selector))

    def look_at(self, name):
        """It fits everywhere; pictures of it where somebody wants to see them."""
        for width in (390, 1280):
            for dark in (False, True):
                self.look(width=width, dark=dark)
                self.assert_fits_and_is_named()
                self.shoot(f"{name}-{width}-{'dark' if dark else 'light'}")

    def call(self, name, payload):
        from selenium.webdriver import Keys

        for selector, text in (("#procedure", name), ("#payload", payload)):
            self.find(selector).clear()
            self.find(selector).send_keys(text)
        self.find("#payload").send_keys(Keys.CONTROL, Keys.ENTER)

    def answer(self):
        """What the latest answer says, once it is there."""
        self.wait("an answer", lambda: self.texts("#answers li:first-child > .quiet"))
        return self.texts("#answers li:first-child .answer")[0]


@pytest.fixture(scope="module")
def driver():
    """A browser, there before a test begins to count sockets."""
    require(not browser.missing(), browser.missing())
    with browser.chromium() as driver:
        yield driver


def test_a_person_and_a_script_talk_and_call_on_the_playground_page(driver):
    from selenium.webdriver import ActionChains, Keys

    page = Page(driver)
    page.look(width=1280, dark=False)
    with playground() as url:
        port = int(url.rpartition(":")[2])
        driver.get(url.replace("ws:", "http:"))
        page.wait("the door", lambda: page.find("#sign-in").is_displayed())
        assert not page.find("#key").is_displayed()
        page.look_at("door")

        # in, by keyboard alone
        ActionChains(driver).send_keys("Ann", Keys.ENTER).perform()
        page.wait_text("#state", "Connected")
        page.wait_text("#people li.me", "Ann")
        with WseClient(url) as bob:
            bob.connect("Bob")
            page.wait_text("#people li", "Bob")
            assert f"python -m wse_tornado send {url} chat" in page.texts("#log .note")[0]

            # messages both ways, one of them hostile
            hostile = "<img src=x onerror=document.title='owned'> <b>bold</b>"
            ActionChains(driver).send_keys("Good morning!", Keys.ENTER).perform()
            said = {"text": "Good morning!", "from": "Ann"}
            assert bob.wait_for("chat", timeout=seconds(10)) == said
            bob.send("chat", {"text": hostile})
            bob.send("chat", {"temperature": 21.4})
            page.wait_text("#log .body", hostile)
            page.wait_text("#log .body", '{"temperature":21.4}')
            page.wait_text("#log .mine .body", "Good morning!")
            assert page.js("return document.querySelectorAll('#log img, #log b').length") == 0
            assert "owned" not in driver.title

            # calls: an answer, errors, and JSON that is none
            page.find("#do-call").click()  # as it is filled in
            assert page.answer() == "8"
            page.call("echo", '{"deep": ["<i>", null]}')
            page.wait_text("#answers .asked", 'echo {"deep":["<i>",null]}')
            page.wait("it", lambda: '"<i>"' in page.answer())
            page.call("absent", "")
            page.wait("an error", lambda: "wse.server.rp.not-registered" in page.answer())
            page.call("add", '{"a": 1}')
            page.wait("an error", lambda: "playground.no-number" in page.answer())
            assert page.texts("#answers li:first-child .failed")
            page.call("add", '{"a": 1')
            assert "not JSON" in page.find("#payload-problem").text
            page.look_at("inside")
            page.look(width=1280, dark=False)
        page.wait("Bob away", lambda: page.texts("#people li") == ["Ann"])

    # the server goes, and comes back with a key
    page.wait_text("#state", "Reconnecting…")
    assert not page.find("#send").is_enabled()
    with playground(port=port):
        page.wait_text("#state", "Connected")
        page.wait_text("#people li", "Ann")
        assert page.find("#send").is_enabled()
    with playground("--key", "k3y", "--secret", "s3cret", port=port):
        page.wait("the door", lambda: page.find("#sign-in").is_displayed())
        assert "not let you in" in page.find("#door-problem").text
        driver.refresh()
        for key, opened in (("wrong", False), ("k3y", True)):
            for field, text in (("#name", "Ann"), ("#key", key), ("#secret", "s3cret")):
                page.find(field).clear()
                page.find(field).send_keys(text)
            if not opened:
                page.look_at("door-with-key")
            page.find("#enter").click()
            if opened:
                page.wait_text("#people li.me", "Ann")
            else:
                page.wait_text("#door-problem", "The server refused: the key is wrong.")
        page.find("#sign-out").click()
        page.wait("the door", lambda: page.find("#sign-in").is_displayed())
        driver.get("about:blank")
    complaints = [entry["message"] for entry in driver.get_log("browser")]
    assert [text for text in complaints if "WebSocket connection to" not in text] == []
