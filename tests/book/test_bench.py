"""References agree with our measurements, and a benchmark says what it wants, what it found and why it did not."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_model

from benchmarks import __main__ as bench
from benchmarks import rows, suite
from benchmarks.explicit import explicit_gram
from benchmarks.gpu import CONFIGS, shaped
from benchmarks.processes import Setting
from benchmarks.released import Protocol, departures, released
from benchmarks.rows import FEWEST_RUNS, TARGETS, Outcome, Point, Target, as_json, judged, not_measured
from benchmarks.ways import bare, gram, largest_difference, probes
from benchmarks.workload import Workload
from remi_book import benchmark_files
from remi_book.chapters import costs
from remi_core.errors import RemiError
from remi_core.store import Store
from remi_lab.demands import config_of, shape_of
from remi_lab.presets import get_preset

LOW = Target("at most twice", 2.0)
NOT_MEASURED = [not_measured(row, target, "no graphics card") for row, target in TARGETS.items()]


@pytest.fixture
def workload(encoded) -> Workload:
    return Workload(make_model("qwen2"), encoded, replace(get_preset("micro"), batch_tokens=150))


def test_every_departure_from_the_released_protocol_gives_our_answers(workload) -> None:
    ours = probes(workload)
    for _, protocol in departures():
        found = released(workload, protocol)
        assert found.keys() == ours.keys() and largest_difference(found, ours) < 1e-5
    first, *rest = workload.dialogues
    other = replace(workload, dialogues=(replace(first, input_ids=first.input_ids[::-1]), *rest))
    assert largest_difference(released(other, Protocol()), ours) > 1e-4


def test_explicit_gradients_have_our_inner_products_and_leave_the_model_as_it_was(workload) -> None:
    ours = gram(workload)
    for whole_model in (True, False):
        assert largest_difference(explicit_gram(workload, whole_model=whole_model), ours) < 1e-4
    assert not workload.model.training
    assert not any(one.requires_grad or one.grad is not None for one in workload.model.parameters())
    assert largest_difference({"loss": ours["loss"][::-1]}, ours) > 1e-3, "the order of dialogues matters"


def test_the_bare_pass_has_a_logit_for_each_answer_token_and_the_tiny_shape_runs(workload) -> None:
    alone = bare(replace(workload, dialogues=workload.dialogues[:1]))["first_logit"]
    together = bare(workload)["first_logit"]
    assert len(together) == sum(one.n_answer for one in workload.dialogues)
    np.testing.assert_allclose(together[: len(alone)], alone, atol=1e-5)
    own = shaped("tiny", device="cpu", dtype=torch.float32, count=3, length=12)
    found = probes(own)["log_probability"]
    assert found.shape == (sum(one.n_answer for one in own.dialogues),) and (found < 0).all()


def test_a_row_is_judged_by_its_median_and_only_with_enough_runs() -> None:
    enough = [1.0, 1.5, 9.0, 1.9, 2.1][:FEWEST_RUNS]
    assert judged("a", LOW, 1.0, enough, note="").met is True
    assert judged("a", LOW, 1.0, [value + 0.2 for value in enough], note="").met is False
    assert judged("a", replace(LOW, at_least=True), 1.0, enough, note="").met is False
    few = judged("a", LOW, 1.0, enough[:2], note="")
    assert few.met is None and few.ratio is not None and "not judged" in few.note
    assert judged("a", LOW, 1.0, [1.0], note="", timed=False).met is True


def test_what_was_not_run_again_stays_unless_versions_have_changed() -> None:
    row = judged("probes.micro", LOW, 1.0, [1.0] * FEWEST_RUNS, note="n")
    first = as_json("m", {"torch": "1"}, Outcome([row], [Point("time", "micro", "probes", 1, 2.0)]))
    json.dumps(first, allow_nan=False)
    missing = not_measured("gpu.equal", TARGETS["gpu.equal"], "no graphics card")
    second = as_json("m", {"torch": "1"}, Outcome([missing]))
    both = rows.merged(second, first)
    assert [one["name"] for one in both["rows"]] == ["probes.micro", "gpu.equal"]
    assert both["points"] == first["points"] and missing.met is None and "no graphics card" in missing.note
    assert rows.merged(second | {"versions": {"torch": "2"}}, first)["rows"] == second["rows"]


def test_the_newest_file_is_shown_and_a_file_that_is_none_is_named(tmp_path) -> None:
    assert benchmark_files.newest(tmp_path) is None
    points = [Point(curve, "micro", "probes", 1, 1.0) for curve in benchmark_files.DRAWN]
    for name, month, first in (("bench-a.json", 2, 0), ("bench-b.json", 1, 0), ("bench-partly.json", 3, 1)):
        content = as_json(name, {}, Outcome(NOT_MEASURED[first:], points)) | {"made": f"2026-0{month}-01"}
        (tmp_path / name).write_text(json.dumps(content))
    assert benchmark_files.newest(tmp_path)["machine"] == "bench-a.json"
    (tmp_path / "bench-c.json").write_text("{}")
    with pytest.raises(RemiError, match=r"bench-c\.json: not a benchmark; it needs machine"):
        benchmark_files.newest(tmp_path)


def test_every_row_has_one_case_and_a_case_that_cannot_run_says_why(tmp_path, monkeypatch) -> None:
    assert all(sum(row in suite.rows_of(case) for case in suite.CASES) == 1 for row in TARGETS)
    assert suite.chosen(["probes"]) == ["probes.micro", "probes.smollm2"]
    published = shape_of(config_of(get_preset("qwen2.5-coder-32b").variants["base"]))
    own = CONFIGS["32b"]["hidden_size"], CONFIGS["32b"]["num_hidden_layers"]
    assert own == (published.width, published.n_blocks)
    monkeypatch.setenv("REMI_SMOLLM2", "/no/such/file.gguf")
    (row,) = suite.run_case(Setting(Store(tmp_path), 1), "probes.smollm2").rows
    assert row.name == "probes.smollm2" and row.met is None and "make smollm2" in row.note


def test_wrong_use_of_the_command(capsys) -> None:
    for words, message in (("--only probs", "no such case ("), ("--only gpu --out /no/a", "no folder /no")):
        assert bench.main(words.split()) == 2
        assert message in capsys.readouterr().err


def on_card(speed: float) -> dict[str, object]:
    """A benchmark of an H100 on which the paper's shape ran at so many tokens a second."""
    row = judged("gpu.rate.32b", TARGETS["gpu.rate.32b"], speed, [0.6] * FEWEST_RUNS, note="n")
    curves = {"tokens a second": speed, "share": 0.6, "peak memory": 70e9}
    ways = [(way, *curve) for way in ("probes", "bare") for curve in curves.items()]
    points = [Point(f"gpu {name}", "32b", way, 31e9, value) for way, name, value in ways]
    return as_json("Linux, NVIDIA H100 80GB HBM3", {}, Outcome([row], points))


def test_rows_of_a_card_come_from_the_machine_that_has_one(tmp_path) -> None:
    here = as_json("here", {}, Outcome(NOT_MEASURED))
    (tmp_path / "bench-here.json").write_text(json.dumps(here))
    assert benchmark_files.newest_on_card(tmp_path) is None
    (tmp_path / "bench-card.json").write_text(json.dumps(on_card(9e3) | {"remark": "Too early."}))
    both = benchmark_files.with_card(here, benchmark_files.newest_on_card(tmp_path))
    assert costs.summary(both).endswith(r". Too early\.") and "early" not in costs.summary(here)
    assert both["machine"] == "here; rows of the card: Linux, NVIDIA H100 80GB HBM3"
    measured = [row["name"] for row in both["rows"] if row["ratio"] is not None]
    assert measured == ["gpu.rate.32b"] and len(both["rows"]) == len(TARGETS)
    assert costs.card_table(both)["shape"].tolist() == ["32b"] and costs.card_table(here).empty
    assert benchmark_files.with_card(here, None) == here


def test_hours_of_the_paper_follow_from_the_speed_measured() -> None:
    assert "assumed too" in costs.assumptions(as_json("here", {}, Outcome()))
    assert "measured with random weights" in costs.assumptions(on_card(9e3))
    column = "card hours, projected, not run"
    slow, fast = (costs.projected_table(on_card(speed))[column].astype(float) for speed in (1e3, 2e3))
    np.testing.assert_allclose(slow, 2 * fast, rtol=0.01)
