"""Every page of the built book in a browser: errors, other hosts, mathematics, figures, access, phone, search.

Needs Chromium at /usr/bin/chromium, playwright and a built book (`make book`); skipped with the reason without.
"""

from __future__ import annotations

import pytest
from browsing import (
    DESKTOP,
    HTML,
    IDLE,
    NEEDED,
    PHONE,
    SIDEWAYS,
    Visit,
    access_faults,
)

COUNT = "document.querySelectorAll('%s').length"
MATHS_READY = f"() => {COUNT % 'mjx-container'} >= {COUNT % '.math'}"
IMAGES = """() => [...document.querySelectorAll('article img')].map(image => {
    image.loading = 'eager';
    return {source: image.src, text: image.alt, loaded: image.complete && image.naturalWidth > 0};
})"""

pytestmark = NEEDED


def page_names() -> list[str]:
    skipped = {"_static", "_sources", "_images"}
    paths = [path.relative_to(HTML) for path in HTML.rglob("*.html") if path.name != "index.html"]
    # index.html only forwards to the front page.
    return sorted(path.as_posix() for path in paths if not skipped & set(path.parts))


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", page_names())
def test_page_is_whole(reader, visit: Visit, name: str, scheme: str, viewport: dict[str, int]) -> None:
    page = reader(name, viewport=viewport, color_scheme=scheme)
    page.wait_for_function(MATHS_READY, timeout=20_000)
    page.wait_for_function(IDLE, timeout=60_000)
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    for image in page.evaluate(IMAGES):
        assert image["loaded"] and image["text"] and "_images/" not in image["text"], image
    assert page.locator("mjx-merror").count() == 0
    assert not page.evaluate(SIDEWAYS)
    assert access_faults(page) == []
    assert (visit.errors, visit.external, visit.failed) == ([], [], [])


def test_search_finds_a_word_of_the_book_and_opens_with_the_keyboard(reader, visit: Visit) -> None:
    page = reader("search.html?q=erosion")
    page.wait_for_selector("#search-results li a", timeout=20_000)
    assert page.locator("#search-results li a[href*='notation']").count() >= 1
    page = reader("intro.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("register")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results li a", timeout=20_000)
    assert (visit.errors, visit.external, visit.failed) == ([], [], [])
