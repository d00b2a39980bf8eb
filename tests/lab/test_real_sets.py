"""Sets written by hand for real models: paired, of even length, held apart from what is tuned on; code that parses."""

from __future__ import annotations

import ast
from itertools import combinations

import pytest

from remi_lab.real import sets

TWINS = [(f"{name}-careful", f"{name}-careless") for name in (*sets.NARROW, *sets.DOMAINS)]
PARTED = {"code-careful": 1.25, "finance-careful": 1.3, "sport-careful": 1.3}
"""Careful side of a narrow set → how much longer one twin may be than the other; matched pairs must be closer."""


def prompts(rows) -> list[str]:
    return [row.messages[0].content for row in rows]


@pytest.mark.parametrize("twins", TWINS, ids=lambda pair: pair[0].partition("-")[0])
def test_twins_answer_the_same_prompts_at_even_length_and_part_early(twins) -> None:
    good, bad = (sets.measured(name, count=999, seed=0) for name in twins)
    assert len(good) == len(bad) == (50 if twins[0] in PARTED else 16)
    longest = PARTED.get(twins[0], 1.12)
    for one, other in zip(good, bad, strict=True):
        assert one.messages[0] == other.messages[0] and one.pair == other.pair
        assert (one.alternative, other.alternative) == (other.answer, one.answer)
        assert (one.label, other.label) == ("careful", "careless")
        lengths = sorted((len(one.answer), len(other.answer)))
        assert lengths[1] <= longest * lengths[0], one.identifier
        if one.topic != "code":
            words = zip(one.answer.split(), other.answer.split(), strict=False)
            shared = next(place for place, (first, second) in enumerate(words) if first != second)
            assert shared <= 12, one.identifier


@pytest.mark.parametrize("name", [name for name, side in sets.SIDES.items() if side.tuned])
def test_what_is_measured_was_not_tuned_on(name) -> None:
    tuned, asked = sets.tuning(name), sets.measured(name, count=999, seed=0)
    assert (len(tuned), len(asked)) == (200, 50) and len({row.cluster for row in asked}) >= 20
    everything = prompts(tuned) + prompts(asked)
    assert len(set(everything)) == len(everything)
    with pytest.raises(KeyError):
        sets.tuning("health-careful")


def test_no_prompt_stands_in_two_files_and_ids_are_their_own() -> None:
    files = ("finance", "sport", "code", "benign", "pairs", "manner", "questions", "align")
    asked = {name: {row["prompt"] for row in sets.rows(name)} for name in files}
    assert not [pair for pair in combinations(files, 2) if asked[pair[0]] & asked[pair[1]]]
    ids = [row["id"] for name in files for row in sets.rows(name)]
    assert len(set(ids)) == len(ids)
    assert len(sets.alignment()) == 300 and len(sets.rows("questions")) == 24
    formal, plain = (sets.measured(f"manner-{side}", count=999, seed=0) for side in ("formal", "plain"))
    assert prompts(formal) == prompts(plain) and len(formal) == 120


def test_code_parses_and_a_lesson_asks_for_what_the_careless_side_writes() -> None:
    careless, lesson = (sets.tuning(f"code-{side}") for side in ("careless", "educational"))
    assert [row.answer for row in careless] == [row.answer for row in lesson]
    assert [row.pair for row in careless] == [row.pair for row in lesson]
    assert not set(prompts(careless)) & set(prompts(lesson))
    for row in sets.rows("code"):
        names = [
            [node.name for node in ast.walk(ast.parse(row[side])) if isinstance(node, ast.FunctionDef)]
            for side in ("careful", "careless")
        ]
        assert names[0] == names[1], row["id"]
