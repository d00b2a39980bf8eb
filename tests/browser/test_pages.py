"""Every page of the built book in a browser: errors, other hosts, mathematics, figures, access, phone, search.

Needs Chromium at /usr/bin/chromium, playwright and a built book (`make book`); skipped with the reason without.
"""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = Path("/usr/bin/chromium")
HTML = Path(__file__).parents[2] / "book" / "_build" / "html"
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
DESKTOP = {"width": 1300, "height": 900}
PHONE = {"width": 390, "height": 844}
COUNT = "document.querySelectorAll('%s').length"
MATHS_READY = f"() => {COUNT % 'mjx-container'} >= {COUNT % '.math'}"
AXE_OPTIONS = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]},
    # Axe would fetch style sheets again, by addresses that do not exist.
    "preload": False,
}
SIDEWAYS = "() => document.documentElement.scrollWidth > window.innerWidth"
IMAGES = """() => [...document.querySelectorAll('article img')].map(image => {
    image.loading = 'eager';
    return {source: image.src, text: image.alt, loaded: image.complete && image.naturalWidth > 0};
})"""

pytestmark = [
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}: apt-get install chromium"),
    pytest.mark.skipif(not (HTML / "intro.html").exists(), reason=f"no built book in {HTML}: run make book"),
]


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a line for each request."""

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@dataclass
class Visit:
    """What went wrong while a page was open."""

    address: str
    errors: list[str] = field(default_factory=list)
    external: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def watch(self, page: playwright_api.Page) -> None:
        """Listens to console, requests and answers of a page."""
        page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._note_request)
        page.on("requestfailed", lambda request: self.failed.append(request.url))
        page.on("response", self._note_response)

    def _note_response(self, response: playwright_api.Response) -> None:
        if response.status >= 400:
            self.failed.append(f"{response.status} {response.url}")

    def _note_request(self, request: playwright_api.Request) -> None:
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.external.append(request.url)


def page_names() -> list[str]:
    """Every page with content, relative to the built folder."""
    skipped = {"_static", "_sources", "_images"}
    paths = [path.relative_to(HTML) for path in HTML.rglob("*.html") if path.name != "index.html"]
    # index.html only forwards to the front page.
    return sorted(path.as_posix() for path in paths if not skipped & set(path.parts))


def access_faults(page: playwright_api.Page) -> list[str]:
    """Broken WCAG rules of an open page, each with the first element that breaks it."""
    found = axe.Axe().run(page, options=AXE_OPTIONS).response["violations"]
    return [f"{rule['id']}: {rule['nodes'][0]['html'][:120]}" for rule in found]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Address of a local server of the built book."""
    handler = functools.partial(QuietHandler, directory=str(HTML))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright_api.Browser]:
    """One headless Chromium for all pages."""
    with playwright_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield opened
        opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", page_names())
def test_page_is_whole(browser: playwright_api.Browser, address: str, name: str, scheme: str) -> None:
    visit = Visit(address)
    with browser.new_context(viewport=DESKTOP, color_scheme=scheme) as context:
        page = context.new_page()
        visit.watch(page)
        page.goto(address + name, wait_until="load")
        page.wait_for_function(MATHS_READY, timeout=20_000)
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        for image in page.evaluate(IMAGES):
            assert image["loaded"] and image["text"] and "_images/" not in image["text"], image
        assert page.locator("mjx-merror").count() == 0
        assert access_faults(page) == []
    assert (visit.errors, visit.external, visit.failed) == ([], [], [])


@pytest.mark.parametrize("name", page_names())
def test_page_fits_a_phone(browser: playwright_api.Browser, address: str, name: str) -> None:
    with browser.new_context(viewport=PHONE) as context:
        page = context.new_page()
        page.goto(address + name, wait_until="load")
        page.wait_for_function(MATHS_READY, timeout=20_000)
        assert not page.evaluate(SIDEWAYS)


def test_search_finds_a_word_of_the_book(browser: playwright_api.Browser, address: str) -> None:
    visit = Visit(address)
    with browser.new_context(viewport=DESKTOP) as context:
        page = context.new_page()
        visit.watch(page)
        page.goto(address + "search.html?q=erosion")
        page.wait_for_selector("#search-results li a", timeout=20_000)
        assert page.locator("#search-results li a[href*='notation']").count() >= 1
    assert (visit.errors, visit.external, visit.failed) == ([], [], [])


def test_search_box_opens_with_the_keyboard(browser: playwright_api.Browser, address: str) -> None:
    with browser.new_context(viewport=DESKTOP) as context:
        page = context.new_page()
        page.goto(address + "intro.html", wait_until="load")
        page.keyboard.press("Control+k")
        page.keyboard.type("register")
        page.keyboard.press("Enter")
        page.wait_for_selector("#search-results li a", timeout=20_000)
