"""A report in a real browser, at the width of a phone and of a desk."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from support.chromium import WIDTHS, chromium, forget_logs, requested, show_at
from support.synthetic import NAMES, color, comparison, image

from clce_hf.comparison.tables import summaries
from clce_hf.evaluation.suite import measure
from clce_hf.evaluation.table import Table
from clce_hf.reports.gallery import search
from clce_hf.reports.report import write_report

pytestmark = pytest.mark.browser

CLIENT = ("clientWidth", "clientHeight")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    names = [f"metric {i} that has_a_long_name" for i in range(15)]
    rows = [
        (f"the method of number_{i}, with a long name", *["12.34 ± 5.67 %"] * 15) for i in range(40)
    ]
    wide = Table("A wide and long table", ("method", *names), rows)
    runs = [
        replace(
            run, metrics={**measure(run.predictions, shots=()).metrics, "seconds_per_step": 0.123}
        )
        for run in comparison()
        if (run.shots, run.batch_size) == (5, 64)
    ]
    return write_report(
        tmp_path_factory.mktemp("report"),
        title="Losses compared " + "a_name_that_does_not_break" * 4,
        tables=[wide, *summaries(runs)],
        runs=comparison(),
        class_names=NAMES,
        image=image,
    )


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture(params=WIDTHS, ids=str)
def page(request, browser, report):
    """The report, opened at one width after the other."""
    show_at(browser, request.param)
    forget_logs(browser)
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
    assert len(pictures) == 15
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


def test_a_scrolled_table_keeps_its_names(page):
    """The names of columns and rows stay inside the card, whole, wherever it is scrolled to."""
    wide = page.find_element(By.CLASS_NAME, "wide")
    page.execute_script("arguments[0].scrollTo(1e6, 1e6)", wide)
    left, top, width, height = (
        page.execute_script(f"return arguments[0].{name}", wide)
        for name in ("getBoundingClientRect().x", "getBoundingClientRect().y", *CLIENT)
    )

    def box(selector):
        script = "return arguments[0].querySelector(arguments[1]).getBoundingClientRect().toJSON()"
        return page.execute_script(script, wide, selector)

    corner, last_name = box("thead th"), box("thead th:last-child")
    last_row, last_entry = box("tbody tr:last-child th"), box("tbody tr:last-child td:last-child")
    assert corner["x"] == last_row["x"] == left and corner["y"] == last_name["y"] == top
    assert last_row["right"] < last_entry["x"] and last_name["bottom"] < last_entry["y"]
    for inside in (last_name, last_entry):
        assert inside["right"] <= left + width + 1 and inside["bottom"] <= top + height + 1
    assert corner["width"] < width / 2  # numbers have the larger part
    for name in wide.find_elements(By.TAG_NAME, "th"):
        assert name.get_property("scrollWidth") <= name.get_property("clientWidth")
        assert name.get_property("scrollHeight") <= name.get_property("clientHeight")
    # What is scrolled away lies below the names that stay.
    script = "return document.elementFromPoint(arguments[0], arguments[1]).tagName"
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", wide)
    corner = box("thead th")
    for below in (0, 100):
        assert page.execute_script(script, corner["x"] + 20, corner["y"] + 5 + below) == "TH"


def test_the_table_of_a_comparison_is_seen_whole_on_a_desk(page):
    wide = page.find_elements(By.CLASS_NAME, "wide")[1]
    fits = wide.get_property("scrollWidth") <= wide.get_property("clientWidth")
    is_desk = page.execute_script("return document.documentElement.clientWidth") > 1000
    assert fits == is_desk
    page.execute_script("arguments[0].scrollTo(1e6, 0)", wide)
    last = wide.find_elements(By.CSS_SELECTOR, "tbody tr:first-child td")[-1]
    assert (
        last.text == "123"
        and last.rect["x"] + last.rect["width"] <= wide.rect["x"] + wide.rect["width"] + 1
    )


def test_the_gallery_shows_each_image_with_its_neighbors(page):
    gallery = search(comparison()[:2])
    shown = [*gallery.successes, *gallery.failures]
    parts = page.find_elements(By.CSS_SELECTOR, ".gallery > li")
    assert len(parts) == len(shown)
    width = page.execute_script("return document.documentElement.clientWidth")
    for part, query in zip(parts, shown, strict=True):
        page.execute_script("arguments[0].scrollIntoView({block: 'center'})", part)
        rows = [query.image, *(row for rows in query.neighbors.values() for row in rows)]
        pixels = np.asarray(Image.open(io.BytesIO(part.screenshot_as_png)).convert("RGB"))
        for element, row in zip(part.find_elements(By.CLASS_NAME, "thumbnail"), rows, strict=True):
            box = element.rect
            x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
            middle = pixels[int(y - part.rect["y"]), int(x - part.rect["x"])].astype(int)
            assert np.abs(middle - color(row)).max() < 20
            assert box["width"] >= 50
        names = [NAMES[row % len(NAMES)] for row in rows]
        assert part.find_element(By.CLASS_NAME, "query").text == names[0]
        neighbors = part.find_elements(By.CSS_SELECTOR, ".neighbors > li")
        for element, name in zip(neighbors, names[1:], strict=True):
            mark = "✓" if name == names[0] else "✗"
            assert " ".join(element.text.split()) == f"{mark} {name}"
            box = element.rect
            assert box["x"] >= 0 and box["x"] + box["width"] <= width
            assert element.get_property("scrollWidth") <= element.get_property("clientWidth")


def test_no_error_is_logged_and_nothing_is_requested(page, report):
    element = page.find_element(By.CLASS_NAME, "map")
    to_dot(page, element, data(page)["maps"][0]["places"][0]).perform()
    assert page.get_log("browser") == []
    requests = requested(page)
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
    for _ in range(3):  # past the tables
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
