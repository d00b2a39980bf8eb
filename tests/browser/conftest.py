"""One server of the built book and one browser for all tests of a file."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator

import pytest
from browsing import CHROMIUM, FLAGS, HTML, QuietHandler, playwright_api


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
