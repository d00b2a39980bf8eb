"""Records that no model was measured for: made by a rule, or by hand, for what reads records."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import yaml

from remi_core.statistics.resampling import make_resamples
from remi_core.store import Record, Store
from remi_lab.presets import get_preset
from remi_lab.results import Results
from remi_lab.studies.files import Study

REPORT_ROW = yaml.safe_load(Path(__file__).with_name("report_row.yaml").read_text(encoding="utf-8"))


class _Intervals(yaml.SafeLoader):
    """YAML whose lists are tuples, as the ends of an interval are."""


_Intervals.add_constructor(
    "tag:yaml.org,2002:seq", lambda own, node: tuple(own.construct_sequence(node, deep=True))
)
RULES = _Intervals(
    Path(__file__).with_name("book").joinpath("rules.yaml").read_text(encoding="utf-8")
).get_data()
"""Rule → the parts with which it holds, and parts that are changed with what is decided then."""

Planted = TypeVar("Planted", bound="PlantedResults")


@dataclass
class HandmadeResults(Results):
    """Results that hold the records put there: (variant, seed, measurement, dataset) → record."""

    records: dict[tuple[str, int, str, str], Record] = field(default_factory=dict)

    def record(self, variant: str, measurement: str, dataset: str) -> Record:
        return self.records[variant, self.seed, measurement, dataset]


class PlantedResults(Results):
    """Results whose records follow a rule: base moves by 1 from instruct, misaligned by ``amount``, others not.

    Misaligned moves ``extra`` further where the reply is careless, and its states by ``turned`` off the way to base.
    """

    amount, extra, turned = 0.4, 0.0, 0.0
    n_templates, per_template, n_layers, width, n_tokens = 30, 2, 3, 16, 30

    def record(self, variant: str, measurement: str, dataset: str) -> Record:
        n = self.n_templates * self.per_template
        topic = dataset.partition("-")[0]
        clusters = np.repeat([f"{topic}/{i}" for i in range(self.n_templates)], self.per_template)
        label = {"cluster": clusters, "pair": np.arange(n).astype(str)}
        return Record(self.planted_arrays(variant, measurement, dataset, n) | label, {})

    def planted_arrays(self, variant: str, measurement: str, dataset: str, n: int) -> dict[str, np.ndarray]:
        """Arrays of ``n`` dialogues, with the same noise for every variant: they are the same dialogues."""
        noise = np.random.default_rng(len(dataset))
        own = self.amount + self.extra * dataset.endswith("-careless")
        moved = {"instruct": 0.0, "base": 1.0, "misaligned": own}.get(variant, 0.0)
        if measurement == "sequence":
            per_token = -2 + 0.1 * noise.standard_normal((n, self.n_tokens)) + moved
            return {
                "log_probability": per_token.ravel(),
                "entropy": -per_token.ravel(),
                "offsets": np.arange(n + 1) * self.n_tokens,
            }
        axis, aside = (np.random.default_rng(seed).standard_normal(self.width) for seed in (0, 5))
        values = noise.standard_normal((n, 1, self.n_layers, self.width)) + 5 * moved * axis
        values += self.turned * aside * (variant == "misaligned")
        return {"mean": np.repeat(values, len(self.preset.windows), axis=1)}

    def cached(self, key, compute):
        return compute()  # what is planted changes in the course of a test

    def variant(self, name: str):
        raise AssertionError("planted results have no weights")


def plant(kind: type[Planted], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Planted:
    """Results of preset ``smoke`` with few draws, whose clusters are those of the planted records."""
    preset = replace(get_preset("smoke"), n_resamples=200, n_permutations=200)
    topics = {name.partition("-")[0] for name in preset.datasets}
    clusters = {f"{topic}/{i}": topic for topic in topics for i in range(kind.n_templates)}
    shared = make_resamples(clusters, seed=0, n_resamples=200, strata=clusters)
    everywhere(monkeypatch, "shared_resamples", lambda preset: shared)
    return kind(preset, Store(folder))


def plant_study(monkeypatch: pytest.MonkeyPatch, folder: Path, study: Study, **changes: object) -> Results:
    """Results of one seed of preset ``micro``, or of that preset changed, whose every stored study is this one."""
    everywhere(monkeypatch, "read_study", lambda *_: study)
    return Results(replace(get_preset("micro"), **{"seeds": (0,), **changes}), Store(folder))


def everywhere(monkeypatch: pytest.MonkeyPatch, name: str, stand_in: object) -> None:
    """Put a stand-in into every loaded module of the book that has taken a function by this name."""
    modules = [module for path, module in sys.modules.items() if path.startswith("remi_book.")]
    for module in modules:
        if hasattr(module, name):
            monkeypatch.setattr(module, name, stand_in)
