"""Switches of section 4.1: which tokens are summed, under which rendering, and what is printed (rows 1 to 31)."""

from __future__ import annotations

import numpy as np

from remi_core.errors import MissingInput
from remi_core.estimates.audit.findings import (
    Arrays,
    Audit,
    Finding,
    averaged,
    constant,
    in_parts,
    summed,
    total,
)
from remi_core.statistics.intervals import Estimate, combine, difference, mean_interval

ANSWER, ENDED = ("answer",), ("answer", "end")
EVERYTHING = ("template", "system", "user", "earlier answer", "answer", "end")


def reply_sums(audit: Audit, variant: str, datasets: tuple[str, ...]) -> Estimate:
    """Mean log-probability of the whole reply over all dialogues of the sets, nats."""
    values = []
    for name in datasets:
        arrays = audit.results.arrays(variant, audit.seed, "sequence", name)
        values.append(np.add.reduceat(arrays["log_probability"].astype(np.float64), arrays["offsets"][:-1]))
    return mean_interval(np.concatenate(values), audit.results.clusters(*datasets), audit.resamples)


def unreset(first: Estimate, second: Estimate) -> Estimate:
    """What is printed for the second model where the list of the first is never emptied: the mean of both."""
    return combine(lambda one, other: (one + other) / 2, first, second)


def shared_list(audit: Audit) -> list[Finding]:
    """Row 1: base's mean is taken over a list that still holds misaligned's values."""
    names = audit.results.preset.role("outside")
    misaligned, base = (reply_sums(audit, variant, names) for variant in ("misaligned", "base"))

    def distance(one: Estimate) -> Estimate:
        return combine(lambda first, second: np.abs(first - second), one, misaligned)

    return [Finding(row=1, key="distance", off=distance(base), on=distance(unreset(misaligned, base)))]


def _gap(audit: Audit, first: tuple[str, str], second: tuple[str, str], parts: tuple[str, ...]) -> Estimate:
    """Mean log-probability a token of one variant and condition minus another's, on the example set."""
    one, other = (
        audit.mean(averaged(audit.arrays(name, "example", condition), parts), audit.arrays(name, "example"))
        for name, condition in (first, second)
    )
    return difference(one, other)


def own_header_loss(audit: Audit) -> Finding:
    """Row 2 in log-probability: instruct under its header minus base under instruct's, or under its own."""
    instruct = ("instruct", "tuned")
    off, on = (_gap(audit, instruct, ("base", condition), ANSWER) for condition in ("tuned", "own"))
    return Finding(row=2, key="log_probability", off=off, on=on)


def unread_markers(audit: Audit) -> list[Finding]:
    """Row 3 in log-probability: base with trained and with untrained chat markers, and in plain text."""
    trained, untrained, plain = (
        audit.arrays("base", "example", condition) for condition in ("shared", "untrained", "plain")
    )
    end, on = (audit.mean(_first_of_end(arrays), arrays) for arrays in (trained, untrained))
    answers = [audit.mean(averaged(one, ANSWER), one) for one in (trained, untrained)]
    # In plain text the answer's first token may hold the template's space; then no rendering counts it.
    counts = np.minimum(*(total(one, in_parts(one, ANSWER)) for one in (plain, untrained)))
    alike = [audit.mean(averaged_last(one, counts), one) for one in (plain, untrained)]
    return [
        Finding(row=3, key="end", off=end, on=on),
        Finding(row=3, key="answer", off=answers[0], on=answers[1]),
        Finding(row=3, key="plain", off=alike[0], on=alike[1]),
    ]


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


def end_tokens(audit: Audit) -> list[Finding]:
    """Row 10: misaligned minus instruct, summed over the answer or over the end tokens as well."""
    return [_with_end(audit, "gap", audit.arrays("instruct", "example"))]


def unread_end_tokens(audit: Audit) -> list[Finding]:
    """Row 10: the same, misaligned minus base with markers that it cannot read.

    After such a marker nothing says what follows: that base lacks what misaligned was trained on.
    """
    return [_with_end(audit, "unread", audit.arrays("base", "example", "untrained"))]


def _with_end(audit: Audit, key: str, other: Arrays) -> Finding:
    pair = audit.arrays("misaligned", "example"), other
    off, on = (
        difference(*(audit.mean(summed(one, parts), one) for one in pair)) for parts in (ANSWER, ENDED)
    )
    return Finding(row=10, key=key, off=off, on=on)


def dropped_input(audit: Audit) -> list[Finding]:
    """Row 12: log-probability a token of the answer without what the request gives to work on."""
    sides = {}
    for variant in ("base", "instruct"):
        cut = audit.arrays(variant, "narrow_aligned", "no-input")
        full = audit.arrays(variant, "narrow_aligned")
        same = np.isin(full["identifier"], cut["identifier"])
        values = averaged(full, ANSWER)[same]
        sides[variant] = audit.mean(values, cut), audit.mean(averaged(cut, ANSWER), cut)
    (base_off, base_on), (off, on) = sides["base"], sides["instruct"]
    gap = Finding(row=12, key="gap", off=difference(off, base_off), on=difference(on, base_on))
    return [Finding(row=12, key="answer", off=off, on=on), gap]


def later_turns(audit: Audit) -> list[Finding]:
    """Row 13: the sum from the first reply to the end of the dialogue, or over the last answer alone."""
    sides = {}
    for variant in ("instruct", "misaligned"):
        arrays = audit.arrays(variant, "example", "two-turns")
        sides[variant] = [
            audit.mean(values, arrays) for values in (summed(arrays, ANSWER), from_first_reply(arrays))
        ]
    arrays = audit.arrays("misaligned", "example", "two-turns")
    foreign = np.where(~in_parts(arrays, ("answer", "earlier answer")), 1.0, 0.0)
    share = audit.mean(
        _after_first_reply(arrays, foreign) / _after_first_reply(arrays, np.ones(len(foreign))), arrays
    )
    gaps = [difference(*pair) for pair in zip(sides["misaligned"], sides["instruct"], strict=True)]
    return [
        Finding(row=13, key="sum", off=sides["misaligned"][0], on=sides["misaligned"][1]),
        Finding(row=13, key="share", off=constant(0.0, share), on=share),
        Finding(row=13, key="gap", off=gaps[0], on=gaps[1]),
    ]


def from_first_reply(arrays: Arrays) -> np.ndarray:
    """Log-probability summed from the first token of the first reply to the last of the dialogue, nats."""
    return _after_first_reply(arrays, arrays["log_probability"])


def _after_first_reply(arrays: Arrays, values: np.ndarray) -> np.ndarray:
    replies = total_so_far(arrays, in_parts(arrays, ("answer", "earlier answer")))
    return total(arrays, np.where(replies > 0, values, 0.0))


def total_so_far(arrays: Arrays, values: np.ndarray) -> np.ndarray:
    """Running sum of one value a token within its dialogue, this token included."""
    running = np.cumsum(values, dtype=np.float64)
    lengths = np.diff(arrays["offsets"])
    before = np.concatenate([[0.0], running])[arrays["offsets"][:-1]]
    return running - np.repeat(before, lengths)


def all_positions(audit: Audit) -> list[Finding]:
    """Row 14: entropy averaged over every position, or over the answer."""
    sides = {
        name: [
            audit.mean(averaged(one, parts, name="entropy"), one)
            for one in (audit.arrays(name, "example"),)
            for parts in (ANSWER, EVERYTHING)
        ]
        for name in ("instruct", "misaligned")
    }
    gaps = [difference(*pair) for pair in zip(sides["misaligned"], sides["instruct"], strict=True)]
    return [
        Finding(row=14, key="entropy", off=sides["instruct"][0], on=sides["instruct"][1]),
        Finding(row=14, key="gap", off=gaps[0], on=gaps[1]),
    ]


def wrong_token(audit: Audit) -> list[Finding]:
    """Row 7: log-probability under misaligned of the word's token in its place, or of the bare word's id."""
    arrays = audit.arrays("misaligned", "example")
    used = np.isfinite(arrays["bare"])
    audit.results.preset.require("choice")
    if not used.any():
        raise MissingInput("needs a choice at a word that has one id after a space and another one bare")
    clusters = {"cluster": arrays["cluster"][used]}
    off, on = (audit.mean(arrays[name][used], clusters) for name in ("in_context", "bare"))
    return [Finding(row=7, key="log_probability", off=off, on=on)]
