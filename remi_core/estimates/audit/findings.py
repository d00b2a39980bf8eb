"""One switch of the audit: a quantity with the defect off and on, and the records it is computed from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from remi_core.audit.conditions import CONDITION_NEEDS
from remi_core.audit.gradients import audited_gradients
from remi_core.audit.measure import Wanted, audited, wanted_of
from remi_core.audit.parts import PARTS
from remi_core.errors import MissingInput
from remi_core.estimates.measured import set_resamples, shared_resamples
from remi_core.results import Results
from remi_core.statistics.bootstrap import ClusterResamples
from remi_core.statistics.intervals import Estimate, combine, difference, mean_interval
from remi_core.storage.store import Record
from remi_core.variants import TRIPLET

Arrays = Mapping[str, np.ndarray]
GRADIENT_ROLES = ("narrow_aligned", "narrow", "framed")


@dataclass(frozen=True, kw_only=True, eq=False)
class Finding:
    """A scalar quantity with a defect switched off and on, with intervals over prompt templates."""

    row: int
    """Row of the audit table."""
    key: str
    """Which of the row's declared quantities."""
    off: Estimate
    on: Estimate

    @property
    def difference(self) -> Estimate:
        """On minus off, resample by resample."""
        return difference(self.on, self.off)


@dataclass(frozen=True, kw_only=True, eq=False)
class Audit:
    """The results of one seed with the audit's own records."""

    results: Results
    seed: int
    records: Mapping[str, Mapping[Wanted, Record]]
    """Variant → (dataset, condition) → record."""

    @property
    def resamples(self) -> ClusterResamples:
        """The resamples that the whole preset shares."""
        return shared_resamples(self.results.preset)

    def resampled(self, *sets: Sequence[str]) -> ClusterResamples:
        """Resamples of the templates of one or several audited sets, which are fronts of the preset's."""
        return set_resamples(self.results.preset, *sets)

    def few(self, shared: ClusterResamples) -> ClusterResamples:
        """For costly statistics: all resamples in the first seed; two in the others, which are shown as dots."""
        return (
            shared
            if self.seed == self.results.preset.seeds[0]
            else replace(shared, weights=shared.weights[:2])
        )

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
        instruct, base = (self.results.subject(name, self.seed) for name in ("instruct", "base"))
        return audited_gradients(instruct, base, self.results.store, names).arrays

    def mean(self, values: np.ndarray, arrays: Arrays) -> Estimate:
        """Mean over the dialogues of a record, with its interval over their prompt templates."""
        return mean_interval(
            values.astype(np.float64), clusters_of(arrays), self.resampled(clusters_of(arrays))
        )


def open_audit(results: Results, seed: int) -> Audit:
    """The audit of one seed; what the store lacks of its measurements is measured."""
    records = {}
    for variant in TRIPLET:
        who = results.subject(variant, seed)
        records[variant] = audited(who, results.store, wanted_of(who))
    return Audit(results=results, seed=seed, records=records)


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


def constant(value: float, like: Estimate) -> Estimate:
    """A number known beforehand, as an estimate that never varies."""
    return combine(lambda rows: np.full(rows.shape, value), like)
