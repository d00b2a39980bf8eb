"""Rows of the report: computed once, kept in the store, the same bytes for the same results."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from remi_core.claims.declarations import CLAIMS, get_claim
from remi_core.claims.headlines import headlines
from remi_core.claims.rules import NOT_TESTABLE, rule_text, verdict
from remi_core.errors import MissingInput
from remi_core.estimates.measured import Measured, absent
from remi_core.fingerprint import make_key
from remi_core.presets.known import Preset
from remi_core.results import Results
from remi_core.statistics.permutation import NullResult, holm
from remi_core.storage.store import Address
from remi_core.studies.files import study_digests

HEADLINE_MODULE = "remi_core.claims.headlines"


def headline(results: Results, row: str, seed: int, key: str) -> Measured | None:
    """The measured headline of one row and seed, from the store where it was computed before; None if undefined.

    Where the preset lacks what it needs, or nothing can be measured for the row, its ``missing`` says so.
    """
    if get_claim(row).untestable:
        return absent(get_claim(row).untestable)
    address = Address(results.preset.name, seed, "all", "headline", row, key)
    with results.store.missing_of({row: address}) as (records, missing):
        if missing:
            found = compute_headline(results, row, seed)
            if found.missing and not found.n:
                return found
            text = json.dumps(asdict(found), sort_keys=True)
            results.store.save(address, {"headline": np.array(text)}, {"row": row})
        else:
            text = str(records[row].arrays["headline"])
    raw = json.loads(text)
    gaps = {name: tuple(gap) for name, gap in raw["contrasts"].items()}
    null = raw["null"] and NullResult(**raw["null"])
    found = Measured(**raw | {"null": null, "contrasts": gaps})
    return found if math.isfinite(found.value) else None


def compute_headline(results: Results, row: str, seed: int) -> Measured:
    """The headline of one row and seed as these results give it, nothing read from the store or kept there.

    Where the preset lacks what it needs, or nothing can be measured for the row, its ``missing`` says so.
    """
    if get_claim(row).untestable:
        return absent(get_claim(row).untestable)
    try:
        return headlines(results.preset)[row](results, seed)
    except MissingInput as missing:
        return absent(str(missing))


def headline_key(results: Results, seed: int) -> str:
    """Everything that changes a headline of one seed: preset, weights, stored studies, and the code behind it."""
    weights = {name: results.subject(name, seed).weights for name in results.variants}
    studies = study_digests(results.preset.name)
    fields = {"preset": results.preset.fields(), "weights": weights, "studies": studies}
    return make_key(fields, [HEADLINE_MODULE])


def report_rows(results: Results, *, notebook: str | None = None) -> list[dict[str, object]]:
    """One row for each claim and part, in ledger order, with value, interval, null and verdict.

    With ``notebook`` only the rows that notebook answers for. What was measured before is read; what is
    missing is measured. Nothing in a row depends on time, path or machine.
    """
    preset = results.preset
    chosen = [row for row in ledger_rows(preset) if notebook in (None, get_claim(row).notebook)]
    keys = {seed: headline_key(results, seed) for seed in preset.seeds}
    by_seed = [
        {
            row: headline(results, row, seed, key)
            for row in chosen
            if seed == preset.seeds[0] or not get_claim(row).once
        }
        for seed, key in keys.items()
    ]
    adjusted = [adjusted_p_values(found) for found in by_seed]
    return [
        _row(
            row,
            [found[row] for found in by_seed if row in found],
            [
                p_values.get(row, 1.0)
                for p_values, found in zip(adjusted, by_seed, strict=True)
                if row in found
            ],
        )
        for row in chosen
    ]


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
    """p of each row's null after Holm: the claims of one notebook are one family, the parts of a claim another."""
    families: dict[str, list[str]] = {}
    for row, one in found.items():
        claim = get_claim(row)
        if one is not None and not (one.missing or claim.descriptive or claim.by_outcome):
            families.setdefault(claim.id if "." in row else claim.notebook, []).append(row)
    adjusted = {}
    for rows in families.values():
        adjusted |= dict(zip(rows, holm([found[row].null.p_value for row in rows]).tolist(), strict=True))
    return adjusted


def _row(row: str, seeds: Sequence[Measured | None], p_values: Sequence[float]) -> dict[str, object]:
    claim = get_claim(row)
    word, reason = verdict(claim, seeds, p_values)
    # A value that cannot be judged for want of a control is shown all the same.
    shown = seeds[0] is not None and math.isfinite(seeds[0].value) and seeds[0].missing
    first = seeds[0] if word != NOT_TESTABLE or shown else None
    return {
        "id": row,
        "section": claim.section,
        "claim": claim.claim,
        "published": asdict(claim.published),
        "value": _rounded(first and first.value),
        "unit": claim.unit,
        "ci_low": _rounded(first and first.low),
        "ci_high": _rounded(first and first.high),
        "null": _null(first) if first and first.null else None,
        "n": first.n if first else 0,
        "seeds": [_rounded(one and one.value) for one in seeds],
        "rule": rule_text(claim),
        "verdict": word,
        "reason": reason,
        "notebook": claim.notebook,
    }


def _null(one: Measured) -> dict[str, object]:
    return {"kind": one.null.kind, "low": _rounded(one.null.low), "high": _rounded(one.null.high)}


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 6)
