"""Headless Chromium, for benchmarks, pictures and tests."""

from __future__ import annotations

import pathlib
import shutil
from typing import Any


def start_chromium(profile: str | pathlib.Path, *more_flags: str) -> Any:
    """Returns a selenium driver; its `quit` ends the browser.

    Args:
        profile: an empty folder.
        more_flags: of Chromium, without --.

    Raises FileNotFoundError if Chromium or its driver is not installed, and ImportError without selenium.
    """
    from selenium import webdriver

    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not program or not driver:
        raise FileNotFoundError("no Chromium here (Debian: chromium and chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (
        *("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"),
        *("disable-background-networking", "disable-component-update", "window-size=1280,900"),
        *("autoplay-policy=no-user-gesture-required", f"user-data-dir={profile}"),
        *more_flags,
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def wait_until(browser: Any, script: str, seconds: float = 20.0) -> Any:
    """Waits until an expression of JavaScript is true, and returns it. Raises TimeoutException of selenium."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, seconds).until(lambda _: browser.execute_script(f"return {script}"))
