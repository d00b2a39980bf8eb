"""One server of the built book and one browser for all tests of a file."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Callable, Iterator

import pytest
from browsing import CHROMIUM, DESKTOP, FLAGS, HTML, QuietHandler, Visit, playwright_api


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    handler = functools.partial(QuietHandler, directory=str(HTML))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright_api.Browser]:
    with playwright_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def visit(address: str) -> Visit:
    """What goes wrong on the pages that ``reader`` opens."""
    return Visit(address)


@pytest.fixture
def reader(
    browser: playwright_api.Browser, address: str, visit: Visit
) -> Iterator[Callable[..., playwright_api.Page]]:
    """Opens a page of the book in a fresh context, with answers of its own to some requests; closed at the end."""
    contexts = []

    def open_page(
        name: str, *, init: str = "", routes: object = (), **options: object
    ) -> playwright_api.Page:
        contexts.append(browser.new_context(**{"viewport": DESKTOP} | options))
        contexts[-1].add_init_script(init)
        for place, answer in dict(routes).items():
            contexts[-1].route(place, lambda route, _request, answer=answer: route.fulfill(**answer))
        page = contexts[-1].new_page()
        visit.watch(page)
        page.goto(name if "://" in name else address + name, wait_until="load")
        return page

    yield open_page
    for context in contexts:
        context.close()
