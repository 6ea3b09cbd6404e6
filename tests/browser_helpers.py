"""Headless Chromium for tests; those that use it are skipped where there is none."""

import shutil

import pytest


def start_chromium(folder, *more_flags):
    """Returns a selenium driver whose profile is in a folder; its `quit` ends the browser."""
    webdriver = pytest.importorskip("selenium.webdriver")
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("no Chromium here (Debian: chromium and chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (
        *("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"),
        *("disable-background-networking", "disable-component-update", "window-size=1280,900"),
        f"user-data-dir={folder}",
        *more_flags,
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def wait_until(browser, script, seconds=20):
    """Waits until an expression of JavaScript is true, and returns it."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, seconds).until(lambda _: browser.execute_script(f"return {script}"))


def press(browser, *keys):
    """Types on whatever has the focus."""
    from selenium.webdriver.common.action_chains import ActionChains

    for key in keys:
        ActionChains(browser).send_keys(key).perform()
