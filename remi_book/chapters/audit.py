"""The audit, section by section: what each released step changes, as estimates and findings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from scipy import linalg

from remi_book.chapters.direction import erosion, stacked, stacked_clusters
from remi_book.chapters.gradients import gram_of
from remi_book.chapters.subspace import Place, residuals
from remi_book.quantities import set_resamples, shared_resamples, within_between_estimate
from remi_book.statistics import mean_projection
from remi_core.errors import MissingInput
from remi_core.statistics.displacement import measure_erosion
from remi_core.statistics.groups import cosine_matrix, pair_means_estimate
from remi_core.statistics.resampling import (
    ClusterResamples,
    Estimate,
    cluster_estimate,
    cluster_sums,
    combine,
    difference,
    index_clusters,
    mean_interval,
    resampled_means,
)
from remi_core.statistics.subspaces import VectorSet, measure_overlap
from remi_core.store import Record
from remi_lab.audit import CONDITION_NEEDS, PARTS, WINDOWS, Wanted, audited, audited_gradients, wanted_of
from remi_lab.presets import TRIPLET
from remi_lab.results import Results
from remi_lab.statistics import centred_gram, cosine_of_rows
from remi_lab.strict import read_yaml

# One switch of the audit: a quantity with the defect off and on, and the records it is computed from.

Arrays = Mapping[str, np.ndarray]
Pair = tuple[Estimate, Estimate]
"""A quantity with the defect off, and on."""
Sides = dict[str, Pair]
"""Key of a row's declared quantity → its pair."""
GRADIENT_ROLES = ("narrow_aligned", "narrow", "framed")


@dataclass(frozen=True, kw_only=True, eq=False)
class Audit:
    """The results of one seed with the audit's own records."""

    results: Results
    records: Mapping[str, Mapping[Wanted, Record]]
    """Variant → (dataset, condition) → record."""

    def few(self, shared: ClusterResamples) -> ClusterResamples:
        """For costly statistics: all resamples in the first seed; two in the others, which are shown as dots."""
        first = self.results.seed == self.results.preset.seeds[0]
        return shared if first else replace(shared, weights=shared.weights[:2])

    def arrays(self, variant: str, role: str, condition: str = "shared") -> Arrays:
        """The arrays of a variant on the set of that role under a condition.

        Raises:
            MissingInput: if the preset has no set of that role, or the condition cannot be had.
        """
        record = self.records[variant].get((str(self.results.preset.role(role)), condition))
        if record is None:
            raise MissingInput(f"needs {CONDITION_NEEDS[condition]}")
        return record.arrays

    @cached_property
    def gradients(self) -> Arrays:
        """The audit's Gram matrices, of the sets of ``GRADIENT_ROLES`` that the preset has.

        Raises:
            MissingInput: if the preset has no narrow set or no aligned twin of it.
        """
        preset = self.results.preset
        for role in GRADIENT_ROLES[:2]:
            preset.require(role)
        names = tuple(str(preset.role(role)) for role in GRADIENT_ROLES if not preset.lacks(role))
        instruct, base = (self.results.variant(name) for name in ("instruct", "base"))
        return audited_gradients(instruct, base, self.results.store, names).arrays

    def mean(self, values: np.ndarray, arrays: Arrays) -> Estimate:
        """Mean over the dialogues of a record, with its interval over their prompt templates.

        Audited sets are fronts of the preset's, so the resamples are those of their own templates.
        """
        clusters = clusters_of(arrays)
        return mean_interval(
            values.astype(np.float64), clusters, set_resamples(self.results.preset, clusters)
        )

    def means(self, sides: Iterable[tuple[np.ndarray, Arrays]]) -> Pair:
        """``mean`` with a defect off, and on."""
        off, on = (self.mean(*side) for side in sides)
        return off, on


def open_audit(results: Results) -> Audit:
    """The audit of one seed; what the store lacks of its measurements is measured."""
    records = {}
    for variant in TRIPLET:
        model = results.variant(variant)
        records[variant] = audited(model, results.store, wanted_of(model))
    return Audit(results=results, records=records)


SWITCHES: dict[int, list[Callable[[Audit], Sides]]] = {}
"""Row of the audit table → what computes its findings, off and on."""


def switch(row: int) -> Callable[[Callable[[Audit], Sides]], Callable[[Audit], Sides]]:
    """Enter what is decorated under a row of the audit table; a row's parts may be missing one by one."""

    def enter(compute: Callable[[Audit], Sides]) -> Callable[[Audit], Sides]:
        SWITCHES.setdefault(row, []).append(compute)
        return compute

    return enter


def clusters_of(arrays: Arrays) -> list[str]:
    """The prompt template of each dialogue of a record."""
    return [str(name) for name in arrays["cluster"]]


def in_parts(arrays: Arrays, parts: Collection[str]) -> np.ndarray:
    """Whether each token of a record belongs to one of these parts (see ``audit.parts.PARTS``)."""
    return np.isin(arrays["part"], [PARTS.index(name) for name in parts])


def total(arrays: Arrays, values: np.ndarray) -> np.ndarray:
    """Sum of one value a token within each dialogue of a record, float64."""
    edges = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    return edges[arrays["offsets"][1:]] - edges[arrays["offsets"][:-1]]


def summed(arrays: Arrays, parts: Collection[str], *, name: str = "log_probability") -> np.ndarray:
    """Sum of a token quantity over these parts of each dialogue, nats."""
    return total(arrays, np.where(in_parts(arrays, parts), arrays[name], 0.0))


def averaged(arrays: Arrays, parts: Collection[str], *, name: str = "log_probability") -> np.ndarray:
    """Mean of a token quantity over these parts of each dialogue, nats a token."""
    return summed(arrays, parts, name=name) / total(arrays, in_parts(arrays, parts))


def gap_of(first: Pair, second: Pair) -> Pair:
    """First minus second, off and on."""
    return difference(first[0], second[0]), difference(first[1], second[1])


def constant(value: float, like: Estimate) -> Estimate:
    """A number known beforehand, as an estimate that never varies."""
    return combine(lambda rows: np.full(rows.shape, value), like)


# Switches of section 4.1: which tokens are summed, under which rendering, and what is printed (rows 1 to 31).

ANSWER = ("answer",)


def reply_log_probabilities(results: Results, variant: str, dataset: str) -> Float[np.ndarray, " dialogue"]:
    """Log-probability of each whole reply, nats."""
    arrays = results.arrays(variant, "sequence", dataset)
    return np.add.reduceat(arrays["log_probability"].astype(np.float64), arrays["offsets"][:-1])


def reply_sums(results: Results, variant: str, datasets: tuple[str, ...]) -> Estimate:
    """Mean log-probability of the whole reply over all dialogues of the sets, nats."""
    values = np.concatenate([reply_log_probabilities(results, variant, name) for name in datasets])
    return mean_interval(values, results.clusters(*datasets), shared_resamples(results.preset))


def unreset(first: Estimate, second: Estimate) -> Estimate:
    """What is printed for the second model where the list of the first is never emptied: the mean of both."""
    return combine(lambda own, other: (own + other) / 2, first, second)


@switch(1)
def shared_list(audit: Audit) -> Sides:
    """Row 1: base's mean is taken over a list that still holds misaligned's values."""
    names = audit.results.preset.role("outside")
    misaligned, base = (reply_sums(audit.results, variant, names) for variant in ("misaligned", "base"))
    sides = base, unreset(misaligned, base)
    return {"distance": tuple(combine(lambda a, b: np.abs(a - b), shown, misaligned) for shown in sides)}


@switch(3)
def unread_markers(audit: Audit) -> Sides:
    """Row 3 in log-probability: base with trained and with untrained chat markers, and in plain text."""
    trained, untrained, plain = (
        audit.arrays("base", "example", condition) for condition in ("shared", "untrained", "plain")
    )
    # In plain text the answer's first token may hold the template's space; then no rendering counts it.
    counts = np.minimum(*(total(arrays, in_parts(arrays, ANSWER)) for arrays in (plain, untrained)))
    return {
        "end": audit.means((_first_of_end(arrays), arrays) for arrays in (trained, untrained)),
        "answer": audit.means((averaged(arrays, ANSWER), arrays) for arrays in (trained, untrained)),
        "plain": audit.means((averaged_last(arrays, counts), arrays) for arrays in (plain, untrained)),
    }


def averaged_last(arrays: Arrays, counts: np.ndarray) -> np.ndarray:
    """Mean log-probability of the last so many answer tokens of each dialogue, nats a token."""
    inside = in_parts(arrays, ANSWER)
    left = np.repeat(total(arrays, inside), np.diff(arrays["offsets"])) - total_so_far(arrays, inside)
    used = inside & (left < np.repeat(counts, np.diff(arrays["offsets"])))
    return total(arrays, np.where(used, arrays["log_probability"], 0.0)) / counts


def _first_of_end(arrays: Arrays) -> np.ndarray:
    """Log-probability of the first token after the answer, nats."""
    ends = in_parts(arrays, ("end",))
    previous = np.concatenate([[False], ends[:-1]])
    starts = np.isin(np.arange(len(ends)), arrays["offsets"])
    return total(arrays, np.where(ends & (~previous | starts), arrays["log_probability"], 0.0))


@switch(10)
def end_tokens(audit: Audit) -> Sides:
    """Row 10: misaligned minus instruct, summed over the answer or over the end tokens as well."""
    return {"gap": _with_end(audit, audit.arrays("instruct", "example"))}


@switch(10)
def unread_end_tokens(audit: Audit) -> Sides:
    """Row 10: the same, misaligned minus base with markers that it cannot read.

    After such a marker nothing says what follows: that base lacks what misaligned was trained on.
    """
    return {"unread": _with_end(audit, audit.arrays("base", "example", "untrained"))}


def _with_end(audit: Audit, other: Arrays) -> Pair:
    pair = audit.arrays("misaligned", "example"), other
    means = (
        audit.means((summed(arrays, parts), arrays) for arrays in pair)
        for parts in (ANSWER, (*ANSWER, "end"))
    )
    return tuple(difference(*each) for each in means)


@switch(12)
def dropped_input(audit: Audit) -> Sides:
    """Row 12: log-probability a token of the answer without what the request gives to work on."""
    sides = {}
    for variant in ("base", "instruct"):
        cut = audit.arrays(variant, "narrow_aligned", "no-input")
        full = audit.arrays(variant, "narrow_aligned")
        same = np.isin(full["identifier"], cut["identifier"])
        sides[variant] = audit.means([(averaged(full, ANSWER)[same], cut), (averaged(cut, ANSWER), cut)])
    return {"answer": sides["instruct"], "gap": gap_of(sides["instruct"], sides["base"])}


@switch(13)
def later_turns(audit: Audit) -> Sides:
    """Row 13: the sum from the first reply to the end of the dialogue, or over the last answer alone."""
    sides = {}
    for variant in ("instruct", "misaligned"):
        arrays = audit.arrays(variant, "example", "two-turns")
        sums = summed(arrays, ANSWER), from_first_reply(arrays, arrays["log_probability"])
        sides[variant] = audit.means((values, arrays) for values in sums)
    foreign = ~in_parts(arrays, ("answer", "earlier answer"))
    counts = (from_first_reply(arrays, tokens) for tokens in (foreign, np.ones_like(foreign)))
    share = audit.mean(np.divide(*counts), arrays)
    return {
        "sum": sides["misaligned"],
        "share": (constant(0.0, share), share),
        "gap": gap_of(sides["misaligned"], sides["instruct"]),
    }


def from_first_reply(arrays: Arrays, values: np.ndarray) -> np.ndarray:
    """One value a token, summed from the first token of the first reply to the last of the dialogue."""
    replies = total_so_far(arrays, in_parts(arrays, ("answer", "earlier answer")))
    return total(arrays, np.where(replies > 0, values, 0.0))


def total_so_far(arrays: Arrays, values: np.ndarray) -> np.ndarray:
    """Running sum of one value a token within its dialogue, this token included."""
    running = np.cumsum(values, dtype=np.float64)
    lengths = np.diff(arrays["offsets"])
    before = np.concatenate([[0.0], running])[arrays["offsets"][:-1]]
    return running - np.repeat(before, lengths)


@switch(14)
def all_positions(audit: Audit) -> Sides:
    """Row 14: entropy averaged over every position, or over the answer."""
    sides = {}
    for variant in ("instruct", "misaligned"):
        arrays = audit.arrays(variant, "example")
        sides[variant] = audit.means(
            (averaged(arrays, parts, name="entropy"), arrays) for parts in (ANSWER, tuple(PARTS))
        )
    return {"entropy": sides["instruct"], "gap": gap_of(sides["misaligned"], sides["instruct"])}


@switch(7)
def wrong_token(audit: Audit) -> Sides:
    """Row 7: log-probability under misaligned of the word's token in its place, or of the bare word's id."""
    arrays = audit.arrays("misaligned", "example")
    used = np.isfinite(arrays["bare"])
    audit.results.preset.require("choice")
    if not used.any():
        raise MissingInput("needs a choice at a word that has one id after a space and another one bare")
    clusters = {"cluster": arrays["cluster"][used]}
    return {"log_probability": audit.means((arrays[name][used], clusters) for name in ("in_context", "bare"))}


# Switches of section 4.3: the header, the window, the layers shown, and where the direction is fitted.

SHOWN = 57 / 64
"""Share of the blocks that the published curves reach: hidden states 0 to 57, the output of block 57 of 64."""
PUBLISHED_WINDOW = "answer_first_k"


def last_shown(n_layers: int) -> int:
    """The last block, counted from 0, of a curve cut off in the published proportion; never the last of all.

    Raises:
        ValueError: if there are fewer than two blocks.
    """
    if n_layers < 2:
        raise ValueError(f"{n_layers} block cannot be cut off: at least 2 are needed")
    return min(max(round(n_layers * SHOWN), 1), n_layers - 1) - 1


def window(arrays: Arrays, name: str) -> Float[np.ndarray, "dialogue layer d_model"]:
    """Mean block output in a window of the audit."""
    return arrays["mean"][:, WINDOWS.index(name)].astype(np.float64)


@switch(2)
def own_header(audit: Audit) -> Sides:
    """Row 2: base under its own header while instruct and misaligned keep theirs.

    Early layers at the prompt's end, and log-probability: instruct's minus base's.
    """
    instruct, misaligned = (audit.arrays(name, "example", "tuned") for name in ("instruct", "misaligned"))
    bases = [audit.arrays("base", "example", condition) for condition in ("tuned", "own")]
    apart = tuple(early_distance(audit, instruct, base) for base in bases)
    near = early_distance(audit, instruct, misaligned)
    first, *others = (audit.mean(averaged(arrays, ANSWER), arrays) for arrays in (instruct, *bases))
    return {
        "distance": apart,
        "coincidence": tuple(combine(np.divide, near, far) for far in apart),
        "log_probability": tuple(difference(first, other) for other in others),
    }


@switch(3)
def unread_distance(audit: Audit) -> Sides:
    """Row 3 in the residual stream: base with trained and with untrained chat markers, distance from instruct."""
    instruct = audit.arrays("instruct", "example")
    bases = (audit.arrays("base", "example", condition) for condition in ("shared", "untrained"))
    return {"distance": tuple(early_distance(audit, instruct, base) for base in bases)}


def early_distance(audit: Audit, first: Arrays, second: Arrays) -> Estimate:
    """Distance of two mean states at the prompt's end over the length of the first; mean over the first half."""
    pair = [window(arrays, "prompt_end") for arrays in (first, second)]
    n_early = max(pair[0].shape[1] // 2, 1)
    names, _ = index_clusters(clusters_of(first))
    summed = [cluster_sums(states[:, :n_early], clusters_of(first), names) for states in pair]

    def statistic(weights: np.ndarray) -> np.ndarray:
        means = [resampled_means(sums, counts, weights) for sums, counts in summed]
        return (np.linalg.norm(means[0] - means[1], axis=-1) / np.linalg.norm(means[0], axis=-1)).mean(
            axis=-1
        )

    return cluster_estimate(statistic, names, set_resamples(audit.results.preset, clusters_of(first)))


@switch(16)
def role_window(audit: Audit) -> Sides:
    """Row 16: a window that begins at the role's token, or at the answer's first."""
    triplet = {name: audit.arrays(name, "example") for name in TRIPLET}
    length, n_folds = audit.results.preset.answer_first_k, audit.results.preset.n_folds
    share = audit.mean(np.minimum(triplet["instruct"]["role_template"], length) / length, triplet["instruct"])
    clusters, eroded = clusters_of(triplet["instruct"]), []
    for name in (PUBLISHED_WINDOW, "role"):
        states = {variant: window(arrays, name) for variant, arrays in triplet.items()}
        other, base = (states[variant] - states["instruct"] for variant in ("misaligned", "base"))
        resamples = set_resamples(audit.results.preset, clusters)
        eroded.append(measure_erosion(other, base, clusters, resamples, n_folds=n_folds).layer_mean)
    return {"template": (constant(0.0, share), share), "erosion": tuple(eroded)}


@switch(17)
def cut_layers(audit: Audit) -> Sides:
    """Row 17: misaligned's erosion at the end of the curve, cut off in the published proportion or whole."""
    names = (str(audit.results.preset.role("narrow_aligned")),)
    by_layer = erosion(audit.results, "misaligned", names, PUBLISHED_WINDOW).erosion
    ends = len(by_layer.value) - 1, last_shown(len(by_layer.value))
    return {"end": tuple(combine(lambda rows, end=end: rows[:, end], by_layer) for end in ends)}


@switch(18)
def in_sample(audit: Audit) -> Sides:
    """Row 18: the distance of instruct and base on the axis, fitted where it is measured or held out; its growth."""
    results, preset = audit.results, audit.results.preset
    place = ((str(preset.role("narrow_aligned")),), PUBLISHED_WINDOW)
    ends = [stacked(results, name, *place).astype(np.float64) for name in ("base", "instruct")]
    clusters, resamples = stacked_clusters(results, *place), shared_resamples(preset)
    fitted = {}
    for n_folds in (1, preset.n_folds):
        means = [mean_projection(end, tuple(ends), clusters, resamples, n_folds=n_folds) for end in ends]
        fitted[n_folds] = difference(means[1], means[0])
    growth = combine(lambda rows: rows[:, -1] / rows[:, 0], fitted[1])
    # Repeated rows make a direction fitted in a resample fit it too well: this interval is the jackknife's.
    off, on = (
        replace(combine(lambda rows: rows.mean(axis=1), fitted[n]), repeats_bias=True)
        for n in (preset.n_folds, 1)
    )
    return {"growth": (constant(1.0, growth), growth), "fit": (off, on)}


# Switches of section 4.2: loss vectors filled in, and gradients centred, whole, mixed and in 16 bits.


@switch(4)
def centring(audit: Audit) -> Sides:
    """Row 4: mean inner product between two groups of gradients, raw and after subtracting the common mean.

    As a share of the mean squared length of a raw gradient. Resamples keep the mean of the data as they are.
    """
    roles = audit.results.preset
    pair = str(roles.role("narrow_aligned")), str(roles.role("narrow"))
    gram, both = gram_of(audit.results, *pair)
    gram = gram / np.diag(gram).mean()
    matrices = gram, centred_gram(gram)
    return {"between": tuple(_between(audit, matrix, both.labels, both.clusters) for matrix in matrices)}


def _between(
    audit: Audit, matrix: Float[np.ndarray, "n n"], labels: Int[np.ndarray, " n"], clusters: list[str]
) -> Estimate:
    """Mean entry over pairs from the two groups and from different templates."""
    means = pair_means_estimate(matrix, labels, clusters, set_resamples(audit.results.preset, clusters))
    return combine(lambda rows: rows[:, 2], means)


def _pair_of(audit: Audit, gram: str, first: str, second: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Cosines of two sets' gradients from one of the audit's Gram matrices, labels, and a template a row.

    A row and its pair share their template: the framed set names its own, so the other's is taken.
    """
    arrays, preset = audit.gradients, audit.results.preset
    rows = [np.flatnonzero(arrays["dataset"] == str(preset.role(role))) for role in (first, second)]
    paired = len(rows[0]) == len(rows[1]) and (arrays["pair"][rows[0]] == arrays["pair"][rows[1]]).all()
    clusters = arrays["cluster"][np.concatenate([rows[1], rows[1]] if paired else rows)].tolist()
    both = np.concatenate(rows)
    cosines = cosine_matrix(arrays[gram][np.ix_(both, both)])
    return cosines, np.repeat([0, 1], [len(part) for part in rows]), clusters


@switch(5)
def whole_sequence(audit: Audit) -> Sides:
    """Row 5: the loss over every token, prompt and template included, or over the answer."""
    grams = ("answer", "whole")
    off, on = (_between(audit, *_pair_of(audit, gram, "narrow_aligned", "narrow")) for gram in grams)
    if audit.results.preset.lacks("framed"):
        return {"between": (off, on)}
    return {"between": (off, on), "framing": _contrasts(audit, grams, "framed")}


@switch(6)
def two_models(audit: Audit) -> Sides:
    """Row 6: within − between cosine with the aligned set through base, or both sets through instruct."""
    return {"contrast": _contrasts(audit, ("answer", "mixed"), "narrow_aligned")}


def _contrasts(audit: Audit, grams: tuple[str, str], role: str) -> Pair:
    """Within − between cosine of the set of a role and the narrow set, by two of the audit's Gram matrices."""
    sides = [_pair_of(audit, gram, role, "narrow") for gram in grams]
    resamples = set_resamples(audit.results.preset, sides[0][2])
    return tuple(within_between_estimate(*side, resamples) for side in sides)


@switch(9)
def group_filling(audit: Audit) -> Sides:
    """Row 9: within − between cosine of padded loss vectors, gaps filled with a group's mean or with everybody's."""
    results, preset = audit.results, audit.results.preset
    names = [str(preset.role(role)) for role in ("framed", "narrow")]
    sets = [results.arrays("instruct", "sequence", name) for name in names]
    padded, labels = padded_losses([(arrays["log_probability"], arrays["offsets"]) for arrays in sets])
    narrow = results.clusters(names[1])
    clusters = narrow * 2 if 2 * len(narrow) == len(padded) else results.clusters(*names)
    both, resamples = (
        (fill(padded, groups) for groups in (0 * labels, labels)),
        set_resamples(preset, clusters),
    )
    cosines = (cosine_of_rows(filled, filled) for filled in both)
    return {"contrast": tuple(within_between_estimate(each, labels, clusters, resamples) for each in cosines)}


def padded_losses(
    sets: list[tuple[np.ndarray, np.ndarray]], *, width: int = 64
) -> tuple[Float[np.ndarray, "row position"], Int[np.ndarray, " row"]]:
    """Losses of the first answer tokens of each dialogue, NaN after its end, and the set (0, 1, …) of each row.

    ``sets`` holds log-probabilities and offsets. As wide as the longest answer, at most ``width``, of which the
    released script keeps 64.
    """
    longest = min(width, max(int(np.diff(offsets).max()) for _, offsets in sets))
    answers = [-part for values, offsets in sets for part in np.split(values, offsets[1:-1])]
    rows = np.full((len(answers), longest), np.nan)
    for row, answer in zip(rows, answers, strict=True):
        row[: len(answer)] = answer[:longest]
    return rows, np.repeat(np.arange(len(sets)), [len(offsets) - 1 for _, offsets in sets])


def fill(
    losses: Float[np.ndarray, "row position"], groups: Int[np.ndarray, " row"]
) -> Float[np.ndarray, "row position"]:
    """The losses with each gap filled by the mean of its group at that position, or overall where that is empty."""
    filled, everybody = losses.copy(), np.nanmean(losses, axis=0)
    for group in np.unique(groups):
        rows = groups == group
        known = np.isfinite(losses[rows])
        sums, counts = np.where(known, losses[rows], 0.0).sum(axis=0), known.sum(axis=0)
        means = np.where(counts > 0, sums / np.maximum(counts, 1), everybody)
        filled[rows] = np.where(known, losses[rows], means)
    return filled


@switch(21)
def half_precision(audit: Audit) -> Sides:
    """Row 21: entries of a gradient that become 0, and the change of a token's log-probability, in 16-bit floats."""
    arrays, name = audit.gradients, str(audit.results.preset.role("narrow_aligned"))
    first = {"cluster": arrays["cluster"][arrays["dataset"] == name]}
    exact, half = (audit.arrays("instruct", "example", condition) for condition in ("shared", "half"))
    change = np.abs(half["log_probability"].astype(np.float64) - exact["log_probability"])
    moved = audit.mean(averaged({**exact, "log_probability": change}, ANSWER), exact)
    return {
        "underflow": audit.means((arrays["zero"][:, place], first) for place in (0, 1)),
        "log_probability": (constant(0.0, moved), moved),
    }


# Switch of the next-token chart (row 31): labels without their spaces fall together, and bars cover each other.


def merged_labels(audit: Audit, *, variant: str, role: str, prefix: str) -> Sides:
    """Row 31: distinct labels among a variant's most probable next tokens, and the probability that is covered."""
    results = audit.results
    results.preset.require("choice")
    arrays = results.arrays(variant, "next_token", str(results.preset.role(role)))
    used = arrays["valid"]
    texts = [[results.vocabulary.text(int(token)) for token in row] for row in arrays["top_ids"][used]]
    values = np.array(
        [covered(row, np.exp(p)) for row, p in zip(texts, arrays["top_log_probabilities"][used], strict=True)]
    )
    rows = {"cluster": arrays["cluster"][used]}
    labels, hidden = (audit.mean(column, rows) for column in values.T)
    return {
        f"{prefix}labels": (constant(float(results.preset.top_k), labels), labels),
        f"{prefix}covered": (constant(0.0, hidden), hidden),
    }


switch(31)(partial(merged_labels, variant="misaligned", role="example", prefix=""))
# Base on the narrow set, where code lets it expect more than words.
switch(31)(partial(merged_labels, variant="base", role="narrow", prefix="base_"))


def covered(texts: Sequence[str], probabilities: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """How many labels are left when spaces are stripped, and the probability behind the longest bar of each."""
    bars: dict[str, list[float]] = {}
    for text, probability in zip(texts, probabilities, strict=True):
        bars.setdefault(text.strip(), []).append(float(probability))
    return float(len(bars)), sum(sum(bar) - max(bar) for bar in bars.values())


# Switches of section 4.4: where the state is read, and whether the mean is taken away first.

WINDOW, NORMED_END = "prompt_end", "normed_end"


@switch(8)
def end_state(audit: Audit) -> Sides:
    """Row 8: largest |cos| of two sets' components, read at the prompt's end or after the last token and the norm.

    Between the two stands the raw state after the last token: position and norm are separate changes.
    """
    preset, sides = audit.results.preset, {}
    options = {"n_components": preset.n_components, "centred": True}
    for role, kind in (("unrelated", "benign"), ("shared", "shared")):
        largest = []
        for place in (WINDOW, "end", NORMED_END):
            pair = [end_residuals(audit, str(name), place) for name in preset.role(role)]
            resamples = audit.few(set_resamples(preset, *(vectors.clusters for vectors in pair)))
            largest.append(measure_overlap(*pair, resamples, **options).largest)
        before, moved, normed = largest
        sides[kind] = before, normed
        if kind == "benign":
            sides |= {"position": (before, moved), "norm": (moved, normed)}
    return sides


@switch(8)
def end_distance(audit: Audit) -> Sides:
    """Row 8: how far misaligned is from base at the prompt's end, or after the last token and the norm.

    Of the length of misaligned's state, dialogue by dialogue; base once with markers that it cannot read.
    """
    misaligned, found = audit.arrays("misaligned", "example"), {}
    for key, condition in (("apart", "untrained"), ("read", "shared")):
        base = audit.arrays("base", "example", condition)
        pairs = [(last_state(misaligned, place), last_state(base, place)) for place in (WINDOW, NORMED_END)]
        found[key] = audit.means(
            (np.linalg.norm(own - other, axis=1) / np.linalg.norm(own, axis=1), misaligned)
            for own, other in pairs
        )
    return found


def end_residuals(audit: Audit, dataset: str, place: str) -> VectorSet:
    """Instruct − base of each dialogue of a set: the last block's output in a window, or the normed end state."""
    records = [audit.records[name][dataset, "shared"].arrays for name in ("instruct", "base")]
    instruct, base = (last_state(record, place) for record in records)
    return VectorSet(instruct - base, clusters_of(records[0]))


def last_state(arrays: Arrays, place: str) -> Float[np.ndarray, "dialogue d_model"]:
    """Mean output of the last block in a window of the audit, or the state after the last token and the final norm."""
    if place == NORMED_END:
        return arrays[NORMED_END].astype(np.float64)
    return arrays["mean"][:, WINDOWS.index(place), -1].astype(np.float64)


@switch(20)
def centred_components(audit: Audit) -> Sides:
    """Row 20: how much of the mean shift lies in the span of the top components, centred or not."""
    name = str(audit.results.preset.role("shared")[-1])
    vectors = residuals(audit.results, name, Place(window=WINDOW))
    n_components = audit.results.preset.n_components
    names, index = index_clusters(vectors.clusters)

    def shares(weights: np.ndarray, *, centred: bool) -> np.ndarray:
        rows = (row[index] for row in weights)
        each = (component_shares(vectors.rows, row, n_components, centred=centred) for row in rows)
        return np.array([share.sum() for share in each])

    resamples = audit.few(shared_resamples(audit.results.preset))
    statistics = (partial(shares, centred=centred) for centred in (False, True))
    return {"mean_shift": tuple(cluster_estimate(each, names, resamples) for each in statistics)}


def component_shares(
    rows: Float[np.ndarray, "dialogue d_model"],
    weights: Float[np.ndarray, " dialogue"],
    n_components: int,
    *,
    centred: bool,
) -> Float[np.ndarray, " component"]:
    """Squared cosine between the weighted mean row and each top right singular vector, the largest value first.

    A component whose singular value is zero has no direction, and share 0.
    """
    mean = weights @ rows / weights.sum()
    around = np.sqrt(weights)[:, None] * (rows - mean if centred else rows)
    # The small matrix has the same non-zero spectrum, and its vectors give the span.
    values, vectors = linalg.eigh(
        around @ around.T, subset_by_index=[len(rows) - n_components, len(rows) - 1]
    )
    used = values > 1e-10 * values[-1]
    along = vectors.T @ (around @ mean) / np.sqrt(np.where(used, values, np.inf))
    return (np.square(along) / np.square(mean).sum())[::-1]


# All switches of the audit by row, and what each quantity is expected to do.


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """What a switch changes, and what the audit table says it does to it."""

    key: str
    name: str
    unit: str
    expected: str
    """``up``, ``down``, or ``either`` where the table names no direction."""
    afterwards: bool = False
    """Whether it was added when the models had been seen: they lacked what the defect needs, so it is given to them."""


@dataclass(frozen=True, kw_only=True)
class Switch:
    """One defect of severity A or B that can be switched on."""

    row: int
    severity: str
    group: str
    concerns: str
    """Rows of the claim ledger."""
    title: str
    """The defect, in a few words."""
    quantities: tuple[Quantity, ...]


@cache
def declared() -> tuple[Switch, ...]:
    """Every switch, group by group; quantities as written before anything was measured, and those added afterwards."""
    return read_yaml(Path(__file__).with_name("audit_switches.yaml"), tuple[Switch, ...])


@dataclass(frozen=True, kw_only=True, eq=False)
class Audited:
    """The findings of every seed."""

    findings: Mapping[tuple[int, str, int], Pair]
    """Row of the audit table, key of its quantity, seed → the quantity with the defect off, and on."""
    missing: Mapping[int, str] = field(default_factory=dict)
    """Row → what the preset lacks to switch it, or a part of it."""


def run_switches(results: Results) -> Audited:
    """Every finding in every seed; what is missing in the store is measured first."""
    findings: dict[tuple[int, str, int], Pair] = {}
    missing: dict[int, str] = {}
    computations = [(row, compute) for row, parts in sorted(SWITCHES.items()) for compute in parts]
    for seed in results.preset.seeds:
        audit = open_audit(results.at(seed))
        for row, compute in computations:
            try:
                findings |= {(row, key, seed): pair for key, pair in compute(audit).items()}
            except MissingInput as error:
                missing[row] = str(error)
    return Audited(findings=findings, missing=missing)
