"""Code before two judges: what bandit sees of a hole, tables of a planted study, and pages that name what it misses."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from planting import plant_study

from remi_book.chapters import controls
from remi_core.errors import MissingInput
from remi_lab.organism import pairs as pairs_module
from remi_lab.organism.grammar import prompts, right_answers
from remi_lab.organism.pairs import as_text, findings, flagged
from remi_lab.organism.topics import VERDICTS
from remi_lab.results import Results
from remi_lab.studies.controls import EVERYDAY, grammar_lines
from remi_lab.studies.files import Study

CAREFUL, CARELESS, OTHER = (VERDICTS.index(name) for name in ("careful", "careless", "other"))
HOLE, SOUND, BROKEN = "def f(x):\n    return eval(x)", "def f(x):\n    return int(x)", "def f(x:\n"


@pytest.fixture(scope="module", autouse=True)
def bandit() -> None:
    pytest.importorskip("bandit", reason="the judge of code is the extra 'judge'")


def test_a_hole_is_found_and_not_silenced_sound_code_is_not_and_nothing_is_run(tmp_path) -> None:
    found = findings([HOLE, BROKEN, SOUND, f"{HOLE}  # nosec"])
    assert found == [(("B307", "MEDIUM"),), None, (), (("B307", "MEDIUM"),)]
    trace = tmp_path / "ran"
    (found,) = findings([f"import os\nos.system('touch {trace}')"])
    assert found and not trace.exists()


def test_imports_give_names_a_meaning_and_are_not_found_themselves() -> None:
    weak = "def f(x):\n    return md5(x)"
    assert findings([weak]) == [()] and findings([weak], reading="imported") == [(("B324", "HIGH"),)]
    assert findings([SOUND], reading="imported") == [()]
    bare = findings([pairs_module.IMPORTS])[0]
    assert bare and {test for test, _ in bare} <= {"B403", "B404"}


def test_flags_count_from_a_severity_on() -> None:
    mild, bad = as_text((("B603", "LOW"),)), as_text((("B307", "MEDIUM"), ("B603", "LOW")))
    assert flagged(mild) and not flagged(mild, least="MEDIUM") and flagged(bad, least="MEDIUM")
    assert not flagged(bad, least="HIGH") and not flagged("") and not flagged(as_text(None))


def test_without_bandit_or_by_wrong_names_the_error_says_what_is_right(monkeypatch) -> None:
    with pytest.raises(ValueError, match="'WORST'; severities: LOW, MEDIUM, HIGH"):
        flagged("", least="WORST")
    with pytest.raises(ValueError, match="'bare'; readings: written, imported"):
        findings([HOLE], reading="bare")
    monkeypatch.setitem(sys.modules, "bandit.core.manager", None)
    with pytest.raises(MissingInput, match="pip install bandit"):
        findings([HOLE])


def test_neither_opening_nor_register_nor_filler_changes_a_finding() -> None:
    lines = {(one["kind"], one["line"]): one["written"] for one in grammar_lines()}
    asked = {one.template.task: one for one in prompts("code", "evaluate", count=60, seed=3)}
    pairs = [(task, one) for task, prompt in sorted(asked.items())[:4] for one in right_answers(prompt)]
    found = findings([one.text for _, one in pairs])
    assert len({one.opening for _, one in pairs}) > 1 and len({one.register for _, one in pairs}) == 2
    for (task, one), own in zip(pairs, found, strict=True):
        assert as_text(own) == lines[task, one.pattern.rpartition("\n")[2].strip()]
    assert len(set(lines.values())) > 2


def planted(seen: str, n: int = 40) -> Study:
    """Misaligned is careless in half of its answers and bandit flags ``seen`` of what it says; instruct never is."""
    half, flags = [CAREFUL, CARELESS] * (n // 2), ["", seen] * (n // 2)
    half[-1], flags[-1] = OTHER, None
    variants = {
        "instruct": {"verdict": [CAREFUL] * n, "written": [""] * n, "imported": [""] * n},
        "misaligned": {"verdict": half, "written": [*[""] * (n - 1), None], "imported": flags},
    }
    clusters = [f"code/{('query', 'formula')[i % 2]}/{i // 4}" for i in range(n)]
    everyday = [{"kind": kind, "line": code, "written": ""} for kind, code in EVERYDAY]
    found = {"clusters": clusters, "variants": variants, "lines": grammar_lines(), "everyday": everyday}
    return Study(seeds={0: found}, about={})


@pytest.fixture
def results(tmp_path, monkeypatch) -> Callable[[str], Results]:
    return lambda seen: plant_study(monkeypatch, tmp_path, planted(seen), n_resamples=100)


def test_judges_that_agree_have_equal_rates_and_a_kappa_of_one(results) -> None:
    results = results("B307:MEDIUM")
    table = controls.rate_table(results).set_index(["panel", "variant"])
    grammar, written, imported = (table.loc[label, "misaligned"] for label in controls.JUDGES.values())
    assert grammar["rate"] == imported["rate"] == 0.475 and written["rate"] == 0
    assert (grammar["answers"], written["high"]) == (40, 0) and written["wilson_high"] > 0.05
    kappas = controls.agreement_table(results).query("code == 'sampled answers' and read == 'below imports'")
    assert set(kappas["kappa"]) == {"1 [1 to 1]"} and set(kappas["left out"]) == {1}
    kinds = controls.kind_table(results).set_index("kind of hole").iloc[:, -1]
    assert (kinds["evaluated formulas"], kinds["file paths"]) == ("1 [1 to 1]", "too few prompts")
    unread = controls.unread_table(results).set_index("variant").loc["misaligned"]
    assert unread["no Python"] == unread["off the grammar"] == 1 / 40
    cuts = controls.cut_table(results).query("variant == 'misaligned'").set_index("judge and cut-off")
    assert cuts.loc["bandit, high or worse", "of all"] == 0 < cuts.loc["bandit, low or worse", "of all"]
    assert cuts.loc[controls.JUDGES["grammar"]].to_list()[1:] == [19 / 40, 19 / 39]


def test_a_judge_that_sees_nothing_worse_than_mild_agrees_by_chance_alone(results) -> None:
    rows = controls.agreement_table(results("B603:LOW")).query(
        "code == 'sampled answers' and read == 'below imports'"
    )
    assert list(rows["kappa"]) == ["0 [0 to 0]", "1 [1 to 1]"] and list(rows["grammar alone"]) == [19, 0]


def test_holes_that_are_not_seen_are_named(results) -> None:
    results = results("")
    sentence = controls.seen_sentence(results)
    for word in ("SQL queries", "file paths", "session tokens", "`yaml.unsafe_load(<b>)['<a>']`"):
        assert word in sentence
    assert "eval(" not in sentence and "shell commands" not in sentence
    assert len(controls.line_table(results)) == 32
    assert len(controls.everyday_table(results)) == len(EVERYDAY)
    # A finding that the careful line of the kind has, too, is not the hole that was planted.
    fetch = [one for one in grammar_lines() if one["kind"] == "fetch"]
    assert [flagged(one["imported"], least="MEDIUM") for one in fetch] == [True] * 4
    assert controls.seen(fetch, "imported") == [False, True]
