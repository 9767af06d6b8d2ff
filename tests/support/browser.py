"""A real browser: headless Chromium, driven by Selenium. For the environment ``browser`` only."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
