"""What a reader does on the built pages: sort and download tables, pick tokens, unfold passports, print."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from browsing import HTML, NEEDED, PHONE, SIDEWAYS

from remi_core.store import Store

pytestmark = NEEDED

MARKER = HTML / ".remi-book.json"
PRESET = json.loads(MARKER.read_text(encoding="utf-8"))["preset"] if MARKER.is_file() else ""
INSPECTOR = "notebooks/18_token_windows.html"
FIRST_COLUMN = "table => [...table.tBodies[0].rows].map(row => row.cells[%d].textContent.trim())"
VISIBLE_MARKS = """() => [...document.querySelectorAll('#every-set .dialogue:not([hidden]) .tokens span')]
    .filter(token => getComputedStyle(token, '::before').content === '"["').length"""


def test_a_table_sorts_by_keyboard_and_says_which_way(reader) -> None:
    page = reader("status.html")
    table, heading = page.locator("table.remi-status"), page.locator("table.remi-status th").nth(3)
    before = table.evaluate(FIRST_COLUMN % 3)
    heading.locator("button").focus()
    for direction in ("ascending", "descending", None):
        page.keyboard.press("Enter")
        assert heading.get_attribute("aria-sort") == direction
        numbers = [float(text.replace(",", "")) for text in table.evaluate(FIRST_COLUMN % 3) if text != "—"]
        if direction:
            assert numbers == sorted(numbers, reverse=direction == "descending")
    assert table.evaluate(FIRST_COLUMN % 3) == before


def test_numbers_sort_by_value_and_gaps_come_last(reader) -> None:
    page = reader("ledger.html")
    table = page.locator("table.remi-claims")
    head = "table => [...table.tBodies[0].rows].map(row => row.cells[2].querySelector('p').textContent)"
    page.locator("table.remi-claims thead th").nth(2).locator("button").click()
    shown = table.evaluate(head)
    values = [
        float(text.split()[0].replace("−", "-").replace(",", ""))
        for text in shown
        if text[0] in "−0123456789" and "×" not in text
    ]
    assert len(values) > 5 and values == sorted(values)
    gaps = [text == "—" for text in shown]
    assert gaps == sorted(gaps)


def test_the_download_is_the_table_with_every_cell_quoted_right(reader, tmp_path: Path) -> None:
    page = reader("ledger.html")
    # A cell that a spreadsheet would run, and a number that it must still read as one; the first of a row is its head.
    for place, text in ((0, "=1+1"), (1, "-0.5e-3")):
        page.locator("table.remi-claims tbody td").nth(place).evaluate(
            "(cell, text) => cell.textContent = text", text
        )
    with page.expect_download() as waiting:
        page.locator("button.remi-csv").first.click()
    path = tmp_path / "table.csv"
    waiting.value.save_as(path)
    assert waiting.value.suggested_filename.endswith(".csv")
    rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    cells = page.locator("table.remi-claims").first.evaluate(
        "table => [...table.rows].map(row => [...row.cells].map(cell => {"
        "const parts = [...cell.querySelectorAll('p')].map(part => part.textContent.trim().replace(/\\s+/g, ' '));"
        "return parts.length ? parts.join('; ') : cell.textContent.trim().replace(/\\s+/g, ' ')}))"
    )
    assert rows == [[cell.replace("=1+1", "'=1+1") for cell in row] for row in cells]
    assert rows[1][1:3] == ["'=1+1", "-0.5e-3"] and any("," in cell for row in rows for cell in row)


def test_the_ledger_filters_by_keyboard_and_keeps_its_state_in_the_address(reader) -> None:
    page = reader("ledger.html")
    rows, verdict = page.locator("table.remi-claims tbody tr"), page.locator("select[name=verdict]")
    n_rows = rows.count()
    assert page.locator("table.remi-claims tbody tr:visible").count() == n_rows
    verdict.focus()
    page.keyboard.press("ArrowDown")
    chosen = verdict.input_value()
    shown = page.locator("table.remi-claims tbody tr:visible .remi-verdict").all_inner_texts()
    assert set(shown) == {chosen} and len(shown) < n_rows
    assert page.locator("[role=status]").inner_text() == f"{len(shown)} of {n_rows} rows shown"
    again = reader(page.url)
    assert again.locator("table.remi-claims tbody tr:visible").count() == len(shown)
    assert reader("ledger.html?verdict=none").locator("table.remi-claims tbody tr:visible").count() == n_rows
    plain = reader("ledger.html?verdict=shown", java_script_enabled=False)
    assert plain.locator("table.remi-claims tbody tr:visible").count() == n_rows


def test_from_a_value_to_its_code_and_records_are_three_clicks(reader, visit) -> None:
    page = reader("notebooks/04_gradients.html", viewport=PHONE)
    link = page.locator("a[href='../ledger.html#C9']").first
    if not link.is_visible():  # the table of verdicts opens on a click
        page.locator("details", has=link).last.locator("summary").first.click()
    link.click()
    card = page.locator(".remi-card #C9")
    card.wait_for()
    for summary in card.locator("details > summary").all():
        summary.click()
    assert "def gradient_cosine" in card.locator("pre").inner_text() and not page.evaluate(SIDEWAYS)
    row = json.loads((HTML / "claims" / "C9.json").read_text(encoding="utf-8"))
    assert all(name in card.inner_text() for name in row["records"]) and visit.faults == []


def test_a_figure_enlarges_and_escape_closes_it(reader, visit) -> None:
    page = reader("intro.html", viewport=PHONE)
    button, box = page.get_by_role("button", name="Enlarge").first, page.locator("dialog.remi-enlarged")
    button.focus()
    page.keyboard.press("Enter")
    assert box.is_visible() and box.locator("img").get_attribute("alt") and not page.evaluate(SIDEWAYS)
    page.keyboard.press("Escape")
    box.wait_for(state="detached")
    assert button.evaluate("one => one === document.activeElement")
    page.locator("figure.remi-figure img").first.click()
    assert box.is_visible() and visit.faults == []


def test_a_statistic_and_a_dialogue_are_picked(reader) -> None:
    page = reader(INSPECTOR, viewport=PHONE)
    if "was not run for the preset" in page.content():
        pytest.skip(f"{INSPECTOR} was not run for this book")
    section = page.locator("#every-set .remi-inspector")
    section.evaluate("one => one.closest('details').open = true")
    assert section.locator(".dialogue:visible").count() == 1
    counts = {}
    for statistic in ("prompt_end", "answer_all", "gradient_as_released"):
        section.locator(f"input[value={statistic}]").check()
        counts[statistic] = page.evaluate(VISIBLE_MARKS)
        said = section.locator(".dialogue:visible .said:visible")
        assert said.count() == 1 and f" {counts[statistic]} " in f" {said.inner_text().split(': ')[1]} "
    assert 1 == counts["prompt_end"] < counts["answer_all"] < counts["gradient_as_released"]
    section.locator("select").select_option(index=3)
    shown = section.locator(".dialogue:visible")
    assert shown.count() == 1 and shown.get_attribute("id") == section.locator("select").input_value()
    assert not page.evaluate(SIDEWAYS)
    # Without scripts every dialogue is there.
    section = reader(INSPECTOR, java_script_enabled=False).locator("#every-set .remi-inspector")
    section.evaluate("one => one.closest('details').open = true")
    assert section.locator(".dialogue:visible").count() == section.locator(".dialogue").count() > 1
    assert section.locator("select:visible").count() == 0


@pytest.mark.parametrize("name", sorted(path.stem for path in (HTML / "notebooks").glob("*.html")))
def test_every_figure_has_its_passport_one_click_away_and_in_the_file(reader, name: str) -> None:
    page = reader(f"notebooks/{name}.html", viewport=PHONE)
    n_figures = page.locator("figure.remi-figure").count()
    folded = page.locator("figure.remi-figure + details.remi-passport")
    assert folded.count() == n_figures
    if not n_figures:
        return
    folded.first.locator("summary").click()
    assert folded.first.locator("p").last.is_visible() and not page.evaluate(SIDEWAYS)
    link = folded.first.locator("a[href$='.json']").get_attribute("href")
    file = json.loads((HTML / "notebooks" / link).read_text(encoding="utf-8"))
    assert file["notebook"] == name and len(file["figures"]) == n_figures
    named = {one["record"] for each in file["figures"] for one in each["records"]}
    assert named <= set(file["records"])
    stored = {str(entry.path.relative_to(Store().root).with_suffix("")) for entry in Store().list(PRESET)}
    assert not stored or named <= stored


def test_paper_shows_what_was_folded_and_no_code(reader) -> None:
    page = reader("notebooks/01_the_three_models.html")
    page.emulate_media(media="print")
    assert page.locator(".cell_input:visible, .remi-passport:visible").count() == 0
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    folded = page.locator("article details:not(.remi-passport):not(.hide)")
    assert all(folded.nth(at).get_attribute("open") is not None for at in range(folded.count()))
    assert page.pdf()[:5] == b"%PDF-"
