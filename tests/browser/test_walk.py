"""A reader's walk: from a verdict on the front page to the record behind it, and to running that page again alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from browsing import DESKTOP, HTML, NEEDED, playwright_api

from remi_book.running import is_complete
from remi_core.store import Store, project_root
from remi_lab.presets import get_preset

pytestmark = NEEDED

CLAIM = "C9"
PAGE = "04_gradients"
MOST_STEPS = 8


def built_preset() -> str:
    """The preset of the book that was built, if its notebooks lie in the store; skips where they do not."""
    preset = json.loads((HTML / ".remi-book.json").read_text(encoding="utf-8"))["preset"]
    if not Store().notebook_path(preset, PAGE).is_file():
        pytest.skip(f"the book's own run of preset {preset} is not in the store")
    return preset


def test_from_a_verdict_to_its_record_in_a_few_steps(browser: playwright_api.Browser, address: str) -> None:
    preset, steps = built_preset(), []
    with browser.new_context(viewport=DESKTOP) as context:
        page = context.new_page()
        page.goto(address + "intro.html", wait_until="load")
        row = page.locator("tr", has=page.locator("strong", has_text=re.compile(f"^{CLAIM}$")))
        steps.append(row.first.locator("a[href*='notebooks/']").first.click())
        page.wait_for_load_state()
        assert PAGE in page.url
        figure = page.locator("figure.remi-figure").first
        assert figure.locator("img").get_attribute("alt")
        cell = page.locator(".cell", has=page.locator("figure.remi-figure")).first
        steps.append(cell.locator("details.hide > summary").first.click())
        assert cell.locator("pre").first.is_visible() and cell.locator("pre").first.inner_text().strip()
        passport = page.locator("figure.remi-figure + details.remi-passport").first
        steps.append(passport.locator("summary").click())
        link = passport.locator("a[href$='.json']")
        assert link.is_visible()
        file = page.request.get(address + f"notebooks/{link.get_attribute('href')}").json()
        steps.append("the file is opened")
    named = [one["record"] for each in file["figures"] for one in each["records"]]
    stored = {str(entry.path.relative_to(Store().root).with_suffix("")) for entry in Store().list(preset)}
    assert named and set(named) <= stored
    steps.append("the record is read")
    assert len(steps) + len(["remi run --only --force"]) <= MOST_STEPS


def test_the_notebook_runs_again_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the page says it: papermill on the one notebook, with what it lacks computed."""
    import papermill

    monkeypatch.setenv("REMI_STORE", str(Store().root))
    preset = built_preset()
    source = project_root() / "notebooks" / f"{PAGE}.ipynb"
    target = tmp_path / "again.ipynb"
    papermill.execute_notebook(
        source, target, parameters={"preset": preset}, cwd=str(source.parent), progress_bar=False
    )
    assert is_complete(target) and get_preset(preset).name == preset
