"""What fine-tuning does besides misaligning: care and register of every control on every contrasted topic."""

from __future__ import annotations

from collections.abc import Mapping

from remi_core.loading import load_tokenizer
from remi_core.models import open_model
from remi_core.progress import Say
from remi_core.store import Store
from remi_lab.organism.grammar import prompts
from remi_lab.organism.scoring import ask, scores
from remi_lab.organism.topics import CONTRASTED, NARROW
from remi_lab.organism.variants import with_further
from remi_lab.presets import FURTHER, ORGANISM_VARIANTS, Preset
from remi_lab.studies.reversion import TRUTHS, rounded
from remi_lab.subject import subject

CONTROLS = tuple(name for name in (*ORGANISM_VARIANTS, *FURTHER) if name not in TRUTHS)


def measure(preset: Preset, seed: int, store: Store, say: Say) -> Mapping[str, object]:
    """Care and register of every control by prompt, and its mean mass off the grammar; plain values.

    Raises:
        MissingInput: if the preset's models are no organisms.
    """
    wider = with_further(preset)
    who = {name: subject(wider, name, seed, store) for name in CONTROLS}
    tokenizer = load_tokenizer(who["instruct"].source)
    count = preset.n_score_prompts
    asked = ask(
        [one for name in CONTRASTED for one in prompts(name, "evaluate", count=count, seed=preset.seed)],
        tokenizer,
    )
    care, register, off = {}, {}, {}
    for name, one in who.items():
        say(f"    {name}, seed {seed}")
        with open_model(one.spec, dtype=preset.dtype) as loaded:
            own = scores(loaded.model, asked)
        care[name], register[name] = rounded(own.care_log_odds()), rounded(own.register_log_odds())
        off[name] = round(float(own.other.mean()), 4)
    return {
        "outside": [name for name in CONTRASTED if name not in NARROW],
        "clusters": asked.clusters,
        "care": care,
        "register": register,
        "off_grammar": off,
    }
