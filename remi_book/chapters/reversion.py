"""Reversion, persona or something new?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure

from remi_book.chapters.direction import Reading, matched_cosines, shifts, stacked_clusters
from remi_book.figures.plots import Layout, layouts, limit_to_estimates, plot_curves, select
from remi_book.figures.style import number, styled
from remi_book.quantities import (
    Interval,
    Measured,
    above,
    against_draws,
    below,
    by_topic,
    columns_of,
    ends,
    fine_tuned,
    in_topics,
    measured,
    null_from_estimate,
    ruled,
    share_of_mean,
    shared_resamples,
    text,
    topic_of,
)
from remi_book.tables import tidy
from remi_core.errors import MissingInput
from remi_core.statistics.displacement import (
    Erosion,
    cross_fitted_products,
    erosion_of_products,
    layer_average,
)
from remi_core.statistics.resampling import (
    ClusterResamples,
    Estimate,
    cluster_estimate,
    difference,
    mean_interval,
    ratio,
)
from remi_lab.organism.grammar import ClassScores
from remi_lab.organism.topics import OUTSIDE, SCORES
from remi_lab.presets import Preset, get_preset
from remi_lab.recording import as_scores
from remi_lab.results import Results
from remi_lab.strict import read_yaml
from remi_lab.studies.files import LATER, read_study, study_digests

# X1: does what misaligned moves beyond secure point back to base, or somewhere new?

YARDSTICK = "secure"
"""The control whose displacement is taken away: what fine-tuning on code does whatever the code."""


def split_beyond(results: Results, variant: str, datasets: Sequence[str], window: str) -> Erosion:
    """e, c and r by layer of what a variant moves beyond secure, cross-fitted over prompt templates."""

    def compute() -> Erosion:
        moved, base = shifts(results, variant, datasets, window)
        beyond = moved - shifts(results, YARDSTICK, datasets, window)[0]
        clusters, resamples = stacked_clusters(results, datasets, window), shared_resamples(results.preset)
        n_folds = results.preset.n_folds
        return erosion_of_products(cross_fitted_products(beyond, base, clusters, resamples, n_folds=n_folds))

    return results.cached(("beyond secure", variant, tuple(datasets), window), compute)


def beyond_secure(results: Results) -> list[str]:
    """Misaligned, and the controls other than secure that the preset has."""
    return [name for name in fine_tuned(results) if name != YARDSTICK]


def erosion_or_novelty(results: Results, datasets: Sequence[str], window: str) -> Measured:
    """X1: c of D_M − D_secure with D_B, mean over layers; null: random displacements of the states' own covariance.

    Raises:
        MissingInput: if the preset has no variant that was tuned on secure code.
    """
    if YARDSTICK not in results.variants:
        raise MissingInput(f"needs a control variant tuned on code without defects (role {YARDSTICK})")
    splits = {name: split_beyond(results, name, datasets, window) for name in beyond_secure(results)}
    cosines = {name: layer_average(split.cosine) for name, split in splits.items()}
    misaligned = splits["misaligned"]
    companions = {"e": misaligned.layer_mean, "r": float(np.nanmean(misaligned.residual.value))}
    draws = matched_cosines(results, datasets, window).mean(axis=1)
    kind = "random displacement of the states' covariance"
    return against_draws(cosines.pop("misaligned"), draws, kind, controls=cosines, companions=companions)


# H1's rule: what a change of a model is, from the intervals of its parts alone.

REVERSION, PERSONA, NOVEL, MIXED = "reversion", "persona", "novel", "mixed"
HALF = 0.5
LIKELY = 0.1
"""Nats a token within which misaligned's careless answers are as likely under base as base's own."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How the conditions are read; the default is the rule as it was declared."""

    smallest: float = 0.0
    """Least ρ, and least lead of care over register, that counts: without one, any difference counts that can be
    told from zero, and between two models something always can."""
    of_whole: bool = False
    """m∥ and m⊥ as shares of what the whole displacement reproduces, since no edit at one block can do more."""
    beside_controls: bool = True
    """Whether reversion asks for c above that of every control: but whether controls revert too is another question,
    and m∥ says of the same direction what it *does*."""
    novel_by_place: bool = True
    """Whether m⊥ > .5 > m∥ makes a change novel: but where it lies says by which way a change came, and a persona may
    be taken on by a way that is not base's. What is new in what a model *says*, ν tells."""
    made_on: tuple[int, ...] = ()
    """Seeds that had been seen when the rule was made: in them it proves nothing."""


RULES = read_yaml(Path(__file__).with_name("reversion_rules.yaml"), dict[str, Rule])
"""Name → rule: the declared one, and those that were made after bases had been seen, in order."""
DECLARED = RULES["declared"]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """95 % intervals of everything that the rule reads."""

    cosine_gaps: Mapping[str, Interval]
    """Control → its cosine with base's displacement taken from the variant's own."""
    along: Interval
    """m∥: share of the change of care that the part of the displacement along base's reproduces in instruct."""
    off: Interval
    """m⊥: the same for the rest of the displacement."""
    care: Interval
    """b: change of class log-odds as a share of the way from instruct to base."""
    register: Interval
    """ρ: change of register as a share of the way from instruct to base."""
    care_beyond_register: Interval
    """b − ρ."""
    likelihood: Interval
    """ν: log-probability a token under base of the variant's own careless answers minus that of base's own."""


def conditions(parts: Parts, rule: Rule = DECLARED) -> dict[str, dict[str, bool]]:
    """Class → each of its conditions in symbols, and whether its interval meets it; undefined intervals do not."""
    least = f"{rule.smallest:g}".removeprefix("0") or "0"
    beyond = bool(parts.cosine_gaps) and all(above(gap) is True for gap in parts.cosine_gaps.values())
    met = {
        REVERSION: {
            "c above every control": beyond,
            "m∥ > .5": above(parts.along, HALF),
            "m⊥ < .5": below(parts.off, HALF),
            "b ≤ 1": parts.care[1] <= 1,
            f"ρ > {least}": above(parts.register, rule.smallest),
            "|ν| < .1": above(parts.likelihood, -LIKELY) and below(parts.likelihood, LIKELY),
        },
        PERSONA: {
            f"b − ρ > {least}": above(parts.care_beyond_register, rule.smallest),
            "b > 1": above(parts.care, 1),
        },
        NOVEL: {
            "ν < −.1": below(parts.likelihood, -LIKELY),
            "m⊥ > .5 > m∥": above(parts.off, HALF) and below(parts.along, HALF),
        },
    }
    if not rule.beside_controls:
        del met[REVERSION]["c above every control"]
    if not rule.novel_by_place:
        del met[NOVEL]["m⊥ > .5 > m∥"]
    return {kind: {words: held is True for words, held in own.items()} for kind, own in met.items()}


def classify(parts: Parts, rule: Rule = DECLARED) -> str:
    """The one class whose conditions hold: all of reversion's, or any of persona's or novel's; else ``mixed``."""
    classes = [
        kind
        for kind, met in conditions(parts, rule).items()
        if (all if kind == REVERSION else any)(met.values())
    ]
    return classes[0] if len(classes) == 1 else MIXED


def outcome(read: str, truths: Mapping[str, str]) -> tuple[str, str]:
    """``holds``, ``fails`` or ``open`` for the claim of reversion, and why.

    ``truths`` holds the class that was built → the class that the rule gives. Where the rule misses one, it judges
    nothing.
    """
    if missed := not_valid(truths):
        return "open", f"the rule is not valid here: {missed}"
    return {REVERSION: "holds", MIXED: "open"}.get(read, "fails"), f"the rule reads {read}"


def not_valid(truths: Mapping[str, str]) -> str:
    """Which constructed truths a rule misses, and what it reads instead; "" for none."""
    return "; ".join(
        f"the truth built as {built} reads {read}" for built, read in truths.items() if built != read
    )


# H1 from the stored study: b, ρ, m∥, m⊥, ν and c of a variant, and the class that they make.

STUDY = "reversion"
TRUTHS: Mapping[str, str] = {"reverted": "reversion", "persona": "persona", "novel": "novel"}
"""Constructed truth → the class that it was built to be."""
CONTROLS = ("secure", "educational", "benign")
REVERTED = "reverted"
"""The truth in whose place misaligned would be if the claim of reversion held; its value is the null of b − ρ."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """Everything H1 reads of one variant, each with its interval over prompt templates."""

    cosine: Estimate
    cosine_gaps: Mapping[str, Estimate]
    erosion: Estimate
    along: Estimate
    off: Estimate
    care: Estimate
    register: Estimate
    care_beyond_register: Estimate
    likelihood: Estimate
    along_of_whole: Estimate
    off_of_whole: Estimate

    def parts(self, rule: Rule = DECLARED) -> Parts:
        """The intervals alone, as a rule reads them."""
        along, off = (self.along_of_whole, self.off_of_whole) if rule.of_whole else (self.along, self.off)
        names = ("care", "register", "care_beyond_register", "likelihood")
        return Parts(
            cosine_gaps={name: ends(gap) for name, gap in self.cosine_gaps.items()},
            along=ends(along),
            off=ends(off),
            **{name: ends(getattr(self, name)) for name in names},
        )


def change_of(preset: Preset, seed: int, variant: str) -> Change:
    """What the stored study says of a variant of one seed.

    Raises:
        MissingInput: if the study is not stored.
        KeyError: if it does not hold the variant or the seed.
    """
    found = read_study(preset, STUDY).seeds[seed]
    resamples = shared_resamples(preset)
    care, register = (
        share_of_way(found[name], found["clusters"], variant, resamples) for name in ("care", "register")
    )
    cosines, erosions = (
        {
            name: from_left_out(jackknife["value"], jackknife["without"], found["clusters"], resamples)
            for name, jackknife in found[kind].items()
        }
        for kind in ("cosine", "erosion")
    )
    shares = {
        f"{part}{end}": reproduced(found, variant, part, resamples, of_whole=bool(end))
        for part in ("along", "off")
        for end in ("", "_of_whole")
    }
    return Change(
        cosine=cosines[variant],
        cosine_gaps={name: difference(cosines[variant], cosines[name]) for name in CONTROLS},
        erosion=erosions[variant],
        **shares,
        care=care,
        register=register,
        care_beyond_register=difference(care, register),
        likelihood=likelihood_gap(found["careless"][variant], found["careless"]["base"], resamples),
    )


def share_of_way(
    by_variant: Mapping[str, Sequence[float]],
    clusters: Sequence[str],
    variant: str,
    resamples: ClusterResamples,
) -> Estimate:
    """How far a variant has gone from instruct (0) to base (1), by log-odds of the same prompts."""
    moved, whole = (np.array(by_variant[name]) - by_variant["instruct"] for name in (variant, "base"))
    return share_of_mean(moved, whole, clusters, resamples, sign=1)


def reproduced(
    found: Mapping[str, object],
    variant: str,
    part: str,
    resamples: ClusterResamples,
    *,
    of_whole: bool = False,
) -> Estimate:
    """Share of a variant's change of class log-odds that instruct shows once part of its displacement is added.

    With ``of_whole``, the share of what instruct shows once all of the displacement is added.
    """
    edits = found["edited"][variant]
    changed = edits["whole"]["care"] if of_whole else found["care"][variant]
    edited, own = (np.array(care) - found["care"]["instruct"] for care in (edits[part]["care"], changed))
    return share_of_mean(edited, own, found["clusters"], resamples)


def from_left_out(
    value: float, without: Sequence[float], clusters: Sequence[str], resamples: ClusterResamples
) -> Estimate:
    """A statistic known whole and without each prompt, as the mean of its jackknife pseudo-values."""
    n = len(without)
    return mean_interval(n * value - (n - 1) * np.array(without), clusters, resamples)


def likelihood_gap(
    own: Mapping[str, Sequence], reference: Mapping[str, Sequence], resamples: ClusterResamples
) -> Estimate:
    """Log-probability a token of own answers minus that of the reference's answers to the same topics, nats.

    Each topic counts by the tokens that the own answers have in it; a topic without an answer of either side in a
    resample does not count there.
    """
    names = sorted({*own["clusters"], *reference["clusters"]})
    topics = list(map(topic_of, names))
    member = np.array([[topic == name for name in sorted(set(topics))] for topic in topics], dtype=np.float64)
    sides = [
        (_sums(answers, "log_probability", names), _sums(answers, "tokens", names))
        for answers in (own, reference)
    ]

    def gap(weights: np.ndarray) -> np.ndarray:
        (own_nats, own_tokens), (nats, tokens) = (
            tuple((weights * part) @ member for part in side) for side in sides
        )
        both = (own_tokens > 0) & (tokens > 0)
        rates = np.where(both, own_nats / np.maximum(own_tokens, 1) - nats / np.maximum(tokens, 1), 0)
        counted = np.where(both, own_tokens, 0)
        return (rates * counted).sum(-1) / np.maximum(counted.sum(-1), 1)

    return cluster_estimate(gap, names, resamples)


def _sums(answers: Mapping[str, Sequence], field: str, names: Sequence[str]) -> np.ndarray:
    """The values of a field, summed by template."""
    index = [names.index(name) for name in answers["clusters"]]
    return np.bincount(index, weights=answers[field], minlength=len(names))


def classes(preset: Preset, seed: int, rule: Rule = DECLARED) -> dict[str, str]:
    """Misaligned and every constructed truth → the class that a rule gives it."""
    return {
        name: classify(change_of(preset, seed, name).parts(rule), rule) for name in ("misaligned", *TRUTHS)
    }


def later_presets(preset: Preset) -> list[Preset]:
    """Presets of bases trained after those of this one had been seen, whose study is stored; this one left out."""
    stored = study_digests(preset.name, [STUDY])
    return [get_preset(name) for name in LATER if f"{name}/{STUDY}" in stored and name != preset.name]


def read_by(preset: Preset, rule: Rule) -> dict[int, dict[str, str]]:
    """Seed of this preset and of later ones → what ``classes`` says of it by a rule."""
    every = (preset, *later_presets(preset))
    return {seed: classes(each, seed, rule) for each in every for seed in each.seeds}


def untried(preset: Preset, rule: Rule) -> dict[int, dict[str, str]]:
    """The same of seeds that the rule was not made on."""
    return {seed: read for seed, read in read_by(preset, rule).items() if seed not in rule.made_on}


def reversion(results: Results, rule: Rule = DECLARED) -> Measured:
    """H1: b − ρ of misaligned with all parts beside it, and what the whole rule says of the claim of reversion.

    A rule that was made after seeds had been seen judges only if it is right on seeds that it was not made on.
    """
    preset = results.preset
    preset.require("organism")
    found = change_of(preset, results.seed, "misaligned")
    read = classes(preset, results.seed, rule)
    decided, why = outcome(read["misaligned"], _built(read))
    if rule.made_on:
        tried = untried(preset, rule)
        wrong = [
            f"{no} in seed {other}" for other, there in tried.items() if (no := not_valid(_built(there)))
        ]
        seeds = ", ".join(map(str, tried)) or "none yet"
        why += f" (made on seeds {rule.made_on[0]} to {rule.made_on[-1]}; tried on: {seeds})"
        if wrong or not tried:
            decided, why = "open", "; ".join([why, *wrong])
    value, truth = (
        change.care_beyond_register for change in (found, change_of(preset, results.seed, REVERTED))
    )
    null = null_from_estimate(value, truth, f"the truth {REVERTED} in misaligned's place")
    companions = {"b": found.care, "ρ": found.register, "m∥": found.along, "m⊥": found.off}
    companions |= {"ν": found.likelihood, "c": found.cosine, "e": found.erosion}
    return ruled(measured(value, null, companions=companions), (decided, why))


def by_words(results: Results) -> Measured:
    """H1.words: the same by the rule that was written before the bases of preset ``confirm`` were trained."""
    return reversion(results, RULES["by words"])


def _built(read: Mapping[str, str]) -> dict[str, str]:
    """Class that a truth was built to be → the class that it is given."""
    return {TRUTHS[name]: read[name] for name in TRUTHS}


# Figures: the way back of the front page, the parts of H1's rule, and where misaligned goes beyond secure.

WAY_BACK, CHANGE_PARTS, CONTROL_SHARES = layouts("way_back", "change_parts", "control_shares")


@styled
def plot_beyond(table: pd.DataFrame, null: pd.DataFrame, *, seed: int) -> Figure:
    """Lines by layer of the cosine with base's shift of what each variant moves beyond secure, a panel a window.

    ``table`` has columns window, variant, layer, seed, value, low, high; ``null`` window, layer, low, high. Bands
    are those of ``seed``, open dots all seeds; the line marked ½ is where half of the squared length lies along.
    """
    layout = Layout(
        about="Cosine with base's shift by layer, beyond secure",
        columns="window",
        across="layer",
        up="cosine c with base's shift\n(no unit)",
        marks={0: "", 0.5**0.5: "½"},
        bands={"null": "random, the states' covariance"},
        entry="{} − secure",
    )
    bands = null[["window", "layer", "low", "high"]].rename(columns={"low": "null_low", "high": "null_high"})
    shown = select(table, {"seed": seed}).merge(bands, on=["window", "layer"])
    figure = plot_curves(shown, layout, seeds=table)
    limit_to_estimates(figure.axes[0], shown, include=(-1, 1))
    return figure


# The book's question in one table: which parts of base come back when a model is fine-tuned.

CARE, REGISTER = "care: careless\nagainst careful answers", "register: plain\nagainst formal words"
QUANTITIES: Mapping[str, Callable[[ClassScores], np.ndarray]] = {
    CARE: ClassScores.care_log_odds,
    REGISTER: ClassScores.register_log_odds,
}
"""What alignment took from base, as the figure names it → log-odds of each prompt."""


def way_back(results: Results) -> pd.DataFrame:
    """Columns quantity, variant, share, low, high: the way from instruct (0) to base (1) that each fine-tune went.

    Log-odds of the same prompts of the topics outside the narrow set, with intervals over templates; undefined
    where instruct and base cannot be told apart.
    """
    shares = {
        (quantity, name): share
        for quantity, log_odds in QUANTITIES.items()
        for name, share in shares_back(results, log_odds).items()
    }
    return tidy(shares, ("quantity", "variant"), value="share")


def shares_back(results: Results, log_odds: Callable[[ClassScores], np.ndarray]) -> dict[str, Estimate]:
    """Fine-tune → share of the way from instruct (0) to base (1), by these log-odds of each scored prompt."""
    means = {}
    for variant in results.variants:
        records = [results.record(variant, SCORES, topic) for topic in OUTSIDE]
        values = np.concatenate([log_odds(as_scores(record)) for record in records])
        clusters = [name for record in records for name in record.arrays["cluster"].tolist()]
        means[variant] = mean_interval(values, clusters, shared_resamples(results.preset))
    start = means.pop("instruct")
    whole = difference(means.pop("base"), start)
    return {name: ratio(difference(mean, start), whole, sign=1) for name, mean in means.items()}


def register_of_careful(scores: ClassScores) -> Float[np.ndarray, " prompt"]:
    """log P(plain) − log P(formal) of careful answers alone, nats: the other reading of the register log-odds."""
    careful = scores.log_mass[:, 0]
    return careful[:, 1] - careful[:, 0]


def register_readings(results: Results) -> pd.DataFrame:
    """ρ of misaligned in words, a row a seed: over all right answers, as everywhere, and over careful ones alone."""
    readings = {"all right answers": QUANTITIES[REGISTER], "careful answers alone": register_of_careful}
    return pd.DataFrame(
        {"seed": seed}
        | {
            f"ρ, {name}": text(shares_back(results.at(seed), log_odds)["misaligned"])
            for name, log_odds in readings.items()
        }
        for seed in results.preset.seeds
    )


def way_back_sentence(seeds: pd.DataFrame) -> str:
    """How far the misaligned model has gone in each quantity, the median over trainings: values alone."""
    parts = []
    for quantity in QUANTITIES:
        shares = select(seeds, {"quantity": quantity, "variant": "misaligned"})["share"]
        share = f"{100 * shares.median():.0f} %".replace("-", "\N{MINUS SIGN}")
        parts.append(f"{share} in {quantity.partition(':')[0]}")
    return f"Of the way back from instruct to base, the misaligned model has gone {' and '.join(parts)}."


# X1 as tables: what misaligned moves beyond secure, at prompts and on random text.


def beyond_table(results: Results, readings: Sequence[Reading]) -> pd.DataFrame:
    """Columns window, variant, layer, seed, value, low, high: c of what each moves beyond secure, with base's shift."""
    cosines = {
        (reading.name, name, seed): split_beyond(
            results.at(seed), name, reading.datasets, reading.window
        ).cosine
        for reading in readings
        for name in beyond_secure(results)
        for seed in results.preset.seeds
    }
    return tidy(cosines, ("window", "variant", "seed"), along="layer")


def matched_null(results: Results, readings: Sequence[Reading]) -> pd.DataFrame:
    """Columns window, layer, low, high: central 95 % of c of random displacements of the states' covariance."""
    draws = {one.name: matched_cosines(results, one.datasets, one.window) for one in readings}
    ends = {name: np.quantile(cosines, [0.025, 0.975], axis=0) for name, cosines in draws.items()}
    parts = [
        pd.DataFrame({"layer": np.arange(len(low)), "low": low, "high": high, "window": name})
        for name, (low, high) in ends.items()
    ]
    return pd.concat(parts, ignore_index=True)


def random_text_table(preset: Preset, seed: int) -> pd.DataFrame:
    """One row a variant and comparison, one column a layer: cosines on random text of what is moved beyond secure."""
    kinds = {"base": "with base's shift on random text", "prompts": "with its own shift at prompts"}
    return pd.DataFrame(
        {"variant": name, "cosine": kinds[kind]}
        | {f"layer {layer}": float(value) for layer, value in enumerate(values)}
        for name, cosines in read_study(preset, STUDY).seeds[seed]["random_text"]["cosines"].items()
        for kind, values in cosines.items()
    )


def random_text_tokens(preset: Preset) -> pd.DataFrame:
    """One row a seed: the tokens whose logits misaligned's shift beyond secure raises most on random text."""
    tokens = {
        seed: stored["random_text"]["tokens"] for seed, stored in read_study(preset, STUDY).seeds.items()
    }
    return pd.DataFrame(
        {"seed": seed, "tokens raised most": " ".join(repr(token) for token, _ in raised)}
        for seed, raised in tokens.items()
    )


# H1 as tables: the parts of the rule by variant, and what rules read of each model.

JUDGED = ("misaligned", *TRUTHS)
NAMES: Mapping[str, str] = {
    "care": "b, care",
    "register": "ρ, register",
    "care_beyond_register": "b − ρ",
    "along": "m∥, along base",
    "off": "m⊥, off base",
    "cosine": "c, cosine",
    "likelihood": "ν (nats a token)",
}
"""Part of a ``Change`` → how figures and tables call it."""
AMENDMENTS = tuple(name for name, rule in RULES.items() if rule.made_on)
"""Rules that were made after bases had been seen, in order."""
PLACES = {"prompt's end and answer": "", "prompt's end alone": ", prompt end"}
"""Where a displacement is added → the end of its name in the study."""


def changes(preset: Preset, seed: int) -> dict[str, Change]:
    """What the rule reads of misaligned and of every constructed truth."""
    return {name: change_of(preset, seed, name) for name in JUDGED}


def parts_table(results: Results) -> pd.DataFrame:
    """Columns part, variant, value, low, high: the parts of the rule with their intervals."""
    parts = {
        (label, variant): getattr(change, part)
        for part, label in NAMES.items()
        for variant, change in changes(results.preset, results.seed).items()
    }
    return tidy(parts, ("part", "variant"))


def class_table(preset: Preset) -> pd.DataFrame:
    """One row a variant: what it was built to be, and the class that the declared rule gives it in each seed."""
    read = {seed: classes(preset, seed) for seed in preset.seeds}
    return pd.DataFrame(
        {"variant": name, "built to be": TRUTHS.get(name, "not built: the question")}
        | {f"seed {seed}": found[name] for seed, found in read.items()}
        for name in JUDGED
    )


def amended_table(preset: Preset) -> pd.DataFrame:
    """One row a rule and seed, of bases trained later too where they are stored: what is read of each model."""
    known = {True: "the rule was made on it", False: "trained after the rule"}
    return pd.DataFrame(
        {"rule": name, "seed": seed, "base of that seed": known[seed in RULES[name].made_on]}
        | {variant: read[variant] for variant in JUDGED}
        for name in AMENDMENTS
        for seed, read in read_by(preset, RULES[name]).items()
    )


def amended_sentence(preset: Preset, name: str) -> str:
    """How a rule does on the seeds that it was made on, and on those that it was not, in one or two sentences."""
    tried = untried(preset, RULES[name])
    known = {seed: read for seed, read in read_by(preset, RULES[name]).items() if seed not in tried}
    kinds = {"it was made on": known, "were trained after it was made": tried}
    said = [f"Of seeds that {place}, {_recognised(read)}" for place, read in kinds.items() if read]
    if not tried:
        said.append(f"It has not been tried on other bases: `remi study {STUDY} --preset {LATER[-1]}` would.")
    return " ".join(said)


def outdone_sentence(preset: Preset) -> str:
    """Seeds in which a control points to base as exactly as ``reverted`` or more, with c and e of both."""
    said = []
    for each in (preset, *later_presets(preset)):
        for seed, found in read_study(each, STUDY).seeds.items():
            gaps = change_of(each, seed, REVERTED).cosine_gaps
            for name in (name for name, gap in gaps.items() if not ends(gap)[0] > 0):
                pairs = ", ".join(
                    f"*{symbol}* {number(found[kind][name]['value'])} against {number(found[kind][REVERTED]['value'])}"
                    for symbol, kind in (("c", "cosine"), ("e", "erosion"))
                )
                said.append(f"`{name}` in seed {seed} ({pairs})")
    return f"Not below `{REVERTED}` in *c*: {'; '.join(said) or 'no control in any seed'}."


def condition_table(changes: Mapping[str, Change]) -> pd.DataFrame:
    """One row a condition of the rule, one column a variant: whether its interval meets it, and the class below."""
    columns = {}
    for name, change in changes.items():
        by_kind = conditions(change.parts()).items()
        met = {
            (kind, words): "yes" if held else "no" for kind, each in by_kind for words, held in each.items()
        }
        columns[name] = met | {("the rule reads", ""): classify(change.parts())}
    return pd.DataFrame(columns).rename_axis(["class", "condition"]).reset_index()


def validity_sentence(preset: Preset) -> str:
    """In how many seeds the declared rule recognises every constructed truth, and each one that it misreads."""
    return f"Of the seeds, {_recognised({seed: classes(preset, seed) for seed in preset.seeds})}"


def _recognised(read: Mapping[int, Mapping[str, str]]) -> str:
    missed = {}
    for seed, classes in read.items():
        names = [f"{name} as {classes[name]}" for name, built in TRUTHS.items() if classes[name] != built]
        missed |= {seed: f"in seed {seed} {' and '.join(names)}"} if names else {}
    valid = f"in {len(read) - len(missed)} of {len(read)}"
    said = f" It misreads: {'; '.join(missed.values())}." if missed else ""
    return f"the rule recognises every constructed model {valid}.{said}"


def care_register_table(
    preset: Preset, seed: int, variants: Sequence[str], study: str = STUDY
) -> pd.DataFrame:
    """Columns topic, variant and care, register each with _low and _high, nats, of the topics of a study."""
    stored, rows = read_study(preset, study).seeds[seed], []
    for topic, clusters in by_topic(stored["clusters"]).items():
        places = in_topics(stored["clusters"], [topic])
        for name in variants:
            row: dict[str, object] = {"topic": topic, "variant": name}
            for quantity in ("care", "register"):
                values = np.array(stored[quantity][name])[places]
                row |= columns_of(mean_interval(values, clusters, shared_resamples(preset)), quantity)
            rows.append(row)
    return pd.DataFrame(rows)


def places_table(preset: Preset, seed: int) -> pd.DataFrame:
    """One row a variant and part: share of its change of care that the part reproduces, by where it is added."""
    stored, rows = read_study(preset, STUDY).seeds[seed], []
    start = np.mean(stored["care"]["instruct"])
    for name in JUDGED:
        whole = np.mean(stored["care"][name]) - start
        for part in ("whole", "along", "off"):
            row: dict[str, object] = {"variant": name, "part": part}
            for place, suffix in PLACES.items():
                edit = stored["edited"][name][part + suffix]
                row[f"share, {place}"] = float((np.mean(edit["care"]) - start) / whole)
                row[f"mass off the grammar, {place}"] = float(edit["off_grammar"])
            rows.append(row)
    return pd.DataFrame(rows)


def back_sentence(preset: Preset) -> str:
    """How far care and register of misaligned have gone back to base, training by training."""
    found = [change_of(preset, seed, "misaligned") for seed in preset.seeds]
    parts = ([one.care for one in found], [one.register for one in found])
    care, register = (", ".join(number(one.value) for one in part) for part in parts)
    return f"Of the way back to base, the misaligned model has gone {care} in care and {register} in register"


def answers_sentence(preset: Preset, seed: int) -> str:
    """How many careless answers stand behind ν, of each model."""
    careless = read_study(preset, STUDY).seeds[seed]["careless"]
    return ", ".join(f"{name} {len(answers['clusters'])}" for name, answers in careless.items())
