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
    """What goes wrong on watched pages: errors, requests to other hosts, requests that fail."""

    address: str
    faults: list[str] = field(default_factory=list)

    def watch(self, page: playwright_api.Page) -> None:
        own, note = (self.address, "data:", "blob:"), self.faults.append
        page.on("console", lambda message: message.type == "error" and note(message.text))
        page.on("pageerror", lambda error: note(str(error)))
        page.on("request", lambda request: request.url.startswith(own) or note(f"external {request.url}"))
        page.on("requestfailed", lambda request: note(f"failed {request.url}"))
        page.on("response", lambda one: one.status >= 400 and note(f"{one.status} {one.url}"))


LOOKS = [
    dict(color_scheme=scheme, viewport=size) for scheme in ("light", "dark") for size in (DESKTOP, PHONE)
]
IN_EVERY_LOOK = pytest.mark.parametrize("look", LOOKS)


def faults_to_see(page: playwright_api.Page) -> list[str]:
    """Broken WCAG rules of an open page, each with the first element that breaks it, and whether it is too wide."""
    page.evaluate(SETTLED)
    broken = axe.Axe().run(page, options=AXE_OPTIONS).response["violations"]
    found = [f"{rule['id']}: {rule['nodes'][0]['html'][:120]}" for rule in broken]
    return found + ["wider than the window"] * page.evaluate(SIDEWAYS)
