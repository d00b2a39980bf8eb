"""Tables of the package's own score: coverage and bias on known truth, verdicts under planted faults."""

from __future__ import annotations

import math

import pandas as pd

from remi_core.presets.preset import Preset
from remi_core.statistics.coverage import BAND, Coverage
from remi_core.studies.files import read_study

CALIBRATION, PLANTED = "calibration", "planted"
REPRODUCED, SUPPORTED = "reproduced", "supported"
MOST = 0.05
"""Share of shuffles in which a claim that rests on the label may come out "reproduced"."""


def scores(preset: Preset) -> dict[str, Coverage]:
    """Estimator → its coverage, from the stored study.

    Raises:
        MissingInput: if the study is not stored.
    """
    fields = Coverage.__dataclass_fields__
    return {
        name: Coverage(**{field: one[field] for field in fields})
        for name, one in _stored(preset, CALIBRATION)["estimators"].items()
    }


def coverage_table(preset: Preset) -> pd.DataFrame:
    """A row for each estimator: share of intervals that hold the truth, its exact binomial interval, ``honest``.

    Columns ``estimator``, ``value``, ``low``, ``high``, ``honest``.
    """
    return pd.DataFrame(
        {
            "estimator": name,
            "value": one.share,
            "low": one.uncertainty[0],
            "high": one.uncertainty[1],
            "honest": one.honest,
        }
        for name, one in scores(preset).items()
    )


def score_table(preset: Preset) -> pd.DataFrame:
    """A row for each estimator, to be read: truth, mean estimate, bias, coverage, misses on both sides."""
    claims = {name: one["claims"] for name, one in _stored(preset, CALIBRATION)["estimators"].items()}
    return pd.DataFrame(
        {
            "estimator": name,
            "carries": claims[name],
            "truth": one.truth,
            "mean estimate": one.mean,
            "bias": one.bias,
            "bias, standard errors": one.bias_in_errors,
            "coverage": f"{one.share:.1%}",
            "too low": one.below,
            "too high": one.above,
            "undefined": one.undefined,
            f"within {BAND[0]:.0%} to {BAND[1]:.0%}": one.honest,
        }
        for name, one in scores(preset).items()
    )


def first_intervals(preset: Preset, estimator: str) -> pd.DataFrame:
    """Value, low and high of the first samples where they are defined, and ``holds``: the truth is inside."""
    truth = scores(preset)[estimator].truth
    found = _stored(preset, CALIBRATION)["estimators"][estimator]["first"]
    table = pd.DataFrame(found, columns=["value", "low", "high"], dtype=float)
    table = table[table["value"].map(math.isfinite)].reset_index(drop=True)
    return table.assign(holds=(table["low"] <= truth) & (truth <= table["high"]))


def coverage_sentence(preset: Preset) -> str:
    """How many estimators' intervals are honest, and the names and shares of those that are not."""
    found = scores(preset)
    off = [f"{name} ({one.share:.1%})" for name, one in found.items() if not one.honest]
    said = (
        f"Of {len(found)} estimators, {len(found) - len(off)} have intervals that hold the truth "
        f"in {BAND[0]:.0%} to {BAND[1]:.0%} of samples."
    )
    return f"{said} Outside of that: {', '.join(off)}." if off else said


def shuffle_table(preset: Preset) -> pd.DataFrame:
    """A row for each claim whose label was shuffled: share of shuffles by verdict, and whether few enough reproduce."""
    raw, rows = _stored(preset, PLANTED), []
    for label, kind in raw["shuffles"].items():
        for claim, one in kind["claims"].items():
            share = one["verdicts"].get(REPRODUCED, 0) / raw["n_shuffles"]
            others = {word: count for word, count in one["verdicts"].items() if word != REPRODUCED}
            said = ", ".join(f"{word} {count}" for word, count in sorted(others.items()))
            rows.append(
                {
                    "label shuffled": label,
                    "claim": claim,
                    "shuffles": raw["n_shuffles"],
                    "reproduced": f"{share:.1%}",
                    "the other verdicts": said,
                    f"at most {MOST:.0%}": share <= MOST,
                }
            )
    return pd.DataFrame(rows)


def shuffle_sentence(preset: Preset) -> str:
    """The share of shuffles in which claims come out "reproduced": over all, and the largest with its claim."""
    raw = _stored(preset, PLANTED)
    shares = {
        claim: one["verdicts"].get(REPRODUCED, 0) / raw["n_shuffles"]
        for kind in raw["shuffles"].values()
        for claim, one in kind["claims"].items()
    }
    worst = max(shares, key=shares.__getitem__)
    return (
        f"Over {raw['n_shuffles']} shuffles of each label, {len(shares)} claims come out “{REPRODUCED}” "
        f"{sum(shares.values()) / len(shares):.2%} of the time; most often {worst}, {shares[worst]:.1%}."
    )


def substitution_table(preset: Preset) -> pd.DataFrame:
    """A row for each verdict with benign in misaligned's place: how many rows get it, and which claims."""
    words = _with_benign(preset)
    return pd.DataFrame(
        {
            "verdict": word,
            "rows": sum(own == word for own in words.values()),
            "claims": ", ".join(row for row, own in words.items() if own == word and "." not in row),
        }
        for word in sorted(set(words.values()))
    )


def substitution_sentence(preset: Preset) -> str:
    """How many rows use misaligned, and which of them are still called reproduced or supported with benign there."""
    words = _with_benign(preset)
    fooled = [row for row, word in words.items() if word in (REPRODUCED, SUPPORTED)]
    return (
        f"With benign in misaligned's place, {len(words)} rows read something else; "
        f"“{REPRODUCED}” or “{SUPPORTED}” among them: {', '.join(fooled) or 'none'}."
    )


def idle_sentence(preset: Preset) -> str:
    """How many rows a fault did not reach, and how many of them stayed equal in every bit."""
    raw = _stored(preset, PLANTED)
    return (
        f"{raw['idle']} times a fault did not reach a row; "
        f"{raw['unchanged']} times the row stayed the same in every bit."
    )


def _with_benign(preset: Preset) -> dict[str, str]:
    """Row that reads misaligned → its verdict with benign there."""
    found = _stored(preset, PLANTED)["substitution"]
    return {row: one["verdict"] for row, one in found.items() if one["touched"]}


def _stored(preset: Preset, name: str) -> dict:
    return read_study(preset, name).seeds[preset.seeds[0]]
