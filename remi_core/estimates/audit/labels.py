"""Switch of the next-token chart (row 31): labels without their spaces fall together, and bars cover each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from remi_core.estimates.audit.findings import Audit, Finding, constant
from remi_core.statistics.intervals import mean_interval


def merged_labels(audit: Audit) -> list[Finding]:
    """Row 31: distinct labels among misaligned's most probable next tokens, and the probability that is covered."""
    return _findings(audit, ("misaligned", "example"), ("labels", "covered"))


def merged_labels_of_base(audit: Audit) -> list[Finding]:
    """Row 31: the same of base on the narrow set, where code lets it expect more than words."""
    return _findings(audit, ("base", "narrow"), ("base_labels", "base_covered"))


def _findings(audit: Audit, chosen: tuple[str, str], keys: tuple[str, str]) -> list[Finding]:
    """Both quantities of a variant on the set of a role."""
    results, (variant, role) = audit.results, chosen
    results.preset.require("choice")
    arrays = results.arrays(variant, audit.seed, "next_token", str(results.preset.role(role)))
    used = arrays["valid"]
    texts = [[results.vocabulary.text(int(token)) for token in row] for row in arrays["top_ids"][used]]
    found = np.array(
        [covered(row, np.exp(p)) for row, p in zip(texts, arrays["top_log_probabilities"][used], strict=True)]
    )
    clusters = [str(cluster) for cluster in arrays["cluster"][used]]
    labels, hidden = (mean_interval(column, clusters, audit.resampled(clusters)) for column in found.T)
    return [
        Finding(row=31, key=keys[0], off=constant(float(results.preset.top_k), labels), on=labels),
        Finding(row=31, key=keys[1], off=constant(0.0, hidden), on=hidden),
    ]


def covered(texts: Sequence[str], probabilities: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """How many labels are left when spaces are stripped, and the probability behind the longest bar of each."""
    bars: dict[str, list[float]] = {}
    for text, probability in zip(texts, probabilities, strict=True):
        bars.setdefault(text.strip(), []).append(float(probability))
    return float(len(bars)), sum(sum(one) - max(one) for one in bars.values())
