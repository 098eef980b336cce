"""The page of the Space in a real browser, started as the process that it is."""

import os
import re
import subprocess
import sys
import tempfile

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions as expected
from selenium.webdriver.support.ui import WebDriverWait
from support import ROOT
from support.chromium import WIDTHS, chromium, forget_logs, requested, show_at
from support.photographs import COLORS, DOG, photographs, picture, zipped
from support.tiny import vit
from transformers import ViTImageProcessor

ZIP = "input[type=file][accept*=zip]"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The page, served by a process of its own, with a tiny model."""
    folder = tmp_path_factory.mktemp("space")
    vit().save_pretrained(folder / "model")
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder / "model")
    settings = {"MODEL_ID": str(folder / "model"), "GRADIO_TEMP_DIR": str(folder / "temp")}
    settings |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "TMPDIR": str(folder)}
    command = [sys.executable, "-u", str(ROOT / "examples" / "space" / "app.py")]
    with tempfile.TemporaryFile("w+") as log:
        app = subprocess.Popen(
            command, env={**os.environ, **settings}, stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            lines = iter(app.stdout.readline, "")
            found = next(filter(None, (re.search(r"http://[\d.:]+", line) for line in lines)), None)
            log.seek(0)
            assert found, log.read()
            yield found[0], folder
        finally:
            app.terminate()
            app.wait(30)
            app.stdout.close()


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


def until(page, condition, seconds=60):
    return WebDriverWait(page, seconds, 0.2).until(lambda page: condition())


def text(page, name):
    return page.find_element(By.ID, name).text


def loaded(page, name):
    """The pictures in a part of the page, when all of them are there: once they are in sight."""
    page.execute_script("document.getElementById(arguments[0])?.scrollIntoView()", name)
    pictures = page.find_elements(By.CSS_SELECTOR, f"#{name} img")
    return pictures if all(int(p.get_property("naturalWidth")) for p in pictures) else []


def choose(page, selector, path):
    until(page, lambda: page.find_elements(By.CSS_SELECTOR, selector))[0].send_keys(str(path))


@pytest.mark.browser
@pytest.mark.parametrize("device", WIDTHS)
def test_a_visitor_trains_and_searches(device, driver, address, tmp_path):
    url, folder = address
    show_at(driver, device)
    forget_logs(driver)
    driver.get(url)
    before = until(driver, lambda: driver.find_elements(By.CSS_SELECTOR, ZIP))[0]
    before.send_keys(zipped(tmp_path, DOG))
    until(driver, lambda: "add a folder of another" in text(driver, "found"))
    until(driver, lambda: expected.staleness_of(before)(driver))  # it takes another one then
    if device == "phone":
        choose(driver, ZIP, zipped(tmp_path, photographs()))
    else:
        for name, content in photographs().items():
            (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "photos" / name).write_bytes(content)
        choose(driver, "input[type=file][webkitdirectory]", tmp_path / "photos")
    until(driver, lambda: "21 to train on and 9 to test on" in text(driver, "found"))
    assert "30 images of 3 classes: blue 10, green 10, red 10." in text(driver, "found")
    driver.find_element(By.ID, "train").click()
    until(driver, lambda: "9 test images" in text(driver, "words"))
    shares = re.findall(r"(\d) of 9 ([\d.]+)%", text(driver, "words"))
    assert len(shares) == 2
    assert all(100 * int(right) / 9 == pytest.approx(float(s), abs=0.06) for right, s in shares)
    assert len(until(driver, lambda: loaded(driver, "maps"))) == 2
    (tmp_path / "query.png").write_bytes(picture(COLORS["red"]))
    choose(driver, "#query input[type=file]", tmp_path / "query.png")
    for name in ("nearCE", "nearCLCE"):
        assert len(until(driver, lambda name=name: loaded(driver, name))) == 5
        assert "red" in text(driver, name)
    width = driver.execute_script("return document.documentElement.clientWidth")
    assert driver.execute_script("return document.documentElement.scrollWidth") == width
    assert [e for e in driver.get_log("browser") if e["level"] == "SEVERE"] == []
    assert all(u.startswith((url, "data:", "blob:", "about:")) for u in requested(driver))
    kept = [file for file in folder.rglob("*") if file.suffix == ".zip" or "__" in file.name]
    assert kept == []
