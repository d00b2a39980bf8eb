"""What models say with the headline edits of the study of causes: answers sampled outside the narrow set.

The edits are those that X5 and X4 are judged by: what misaligned moved on the other topics, added to instruct, and its
coordinate set to base's mean in misaligned. The models as they are stand beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from remi_core.loading import load_tokenizer
from remi_core.models import open_model
from remi_core.progress import Say
from remi_core.store import Store
from remi_lab.organism.grammar import Prompt, prompts
from remi_lab.organism.scoring import Edit, SetCoordinate, ask, sample_edited, scores, seed_of
from remi_lab.organism.topics import VERDICTS
from remi_lab.presets import TRIPLET, Preset
from remi_lab.studies.causes import OUTSIDE, Directions, fitted
from remi_lab.studies.reversion import rounded
from remi_lab.subject import subject

PLAIN = "plain"
N_ANSWERS = 4
"""Answers sampled to each prompt; the exact probability is had once."""
HEADLINE: Mapping[str, str] = {"instruct": "shared × 1", "misaligned": "shared to base"}
"""Model → the edit of the study of causes that judges X5 and X4."""
EditOf = Callable[[str], Edit | SetCoordinate]


def measure(preset: Preset, seed: int, store: Store, say: Say) -> Mapping[str, object]:
    """Verdicts of sampled answers, and exact shares, by model, edit, topic and prompt of one seed; plain values.

    ``verdict`` indexes ``VERDICTS``: of the first answer to every prompt, then of the second, and so on. ``exact`` is
    the probability of all careless right answers to a prompt.

    Raises:
        MissingInput: if the preset's models are no organisms.
    """
    preset.require("organism")
    who = {name: subject(preset, name, seed, store) for name in TRIPLET}
    tokenizer = load_tokenizer(who["instruct"].source)
    directions = Directions(fitted(who, tokenizer, preset, say)[0])
    edits = {"instruct": directions.added(), "misaligned": directions.undone()}
    asked = {
        name: prompts(name, "evaluate", count=preset.n_compared_samples, seed=preset.seed) for name in OUTSIDE
    }
    found: dict[str, object] = {
        "clusters": {name: [one.template.identifier for one in own] for name, own in asked.items()}
    }
    for name, edit in HEADLINE.items():
        say(f"    answers of {name}, seed {seed}")
        with open_model(who[name].spec, dtype=preset.dtype) as loaded:
            found[name] = {
                key: _answered(loaded.model, tokenizer, asked, own, draw=f"{preset.seed}/{seed}/{name}/{key}")
                for key, own in ((PLAIN, None), (edit, edits[name][edit]))
            }
    return found


def _answered(
    model, tokenizer, asked: Mapping[str, Sequence[Prompt]], edit: EditOf | None, *, draw: str
) -> dict[str, object]:
    """Verdicts and exact shares of careless answers, topic by topic, with the edit made for each topic."""
    verdicts, exact = {}, {}
    for name, own in asked.items():
        made = edit and edit(name)
        answers = sample_edited(model, tokenizer, list(own) * N_ANSWERS, made, seed=seed_of(draw, name))
        verdicts[name] = [VERDICTS.index(one.verdict.care) for one in answers]
        masses = scores(model, ask(own, tokenizer), made).probabilities()
        exact[name] = rounded(np.asarray(masses["careless"]))
    return {"verdict": verdicts, "exact": exact}
