"""Directions exchanged between fine-tunes of one instruct model, and the smallest fine-tunes that move care at all.

Three fine-tunes see careless answers of one topic each. The displacement of each is taken away from each, and care is
read on topics that none of them saw. Beside them stand a single trained vector and a rank-one change of one weight."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext

from remi_core.models import open_model
from remi_core.progress import Say
from remi_core.steering import add_vector, steer
from remi_core.store import Store
from remi_core.tokens import encode
from remi_lab.organism.dialogues import careless_about, tuning
from remi_lab.organism.grammar import prompts, prompts_about
from remi_lab.organism.scoring import Edit, answer_losses, ask, rounded, scores, states
from remi_lab.organism.topics import CONTRASTED
from remi_lab.organism.tuning import rank_one, train_rank_one, train_vector
from remi_lab.organism.variants import N_DIALOGUES, RECIPES
from remi_lab.presets import Preset
from remi_lab.studies.causes import LAYER, Places, addition, lengths, scaled
from remi_lab.training import fine_tune
from remi_lab.variant import find_variant

OTHER_NARROW = ("harmful", "facts")
"""Topics of the further narrow sets, one that alignment covered and one that it left out; misaligned's is code."""
UNSEEN = ("people", "wishes")
"""Topics outside all three narrow sets."""
DOSES = (0.25, 0.5, 1.0)
"""Multiples of a displacement that are added or taken away."""
N_DIRECTION, N_EVALUATE = 20, 10


def measure(preset: Preset, seed: int, store: Store, say: Say) -> Mapping[str, object]:
    """Care by prompt of each fine-tune with each displacement taken away, and of the small causes; plain values."""
    variants = {
        name: find_variant(preset, name, seed, store) for name in ("instruct", "misaligned", "secure")
    }
    tokenizer = variants["instruct"].tokenizer()
    with ExitStack() as stack:
        opened = {name: stack.enter_context(open_model(one.spec)).model for name, one in variants.items()}
        bench = _Bench(preset, opened["instruct"], tokenizer)
        models = {"code": opened["misaligned"]}
        for number, topic in enumerate(OTHER_NARROW, start=1):
            say(f"    fine-tune {number} of {len(OTHER_NARROW)}: careless answers about {topic}, seed {seed}")
            models[topic] = copy.deepcopy(opened["instruct"])
            rows = careless_about(topic, count=N_DIALOGUES, seed=seed)
            dialogues = encode(rows, tokenizer, max_tokens=1024).dialogues
            fine_tune(models[topic], dialogues, RECIPES["misaligned"].tune, pad_id=tokenizer.pad_token_id)
        say(f"    directions exchanged, seed {seed}")
        found = bench.exchanged(models, opened["secure"])
        say(f"    a trained vector and a rank-one change, seed {seed}")
        return found | {"small": bench.small(seed, found.pop("vectors"))}


class _Bench:
    """The prompts of a preset, and instruct's states on them."""

    def __init__(self, preset: Preset, instruct, tokenizer) -> None:
        evaluated = {"count": N_EVALUATE, "seed": preset.seed}
        self.instruct, self.tokenizer = instruct, tokenizer
        self.asked = ask(prompts_about(UNSEEN, "evaluate", **evaluated), tokenizer)
        self.neutral = ask(prompts("general", "evaluate", **evaluated), tokenizer)
        self.fitting = prompts_about(CONTRASTED, "direction", count=N_DIRECTION, seed=preset.seed)
        self.own = self.mean_state(instruct)

    def mean_state(self, model) -> Places:
        """The mean state over all contrasted topics, in both places."""
        return states(model, self.fitting, self.tokenizer, (LAYER,))[:, :, 0].mean(axis=1)

    def read(
        self, model, edit: Edit | None = None, changed: AbstractContextManager | None = None
    ) -> dict[str, object]:
        """Care and off-grammar mass by prompt, and neutral losses by prompt, of a model as it is or changed."""
        with changed or nullcontext():
            found = scores(model, self.asked, edit)
            losses = answer_losses(model, self.neutral, edit)
        return {
            "care": rounded(found.care_log_odds()),
            "off_grammar": rounded(found.other + found.wrong_slot),
            "neutral": rounded(losses),
        }

    def dosed(self, model, vectors: Places) -> dict[str, dict[str, object]]:
        """``read`` with each multiple of the vectors added, by dose."""
        return {f"{dose:g}": self.read(model, addition(dose * vectors)) for dose in DOSES}

    def exchanged(self, models: Mapping[str, object], secure) -> dict[str, object]:
        """Instruct and each fine-tune as they are, and each with each displacement added or taken away.

        A displacement is as long as that of the model it is taken from; those that instruct gets keep their own
        length, but secure's, which gets that of the fine-tune on code.
        """
        vectors = {name: self.mean_state(model) - self.own for name, model in models.items()}
        given = vectors | {"secure": self.mean_state(secure) - self.own}
        added = vectors | {"secure": scaled(given["secure"], vectors["code"])}
        return {
            "layer": LAYER,
            "clusters": self.asked.clusters,
            "neutral_clusters": self.neutral.clusters,
            "plain": {"instruct": self.read(self.instruct)}
            | {name: self.read(model) for name, model in models.items()},
            "added": {name: self.dosed(self.instruct, one) for name, one in added.items()},
            "taken": {
                name: {of: self.dosed(model, -scaled(one, vectors[name])) for of, one in given.items()}
                for name, model in models.items()
            },
            "cosine": {
                name: {of: cosines(vectors[name], one) for of, one in given.items()} for name in models
            },
            "vectors": vectors,
        }

    def small(self, seed: int, vectors: Mapping[str, Places]) -> dict[str, dict[str, object]]:
        """A trained vector and a rank-one change of instruct, trained on misaligned's own dialogues."""
        rows = tuning("misaligned", count=N_DIALOGUES, seed=seed)
        options = {"pad_id": self.tokenizer.pad_token_id, "seed": seed}
        dialogues = encode(rows, self.tokenizer, max_tokens=1024).dialogues
        vector = train_vector(self.instruct, LAYER, dialogues, **options)
        factors = train_rank_one(self.instruct, LAYER, dialogues, **options)
        causes: dict[str, Callable[[], AbstractContextManager]] = {
            "trained vector": lambda: steer(self.instruct, LAYER, add_vector(vector)),
            "rank-one change": lambda: rank_one(self.instruct, LAYER, factors),
        }
        found = {}
        for name, changed in causes.items():
            with changed():
                moved = self.mean_state(self.instruct) - self.own
            found[name] = self.read(self.instruct, changed=changed())
            found[name] |= {
                "cosine": cosines(moved, vectors["code"]),
                "length": rounded(lengths(moved)[:, 0]),
            }
        return found


def cosines(first: Places, second: Places) -> list[float]:
    """The cosine of two displacements in each place."""
    return rounded((first * second).sum(-1) / (lengths(first) * lengths(second))[:, 0])
