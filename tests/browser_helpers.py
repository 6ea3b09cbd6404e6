"""Headless Chromium for tests; those that use it are skipped where there is none."""

import pytest

from benchmarks import browser
from benchmarks.browser import wait_until

__all__ = ["press", "start_chromium", "wait_until"]


def start_chromium(*arguments):
    """Returns the driver of benchmarks.browser."""
    try:
        return browser.start_chromium(*arguments)
    except (ImportError, FileNotFoundError) as error:
        pytest.skip(str(error))


def press(driver, *keys):
    """Types on whatever has the focus."""
    from selenium.webdriver.common.action_chains import ActionChains

    for key in keys:
        ActionChains(driver).send_keys(key).perform()
