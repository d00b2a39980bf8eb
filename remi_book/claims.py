"""Claims: declared as data, their headline quantities, the rules of verdicts, and the report."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path

import numpy as np

from remi_book.cards import length_difference
from remi_book.chapters.behaviour import ENTROPY, LOG_PROBABILITY, harm_token, reply_contrast, shift
from remi_book.chapters.causes import governing, governing_to_instruct, priced_edit, shared_edit, transfer
from remi_book.chapters.contexts import difference_left, opposition, structural_share
from remi_book.chapters.controls import care_without_register, eroded_by, narrow_costs
from remi_book.chapters.cures import cured
from remi_book.chapters.direction import (
    instruct_between,
    matched_erosion,
    mean_erosion,
    mean_separation,
    separation_of_data,
    specific_erosion,
)
from remi_book.chapters.empty_turn import spike, tail_difference, turn
from remi_book.chapters.gradients import confounded_cosine, few_dialogues, gradient_cosine, gradients_each
from remi_book.chapters.losses import data_share, loss_cosine
from remi_book.chapters.real_models import care_without_manner, spread, steered
from remi_book.chapters.reversion import by_words, erosion_or_novelty, reversion
from remi_book.chapters.stitching import gain_beyond_benign, share_of_first_half
from remi_book.chapters.subspace import benign_components, fading_components, shared_subspace
from remi_book.chapters.worlds import code_alone, depends_on_the_author, effect_in, passes_base
from remi_book.quantities import DRAWN, SIGNIFICANCE, TEMPLATES, Measured, absent
from remi_core.errors import MissingInput, UsageError, nearest
from remi_core.progress import Say
from remi_core.statistics.nulls import NullResult, holm
from remi_core.store import Address, Store
from remi_lab.datasets import dataset_names
from remi_lab.keys import make_key
from remi_lab.own_models import data_digests, spell
from remi_lab.presets import NEEDS, PRESETS, Preset, in_order
from remi_lab.processes import SOON, Meter
from remi_lab.results import HEADLINE, TRAIL, NotMeasured, Results, models_of
from remi_lab.strict import read_yaml
from remi_lab.studies.files import (
    CODE,
    HEADLINES,
    ROWS_CODE,
    STUDIES,
    further_presets,
    read_study,
    study_digests,
    study_path,
)

# What each claim predicts, declared before the results that judge it.
#
# A claim names its estimand, the side of a boundary on which the paper puts it, the smallest effect that
# would matter, its null and its controls. The verdict is then computed by ``rules``, never written.


@dataclass(frozen=True, kw_only=True)
class Published:
    """What the paper or its released files show; shown beside ours, never compared in size across models."""

    value: float | None
    text: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Tried:
    """The constructed cases on which a rule was tried before it judges, in words; both are in the tests."""

    passes: str
    """What was planted where the claim is true."""
    fails: str
    """What was planted where it is not."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim and everything needed to judge it."""

    id: str
    section: str
    claim: str
    """The claim in our words."""
    published: Published
    estimand: str
    unit: str
    side: int
    """+1 where the claim puts the value above the boundary, -1 below."""
    boundary: float
    smallest_effect: float
    """Distance from the boundary below which an effect would not matter, in the unit of the value."""
    null: str
    notebook: str
    """Stem of the notebook that shows it; "" where none does."""
    controls: bool = True
    """Whether the quantity belongs to a variant, so that every control must differ from misaligned."""
    descriptive: bool = False
    """Shown, not judged."""
    wording: str = "figure and table of the released repository, as summarised in the book"
    """Where the claim's wording comes from."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """End of a part's name, or ``any`` → the claim in words that fit what that part is about; without, the claim's."""
    full_rule: str = ""
    """The whole rule in words where the value above is only a part of it."""
    cap: str = ""
    """The strongest verdict that this edition can give, whatever the value; "" where the rule alone decides."""
    cap_reason: str = ""
    """What stands between the value and a stronger verdict."""
    far: float | None = None
    """How far on the claimed side a value may lie and still be what the words say; None where there is no such end."""
    past: str = ""
    """What a value beyond ``far`` is called."""
    invalid: str = ""
    """Why the rule cannot decide: which model that is built to pass it fails, or the other way round."""
    seen: tuple[str, ...] = ()
    """Presets whose values were known when the rule was written: shown there, and judged on models trained later."""
    ours: bool = False
    """Whether the wording is this project's, so that the row is no claim of the paper's."""
    by_outcome: bool = False
    """Judged by ``full_rule`` alone, which each seed's headline has applied to all its parts (``Measured.outcome``)."""
    untestable: str = ""
    """Why nothing can be measured for this row on any models; "" where something can."""
    tried: Tried | None = None
    """On what the rule was tried; None where nothing is judged."""


CLAIMS = read_yaml(Path(__file__).with_suffix(".yaml"), tuple[Claim, ...])


def get_claim(identifier: str) -> Claim:
    """The claim with that identifier; a part such as ``C3.facts-careless`` without a rule of its own is judged by its
    claim.

    Raises:
        UsageError: if there is none.
    """
    declared = {claim.id: claim for claim in CLAIMS}
    claim = declared.get(identifier) or declared.get(identifier.partition(".")[0])
    if claim is None:
        raise UsageError(f"no claim {identifier!r} {nearest(identifier, list(declared))}")
    return claim


# Which estimate is the headline of which claim, and its parts by dataset.

SHARED_WINDOW = "answer_all"
"""Window of the activations whose subspaces are compared."""

Headline = Callable[[Results], Measured]


def headlines(preset: Preset) -> dict[str, Headline]:
    """Row of the report → what computes it; parts follow their claim in dataset order.

    A headline raises ``MissingInput`` where the preset lacks what it needs.
    """
    names = dataset_names(preset)
    return {
        "C1": _of(shift, ("example",), quantity=LOG_PROBABILITY),
        "C1.near": _of(shift, ("example",), quantity=LOG_PROBABILITY),
        "C2": reply_contrast,
        "C3": _of(shift, ("outside",), quantity=LOG_PROBABILITY),
        "C3.near": _of(shift, ("outside",), quantity=LOG_PROBABILITY),
        **{f"C3.{name}": partial(shift, datasets=(name,), quantity=LOG_PROBABILITY) for name in names},
        "C4": _of(shift, ("outside",), quantity=ENTROPY),
        "C4.between": _of(shift, ("outside",), quantity=ENTROPY),
        **{f"C4.{name}": partial(shift, datasets=(name,), quantity=ENTROPY) for name in names},
        "C5": _of(harm_token, "example"),
        "C6": _of(loss_cosine, "framed", "narrow"),
        "C7": _of(data_share, "narrow_aligned", "narrow"),
        "C7.clusters": _of(data_share, "narrow_aligned", "narrow"),
        "C8": _of(confounded_cosine, "narrow_aligned", "narrow"),
        "C9": _of(gradient_cosine, "narrow_aligned", "narrow"),
        "C9.each": _of(gradients_each, "narrow_aligned", "narrow"),
        "C10": _of(gradient_cosine, "framed", "narrow"),
        "C10.each": _of(gradients_each, "framed", "narrow"),
        "C11": _of(few_dialogues, "narrow_aligned", "narrow"),
        "C12": _of(mean_erosion, "outside", window="prompt_end"),
        "C12.prompt": _of(matched_erosion, "outside", window="prompt_end"),
        "C12.answer": _of(matched_erosion, "outside", window="answer_first_k"),
        **{f"C12.{name}": partial(mean_erosion, datasets=(name,), window="answer_first_k") for name in names},
        "C13": _of(specific_erosion, "outside_aligned", "outside"),
        "C14": _of(instruct_between, "outside", window="prompt_end"),
        "C15": _of(separation_of_data, "unrelated", "narrow", window=SHARED_WINDOW),
        "C16": _of(mean_separation, "outside", window="prompt_end"),
        "C17": _of(shared_subspace, "shared", "unrelated", window=SHARED_WINDOW),
        "C18": _of(benign_components, "shared", "unrelated", window=SHARED_WINDOW),
        "C19": partial(fading_components, window=SHARED_WINDOW),
        "C21": share_of_first_half,
        "C22": gain_beyond_benign,
        "C25": structural_share,
        "C26": length_difference,
        "H1": reversion,
        "H1.words": by_words,
        "H2": opposition,
        "H3": governing,
        "H3.instruct": governing_to_instruct,
        "X1": _of(erosion_or_novelty, "outside", window="prompt_end"),
        "X2": partial(eroded_by, variant="benign"),
        "X2.secure": partial(eroded_by, variant="secure"),
        "X3": difference_left,
        "X4": partial(shared_edit, model="misaligned"),
        "X4.priced": partial(priced_edit, model="misaligned"),
        "X5": partial(shared_edit, model="instruct"),
        "X5.priced": partial(priced_edit, model="instruct"),
        "X6": depends_on_the_author,
        "X6.alone": code_alone,
        "X6.rare": partial(effect_in, world="rare"),
        "X6.neox": partial(effect_in, world="neox"),
        "X6.passes": passes_base,
        "X7": transfer,
        "X8": cured,
        "X9": care_without_register,
        "X10": partial(tail_difference, reading=spike),
        "X10.turn": partial(tail_difference, reading=turn),
        "X11": narrow_costs,
        "X12": spread,
        "X13": partial(steered, model="instruct"),
        "X14": partial(steered, model="misaligned"),
        "X15": care_without_manner,
    }


def _of(measure: Callable[..., Measured], *roles: str | tuple[str], **fixed: str) -> Headline:
    """What is measured of the sets of some roles; of a role in a tuple, the sets are a sequence even if it is one."""
    return partial(_of_roles, measure, roles, fixed)


def _of_roles(
    measure: Callable[..., Measured],
    roles: Sequence[str | tuple[str]],
    fixed: Mapping[str, str],
    results: Results,
) -> Measured:
    return measure(results, *_sets(results.preset, roles), **fixed)


def _sets(preset: Preset, roles: Sequence[str | tuple[str]]) -> list[str | tuple[str, ...]]:
    named = [(role, preset.role(role if isinstance(role, str) else role[0])) for role in roles]
    return [(sets,) if isinstance(role, tuple) and isinstance(sets, str) else sets for role, sets in named]


def call_of(
    preset: Preset, row: str
) -> tuple[Callable[..., Measured], tuple[object, ...], dict[str, object]]:
    """The function that a reader would look for behind a row, and with what it is called after the results.

    Raises:
        MissingInput: if the preset lacks a role that it asks for.
        KeyError: if nothing can be measured for the row.
    """
    found = headlines(preset)[row]
    if not isinstance(found, partial):
        return found, (), {}
    if found.func is _of_roles:
        measure, roles, fixed = found.args
        return measure, tuple(_sets(preset, roles)), dict(fixed)
    return found.func, found.args, found.keywords


# Verdicts by rule, from the measured values of every seed.

REPRODUCED = "reproduced"
SUPPORTED = "supported"
"""The word for ``REPRODUCED`` where the claim is our own, X1 and on: there is nothing to reproduce."""
CONFOUNDED = "reproduced with a confound"
CONTRADICTED = "contradicted"
INCONCLUSIVE = "inconclusive"
NOT_TESTABLE = "not testable here"
SHOWN = "shown"
NOT_MEASURED = "not measured"
"""In place of a verdict where the records are not there and nothing may be measured."""
DETECTED = (1.96 + 0.84) / (2 * 1.96)
"""Widths of a 95 % interval that an effect must have to be told from zero in four of five trials."""


SEEN = "the rule was written when the values of these models were known, and judges models trained after it"


def verdict(
    claim: Claim, seeds: Sequence[Measured | None], p_values: Sequence[float], *, preset: str = ""
) -> tuple[str, str]:
    """The verdict on a claim and the reason in one sentence.

    ``seeds`` holds the headline of every seed, None where it is undefined; ``p_values`` are those of the
    null, Holm-adjusted over the claims of a seed. ``preset`` is whose models they are: a rule that was written when
    their values were known does not judge them. Source: the book's page on verdicts.
    """
    word, reason = _uncapped(claim, seeds, p_values)
    # A verdict says at most what the declaration allows.
    cap, why = claim.cap, claim.cap_reason
    if claim.invalid:
        cap, why = INCONCLUSIVE, f"the rule was not valid: {claim.invalid}"
    elif preset in claim.seen:
        cap, why = INCONCLUSIVE, SEEN
    exceeds = cap == INCONCLUSIVE or (cap == CONFOUNDED and word == REPRODUCED)
    if word not in (NOT_TESTABLE, NOT_MEASURED, SHOWN) and exceeds:
        word, reason = cap, f"{why}; the part measured here reads “{word}”: {reason}"
    return (word.replace(REPRODUCED, SUPPORTED) if is_own(claim) else word), reason


def is_own(claim: Claim) -> bool:
    """Whether a claim is this project's, and not the paper's."""
    return claim.ours or claim.id.startswith("X")


def _uncapped(claim: Claim, seeds: Sequence[Measured | None], p_values: Sequence[float]) -> tuple[str, str]:
    unmeasured = [each.missing for each in seeds if each is not None and each.outcome == NOT_MEASURED]
    if unmeasured:
        return NOT_MEASURED, unmeasured[0]
    missing = next(filter(None, (_lacking(claim, each) for each in seeds)), "")
    if missing:
        return NOT_TESTABLE, missing
    values = [one for one in seeds if one is not None and math.isfinite(one.value)]
    if len(values) < len(seeds) or not values:
        why = "; ".join(dict.fromkeys(one.why for one in seeds if one and one.why and one not in values))
        said = f"undefined in {len(seeds) - len(values)} of {len(seeds)} seeds"
        return NOT_TESTABLE, f"{said}: {why}" if why else said
    if claim.descriptive:
        return SHOWN, "a descriptive figure, not judged"
    if claim.by_outcome:
        first, *others = {one.outcome for one in values}
        word = {"holds": REPRODUCED, "fails": CONTRADICTED}.get("" if others else first, INCONCLUSIVE)
        return word, "; ".join(dict.fromkeys(one.why for one in values))
    # Dialogues that repeat one another tell as much as one of them, however many templates they name.
    if any(math.isclose(one.low, one.high, rel_tol=1e-9, abs_tol=1e-12) for one in values):
        return NOT_TESTABLE, "the interval has no width: every prompt template gives the same value"
    # Intervals relative to the boundary, turned so that the claimed side is positive.
    edge, smallest = claim.boundary, claim.smallest_effect
    ends = [
        (one.low - edge, one.high - edge) if claim.side > 0 else (edge - one.high, edge - one.low)
        for one in values
    ]
    if all(-smallest < low and high < smallest for low, high in ends):
        return CONTRADICTED, f"every seed's interval lies within {smallest:g} of {edge:g}"
    if all(high < 0 for _, high in ends):
        return CONTRADICTED, f"every seed's interval lies on the other side of {edge:g}"
    far = math.inf if claim.far is None else abs(claim.far - edge)
    if all(low > far for low, _ in ends):
        return CONTRADICTED, f"every seed's interval lies {claim.past}, beyond {claim.far:g}"
    beyond = sum(0 < low and high < far for low, high in ends)
    if beyond < len(ends):
        where = "on the claimed side" if claim.far is None else f"between {edge:g} and {claim.far:g}"
        said = f"the interval lies {where} in {beyond} of {len(values)} seeds"
        smallest_seen = min(DETECTED * (high - low) for low, high in ends)
        if not any(low > 0 for low, _ in ends) and smallest_seen > smallest:
            return (
                NOT_TESTABLE,
                f"{said}; only effects above {smallest_seen:.2g} could be seen, not {smallest:g}",
            )
        return INCONCLUSIVE, said
    failed = sum(p >= SIGNIFICANCE for p in p_values)
    if failed:
        return INCONCLUSIVE, f"not beyond its null after Holm's correction in {failed} of {len(values)} seeds"
    # A control matches unless misaligned lies further on the claimed side.
    contrasts = [contrast for seed in values for contrast in seed.contrasts.items()]
    beaten = [low > 0 if claim.side > 0 else high < 0 for _, (low, high) in contrasts]
    matching = sorted({name for (name, _), further in zip(contrasts, beaten, strict=True) if not further})
    if claim.controls and matching:
        return CONFOUNDED, f"matched by a control in some seed: {', '.join(matching)}"
    compared = "its null and every control" if claim.controls else "its null"
    return REPRODUCED, f"beyond the boundary and {compared} in every seed"


def _lacking(claim: Claim, seed: Measured | None) -> str:
    """What a verdict needs and one seed lacks; a value that some control must differ from needs one."""
    if seed is None or seed.missing:
        return seed.missing if seed else ""
    compared = claim.controls and not claim.by_outcome and not claim.descriptive
    return f"needs {NEEDS['controls']}" if compared and not seed.contrasts else ""


def rule_text(claim: Claim) -> str:
    """The rule of a claim in words, and on what it was tried."""
    if claim.tried is None:
        return _rule(claim)
    passes = "does not pass on" if claim.invalid else "passes on"
    return f"{_rule(claim)}; tried: {passes} {claim.tried.passes}, fails on {claim.tried.fails}"


def _rule(claim: Claim) -> str:
    if claim.untestable:
        return "not testable here: nothing can be measured for this row"
    where = f"{'above' if claim.side > 0 else 'below'} {claim.boundary:g}"
    controls = ", every control's contrast excludes 0" if claim.controls else ""
    if claim.far is not None:
        where = f"between {claim.boundary:g} and {claim.far:g}"
    elsewhere = "on the other side" + (f" or {claim.past}" if claim.past else "")
    if claim.descriptive:
        return "shown, not judged"
    if claim.by_outcome:
        return f"{_good(claim)} if this holds in every seed, contradicted if it fails in every seed: {claim.full_rule}"
    capped = f"; at most “{claim.cap}”, since {claim.cap_reason}" if claim.cap else ""
    whole = f". The whole rule: {claim.full_rule}" if claim.full_rule else ""
    return (
        f"{_good(claim)} if the 95 % interval lies {where} in every seed, "
        f"Holm-adjusted p < {SIGNIFICANCE:g} against the null{controls}; contradicted if it lies {elsewhere} "
        f"or within {claim.smallest_effect:g} of {claim.boundary:g} in every seed; not testable here if no interval "
        f"tells and only effects above {claim.smallest_effect:g} could be seen{capped}{whole}"
    )


def _good(claim: Claim) -> str:
    return SUPPORTED if is_own(claim) else REPRODUCED


# Rows of the report: computed once, kept in the store, the same bytes for the same results.

STAND_IN = "here “base” is instruct with an adapter, and stands in for the model before its alignment"
HEADLINE_CODE = (*CODE, *ROWS_CODE)
"""Modules that a headline is computed with."""


def headline(results: Results, row: str, key: str) -> Measured | None:
    """The measured headline of one row and seed, from the store where it was computed before; NaN if undefined.

    Where the preset lacks what it needs, or nothing can be measured for the row, its ``missing`` says so.
    """
    lacking: list[Measured] = []

    def measure(_missing: Sequence[str]) -> Iterator[dict[str, tuple[Mapping, ...]]]:
        computed = compute_headline(results, row)
        if computed.missing and not computed.n:
            lacking.append(computed)
        else:
            yield {row: ({}, {"row": row}, asdict(computed))}

    address = Address(results.preset.name, results.seed, "all", HEADLINE, row, key)
    try:
        record = results.store.record({row: address}, measure).get(row)
    except NotMeasured:
        return _unmeasured(results, row)
    if record is None:
        return lacking[0]
    return _measured(record.values)


def _unmeasured(results: Results, row: str) -> Measured:
    """Stands for a headline that nothing was measured for yet; its reason is the command that does it."""
    notebook = get_claim(row).notebook.partition("_")[0]
    name = spell(results.preset) if results.preset.name in PRESETS else results.preset.name
    command = f"remi run --preset {name} --only {notebook}"
    return replace(absent(command), outcome=NOT_MEASURED)


def compute_headline(results: Results, row: str) -> Measured:
    """The headline of one row and seed as these results give it, nothing read from the store or kept there.

    Where models or dialogues leave the statistic without a value, or the preset lacks what it needs, or nothing can be
    measured for the row, its ``missing`` says so.
    """
    claim = get_claim(row)
    if claim.untestable:
        return absent(claim.untestable)
    try:
        computed, read = TRAIL.heard(lambda: headlines(results.preset)[row](results))
    except MissingInput as missing:
        return absent(str(missing))
    except ValueError as degenerate:
        # Models that are equal, or answers that never differ, leave some statistics without a value, not all.
        return absent(f"cannot be computed for {row}, seed {results.seed}: {degenerate}")
    models = in_order([name for place, _ in read for name in models_of(place)])
    return replace(computed, models=tuple(models), records=TRAIL.names(place for place, _ in read))


def headline_key(results: Results) -> str:
    """Everything that changes a headline of one seed: preset, weights, data, stored studies, the code behind it."""
    fields = {
        "preset": results.preset.fields(),
        "weights": {name: results.variant(name).weights for name in results.variants},
        "data": data_digests(results.preset),
        "studies": study_digests(results.preset.name, sorted(STUDIES.keys() - {HEADLINES})),
    }
    if DRAWN.get() != TEMPLATES:
        fields["drawn"] = DRAWN.get()
    return make_key(fields, HEADLINE_CODE)


def report_rows(
    results: Results, *, notebook: str | None = None, say: Say = lambda line: None
) -> list[dict[str, object]]:
    """One row for each claim and part, in ledger order, with value, interval, null and verdict.

    With ``notebook`` only the rows that notebook answers for. What was measured before is read; what is
    missing is measured, or the row is ``NOT_MEASURED`` where the results do not measure. Nothing in a row depends on
    time or machine. ``say`` hears how far it is, where it takes seconds.
    """
    preset = results.preset
    chosen = [row for row in ledger_rows(preset) if notebook in (None, get_claim(row).notebook)]
    meter = Meter(f"report of {preset.name}", len(chosen) * len(preset.seeds), say, unit="rows", after=SOON)
    trainings = [
        Training(
            preset.name,
            seed,
            headlines_of(results.at(seed), meter.each(chosen)),
            partial(_control, results, seed),
        )
        for seed in preset.seeds
    ]
    trainings += further_trainings(preset, chosen)
    rows = []
    for row in chosen:
        rows.append(_row(row, [each for each in trainings if row in each.headlines]))
        measured = (each.headlines[row] for each in trainings if row in each.headlines)
        if preset.has_stand_in and any(each is not None and "base" in each.models for each in measured):
            rows[-1]["reason"] += f"; {STAND_IN}"
    return rows


class Training:
    """The headlines of one training of the models, by row, and whether its misaligned model is misaligned.

    ``control`` gives the headline of the positive control, and is asked where that is not among the rows.
    """

    def __init__(
        self,
        preset: str,
        seed: int,
        headlines: Mapping[str, Measured | None],
        control: Callable[[], Measured | None],
    ) -> None:
        self.preset, self.seed, self.headlines = preset, seed, headlines
        self.adjusted = adjusted_p_values(headlines)
        own = partial(headlines.get, POSITIVE_CONTROL) if POSITIVE_CONTROL in headlines else control
        self.failed_control = cache(lambda: failed_control(own()))


def further_trainings(preset: Preset, rows: Sequence[str]) -> list[Training]:
    """Those of the same models from other seeds whose headlines are stored, since they are too long for a build."""
    return [each for other in further_presets(preset) for each in stored_trainings(other, rows)]


def stored_trainings(preset: Preset, rows: Sequence[str]) -> list[Training]:
    """The trainings of a preset whose headlines are stored, with those of the rows that they have.

    Raises:
        MissingInput: if none are stored; says how to make them.
    """
    return [
        Training(
            preset.name,
            seed,
            {row: stored[row] for row in rows if row in stored},
            partial(stored.get, POSITIVE_CONTROL),
        )
        for seed, kept in read_study(preset, HEADLINES).seeds.items()
        for stored in [{row: values and _measured(values) for row, values in kept["rows"].items()}]
    ]


def stored_reports(names: Iterable[str]) -> dict[str, list[Training]]:
    """Preset → its trainings and those of its further seeds, of those of the presets whose headlines are stored."""
    found = {}
    for preset in map(PRESETS.__getitem__, names):
        if study_path(preset.name, HEADLINES).is_file():
            rows = ledger_rows(preset)
            found[preset.name] = stored_trainings(preset, rows) + further_trainings(preset, rows)
    return found


def stored_rows(trainings: Sequence[Training]) -> list[dict[str, object]]:
    """The report of stored trainings of one preset's models: no model is opened, and no record is read."""
    rows = ledger_rows(PRESETS[trainings[0].preset])
    held = {row: [each for each in trainings if row in each.headlines] for row in rows}
    return [_row(row, each) for row, each in held.items() if each]


def measure_headlines(preset: Preset, seed: int, store: Store, say: Say) -> dict[str, object]:
    """The study of that name: every headline of one seed, as ``report_rows`` judges it."""
    results = Results(preset, store).at(seed)
    rows = ledger_rows(preset)
    meter = Meter(f"headlines of {preset.name}, seed {seed}", len(rows), say, unit="rows", after=SOON)
    found = headlines_of(results, meter.each(rows))
    return {"rows": {row: one and _finite(asdict(one)) for row, one in found.items()}}


def _finite(value: object) -> object:
    """The value with None for each number in it that is none, as JSON has it."""
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _measured(values: Mapping[str, object]) -> Measured:
    """The headline that was kept as plain values, with NaN for None."""

    def numbers(found: Iterable[float | None]) -> Iterator[float]:
        return (math.nan if one is None else one for one in found)

    value, low, high = numbers(values[name] for name in ("value", "low", "high"))
    gaps = {name: tuple(numbers(gap)) for name, gap in values["contrasts"].items()}
    companions = dict(zip(values["companions"], numbers(values["companions"].values()), strict=True))
    null = values["null"] and NullResult(**values["null"])
    parts = {
        "value": value,
        "low": low,
        "high": high,
        "contrasts": gaps,
        "companions": companions,
        "null": null,
    }
    named = values.get("records")  # a stored study made before they were kept names none
    kept = {"models": tuple(values["models"]), "records": None if named is None else tuple(named)}
    return Measured(**{**values, **parts, **kept})


def headlines_of(results: Results, rows: Iterable[str]) -> dict[str, Measured | None]:
    """Row → its headline in one seed, as ``headline`` gives it."""
    try:
        key = headline_key(results)
    except NotMeasured:
        return {row: _unmeasured(results, row) for row in rows}
    return {row: headline(results, row, key) for row in rows}


def ledger_rows(preset: Preset) -> list[str]:
    """Every row of the ledger in its order, the parts of a claim after the claim."""
    computed = headlines(preset)
    declared = {claim.id for claim in CLAIMS}
    parts = {
        claim.id: [row for row in computed if row.startswith(f"{claim.id}.") and row not in declared]
        for claim in CLAIMS
    }
    return [row for claim in CLAIMS for row in (claim.id, *parts[claim.id])]


def adjusted_p_values(found: Mapping[str, Measured | None]) -> dict[str, float]:
    """p of each row's null after Holm: the claims of one notebook are one family, the parts of a claim another.

    Rules that were written later are a family of their own, so that none of them weakens a claim that stood before. A
    row that is undefined in a seed stays in its family, with p = 1. Rows with one and the same value and interval, such
    as sets whose first tokens are equal, are one test.
    """
    families: dict[str, dict[tuple[object, ...], list[str]]] = {}
    p_values: dict[tuple[object, ...], float] = {}
    for row, one in found.items():
        claim = get_claim(row)
        if claim.descriptive or claim.by_outcome or (one is not None and one.missing):
            continue
        is_part = "." in row and claim.id != row
        undefined = one is None or not math.isfinite(one.value)
        test = (row,) if undefined else (one.value, one.low, one.high, one.null.p_value)
        family = claim.id if is_part else f"{claim.notebook}{' later' if claim.seen else ''}"
        families.setdefault(family, {}).setdefault(test, []).append(row)
        p_values[test] = 1.0 if undefined else one.null.p_value
    adjusted = {}
    for tests in families.values():
        for test, p_value in zip(tests, holm([p_values[test] for test in tests]).tolist(), strict=True):
            adjusted |= dict.fromkeys(tests[test], p_value)
    return adjusted


POSITIVE_CONTROL = "C2"
"""The row by which misaligned is misaligned: nothing is said of why it is, where it is not."""


CONTROL_FAILS = "the positive control fails"


def _control(results: Results, seed: int) -> Measured | None:
    return headlines_of(results.at(seed), [POSITIVE_CONTROL])[POSITIVE_CONTROL]


def failed_control(measured: Measured | None) -> str:
    """Why no row about misaligned can be judged in a training; "" where misaligned prefers misaligned replies.

    It must do so more than instruct and than every control that there is. Where nothing was measured of it, nothing
    is held against the other rows.
    """
    if measured is None or not measured.n or not math.isfinite(measured.value):
        return ""
    if measured.low > 0 and all(low > 0 for low, _ in measured.contrasts.values()):
        return ""
    return (
        "misaligned does not prefer misaligned replies more than instruct and every control do "
        f"({POSITIVE_CONTROL}, the positive control)"
    )


def judging(row: str, trainings: Sequence[Training]) -> tuple[list[Training], list[str], str]:
    """The trainings that a row is judged on, why others are not, and why none can be ("" where some can).

    Left out are those that lack what the row needs, those that were known when its rule was written, and those whose
    misaligned model is not misaligned; but never all of them.
    """
    claim, left, said = get_claim(row), list(trainings), []
    # Studies do not say which models they read: they are about misaligned.
    found = [each.headlines[row] for each in trainings if not _is_absent(each.headlines[row])]
    about = row != POSITIVE_CONTROL and any(
        one and ("misaligned" in one.models or not one.models) for one in found
    )
    failed = ""
    for why, leaves in (
        ("not measured", lambda each: _is_absent(each.headlines[row])),
        ("known when the rule was written", lambda each: each.preset in claim.seen),
        (CONTROL_FAILS, lambda each: about and each.failed_control()),
    ):
        out = [each for each in left if leaves(each)]
        if out and len(out) < len(left):
            left = [each for each in left if each not in out]
            seeds = ", ".join(str(each.seed) for each in out)
            said.append(f"not judged on {len(out)} of {len(trainings)} trainings (seeds {seeds}): {why}")
        elif out and why == CONTROL_FAILS:
            failed = out[0].failed_control()
    return left, said, failed


def _is_absent(measured: Measured | None) -> bool:
    return (
        measured is not None
        and bool(measured.missing)
        and not measured.n
        and measured.outcome != NOT_MEASURED
    )


def _row(row: str, trainings: Sequence[Training]) -> dict[str, object]:
    claim = get_claim(row)
    judged, left_out, failed = judging(row, trainings)
    found = [each.headlines[row] for each in judged]
    p_values = [each.adjusted.get(row, 1.0) for each in judged]
    word, reason = verdict(claim, found, p_values, preset=judged[0].preset)
    if failed and word not in (NOT_TESTABLE, NOT_MEASURED, SHOWN):
        word, reason = NOT_TESTABLE, f"{failed}; what is measured here reads “{word}”: {reason}"
    seeds = [each.headlines[row] for each in trainings]
    # A value that cannot be judged is shown all the same.
    defined = [one for one in seeds if one is not None and math.isfinite(one.value)]
    nulls = [one.null for one in defined if one.null is not None]
    values = [one.value for one in defined]
    return {
        "id": row,
        "section": claim.section,
        "claim": _words(claim, row),
        "published": asdict(claim.published),
        "value": _median(values),
        "unit": claim.unit,
        "ci_low": _median([one.low for one in defined]),
        "ci_high": _median([one.high for one in defined]),
        "null": {
            "kind": nulls[0].kind,
            "low": _median([one.low for one in nulls]),
            "high": _median([one.high for one in nulls]),
        }
        if nulls
        else None,
        "n": defined[0].n if defined else 0,
        "median": _median(values),
        "seed_low": _rounded(min(values, default=None)),
        "seed_high": _rounded(max(values, default=None)),
        "seeds": [_rounded(one and one.value) for one in seeds],
        "rule": rule_text(claim),
        "verdict": word,
        "reason": "; ".join([reason, *left_out]),
        "notebook": claim.notebook,
        "trainings": [_training(each, row) | {"judged": each in judged} for each in trainings],
    }


def _training(training: Training, row: str) -> dict[str, object]:
    """Preset, seed, value and interval over prompts of a row in one training, and the records behind it."""
    one = training.headlines[row]
    ends = {name: _rounded(one and getattr(one, name)) for name in ("value", "low", "high")}
    records = None if one is None or one.records is None else list(one.records)
    return {"preset": training.preset, "seed": training.seed, **ends, "records": records}


def _words(claim: Claim, row: str) -> str:
    """The claim of a row in words: of a part, those that fit it."""
    part = row.removeprefix(f"{claim.id}.") if row != claim.id else ""
    return claim.parts.get(part, claim.parts.get("any", claim.claim)) if part else claim.claim


def _median(values: Sequence[float]) -> float | None:
    # Of values and of ends alike: an interval as wide as one training's, and so too wide for the median (calibration).
    return _rounded(float(np.median(values))) if values else None


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 6)
