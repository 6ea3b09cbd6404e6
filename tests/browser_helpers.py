"""Headless browsers for tests; those that use one are skipped where it is missing."""

import shutil

import pytest

from benchmarks import browser
from benchmarks.browser import wait_until

__all__ = ["drag", "press", "start_chromium", "start_firefox", "wait_until"]


def start_chromium(*arguments):
    """Returns the driver of benchmarks.browser."""
    try:
        return browser.start_chromium(*arguments)
    except (ImportError, FileNotFoundError) as error:
        pytest.skip(str(error))


def start_firefox(scratch):
    """Returns Firefox, which is driven through its own protocol, Marionette: Debian has no driver for selenium.

    What it logs goes into the folder `scratch`.
    """
    marionette = pytest.importorskip("marionette_driver.marionette")
    program = shutil.which("firefox-esr")
    if not program:
        pytest.skip("no Firefox here (Debian: firefox-esr)")
    return _Firefox(marionette.Marionette(bin=program, headless=True, gecko_log=str(scratch / "gecko.log")))


class _Firefox:
    """What the tests use of a driver of selenium."""

    def __init__(self, client):
        self._client = client
        self._client.start_session()
        self._client.timeout.script = 20
        self.get, self.find_element = client.navigate, client.find_element

    def execute_script(self, script, *arguments):
        return self._client.execute_script(script, script_args=arguments, sandbox=None)

    def execute_async_script(self, script, *arguments):
        return self._client.execute_async_script(script, script_args=arguments, sandbox=None)

    def quit(self):
        self._client.quit(in_app=False)
        self._client.cleanup()


def press(driver, *keys):
    """Types on whatever has the focus."""
    from selenium.webdriver.common.action_chains import ActionChains

    for key in keys:
        ActionChains(driver).send_keys(key).perform()


def drag(driver, element, pixels):
    """Moves the mouse from the middle of an element to the right with its button down; a click if that is 0."""
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(driver).move_to_element(element).click_and_hold().move_by_offset(pixels, 0).release().perform()
