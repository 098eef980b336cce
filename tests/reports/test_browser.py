"""A report in a real browser, at the width of a phone and of a desk."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from support.synthetic import NAMES, color, comparison, image

from clce_hf.evaluation.table import Table
from clce_hf.reports.report import write_report

pytestmark = pytest.mark.browser

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--disable-dev-shm-usage",
)
WIDTHS = {"phone": 390, "desk": 1280}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    row = ("a method with a long name", *["12.34 ± 5.67 %"] * 9)
    wide = Table("A wide table", ("method", *[f"metric {i}" for i in range(9)]), [row])
    return write_report(
        tmp_path_factory.mktemp("report"),
        title="Losses compared " + "a_name_that_does_not_break" * 4,
        tables=[wide],
        runs=comparison(),
        class_names=NAMES,
        image=image,
    )


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture(params=WIDTHS, ids=str)
def page(request, browser, report):
    """The report, opened at one width after the other."""
    metrics = {"width": WIDTHS[request.param], "height": 844, "deviceScaleFactor": 1}
    metrics["mobile"] = request.param == "phone"
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what came before
    browser.get(report.as_uri())
    return browser


def data(page):
    return json.loads(page.find_element(By.ID, "data").get_attribute("textContent"))


def card(page):
    return page.find_element(By.ID, "card")


def shown_color(page):
    """The color in the middle of the thumbnail that is shown."""
    shot = card(page).find_element(By.CLASS_NAME, "thumbnail").screenshot_as_png
    pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)
    return pixels[pixels.shape[0] // 2, pixels.shape[1] // 2]


def lonely(places):
    """The dot that is farthest from all others, which none hides."""
    points = np.array(places)
    distances = np.linalg.norm(points[:, None] - points, axis=2) + 1e9 * np.eye(len(points))
    return int(distances.min(1).argmax())


def to_dot(page, element, place):
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    x, y = (round((part / 100 - 0.5) * element.size["width"]) for part in place)
    return ActionChains(page).move_to_element_with_offset(element, x, y)


def test_every_picture_is_drawn(page):
    pictures = page.find_elements(By.TAG_NAME, "img")
    assert len(pictures) == 11
    for picture in pictures:
        assert picture.is_displayed() and int(picture.get_property("naturalWidth")) > 0
        page.execute_script("arguments[0].scrollIntoView()", picture)
        shot = Image.open(io.BytesIO(picture.screenshot_as_png)).convert("L")
        assert np.asarray(shot).std() > 5, picture.get_attribute("alt")


def test_nothing_is_wider_than_the_page(page):
    width = page.execute_script("return document.documentElement.clientWidth")
    assert page.execute_script("return document.documentElement.scrollWidth") == width
    for element in page.find_elements(By.CSS_SELECTOR, "section, figure, img, h1, h2, .wide"):
        assert element.rect["x"] >= 0 and element.rect["x"] + element.rect["width"] <= width + 1
    table = page.find_element(By.CLASS_NAME, "wide")  # scrolls inside itself
    assert int(table.get_property("scrollWidth")) > int(table.get_property("clientWidth"))


def test_no_error_is_logged_and_nothing_is_requested(page, report):
    element = page.find_element(By.CLASS_NAME, "map")
    to_dot(page, element, data(page)["maps"][0]["places"][0]).perform()
    assert page.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    requests = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert requests[0] == report.as_uri()
    assert all(url.startswith("data:") for url in requests[1:])
    # Whatever a name may hold: the page's policy stops what would leave the file.
    refused = page.execute_async_script(
        "addEventListener('securitypolicyviolation', (event) => arguments[0](event.blockedURI));"
        "new Image().src = 'http://localhost/picture.png';"
    )
    assert refused == "http://localhost/picture.png"


@pytest.mark.parametrize("number", [0, 1])
def test_a_dot_that_is_pointed_at_shows_its_image_and_its_place_in_both_maps(page, number):
    shown = data(page)
    maps = page.find_elements(By.CLASS_NAME, "map")
    assert not card(page).is_displayed()
    i = lonely(shown["maps"][number]["places"])
    to_dot(page, maps[number], shown["maps"][number]["places"][i]).perform()
    assert card(page).is_displayed()
    # All 40 images are on the map, in their order.
    assert np.abs(shown_color(page) - color(i)).max() < 20
    predicted = shown["maps"][number]["predicted"][i]
    mistake = "" if predicted == shown["names"][i] else f", taken for {predicted}"
    assert card(page).text == shown["names"][i] + mistake
    for element, places in zip(maps, shown["maps"], strict=True):
        ring = element.find_element(By.CLASS_NAME, "ring").rect
        corner, sides = (ring["x"], ring["y"]), (ring["width"], ring["height"])
        origin = (element.rect["x"], element.rect["y"])
        middle = [c + s / 2 - o for c, s, o in zip(corner, sides, origin, strict=True)]
        expected = [part / 100 * element.size["width"] for part in places["places"][i]]
        assert middle == pytest.approx(expected, abs=2)
    ActionChains(page).move_to_element(page.find_element(By.TAG_NAME, "h1")).perform()
    assert not card(page).is_displayed()


def test_the_image_of_a_dot_at_the_edge_stays_on_the_page(page):
    element = page.find_element(By.CLASS_NAME, "map")
    width = page.execute_script("return document.documentElement.clientWidth")
    places = sorted(data(page)["maps"][0]["places"])
    for place in (places[0], places[-1]):
        to_dot(page, element, place).perform()
        box = card(page).rect
        assert box["width"] > 0 and box["x"] >= 0 and box["x"] + box["width"] <= width


def test_a_dot_that_is_tapped_shows_its_image(page):
    shown = data(page)["maps"][1]["places"]
    i = lonely(shown)
    element = page.find_elements(By.CLASS_NAME, "map")[1]
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    box = page.execute_script("return arguments[0].getBoundingClientRect().toJSON()", element)
    place = {k: box[k] + part / 100 * box["width"] for k, part in zip("xy", shown[i], strict=True)}
    for kind, points in (("touchStart", [place]), ("touchEnd", [])):
        page.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert card(page).is_displayed()
    assert np.abs(shown_color(page) - color(i)).max() < 20


def test_the_keyboard_walks_over_the_images(page):
    places = data(page)["maps"][0]["places"]
    for _ in range(2):  # past the wide table
        page.switch_to.active_element.send_keys(Keys.TAB)
    assert page.switch_to.active_element.get_attribute("class") == "map"
    assert card(page).is_displayed()
    assert np.abs(shown_color(page) - color(0)).max() < 20
    is_right = places[0][0] > 50
    page.switch_to.active_element.send_keys(Keys.ARROW_LEFT if is_right else Keys.ARROW_RIGHT)
    i = int(page.switch_to.active_element.get_attribute("data-shown"))
    assert i != 0 and (places[i][0] < places[0][0]) == is_right
    assert np.abs(shown_color(page) - color(i)).max() < 20
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not card(page).is_displayed()
