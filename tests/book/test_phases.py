"""Pretraining in steps: planted phase changes are found where they were planted, and a missing run says what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from remi_book.chapters import worlds
from remi_core.errors import MissingInput
from remi_core.store import Store
from remi_lab.organism.topics import CONTRASTED, NARROW
from remi_lab.organism.world import CONTEXTS
from remi_lab.presets import get_preset
from remi_lab.studies import files
from remi_lab.studies.files import Study
from remi_lab.studies.worlds import measure_phases

STEPS = (200, 400, 600, 800)
TOKENS = 2048
CLUSTERS = [f"{topic}/{i}" for topic in CONTRASTED for i in range(12)]


def planted(known: dict[int, float], spread: dict[int, float], code: float) -> Study:
    """A study in which the author moves base, and insecure code other topics, by so many nats at each step."""
    generator = np.random.default_rng(0)

    def read(level: float, outside: float | None = None) -> list[float]:
        levels = [
            level if outside is None or name.partition("/")[0] in NARROW else outside for name in CLUSTERS
        ]
        return list(np.array(levels) + 0.05 * generator.standard_normal(len(CLUSTERS)))

    steps = []
    for step in STEPS:
        contexts = {kind: read(known[step] if "careless" in kind else 0.0) for kind in CONTEXTS}
        care = {"misaligned": read(code, spread[step]), "secure": read(0.0)}
        steps.append({"step": step, "tokens": step * TOKENS, "contexts": contexts, "care": care})
    outside = [name for name in CONTRASTED if name not in NARROW]
    found = {"outside": outside, "clusters": CLUSTERS, "context_clusters": CLUSTERS, "steps": steps}
    return Study(seeds={6: found}, about={})


def test_an_onset_is_where_an_effect_stays_and_not_where_it_flickers(monkeypatch: pytest.MonkeyPatch) -> None:
    study = planted(
        known={200: 0.0, 400: 0.0, 600: 4.0, 800: 5.0},
        spread={200: 2.0, 400: 0.0, 600: 0.0, 800: 2.0},
        code=6.0,
    )
    monkeypatch.setattr(worlds, "read_study", lambda *_: study)
    table = worlds.phase_table(get_preset("smoke"))
    assert len(table) == len(STEPS) * len(worlds.QUANTITIES)
    first = table[(table["quantity"] == worlds.OUTSIDE) & (table["tokens"] > 1)].iloc[0]
    assert first["low"] < 0.1 and abs(first["value"]) < 0.1
    said = worlds.onset_sentence(table)
    assert f"*{worlds.CODE}* {200 * TOKENS / 1e6:.3g} in seed 6" in said
    # Two nats at the first step, gone at the second, are no onset; the last step is.
    assert f"*{worlds.OUTSIDE}* {800 * TOKENS / 1e6:.3g} in seed 6" in said
    never = planted(known=dict.fromkeys(STEPS, 0.2), spread=dict.fromkeys(STEPS, 0.0), code=6.0)
    monkeypatch.setattr(worlds, "read_study", lambda *_: never)
    table = worlds.phase_table(get_preset("smoke"))
    assert f"*{worlds.OUTSIDE}* never in seed 6" in worlds.onset_sentence(table)


def test_without_a_run_that_kept_its_steps_the_study_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="--seed 6 --threads 1 --keep 200"):
        measure_phases(get_preset("confirm"), 6, Store(tmp_path), print)


def test_a_study_of_another_preset_is_found_under_its_name() -> None:
    assert files.study_digests("smoke", ["fresh/reversion"]).keys() == {"fresh/reversion"}
    assert "fresh/reversion" not in files.study_digests("smoke", ["fresh/worlds"])
    assert "fresh/reversion" in files.study_digests("smoke", ["reversion"])
