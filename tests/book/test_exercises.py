"""Exercises: every solution passes its check, wrong answers are told apart, and no message gives an answer away."""

from __future__ import annotations

import ast
import inspect
import re
from functools import lru_cache, partial

import numpy as np
import pytest
from exercise_answers import RUNS, WRONG

from remi_book.exercises import answers
from remi_book.exercises.checking import (
    CHECKERS,
    EXERCISES,
    MISTAKES,
    NotYet,
    Verdict,
    as_choices,
    as_number,
    call,
    call_for_array,
    check,
)
from remi_book.running import direct_imports, imported_modules, read_cells
from remi_core.errors import UsageError
from remi_core.store import project_root

NAMES = list(EXERCISES)
NOTEBOOKS = list(dict.fromkeys(exercise.notebook for exercise in EXERCISES.values()))
BOX = re.compile(
    r"^:::\{admonition\} Exercise \d+: (?P<title>[^\n]+)\n:class: exercise\n:name: (?P<name>[\w-]+)\n\n"
    r"(?P<inside>.*?)^:::$",
    re.MULTILINE | re.DOTALL,
)
FOLDED = re.compile(
    r"^<details><summary>(?P<summary>[^<]+)</summary>\n\n(?P<inside>.*?)\n\n</details>$",
    re.MULTILINE | re.DOTALL,
)
CODE = re.compile(r"^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


@lru_cache(maxsize=32)
def cells(notebook: str) -> list[dict]:
    return read_cells(project_root() / "notebooks" / f"{notebook}.ipynb")


def boxes(notebook: str) -> dict[tuple[str, str], str]:
    """(name, title) of each exercise that a notebook sets, in its order → the code of its solution."""
    found = {}
    for cell in cells(notebook):
        for box in BOX.finditer(cell["source"] if cell["cell_type"] == "markdown" else ""):
            folded = {part["summary"]: part["inside"] for part in FOLDED.finditer(box["inside"])}
            found[box["name"].replace("-", ".", 1), box["title"]] = CODE.search(folded["Solution"])["code"]
    return found


@lru_cache(maxsize=1)
def code_of_solutions() -> dict[str, str]:
    return {name: code for notebook in NOTEBOOKS for (name, _), code in boxes(notebook).items()}


def checked(name: str, answer: object) -> Verdict:
    """The verdict on an answer, where the check is given the values of a run that it asks for."""
    return check(name, answer, *RUNS.get(name, {}).values())


def solution(name: str) -> object:
    """The answer that the notebook's solution gives."""
    space: dict[str, object] = dict(RUNS.get(name, {}))
    exec(compile(code_of_solutions()[name], name, "exec"), space)
    return space["answer"]


def gives_away(message: str, name: str) -> bool:
    """Whether a message holds the answer: a number or word that is right, or a line of the solution."""
    right = solution(name)
    numbers = [float(text) for text in re.findall(r"-?\d*\.?\d+", message)]
    words = re.findall(r"[\w-]+", message)
    if EXERCISES[name].kind in ("number", "choice") and not isinstance(right, set | dict):
        return any(checked(name, one).state == "right" for one in [*numbers, *words])
    lines = [line.strip() for line in code_of_solutions()[name].splitlines()]
    return any(len(line) > 12 and line in message for line in lines)


def lacking(right: object, answer: object) -> set[str]:
    """What a set or a dictionary of choices has and another answer has not."""
    if isinstance(right, dict):
        return {value for key, value in right.items() if answer[key] != value} - set(answer.values())
    return {str(one) for one in right} - {str(one) for one in answer} if isinstance(right, set) else set()


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_a_notebook_holds_its_exercises_unanswered(notebook) -> None:
    own = [exercise for exercise in EXERCISES.values() if exercise.notebook == notebook]
    assert list(boxes(notebook)) == [(exercise.name, exercise.title) for exercise in own]
    for exercise in own:
        place = f"answer-{exercise.name.replace('.', '-')}"
        (source,) = (cell["source"] for cell in cells(notebook) if cell["id"] == place)
        assert "\nanswer = ...\n" in f"\n{source}\n" and f'check("{exercise.name}", answer' in source
        assert check(exercise.name, ...).state == "not answered"


def test_every_mistake_that_a_check_names_has_a_message_and_every_message_a_check() -> None:
    check(NAMES[0], None)
    assert set(CHECKERS) == set(MISTAKES) == set(EXERCISES)
    for name, checker in CHECKERS.items():
        nodes = list(ast.walk(ast.parse(inspect.getsource(checker))))
        words = {node.value for node in nodes if isinstance(node, ast.Constant)}
        calls = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "require"]
        required = {call.args[1].value for call in calls if isinstance(call.args[1], ast.Constant)}
        computed = {mistake for mistake in MISTAKES[name] if re.fullmatch(r"[A-E1-7]|otherwise", mistake)}
        assert required <= set(MISTAKES[name]) <= words | computed, name


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_of_the_page_is_right(name) -> None:
    verdict = checked(name, solution(name))
    assert verdict.state == "right" and verdict.message == EXERCISES[name].lesson, verdict


@pytest.mark.parametrize("name", NAMES)
def test_wrong_answers_are_told_apart_and_not_corrected(name) -> None:
    assert gives_away("it is -0.05625", "gradients.centred")
    assert gives_away("write apart = templates[:, None] != templates", "gradients.distance")
    verdicts = [checked(name, answer) for answer in WRONG[name]]
    assert [one.state for one in verdicts] == ["not yet"] * 3, verdicts
    assert len({one.message for one in verdicts}) == 3, verdicts
    assert [one.message for one in verdicts if gives_away(one.message, name)] == []
    for verdict, answer in zip(verdicts, WRONG[name], strict=True):
        assert not lacking(solution(name), answer) & set(re.findall(r"\w+", verdict.message)), verdict


def test_what_is_no_answer_is_named_and_a_function_cannot_change_what_it_is_given() -> None:
    def stops(values):
        values += 1
        return values / 0 if len(values) == 2 else 1 // 0

    given = np.zeros(3)
    for message, use in [
        (r"ZeroDivisionError: .*line \d+ of its cell: return values / 0", lambda: call(stops, given)),
        (r"TypeError: .*positional", lambda: call(stops)),
        ("gave None", lambda: call(lambda values: None, 1)),
        ("should be a function", lambda: call(3, 1)),
        (r"shape \(2,\)", lambda: call_for_array(lambda: [1.0], shape=(2,))),
        *(("should be", partial(as_number, answer)) for answer in ("-0.05625", True, [1, 2], None, {})),
        *(("should be", partial(as_choices, answer, ["1", "2"])) for answer in ("1", 1, {3})),
    ]:
        with pytest.raises(NotYet, match=message):
            use()
    assert given.sum() == 0 and as_choices([1, "2"], ["1", "2"]) == {"1", "2"}


def test_an_unknown_exercise_is_refused_with_the_choices() -> None:
    with pytest.raises(UsageError, match=r"did you mean 'gradients\.centred'"):
        check("gradients.centered", 1)


def test_no_notebook_is_run_again_because_answers_are_checked_otherwise() -> None:
    cell = direct_imports(ast.parse("from remi_book.exercises import check"))
    assert answers.__name__ not in imported_modules(cell)
