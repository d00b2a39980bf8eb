"""The page of predictions in a browser: kept here alone, scored by the build's verdicts, by keys and on paper."""

from __future__ import annotations

import json

import pytest
from browsing import IN_EVERY_LOOK, NEEDED, faults_to_see, playwright_api

pytestmark = NEEDED

PAGE = "predictions.html"
KEPT = "() => JSON.parse(localStorage.getItem('remi-predictions'))"
OTHER = {"above": "below", "neither": "above", "below": "above"}


def claims_of(page: playwright_api.Page) -> list[dict]:
    """What the page knows of each claim; those that this build could judge come first."""
    data = json.loads(page.locator("#remi-predictions-data").text_content())
    if not data["run"]:
        pytest.skip("the book was built without results: remi run, then remi book")
    return sorted(data["claims"], key=lambda one: not (one["outcome"] and one["outcome"]["direction"]))


def choose(page: playwright_api.Page, name: str, direction: str) -> None:
    row = page.locator(f"#predict-{name}")
    row.locator("select[name=direction]").select_option(direction)
    row.locator("select[name=confidence]").select_option("70")


def reveal(page: playwright_api.Page) -> str:
    page.get_by_role("button", name="Reveal").click()
    return page.locator(".remi-score").inner_text()


def test_predictions_outlast_a_reload_and_are_scored_by_the_build(reader) -> None:
    page = reader(PAGE)
    first, second, *_ = [one for one in claims_of(page) if one["unit"]]
    choose(page, first["id"], first["outcome"]["direction"])
    choose(page, second["id"], OTHER[second["outcome"]["direction"]])
    middle = (first["outcome"]["low"] + first["outcome"]["high"]) / 2
    for one, size in (
        (first, f"{middle:.6f}".replace(".", ",")),
        (second, "−1e9"),
    ):  # with either decimal mark
        page.locator(f"#predict-{one['id']} input").fill(size)
    page.reload(wait_until="load")
    kept = page.locator(f"#predict-{first['id']} select[name=direction]")
    assert kept.input_value() == first["outcome"]["direction"]
    assert "Came out" not in page.locator("table.remi-predictions").inner_text()
    score = reveal(page)
    assert score.startswith("1 of 2 directions were right; that is 50 %; your mean confidence was 70 %")
    assert "1 of 2 sizes lay in the interval" in score
    for one, word in ((first, "right"), (second, "wrong")):
        assert f"direction was {word}" in page.locator(f"#predict-{one['id']}").inner_text()
    assert first["outcome"]["verdict"] in page.locator(f"#predict-{first['id']}").inner_text()
    assert kept.is_disabled() and page.evaluate("document.activeElement.className") == "remi-score"


@IN_EVERY_LOOK
def test_export_holds_what_was_chosen_and_nothing_leaves_the_page(reader, visit, look) -> None:
    page, requests = reader(PAGE, **look), list[str]()
    page.wait_for_load_state("networkidle")
    page.on("request", lambda request: requests.append(request.url))
    name = claims_of(page)[0]["id"]
    choose(page, name, "neither")
    page.get_by_role("button", name="Export").click()
    exported = json.loads(page.locator("#remi-export").input_value())
    assert exported["revealed"] is False
    assert exported["predictions"] == [{"id": name, "direction": "neither", "confidence": "70"}]
    assert page.evaluate(KEPT)["predictions"] == {name: {"direction": "neither", "confidence": "70"}}
    reveal(page)
    kept = page.evaluate("Object.keys(localStorage).filter(key => key.startsWith('remi'))")
    assert kept == ["remi-predictions"]
    assert page.evaluate("document.cookie") == "" and requests == []
    assert faults_to_see(page) == [] and visit.faults == []


def test_start_again_forgets_only_when_it_is_confirmed(reader) -> None:
    page = reader(PAGE)
    name = claims_of(page)[0]["id"]
    choose(page, name, "above")
    for accept, left in ((False, {name: {"direction": "above", "confidence": "70"}}), (True, None)):
        page.once("dialog", lambda dialog, accept=accept: dialog.accept() if accept else dialog.dismiss())
        page.get_by_role("button", name="Start again").click()
        kept = page.evaluate(KEPT)
        assert (kept and kept["predictions"]) == left
    assert page.locator(f"#predict-{name} select[name=direction]").input_value() == ""


def test_keys_alone_predict_and_reveal(reader) -> None:
    page = reader(PAGE)
    first = page.locator("table.remi-predictions select").first
    first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('tr').id") == "predict-C1"
    assert first.input_value() == "above"
    page.locator("table.remi-predictions select").last.focus()
    for _ in range(10):
        page.keyboard.press("Tab")
        if "Reveal" in page.evaluate("document.activeElement.textContent"):
            break
    page.keyboard.press("Enter")
    assert "directions were right" in page.locator(".remi-score").inner_text()


def test_paper_has_boxes_where_nothing_is_predicted_and_the_choice_where_something_is(reader) -> None:
    page = reader(PAGE)
    choose(page, "C2", "above")
    page.emulate_media(media="print")
    for name, paper in (("C2", False), ("C3", True)):
        row = page.locator(f"#predict-{name}")
        assert row.locator(".remi-paper").first.is_visible() == paper
        assert row.locator(".remi-controls").is_visible() != paper
    row = reader(PAGE, java_script_enabled=False).locator("#predict-C2")
    assert row.locator(".remi-paper").first.is_visible() and row.locator("select").count() == 0


def test_a_browser_that_keeps_nothing_says_so_and_still_scores(reader) -> None:
    page = reader(PAGE, init="Storage.prototype.setItem = () => { throw new Error('full'); }")
    one = claims_of(page)[0]
    choose(page, one["id"], one["outcome"]["direction"])
    assert "keeps nothing" in page.locator(".remi-score").inner_text()
    assert reveal(page).startswith("1 of 1 directions")


def test_who_chose_to_predict_sees_no_finding_before_it_is_asked_for(reader) -> None:
    page = reader("intro.html")
    told = page.locator("article :is(.remi-lead, .remi-answer, .remi-findings)")
    n_told = told.count()
    assert n_told and told.locator("visible=true").count() == n_told
    page.locator(".remi-buttons a", has_text="Predict first").click()
    page.go_back(wait_until="load")
    assert told.locator("visible=true").count() == 0
    page.get_by_role("button", name="Show what came out").click()
    assert told.locator("visible=true").count() == n_told
    page.reload(wait_until="load")
    assert told.locator("visible=true").count() == 0
    page.goto(page.url.replace("intro", "predictions"), wait_until="load")
    claims_of(page)
    reveal(page)
    page.goto(page.url.replace("predictions", "intro"), wait_until="load")
    assert told.locator("visible=true").count() == n_told
