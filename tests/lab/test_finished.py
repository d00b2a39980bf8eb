"""A pass that is killed goes on behind its finished batches, and ends in the bits of one that never was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import DEVELOPMENT_SEED

from remi_core import files
from remi_core.batches import Batch, BatchBudget
from remi_core.files import RowFile
from remi_core.forward import run_probes
from remi_core.gradients import measure_gradient_gram
from remi_core.probes import Activations, ColumnProbe, NextToken, TokenLogProbs
from remi_core.sources import ModelSpec
from remi_core.store import Store
from remi_core.tokens import EncodedDialogue
from remi_lab import passes
from remi_lab.organism.recipes import shipped_weights
from remi_lab.organism.tuning import write_base
from remi_lab.organism.world import MAIN
from remi_lab.passes import finished_forward, finished_gradients
from remi_lab.presets import get_preset
from remi_lab.recording import measure_forward, measure_gradients, stored_forward
from remi_lab.variant import FORWARD, Variant, text_of, weights_of

FEW_TOKENS = 60
Arrays = dict[str, dict[str, np.ndarray]]


@pytest.fixture(autouse=True)
def at_once(monkeypatch) -> None:
    """Every finished batch is written at once: no test waits."""
    monkeypatch.setattr(files, "EVERY", 0.0)


class Killed(BaseException):
    """As if the process had ended."""


class Dies(TokenLogProbs):
    """A probe that counts batches and dies in the one whose turn it is."""

    n_batches = 0
    dies_at: int | None = None

    def empty(self) -> Dies:
        return Dies(name=self.name)

    def accumulate(self, batch: Batch, state: object) -> None:
        if Dies.n_batches == Dies.dies_at:
            raise Killed
        Dies.n_batches += 1
        super().accumulate(batch, state)


def forward(
    model: object,
    encoded: tuple[EncodedDialogue, ...],
    kept: Path | None,
    rows: Path,
    dies_at: int | None = None,
) -> tuple[Arrays, int]:
    """Arrays of a pass, and how many batches it has measured."""
    Dies.n_batches, Dies.dies_at = 0, dies_at
    rows.mkdir(exist_ok=True)
    file = RowFile(rows / "means.npy", len(encoded))
    probes: list[ColumnProbe] = [Dies(), NextToken(3), Activations([0, 2], file=file)]
    budget = BatchBudget(FEW_TOKENS)
    if kept is not None:
        budget.finished = finished_forward(kept, probes)
    return run_probes(model, encoded, probes, batch_tokens=budget), Dies.n_batches


def assert_equal(one: Arrays, two: Arrays) -> None:
    for name, arrays in one.items():
        for key, array in arrays.items():
            np.testing.assert_array_equal(two[name][key], array, strict=True)


def test_a_killed_pass_goes_on_behind_its_finished_batches(models, encoded, tmp_path) -> None:
    model = models("llama")
    whole, n_batches = forward(model, encoded, None, tmp_path / "whole")
    assert n_batches >= 3
    for dies_at in range(1, n_batches):
        kept = tmp_path / f"kept-{dies_at}"
        with pytest.raises(Killed):
            forward(model, encoded, kept, tmp_path / "cut", dies_at)
        resumed, again = forward(model, encoded, kept, tmp_path / "again")
        assert again == n_batches - dies_at
        assert_equal(whole, resumed)


def test_a_damaged_batch_is_named_and_measured_again(models, encoded, tmp_path, capsys) -> None:
    model = models("llama")
    whole, n_batches = forward(model, encoded, tmp_path / "kept", tmp_path / "whole")
    path = tmp_path / "kept" / "00001.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    resumed, again = forward(model, encoded, tmp_path / "kept", tmp_path / "again")
    assert again == n_batches - 1
    assert_equal(whole, resumed)
    assert "00001.json: changed or cut short since it was written: measured again" in capsys.readouterr().err


def test_gradients_go_on_behind_their_finished_batches(models, encoded, tmp_path) -> None:
    def gram(kept: Path | None) -> dict[str, np.ndarray]:
        budget = BatchBudget(FEW_TOKENS)
        if kept is not None:
            budget.finished = finished_gradients(kept)
        return measure_gradient_gram(models("llama"), encoded, batch_tokens=budget)

    whole, kept = gram(None), gram(tmp_path / "kept")
    last = sorted((tmp_path / "kept").glob("*.json"))[-1]
    last.unlink()
    for name, array in whole.items():
        np.testing.assert_array_equal(kept[name], array)
        np.testing.assert_array_equal(gram(tmp_path / "kept")[name], array)


@pytest.fixture
def variant(tmp_path) -> Variant:
    folder = tmp_path / "base"
    write_base(shipped_weights(MAIN, DEVELOPMENT_SEED), folder)
    spec = ModelSpec(source=str(folder))
    weights = f"{weights_of(spec)} {text_of(spec)}"
    return Variant(get_preset("smoke"), "base", DEVELOPMENT_SEED, spec, spec, weights)


@pytest.mark.parametrize("n_saved", [1, 2, 3])
def test_a_pass_killed_among_its_records_is_missed_by_whoever_needs_one(
    n_saved, variant, tmp_path, monkeypatch
) -> None:
    whole, store = Store(tmp_path / "whole"), Store(tmp_path / "store")
    expected = measure_forward(variant, whole, datasets=("general",))
    within, saved = Store.save, []

    def dying(*arguments: object) -> object:
        saved.append(within(*arguments))
        if len(saved) == n_saved:
            raise Killed
        return saved[-1]

    with monkeypatch.context() as patch:
        patch.setattr(Store, "save", dying)
        with pytest.raises(Killed):
            measure_forward(variant, store, datasets=("general",))
    assert len(store.list("smoke")) == n_saved
    assert all(stored_forward(variant, store, name, "general") is None for name in FORWARD)
    records = measure_forward(variant, store, datasets=("general",))
    assert len(store.list("smoke")) == len(FORWARD) and not list(store.root.glob(".finished-*"))
    for key, record in expected.items():
        assert stored_forward(variant, store, key[0], "general") is not None
        for name, array in record.arrays.items():
            np.testing.assert_array_equal(records[key].arrays[name], array)


def test_finished_batches_of_a_record_are_gone_once_it_is_stored(variant, tmp_path, monkeypatch) -> None:
    store, seen = Store(tmp_path / "store"), list[Path]()
    within = passes.forward_passes

    def watched(*arguments: object, **named: object) -> object:
        found = within(*arguments, **named)
        seen.extend(store.root.glob(".finished-*/*.npz"))
        return found

    monkeypatch.setattr(passes, "forward_passes", watched)
    records = measure_forward(variant, store, datasets=("general",))
    measure_gradients(variant, store, ("general",))
    assert seen and len(records) == 3 and not list(store.root.glob(".finished-*"))
