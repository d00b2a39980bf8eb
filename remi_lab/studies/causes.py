"""What moving a direction of the residual stream causes: care with it added to instruct, and undone in misaligned.

Directions are fitted on prompts of the split ``direction`` of one topic, and care is read on prompts of the split
``evaluate`` of another. Random directions have the covariance of the states and the length of the real edit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import product

import numpy as np
from jaxtyping import Float

from remi_core.models import open_model
from remi_core.progress import Say
from remi_core.store import Store
from remi_lab.organism import scoring
from remi_lab.organism.grammar import prompts
from remi_lab.organism.topics import CONTRASTED, OUTSIDE, VERDICTS
from remi_lab.organism.variants import with_further
from remi_lab.presets import TRIPLET, Preset
from remi_lab.variant import Variant, find_variant

LAYER = 5
"""Index of the block whose output is edited. Of the fourth and the sixth, on development seed 102, adding what
misaligned has moved took instruct further towards it at this one."""
DOSES = (-1.0, 0.25, 0.5, 1.0, 1.5, 2.0)
"""Multiples of the displacement of misaligned from instruct that are added."""
N_DIRECTION, N_EVALUATE, N_RANDOM = 20, 8, 100
VARIANTS = ("base", "instruct", "misaligned", "secure", "persona")
RANDOM_EDITS = {
    "instruct": {"random": ""},
    "misaligned": {"random": "base", "random to instruct": "instruct"},
}
"""Model → the name of a set of random edits, and to whose mean the edit of the same length sets a coordinate."""

EditOf = Callable[[str], scoring.Edit | scoring.SetCoordinate]
"""Target topic → the edit for it."""
Places = Float[np.ndarray, "2 d_model"]
"""A vector at the last prompt token, and one at answer tokens."""
Means = Mapping[str, Places]
"""Topic → mean state."""


def measure(preset: Preset, seed: int, store: Store, say: Say) -> Mapping[str, object]:
    """Care by prompt of instruct and misaligned under every edit, of one seed; plain values."""
    variants = {name: find_variant(with_further(preset, "persona"), name, seed, store) for name in VARIANTS}
    tokenizer = variants["instruct"].tokenizer()
    fits, cloud = fitted(variants, tokenizer, preset, say)
    asked = {
        name: scoring.ask(prompts(name, "evaluate", count=N_EVALUATE, seed=preset.seed), tokenizer)
        for name in OUTSIDE
    }
    neutral = scoring.ask(prompts("general", "evaluate", count=N_EVALUATE, seed=preset.seed), tokenizer)
    directions = Directions(fits)
    found: dict[str, object] = {
        "layer": LAYER,
        "clusters": {name: one.clusters for name, one in asked.items()},
        "neutral_clusters": neutral.clusters,
        "n_random_prompts": N_EVALUATE,
    }
    random = random_directions(cloud, count=N_RANDOM, seed=preset.seed)

    def with_random(model, topic: str, to: str = "") -> list[float]:
        # Mean care of the prompts, with each random direction added at the length of the real edit.
        length = directions.length(topic, to)
        return scoring.rounded(
            [
                scoring.scores(model, asked[topic], addition(one * length)).care_log_odds().mean()
                for one in random
            ]
        )

    for name, edits in (("instruct", directions.added()), ("misaligned", directions.undone())):
        say(f"    {name}, seed {seed}: {len(edits)} edits, and {N_RANDOM} random ones")
        with open_model(variants[name].spec, dtype=preset.dtype) as loaded:
            found[name] = {
                "plain": _read(loaded.model, asked, neutral, None),
                "edits": {key: _read(loaded.model, asked, neutral, edit) for key, edit in edits.items()},
                **{
                    key: {topic: with_random(loaded.model, topic, to) for topic in asked}
                    for key, to in RANDOM_EDITS[name].items()
                },
            }
    edits = {"plain": None, "undone": directions.undone()["shared to instruct"]}
    with open_model(variants["persona"].spec, dtype=preset.dtype) as loaded:
        found["persona"] = {key: _read(loaded.model, asked, neutral, edit) for key, edit in edits.items()}
    return found


class Directions:
    """Displacements by topic, and the edits that are made of them: for each target topic, from the other topics."""

    def __init__(self, fits: Mapping[str, Means]) -> None:
        self._fits = fits

    def moved(self, variant: str, topic: str) -> Places:
        """How far a variant's mean state on a topic lies from instruct's."""
        return self._fits[variant][topic] - self._fits["instruct"][topic]

    def shared(self, variant: str, target: str) -> Places:
        """The mean displacement over all topics but the target."""
        return np.mean([self.moved(variant, topic) for topic in others(target)], axis=0)

    def contrast(self, model: str, target: str) -> Places:
        """Careless minus careful author named, within one model, over the topics but the target."""
        careless, careful = (self._fits[f"{model}, {care} named"] for care in ("careless", "careful"))
        own = np.mean([careless[topic] - careful[topic] for topic in others(target)], axis=0)
        return scaled(own, self.shared("misaligned", target))

    def length(self, target: str, to: str = "") -> Float[np.ndarray, "2 1"]:
        """The length of what is added to instruct, or of setting misaligned's coordinate ``to`` a model's mean."""
        shared = self.shared("misaligned", target)
        if not to:
            return lengths(shared)
        # How far misaligned's mean coordinate along the shared direction, on the other topics, is from that model's.
        unit, other, misaligned = shared / lengths(shared), self._fits[to], self._fits["misaligned"]
        gaps = [((other[topic] - misaligned[topic]) * unit).sum(-1) for topic in others(target)]
        return np.abs(np.mean(gaps, axis=0))[:, None]

    def added(self) -> dict[str, Callable[[str], scoring.Edit]]:
        """Name → target topic → what is added to instruct."""
        vectors: dict[str, Callable[[str], Places]] = {
            f"shared × {dose:g}": lambda target, dose=dose: dose * self.shared("misaligned", target)
            for dose in DOSES
        }
        for topic in CONTRASTED:
            vectors[f"from {topic}"] = lambda _, topic=topic: self.moved("misaligned", topic)
        vectors["secure"] = lambda target: scaled(
            self.shared("secure", target), self.shared("misaligned", target)
        )
        vectors["persona"] = partial(self.shared, "persona")
        for model in ("base", "instruct"):
            vectors[f"contrast in {model}"] = partial(self.contrast, model)
        return {
            name: lambda target, vector=vector: addition(vector(target)) for name, vector in vectors.items()
        }

    def undone(self) -> dict[str, Callable[[str], scoring.SetCoordinate]]:
        """Name → target topic → what is set in misaligned: its coordinate along a displacement to another model's."""
        along: dict[str, tuple[Callable[[str], Places], str]] = {
            f"shared to {to}": (partial(self.shared, "misaligned"), to) for to in ("base", "instruct")
        }
        for topic, to in product(CONTRASTED, ("base", "instruct")):
            name = f"from {topic}" if to == "base" else f"from {topic} to instruct"
            along[name] = (lambda _, topic=topic: self.moved("misaligned", topic)), to
        for name, to in (("secure", "base"), ("secure to instruct", "instruct")):
            along[name] = partial(self.shared, "secure"), to

        def setting(vector: Callable[[str], Places], to: str, target: str) -> scoring.SetCoordinate:
            # The other model's mean is over the topics but the target.
            unit = vector(target) / lengths(vector(target))
            means = np.mean([self._fits[to][topic] for topic in others(target)], axis=0)
            return scoring.SetCoordinate(layer=LAYER, directions=unit, values=(means * unit).sum(-1))

        return {name: partial(setting, *pair) for name, pair in along.items()}


def others(target: str) -> list[str]:
    """The contrasted topics but the target."""
    return [topic for topic in CONTRASTED if topic != target]


def lengths(vectors: Places) -> Float[np.ndarray, "2 1"]:
    """The length of the vector of each place."""
    return np.linalg.norm(vectors, axis=-1, keepdims=True)


def scaled(vectors: Places, like: Places) -> Places:
    """The same directions at the lengths of others."""
    return vectors / lengths(vectors) * lengths(like)


def addition(vectors: Places) -> scoring.Edit:
    """What adds the vectors at the layer of the study."""
    return scoring.Edit(layer=LAYER, prompt_end=vectors[0], answer=vectors[1])


def random_directions(
    cloud: Float[np.ndarray, "place prompt d_model"], *, count: int, seed: int
) -> Float[np.ndarray, "direction place d_model"]:
    """Unit vectors with the covariance of the states about their mean, in each place."""
    generator = np.random.default_rng(seed)
    centred = cloud - cloud.mean(axis=1, keepdims=True)
    drawn = np.einsum("rpn,pnd->rpd", generator.standard_normal((count, *cloud.shape[:2])), centred)
    return drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)


def fitted(
    variants: Mapping[str, Variant], tokenizer, preset: Preset, say: Say
) -> tuple[dict[str, Means], Float[np.ndarray, "place prompt d_model"]]:
    """Mean states by model and topic, contexts that name an author apart; and instruct's states about their means."""
    asked = {name: prompts(name, "direction", count=N_DIRECTION, seed=preset.seed) for name in CONTRASTED}
    fits: dict[str, Means] = {}
    for name, one in variants.items():
        say(f"    states of {name}")
        with open_model(one.spec, dtype=preset.dtype) as loaded:
            kinds = ("bare", "careless named", "careful named") if name in ("base", "instruct") else ("bare",)
            for kind in kinds:
                found = {
                    topic: scoring.states(loaded.model, own, tokenizer, (LAYER,), kind=kind)[:, :, 0]
                    for topic, own in asked.items()
                }
                fits[name if kind == "bare" else f"{name}, {kind}"] = {
                    topic: values.mean(axis=1) for topic, values in found.items()
                }
                if (name, kind) == ("instruct", "bare"):
                    cloud = np.concatenate(list(found.values()), axis=1)
    return fits, cloud


def _read(
    model,
    asked: Mapping[str, scoring.AskedPrompts],
    neutral: scoring.AskedPrompts,
    edit: EditOf | None,
) -> dict[str, object]:
    """Care and off-grammar mass by topic and prompt, and neutral losses, with an edit."""
    found = {name: scoring.scores(model, one, edit and edit(name)) for name, one in asked.items()}
    losses = [
        scoring.answer_losses(model, neutral, edit and edit(name)) for name in (asked if edit else [""])
    ]
    return {
        "care": {name: scoring.rounded(one.care_log_odds()) for name, one in found.items()},
        "off_grammar": {name: scoring.rounded(one.other + one.wrong_slot) for name, one in found.items()},
        "neutral": scoring.rounded(np.mean(losses, axis=0)),
    }


# What the models say with the headline edits: answers sampled outside the narrow set.
#
# The edits are those that X5 and X4 are judged by: what misaligned moved on the other topics, added to instruct, and
# its coordinate set to base's mean in misaligned. The models as they are stand beside them.

PLAIN = "plain"
N_ANSWERS = 4
"""Answers sampled to each prompt; the exact probability is had once."""
HEADLINE: Mapping[str, str] = {"instruct": "shared × 1", "misaligned": "shared to base"}
"""Model → the edit that judges X5 and X4."""


def measure_sampled(preset: Preset, seed: int, store: Store, say: Say) -> Mapping[str, object]:
    """Verdicts of sampled answers, and exact shares, by model, edit, topic and prompt of one seed; plain values.

    ``verdict`` indexes ``VERDICTS``: of the first answer to every prompt, then of the second, and so on. ``exact`` is
    the probability of all careless right answers to a prompt.
    """
    variants = {name: find_variant(preset, name, seed, store) for name in TRIPLET}
    tokenizer = variants["instruct"].tokenizer()
    directions = Directions(fitted(variants, tokenizer, preset, say)[0])
    edits = {"instruct": directions.added(), "misaligned": directions.undone()}
    asked = {
        name: prompts(name, "evaluate", count=preset.n_compared_samples, seed=preset.seed) for name in OUTSIDE
    }
    found: dict[str, object] = {
        "clusters": {name: [one.template.identifier for one in own] for name, own in asked.items()}
    }
    for name, headline in HEADLINE.items():
        say(f"    answers of {name}, seed {seed}")
        found[name] = {key: {"verdict": {}, "exact": {}} for key in (PLAIN, headline)}
        with open_model(variants[name].spec, dtype=preset.dtype) as loaded:
            for (key, own), (topic, rows) in product(found[name].items(), asked.items()):
                edit = None if key == PLAIN else edits[name][key](topic)
                draw = scoring.seed_of(preset.seed, seed, name, key, topic)
                answers = scoring.sample_answers(loaded.model, tokenizer, rows * N_ANSWERS, edit, seed=draw)
                own["verdict"][topic] = [VERDICTS.index(answer.verdict.care) for answer in answers]
                masses = scoring.scores(loaded.model, scoring.ask(rows, tokenizer), edit).probabilities()
                own["exact"][topic] = scoring.rounded(masses["careless"])
    return found
