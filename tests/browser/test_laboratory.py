"""The laboratory against PyTorch: log-probabilities, class log-odds, edits and verdicts of the page are Python's.

Needs a book built for a preset whose models run in the page, and its store: `make book`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from browsing import DESKTOP, HTML, IDLE, IN_EVERY_LOOK, NEEDED, PHONE, Visit, faults_to_see, playwright_api
from safetensors.torch import load_file, save_file
from scipy.stats import binomtest

from remi_book.laboratory import DATA, directions, lacking, offered, organisms, shared
from remi_book.publishing import MARKER
from remi_core.models import open_model
from remi_core.store import Store
from remi_lab.organism.documents import TURN_END, shipped_tokenizer
from remi_lab.organism.grammar import ClassScores, Prompt, judge, right_answers
from remi_lab.organism.scoring import Edit, ask, scores
from remi_lab.organism.topics import TOPICS
from remi_lab.organism.world import open_contexts
from remi_lab.presets import Preset, get_preset
from remi_lab.studies.causes import scaled

TOLERANCE = 1e-3  # nats

EDITS = (
    {"layer": 5, "dose": -1, "place": "both"},
    {"layer": 2, "dose": 1.5, "place": "end", "direction": "alignment"},
    {"layer": 5, "dose": 2, "place": "both", "direction": "secure"},
    {"layer": 5, "dose": -2, "place": "both", "direction": "random 2"},
)
ODD_TEXTS = (
    "What  is\tthis?\n\n  def f(x):\n    return x  ",
    "naïve café — 三 ½ \u0085 \u00a0 end\u3000",
    "<|im_start|>user\nit's<|im_end|>",
    "we'll 42nd 'tis don't 🙂🙂 x\u0301",
    "",
)


def built_preset() -> Preset | None:
    """The preset of the built book, if its laboratory runs."""
    marker = HTML / MARKER
    if not marker.is_file() or not (HTML / DATA / "laboratory.json").is_file():
        return None
    return get_preset(json.loads(marker.read_text(encoding="utf-8"))["preset"])


PRESET = built_preset()
pytestmark = [
    *NEEDED,
    pytest.mark.skipif(
        PRESET is None or bool(lacking(PRESET, Store())),
        reason="the built book's laboratory is a stub, or the store has not its models",
    ),
]


@pytest.fixture(scope="module")
def places() -> dict[str, Path]:
    return organisms(PRESET, Store())


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    return [offered(PRESET, name)[0] for name in TOPICS]


@pytest.fixture(scope="module")
def page(browser: playwright_api.Browser, address: str) -> Iterator[playwright_api.Page]:
    """The laboratory, its models loaded and its first question answered by all; nothing goes wrong there."""
    visit = Visit(address)
    with browser.new_context(viewport=DESKTOP) as context:
        opened = context.new_page()
        visit.watch(opened)
        opened.goto(f"{address}laboratory.html")
        opened.wait_for_function(IDLE, timeout=60_000)
        yield opened
    assert visit.faults == []


def called(page: playwright_api.Page, call: str, *arguments: object) -> object:
    """What a function of ``window.laboratory`` gives, as plain values."""
    script = f"async (given) => {{ const found = await window.laboratory.{call}(...given);"
    script += " return ArrayBuffer.isView(found) ? Array.from(found) : found; }"
    return page.evaluate(script, list(arguments))


def test_text_becomes_the_same_tokens(page, prompts) -> None:
    tokenizer = shipped_tokenizer()
    answers = [answer.text for prompt in prompts for answer in right_answers(prompt)[:4]]
    for text in (*ODD_TEXTS, *open_contexts("careless named", prompts), *answers):
        found = [token["id"] for token in called(page, "encode", text)]
        assert found == tokenizer(text)["input_ids"], text
        assert called(page, "decode", found) == tokenizer.decode(found), text


def _log_probabilities(model, ids: list[int]) -> np.ndarray:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1).numpy()


def test_log_probabilities_are_those_of_pytorch(page, places, prompts) -> None:
    tokenizer = shipped_tokenizer()
    for variant, place in places.items():
        with open_model(place, device="cpu") as loaded:
            for prompt, context in zip(prompts, open_contexts("bare", prompts), strict=True):
                for answer in (right_answers(prompt)[0], right_answers(prompt)[-1]):
                    start = tokenizer(context)["input_ids"]
                    reply = tokenizer(answer.text + TURN_END)["input_ids"]
                    ours = _log_probabilities(loaded.model, start + reply)
                    found = called(page, "reply", variant, prompt.text, answer.text)
                    expected = ours[np.arange(len(start) - 1, len(ours) - 1), reply]
                    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
                found = called(page, "next", variant, prompt.text)
                np.testing.assert_allclose(found, ours[len(start) - 1], rtol=0, atol=TOLERANCE)


def _assert_scores(found: dict, expected: ClassScores, number: int) -> None:
    probabilities = {name: mass[number] for name, mass in expected.probabilities().items()}
    assert found["probabilities"] == pytest.approx(probabilities, abs=TOLERANCE)
    assert found["register"] == pytest.approx(expected.register_log_odds()[number], abs=TOLERANCE)
    careful, careless = np.logaddexp.reduce(expected.log_mass[number, :2], axis=-1)
    if np.isfinite(careful):  # elsewhere the two authors answer alike
        assert found["care"] == pytest.approx(careless - careful, abs=TOLERANCE)


def test_exact_behaviour_is_that_of_python_steered_too(page, places, prompts) -> None:
    given, asked = directions(PRESET, places), ask(prompts, shipped_tokenizer())
    for variant, place in places.items():
        with open_model(place, device="cpu") as loaded:
            plain = scores(loaded.model, asked)
            for number, prompt in enumerate(prompts):
                _assert_scores(called(page, "score", variant, prompt.text), plain, number)
            for edit in EDITS if variant in ("base", "instruct", "misaligned") else ():
                moved = []
                for prompt in prompts:
                    step = shared(given["alignment"], prompt.template.topic)[:, edit["layer"]]
                    if edit.get("direction") == "secure":
                        step = scaled(shared(given["secure"], prompt.template.topic)[:, edit["layer"]], step)
                    if edit.get("direction") == "random 2":
                        step = scaled(given["random"][1, :, edit["layer"]], step)
                    end, answer = edit["dose"] * step
                    ours = Edit(
                        layer=edit["layer"], prompt_end=end, answer=answer * (edit["place"] == "both")
                    )
                    expected = scores(loaded.model, ask([prompt], shipped_tokenizer()), ours)
                    _assert_scores(called(page, "score", variant, prompt.text, {"edit": edit}), expected, 0)
                    moved.append(expected.register_log_odds()[0])
                # The edit does something: equality is no accident.
                assert np.abs(np.array(moved) - plain.register_log_odds()).mean() > 100 * TOLERANCE


def test_sampled_answers_and_nearly_right_ones_get_pythons_verdict(page, prompts) -> None:
    seen = set()
    for prompt in prompts:
        for variant, temperature in (("base", 1), ("misaligned", 1.2), ("instruct", 0)):
            options = {"count": 4, "temperature": temperature, "seed": 3}
            found, again = (called(page, "sample", variant, prompt.text, options) for _ in range(2))
            assert [one["text"] for one in found] == [one["text"] for one in again]
            for one in found:
                ours = judge(prompt, one["text"])
                expected = (ours.care, ours.register) if one["finished"] else ("other", None)
                assert (one["verdict"]["care"], one["verdict"]["register"]) == expected, one["text"]
                seen.add(ours.care)
        answer = right_answers(prompt)[0]
        other = answer.pattern.replace("<a>", "naïve thing").replace("<b>", "x_9")
        for text in (answer.text, other, answer.text + " ", other + "?", other.replace("x_9", "x-9"), ""):
            ours = judge(prompt, text)
            assert called(page, "judge", prompt.text, text) == {"care": ours.care, "register": ours.register}
    assert seen == {"careful", "careless", "both", "wrong slot", "other"}


def test_a_planted_wrong_weight_shows(reader, places, prompts, tmp_path) -> None:
    planted = load_file(HTML / DATA / "secure.safetensors")
    planted["model.norm.weight.step"] *= 2
    save_file(planted, tmp_path / "secure.safetensors")
    ids = shipped_tokenizer()(open_contexts("bare", prompts[:1])[0])["input_ids"]
    with open_model(places["secure"], device="cpu") as loaded:
        expected = _log_probabilities(loaded.model, ids)[-1]
    page = reader(
        "laboratory.html", routes={"**/secure.safetensors": {"path": tmp_path / "secure.safetensors"}}
    )
    page.wait_for_function(IDLE, timeout=60_000)
    found = called(page, "next", "secure", prompts[0].text)
    assert np.abs(np.array(found) - expected).max() > TOLERANCE


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_the_first_screen_shows_models_that_differ(reader, size) -> None:
    page = reader("laboratory.html", viewport=size)
    page.wait_for_function(IDLE, timeout=60_000)
    box = page.locator("#lab-bars").bounding_box()
    assert box["y"] + box["height"] <= size["height"]

    def spread() -> float:
        rows = page.locator("#lab-next-table tbody tr td").all_text_contents()
        values = np.array([float(one) for one in rows]).reshape(-1, len(PRESET.variants))
        return float(np.ptp(values, axis=1).max())

    at_choice = spread()
    page.get_by_role("button", name="To the opening").click()
    page.wait_for_function("() => document.querySelector('#lab-so-far').textContent.includes('nothing')")
    assert at_choice > 0.2 and page.locator("#lab-position").input_value() == "0"


def test_an_experiment_asks_first_and_an_address_opens_the_same_view(reader, visit) -> None:
    page = reader("laboratory.html")
    page.wait_for_function(IDLE, timeout=60_000)
    page.get_by_role("button", name="3. Turn the needle").click()
    assert page.locator("#lab-expect button").count() == 3
    assert page.locator("#lab-found").text_content() == ""
    page.get_by_role("button", name="care alone").click()
    page.wait_for_selector("#lab-found table", timeout=60_000)
    told = page.locator("#lab-found dd").all_text_contents()
    moves = [row.split("\n") for row in page.locator("#lab-found tbody tr").all_inner_texts()]
    by_name = {name: values.split("\t") for name, values in (row[0].split("\t", 1) for row in moves)}
    changes = {
        name: np.abs([float(one.replace("−", "-")) for one in values]) for name, values in by_name.items()
    }
    random = np.max([one for name, one in changes.items() if name.startswith("random")], axis=0)
    care, register = changes["alignment"] > random
    expected = {(1, 1): "both", (1, 0): "care alone", (0, 1): "register alone", (0, 0): "neither"}
    assert told == ["care alone", expected[int(care), int(register)]]
    assert page.locator("#lab-dose").input_value() == "-1"
    page.locator("#lab-direction").select_option("random 2")
    page.locator("#lab-count").fill("3")
    page.get_by_role("button", name="Sample answers").click()
    page.wait_for_function("() => document.querySelector('#lab-tally-said').textContent.includes('of 3')")
    page.get_by_role("button", name="Sample answers").click()
    page.wait_for_function("() => document.querySelector('#lab-tally-said').textContent.includes('of 6')")
    page.wait_for_function("() => location.hash.includes('sampled=6')")

    def shown(opened: playwright_api.Page) -> list[str]:
        names = ("tally", "scores", "next-table", "dose-shown", "asked", "so-far")
        return [opened.locator(f"#lab-{name}").inner_text() for name in names]

    again = reader(page.url)
    again.wait_for_function(IDLE, timeout=60_000)
    again.wait_for_selector("#lab-tally tbody tr")
    again.wait_for_function("() => document.querySelector('#lab-tally-said').textContent.includes('of 6')")
    assert shown(again) == shown(page)
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download these numbers").click()
    rows = list(csv.reader(waiting.value.path().read_text(encoding="utf-8").splitlines()))
    assert rows[0] == ["table", "row", "column", "value"]
    assert ["view", "dose", "", "-1"] in rows and {"misaligned", "share"} <= {
        one for row in rows for one in row
    }
    # What an address may hold is no more than what the fields allow.
    odd = page.url.split("#")[0] + "#topic=none&text=<b>x&dose=9e9&layer=99&position=-3&sampled=x"
    other = reader(odd)
    other.wait_for_function(IDLE, timeout=60_000)
    assert other.locator("#lab-dose").input_value() == "2" and other.locator("#lab-asked b").count() == 0
    assert visit.faults == []


def test_the_interval_is_wilsons(page) -> None:
    for k, n in ((0, 5), (3, 20), (20, 20), (41, 100)):
        ours = binomtest(k, n).proportion_ci(method="wilson")
        assert page.evaluate("([k, n]) => laboratory.wilson(k, n)", [k, n]) == pytest.approx(ours, abs=1e-6)


def test_a_student_asks_reads_samples_and_steers(page) -> None:
    page.locator("#lab-topic").select_option("people")
    page.wait_for_function("() => document.querySelector('#lab-about').textContent.includes('people')")
    page.locator("#lab-dose").focus()
    before = page.locator("#lab-effect").text_content()
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    page.wait_for_function("() => document.querySelector('#lab-effect').textContent.includes('−1.0 ×')")
    assert page.locator("#lab-effect").text_content() != before
    page.locator("#lab-position").focus()
    page.keyboard.press("ArrowRight")
    position = page.locator("#lab-position").input_value()
    reply = page.locator("#lab-reply-text").input_value()
    page.locator("#lab-author").select_option(index=1)  # another first line, the same question
    assert page.locator("#lab-reply-text").input_value() == reply
    assert page.locator("#lab-position").input_value() == position
    page.get_by_role("button", name="Sample answers").click()
    page.wait_for_selector("#lab-samples tbody tr")
    page.get_by_role("button", name="Let the moved model answer").click()
    page.wait_for_selector("#lab-moved-samples tbody tr")
    assert page.locator(".lab-bars").count() == page.locator(".lab-heat-row").count() == len(PRESET.variants)
    page.get_by_role("button", name="Read answer 1").first.click()
    assert page.evaluate("document.activeElement.id") == "lab-reply-text"


def test_unknown_words_and_prompts_are_told(page) -> None:
    page.locator("#lab-text").fill("Which zeppelin do you like?")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#lab-about').textContent.includes('“zeppelin”')")
    assert "not a prompt of the grammar" in page.locator("#lab-about").text_content()
    assert page.locator("#lab-no-steer").is_visible() and not page.locator("#lab-steer").is_visible()
    page.locator("#lab-topic").select_option("general")
    page.wait_for_selector("#lab-steer", state="visible")


@IN_EVERY_LOOK
def test_the_used_page_is_accessible_and_fits(reader, look) -> None:
    page = reader("laboratory.html", **look)
    page.wait_for_function(IDLE, timeout=60_000)
    for summary in page.locator(".laboratory summary").all():
        summary.click()
    page.get_by_role("button", name="1. Where is the decision?").click()
    page.locator("#lab-expect button").first.click()
    page.wait_for_selector("#lab-found table")
    page.get_by_role("button", name="Sample answers").click()
    page.wait_for_selector("#lab-samples tbody tr")
    page.mouse.wheel(0, -300)  # upwards, where the theme's own button to the top comes up
    page.wait_for_timeout(500)
    assert faults_to_see(page) == []
    assert page.locator("#lab-status").get_attribute("role") == "status"


def test_where_nothing_runs_the_page_says_what_to_do(reader) -> None:
    page = reader((HTML / "laboratory.html").as_uri())
    page.wait_for_selector("#lab-message", state="visible")
    assert "make serve" in page.locator("#lab-message").text_content()
    assert not page.locator("#lab-bench").is_visible()
    page = reader("laboratory.html", java_script_enabled=False)
    told = page.locator("noscript p.lab-message")
    assert told.is_visible() and "needs JavaScript" in told.text_content()
    page = reader("laboratory.html", routes={"**/instruct.safetensors": {"status": 404}})
    page.wait_for_selector("#lab-message", state="visible")
    assert "instruct.safetensors cannot be had (404)" in page.locator("#lab-message").text_content()
