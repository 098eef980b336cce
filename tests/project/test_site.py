"""The site, as `make docs` builds it, in a real browser, at the width of a phone and of a desk."""

import functools
import shutil
import subprocess
import sys
import threading
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions as expected
from selenium.webdriver.support.ui import WebDriverWait
from support import ROOT
from support.chromium import WIDTHS, chromium, forget_logs, requested, show_at

pytestmark = pytest.mark.browser

SHOWN = ("", "choosing/", "migrating/", "gallery/", "results/", "trainer/", "contributing/")
SHOWN += ("reference/evaluation/", "source/examples/image_folder.py/")


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, format, *_):
        """Pytest shows what fails."""


class Anchors(HTMLParser):
    """What a page links to and the anchors that it has."""

    def __init__(self, file):
        super().__init__()
        self.links, self.anchors = set(), set()
        self.feed(file.read_text())

    def handle_starttag(self, tag, attrs):
        self.links |= {value for name, value in attrs if name in ("href", "src") and value}
        self.anchors |= {value for name, value in attrs if name == "id"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site."""
    folder = tmp_path_factory.mktemp("site")
    own = [f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.installed", f"SITE={folder}"]
    built = subprocess.run(["make", "docs", *own], cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def address(site):
    handler = functools.partial(Silent, directory=site)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture(params=WIDTHS, ids=str)
def browser(request, driver):
    show_at(driver, request.param)
    forget_logs(driver)
    return driver


def test_what_is_missing_fails_the_build(tmp_path):
    docs = shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (docs / "lonely.md").write_text("# A page without a place\n")
    links = "[a](results.md#no-such-part) [b](no_such_page.md) [c](../examples/no_such_file.py)"
    (docs / "method.md").write_text(links)
    settings = (ROOT / "mkdocs.yml").read_text().replace("- website/", f"- {ROOT}/website/")
    (tmp_path / "mkdocs.yml").write_text(settings)
    own = [f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.installed", f"SITE={tmp_path}/site"]
    dry = ["make", "--dry-run", "docs", *own]
    command = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    built = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode != 0
    for missing in ("lonely.md", "no-such-part", "no_such_page.md", "no_such_file.py"):
        assert missing in built.stderr


def test_every_link_and_anchor_within_the_site_is_there(site):
    pages = {file: Anchors(file) for file in site.rglob("*.html") if file.name != "404.html"}
    assert len(pages) > 30
    for file, page in pages.items():
        here = f"/{file.relative_to(site)}"
        for link in page.links:
            if urlsplit(link).scheme:
                continue
            path, anchor = urldefrag(urljoin(here, link))
            target = site / unquote(path).lstrip("/")
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{here} links to {link}"
            if anchor and target.suffix == ".html":
                assert unquote(anchor) in pages[target].anchors, f"{here} links to {link}"


@pytest.mark.parametrize("name", SHOWN)
def test_a_page_fits_logs_no_error_and_stays_on_its_host(name, browser, address):
    browser.get(address + name)
    assert browser.find_element(By.TAG_NAME, "h1").is_displayed()
    width = browser.execute_script("return document.documentElement.clientWidth")
    assert browser.execute_script("return document.documentElement.scrollWidth") == width
    for picture in browser.find_elements(By.CSS_SELECTOR, "article img"):
        browser.execute_script("arguments[0].scrollIntoView()", picture)
        assert int(picture.get_property("naturalWidth")) > 0, picture.get_attribute("src")
        assert picture.get_attribute("alt")
    assert browser.get_log("browser") == []
    assert all(url.startswith((address, "data:")) for url in requested(browser))


def test_a_word_is_found(browser, address):
    browser.get(address)
    wait = WebDriverWait(browser, 20)
    if browser.execute_script("return document.documentElement.clientWidth") == WIDTHS["phone"]:
        browser.find_element(By.CSS_SELECTOR, "label.md-header__button[for=__search]").click()
    field = browser.find_element(By.CSS_SELECTOR, ".md-search__input")
    wait.until(expected.element_to_be_clickable(field))
    field.send_keys("cached_mini_batch_size")
    first = wait.until(
        expected.element_to_be_clickable((By.CSS_SELECTOR, ".md-search-result__link"))
    )
    assert first.get_attribute("href").startswith(address)
    first.click()
    wait.until(lambda page: page.current_url.partition("?")[0] != address)
    assert "cached_mini_batch_size" in browser.find_element(By.TAG_NAME, "article").text
    assert browser.get_log("browser") == []
