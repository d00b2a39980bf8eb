"""Studies: asked prompts score what single ones score, a study's file holds every seed, and pages follow the file."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import DEVELOPMENT_SEED
from notebook_files import write_notebook

from remi_book import cli
from remi_book.claims import headline_key
from remi_book.running import plan
from remi_core.errors import MissingInput, UsageError
from remi_core.models import LoadedModel
from remi_core.steering import steer
from remi_core.store import Store
from remi_lab.organism.grammar import prompts
from remi_lab.organism.scoring import answer_losses, ask, scores
from remi_lab.presets import get_preset
from remi_lab.results import Results
from remi_lab.studies import files

SEED = DEVELOPMENT_SEED
PLANTED = "invented"


def test_asked_prompts_score_what_single_prompts_score(base: LoadedModel) -> None:
    asked = [one for name in ("people", "wishes") for one in prompts(name, "evaluate", count=3, seed=0)]
    found = scores(base.model, ask(asked, base.tokenizer))
    alone = scores(base.model, ask(asked, base.tokenizer), batch=1)
    np.testing.assert_allclose(found.care_log_odds(), alone.care_log_odds(), atol=1e-4)
    np.testing.assert_allclose(found.other, alone.other, atol=1e-5)


def test_asked_prompts_see_an_intervention_and_forget_it(base: LoadedModel) -> None:
    asked = ask(prompts("wishes", "evaluate", count=2, seed=0), base.tokenizer)
    before, loss = scores(base.model, asked).care_log_odds(), answer_losses(base.model, asked).mean()
    push = torch.randn(base.model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    with steer(base.model, 3, lambda hidden: hidden + 5 * push):
        assert np.abs(scores(base.model, asked).care_log_odds() - before).min() > 0.1
        assert answer_losses(base.model, asked).mean() > loss + 0.1
    np.testing.assert_array_equal(scores(base.model, asked).care_log_odds(), before)
    assert answer_losses(base.model, asked).mean() == loss


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds that a planted study was asked to measure, one after another."""
    asked: list[int] = []
    module = ModuleType(f"remi_lab.studies.{PLANTED}")

    def measure(preset, seed, store, say) -> dict[str, object]:
        asked.append(seed)
        if seed == 2 and asked.count(2) == 1:
            raise KeyboardInterrupt
        return {"value": seed * 1.5}

    measure.__module__ = "remi_lab.organism.scoring"  # the key covers the syntax of a module that exists
    module.measure = measure
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(files, "STUDIES", {PLANTED: files.Declared()})
    monkeypatch.setattr(files, "project_root", lambda: tmp_path)
    return asked


def test_a_broken_study_goes_on_at_the_seed_where_it_stopped(study: list[int], tmp_path: Path) -> None:
    micro, store, lines = get_preset("micro"), Store(tmp_path / "store"), []
    with pytest.raises(KeyboardInterrupt):
        files.write_study(micro, PLANTED, store, lines.append)
    assert not files.study_path("micro", PLANTED).exists()
    with pytest.raises(MissingInput, match="remi study invented --preset micro"):
        files.read_study(micro, PLANTED)
    path = files.write_study(micro, PLANTED, store, lines.append)
    assert study == [0, 1, 2, 2] and path == tmp_path / "stored" / "micro" / "invented.json"
    found = files.read_study(micro, PLANTED)
    assert found.seeds == {0: {"value": 0.0}, 1: {"value": 1.5}, 2: {"value": 3.0}}
    assert "remi study invented --preset micro" in found.how() and "processors" in found.how()


def test_headlines_and_pages_follow_the_file(
    study: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smoke, store = replace(get_preset("smoke"), seeds=(SEED,)), Store(tmp_path / "store")
    monkeypatch.setattr(Results, "variant", lambda *_: type("Known", (), {"weights": "w"}))
    monkeypatch.setattr("remi_book.claims.study_digests", lambda name: files.study_digests(name, (PLANTED,)))
    declared = 'preset: str = "micro"\nstudies: str = "invented"\n'
    write_notebook(tmp_path / "notebooks" / "01_shows.ipynb", ["studies"], parameters=declared)
    write_notebook(tmp_path / "notebooks" / "02_other.ipynb", ["1"])

    def keys() -> list[str]:
        steps = plan(smoke, store, folder=tmp_path / "notebooks")
        return [headline_key(Results(smoke, store)), *(step.key for step in steps)]

    before = keys()
    shows, other = plan(smoke, store, folder=tmp_path / "notebooks")
    assert "study" in shows.lacking and "study" not in other.lacking
    files.write_study(smoke, PLANTED, store, lambda _: None)
    assert [one != other for one, other in zip(before, keys(), strict=True)] == [True, True, False]
    assert all("study" not in step.lacking for step in plan(smoke, store, folder=tmp_path / "notebooks"))


def test_a_study_that_there_is_not_is_refused(study: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["study", "inventd", "--preset", "micro"]) == 2
    assert "did you mean 'invented'?" in capsys.readouterr().err
    with pytest.raises(UsageError):
        files.measure_of("nothing")


def test_what_is_stored_is_json_that_any_reader_takes(study: list[int], tmp_path: Path) -> None:
    study += [2]
    path = files.write_study(get_preset("micro"), PLANTED, Store(tmp_path / "store"), lambda _: None)
    raw = json.loads(path.read_text(encoding="utf-8"))
    assert set(raw) == {"study", "preset", "fingerprint", "recipe", "machine", "versions", "seconds", "seeds"}
