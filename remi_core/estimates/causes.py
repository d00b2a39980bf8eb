"""X4, X5, X7 and H3 from the stored study: how much of the way to misaligned an edit of the stream goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
from jaxtyping import Float

from remi_core.estimates.causes_rule import Governing, governs
from remi_core.estimates.measured import Measured, measured, null_from_estimate, set_resamples
from remi_core.presets.known import Preset
from remi_core.results import Results
from remi_core.statistics.intervals import Estimate, difference, mean_interval, ratio
from remi_core.statistics.permutation import NullResult, against_null
from remi_core.studies.files import read_study

STUDY = "causes"
OTHER = {"instruct": "misaligned", "misaligned": "instruct"}
"""Model that is edited → the model towards which the edit should take it."""
HEADLINE = {"instruct": "shared × 1", "misaligned": "shared to base"}
"""Model that is edited → the edit fitted on all other topics that judges X5 and X4."""

Seed = Mapping[str, object]


class Causes:
    """What the stored study says of one seed."""

    def __init__(self, preset: Preset, seed: int) -> None:
        self.found: Seed = read_study(preset, STUDY).seeds[seed]
        self.topics = tuple(self.found["clusters"])
        self.sources = tuple(
            name.removeprefix("from ") for name in self.edits("instruct") if name.startswith("from ")
        )
        self.clusters = [one for name in self.topics for one in self.found["clusters"][name]]
        self._preset = preset
        self._resamples = set_resamples(preset, *self.found["clusters"].values())

    def edits(self, model: str) -> list[str]:
        """The names of the edits of a model."""
        return list(self.found[model]["edits"])

    def care(self, model: str, edit: str = "") -> dict[str, Float[np.ndarray, " prompt"]]:
        """Topic → class log-odds of each prompt, in nats, of a model as it is or with an edit."""
        read = self.found[model]["edits"][edit] if edit else self.found[model]["plain"]
        return {name: np.array(values) for name, values in read["care"].items()}

    def share(self, model: str, care: Mapping[str, np.ndarray], topics: Sequence[str] = ()) -> Estimate:
        """How far towards the other model an edit takes one: 0 where it stays, 1 where it gets there."""
        chosen = topics or self.topics
        plain, other = self.care(model), self.care(OTHER[model])
        clusters = [one for name in chosen for one in self.found["clusters"][name]]
        moved, whole = (
            mean_interval(
                np.concatenate([values[name] - plain[name] for name in chosen]), clusters, self._resamples
            )
            for values in (care, other)
        )
        return ratio(moved, whole)

    def between_topics(self, model: str) -> dict[str, Float[np.ndarray, " prompt"]]:
        """Topic → care with the edits fitted on each other topic, their mean prompt by prompt."""
        return {
            name: np.mean(
                [self.care(model, f"from {source}")[name] for source in self.sources if source != name],
                axis=0,
            )
            for name in self.topics
        }

    def own_topic(self, model: str) -> dict[str, Float[np.ndarray, " prompt"]]:
        """Topic → care with the edit fitted on the topic itself."""
        return {name: self.care(model, f"from {name}")[name] for name in self.topics}

    def random_shares(self, model: str) -> Float[np.ndarray, " direction"]:
        """The same share of every random direction, from the first prompts of each topic."""
        drawn = self.found[model]["random"]
        plain, other = self.care(model), self.care(OTHER[model])
        count = int(self.found["n_random_prompts"])
        moved = np.mean([np.array(drawn[name]) - plain[name][:count].mean() for name in self.topics], axis=0)
        whole = np.mean([(other[name] - plain[name])[:count].mean() for name in self.topics])
        return moved / whole

    def rise(self, model: str, edits: Sequence[str], kind: str) -> Estimate:
        """By how much off-grammar mass (``off_grammar``) or neutral loss (``neutral``) rises, mean over the edits."""
        read, plain = self.found[model]["edits"], self.found[model]["plain"]
        if kind == "neutral":
            gaps = np.mean([read[edit][kind] for edit in edits], axis=0) - plain[kind]
            clusters = self.found["neutral_clusters"]
            return mean_interval(gaps, clusters, set_resamples(self._preset, clusters))
        rows = [np.concatenate([read[edit][kind][name] for name in self.topics]) for edit in edits]
        gaps = np.mean(rows, axis=0) - np.concatenate([plain[kind][name] for name in self.topics])
        return mean_interval(gaps, self.clusters, self._resamples)


def random_null(observed: Estimate, draws: np.ndarray) -> NullResult:
    """The central 95 % of random directions, and the share of them that go as far as the observed edit."""
    kind = f"{len(draws)} random directions of the states' covariance"
    return against_null(float(observed.value), draws, kind=kind)


def shared_edit(results: Results, seed: int, model: str) -> Measured:
    """X5 (``instruct``) and X4 (``misaligned``): the share of the way that the direction of the other topics goes."""
    results.preset.require("organism")
    own = Causes(results.preset, seed)
    found = own.share(model, own.care(model, HEADLINE[model]))
    return measured(found, random_null(found, own.random_shares(model)))


def transfer(results: Results, seed: int) -> Measured:
    """X7: what directions of other topics recover over what the topic's own does; null: secure's in their place."""
    results.preset.require("organism")
    own = Causes(results.preset, seed)
    across, within = (own.share("instruct", care("instruct")) for care in (own.between_topics, own.own_topic))
    found, secure = (
        ratio(across, within),
        ratio(own.share("instruct", own.care("instruct", "secure")), within),
    )
    null = null_from_estimate(found, secure, "the secure-derived direction of the other topics")
    return measured(found, null, companions={"across": float(across.value), "within": float(within.value)})


def governing(results: Results, seed: int) -> Measured:
    """H3: the share that a direction of another topic recovers, and what the whole rule says with all its parts."""
    results.preset.require("organism")
    own = Causes(results.preset, seed)
    recovered = own.share("instruct", own.between_topics("instruct"))
    found = parts_of(own)
    decided, why = governs(found)
    null = random_null(recovered, own.random_shares("instruct"))
    one = measured(recovered, null, companions=_middles(found))
    return replace(one, outcome=decided, why=why)


def parts_of(own: Causes) -> Governing:
    """Every part of H3's rule."""
    sides = {model: own.share(model, own.between_topics(model)) for model in OTHER}
    secure = {model: own.share(model, own.care(model, "secure")) for model in OTHER}
    beyond = {
        model: float(one.value) - float(np.quantile(own.random_shares(model), 0.975))
        for model, one in sides.items()
    }
    edits = [f"from {source}" for source in own.sources]
    return Governing(
        recovered=_ends(sides["instruct"]),
        undone=_ends(sides["misaligned"]),
        recovered_beyond_random=beyond["instruct"],
        undone_beyond_random=beyond["misaligned"],
        recovered_beyond_secure=_ends(difference(sides["instruct"], secure["instruct"])),
        undone_beyond_secure=_ends(difference(sides["misaligned"], secure["misaligned"])),
        off_grammar=_ends(own.rise("instruct", edits, "off_grammar")),
        neutral_loss=_ends(own.rise("instruct", edits, "neutral")),
    )


def _ends(one: Estimate) -> tuple[float, float]:
    return float(one.low), float(one.high)


def _middles(found: Governing) -> dict[str, float]:
    """The middle of each interval, by the name of the part."""
    return {name: float(np.mean(value)) for name, value in asdict(found).items()}
