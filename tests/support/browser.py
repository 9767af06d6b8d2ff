"""A real browser: headless Chromium, driven by Selenium."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .leaks import wait_until

SHOTS = os.environ.get("WSE_TEST_SCREENSHOTS")
CONTROLS = "button, input, textarea, [role=log]"

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def missing() -> str:
    """What of a browser is absent; empty where it is all there."""
    if not shutil.which("chromium"):
        return "chromium"
    if not shutil.which("chromedriver"):
        return "chromedriver"
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium"
    return ""


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of its own, with an empty profile; Selenium's driver of it."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(prefix="wse-chromium-", ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        service = Service(shutil.which("chromedriver"))
        driver = webdriver.Chrome(options=options, service=service)
        try:
            yield driver
        finally:
            driver.quit()


class Page:
    """A page, as a person uses it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def js(self, script: str, *args: Any) -> Any:
        return self.driver.execute_script(script, *args)

    def look(self, *, width: int, dark: bool, height: int = 800) -> None:
        """Hold a screen of this width, light or dark."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})

    def wait(self, what: str, condition: Callable[[], object]) -> None:
        wait_until(condition, 15, what)

    def assert_fits_and_is_named(self) -> None:
        """Nothing is wider than the screen, and every control has a name."""
        assert self.js("return document.documentElement.scrollWidth <= innerWidth")
        for control in self.driver.find_elements("css selector", CONTROLS):
            if control.is_displayed():
                assert control.accessible_name, control.get_attribute("outerHTML")
                assert control.aria_role

    def shoot(self, name: str) -> None:
        """A picture, where WSE_TEST_SCREENSHOTS names a folder for a person to look at."""
        if SHOTS:
            Path(SHOTS).mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(str(Path(SHOTS) / f"{name}.png"))
