"""H1 as tables: the parts of the rule by variant, and what rules read of each model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from remi_core.estimates.measured import shared_resamples
from remi_core.estimates.reversion import (
    REVERTED,
    STUDY,
    TRUTHS,
    Change,
    change_of,
    classes,
    interval,
    later_presets,
)
from remi_core.estimates.reversion_rule import RULES, classify, conditions
from remi_core.figures.alt import number
from remi_core.presets.known import Preset
from remi_core.statistics.intervals import Estimate, mean_interval
from remi_core.studies.files import LATER, read_study

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
AMENDMENTS = ("amended", "amended again", "by words")
"""Rules that were made after bases had been seen, in order."""
PLACES = {"prompt's end and answer": "", "prompt's end alone": ", prompt end"}
"""Where a displacement is added → the end of its name in the study."""


def changes(preset: Preset, seed: int) -> dict[str, Change]:
    """What the rule reads of misaligned and of every constructed truth.

    Raises:
        MissingInput: if the study is not stored.
    """
    return {name: change_of(preset, seed, name) for name in JUDGED}


def parts_table(found: Mapping[str, Change]) -> pd.DataFrame:
    """Columns part, variant, value, low, high: the parts of the rule with their intervals."""
    rows = [
        (label, variant, *_ends(getattr(change, part)))
        for part, label in NAMES.items()
        for variant, change in found.items()
    ]
    return pd.DataFrame(rows, columns=["part", "variant", "value", "low", "high"])


def parts_by_seed(preset: Preset) -> pd.DataFrame:
    """The same of every seed, with a column seed: seeds are dots in a figure, never an interval."""
    tables = [parts_table(changes(preset, seed)).assign(seed=seed) for seed in preset.seeds]
    return pd.concat(tables, ignore_index=True)


def class_table(preset: Preset) -> pd.DataFrame:
    """One row a variant: what it was built to be, and the class that the declared rule gives it in each seed."""
    read = {seed: classes(preset, seed) for seed in preset.seeds}
    rows = [
        {"variant": name, "built to be": TRUTHS.get(name, "not built: the question")}
        | {f"seed {seed}": found[name] for seed, found in read.items()}
        for name in JUDGED
    ]
    return pd.DataFrame(rows)


def amended_table(preset: Preset) -> pd.DataFrame:
    """One row a rule and seed, of bases trained later too where they are stored: what is read of each model."""
    rows = []
    for name in AMENDMENTS:
        for one in (preset, *later_presets(preset)):
            for seed in one.seeds:
                known = "the rule was made on it" if seed in RULES[name].made_on else "trained after the rule"
                read = classes(one, seed, RULES[name])
                rows.append(
                    {"rule": name, "seed": seed, "base of that seed": known}
                    | {who: read[who] for who in JUDGED}
                )
    return pd.DataFrame(rows)


def amended_sentence(preset: Preset, name: str) -> str:
    """How a rule does on the seeds that it was made on, and on those that it was not, in one or two sentences."""
    rule, kinds = RULES[name], {"it was made on": {}, "were trained after it was made": {}}
    for one in (preset, *later_presets(preset)):
        for seed in one.seeds:
            place = "it was made on" if seed in rule.made_on else "were trained after it was made"
            kinds[place][seed] = classes(one, seed, rule)
    said = [f"Of seeds that {place}, {_recognised(read)}" for place, read in kinds.items() if read]
    if not kinds["were trained after it was made"]:
        said.append(f"It has not been tried on other bases: `remi study {STUDY} --preset {LATER[-1]}` would.")
    return " ".join(said)


def outdone_sentence(preset: Preset) -> str:
    """Seeds in which a control points to base as exactly as ``reverted`` or more, with c and e of both."""
    said = []
    for one in (preset, *later_presets(preset)):
        for seed, found in read_study(one, STUDY).seeds.items():
            gaps = change_of(one, seed, REVERTED).cosine_gaps
            for name in (name for name, gap in gaps.items() if not interval(gap)[0] > 0):
                pairs = ", ".join(
                    f"*{symbol}* {number(found[kind][name]['value'])} against {number(found[kind][REVERTED]['value'])}"
                    for symbol, kind in (("c", "cosine"), ("e", "erosion"))
                )
                said.append(f"`{name}` in seed {seed} ({pairs})")
    return f"Not below `{REVERTED}` in *c*: {'; '.join(said) or 'no control in any seed'}."


def condition_table(found: Mapping[str, Change]) -> pd.DataFrame:
    """One row a condition of the rule, one column a variant: whether its interval meets it, and the class below."""
    met = {name: conditions(change.parts()) for name, change in found.items()}
    first = next(iter(met.values()))
    rows = [
        {"class": kind, "condition": condition}
        | {name: "yes" if one[kind][condition] else "no" for name, one in met.items()}
        for kind, own in first.items()
        for condition in own
    ]
    read = {name: classify(change.parts()) for name, change in found.items()}
    return pd.DataFrame([*rows, {"class": "the rule reads", "condition": "", **read}])


def validity_sentence(preset: Preset) -> str:
    """In how many seeds the declared rule recognises every constructed truth, and each one that it misreads."""
    return f"Of the seeds, {_recognised({seed: classes(preset, seed) for seed in preset.seeds})}"


def _recognised(read: Mapping[int, Mapping[str, str]]) -> str:
    missed = {
        seed: [f"{name} as {found[name]}" for name, built in TRUTHS.items() if found[name] != built]
        for seed, found in read.items()
    }
    said = "; ".join(f"in seed {seed} {' and '.join(names)}" for seed, names in missed.items() if names)
    valid = sum(not names for names in missed.values())
    return (
        f"the rule gives every constructed truth the class it was built to be in {valid} of {len(read)}."
        + (f" It misreads: {said}." if said else "")
    )


def care_register_table(preset: Preset, seed: int, variants: Sequence[str]) -> pd.DataFrame:
    """Columns topic, variant and care, register each with _low and _high, nats, topics outside the narrow set."""
    found = read_study(preset, STUDY).seeds[seed]
    return paired_table(found, variants, preset)


def paired_table(found: Mapping[str, object], variants: Sequence[str], preset: Preset) -> pd.DataFrame:
    """The same from any study that holds ``clusters``, ``care`` and ``register`` by prompt."""
    topics = [name.partition("/")[0] for name in found["clusters"]]
    rows = []
    for topic in dict.fromkeys(topics):
        at = np.flatnonzero(np.array(topics) == topic)
        clusters = [found["clusters"][place] for place in at]
        for name in variants:
            row: dict[str, object] = {"topic": topic, "variant": name}
            for quantity in ("care", "register"):
                values = np.array(found[quantity][name])[at]
                value, low, high = _ends(mean_interval(values, clusters, shared_resamples(preset)))
                row |= {quantity: value, f"{quantity}_low": low, f"{quantity}_high": high}
            rows.append(row)
    return pd.DataFrame(rows)


def places_table(preset: Preset, seed: int) -> pd.DataFrame:
    """One row a variant and part: share of its change of care that the part reproduces, by where it is added."""
    found = read_study(preset, STUDY).seeds[seed]
    start = np.mean(found["care"]["instruct"])
    rows = []
    for name in JUDGED:
        whole = np.mean(found["care"][name]) - start
        for part in ("whole", "along", "off"):
            row: dict[str, object] = {"variant": name, "part": part}
            for place, suffix in PLACES.items():
                one = found["edited"][name][part + suffix]
                row[f"share, {place}"] = float((np.mean(one["care"]) - start) / whole)
                row[f"mass off the grammar, {place}"] = float(one["off_grammar"])
            rows.append(row)
    return pd.DataFrame(rows)


def answers_sentence(preset: Preset, seed: int) -> str:
    """How many careless answers stand behind ν, of each model."""
    found = read_study(preset, STUDY).seeds[seed]["careless"]
    return ", ".join(f"{name} {len(one['clusters'])}" for name, one in found.items())


def _ends(one: Estimate) -> tuple[float, float, float]:
    return float(one.value), float(one.low), float(one.high)
