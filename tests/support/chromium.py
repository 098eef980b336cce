"""Chromium without a window, at the width of a phone or of a desk."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--disable-dev-shm-usage",
)
WIDTHS = {"phone": 390, "desk": 1280}


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """Start the browser that Debian installs, which keeps its profile in a folder of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def show_at(browser: webdriver.Chrome, device: str) -> None:
    """Have pages as wide as one of `WIDTHS`."""
    metrics = {"width": WIDTHS[device], "height": 844, "deviceScaleFactor": 1}
    metrics["mobile"] = device == "phone"
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def forget_logs(browser: webdriver.Chrome) -> None:
    """Leave out of the logs what came before."""
    for kind in ("browser", "performance"):
        browser.get_log(kind)


def requested(browser: webdriver.Chrome) -> list[str]:
    """Return the addresses that were requested since the logs were read."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
