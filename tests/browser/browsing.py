"""What tests of built pages share: where book and browser are, what to watch, and what is broken on an open page."""

from __future__ import annotations

import http.server
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
AXE_OPTIONS = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]},
    # Axe would fetch style sheets again, by addresses that do not exist.
    "preload": False,
}
SIDEWAYS = "() => document.documentElement.scrollWidth > window.innerWidth"
IDLE = "() => !document.querySelector('[aria-busy=true]')"
"""Whether nothing on the page is still at work: a page that is left while it loads has requests that fail."""
SETTLED = """() => Promise.allSettled(document.getAnimations()
    .filter(one => one.effect.getComputedTiming().endTime < Infinity).map(one => one.finished))"""
"""When colours have arrived: buttons fade into the scheme that a page opens in, and half-way there lack contrast."""

NEEDED = [
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}: apt-get install chromium"),
    pytest.mark.skipif(not (HTML / "intro.html").exists(), reason=f"no built book in {HTML}: run make book"),
]


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@dataclass
class Visit:
    address: str
    errors: list[str] = field(default_factory=list)
    external: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def watch(self, page: playwright_api.Page) -> None:
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


def access_faults(page: playwright_api.Page) -> list[str]:
    """Broken WCAG rules of an open page, each with the first element that breaks it."""
    page.evaluate(SETTLED)
    found = axe.Axe().run(page, options=AXE_OPTIONS).response["violations"]
    return [f"{rule['id']}: {rule['nodes'][0]['html'][:120]}" for rule in found]
