"""Two sets side by side: which rows belong together, and how labels are shuffled where some do and where none do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from remi_core.presets.known import Preset
from remi_core.statistics.permutation import permuted_labels

WITHIN, BY_TEMPLATE = "labels shuffled within pairs", "labels shuffled by template"


@dataclass(frozen=True, eq=False)
class TwoSets:
    """The rows of two sets, the first above the second, as indices into each set's records."""

    rows: tuple[Int[np.ndarray, " first"], Int[np.ndarray, " second"]]
    clusters: list[str]
    """The prompt template of each row; both rows of a pair have that of the second set."""
    pairs: list[str]
    """The pair of each row; empty where the sets are not paired row by row."""

    @property
    def labels(self) -> Int[np.ndarray, " row"]:
        """0 for rows of the first set, 1 for those of the second."""
        return np.repeat([0, 1], [len(rows) for rows in self.rows])

    @property
    def null_kind(self) -> str:
        """What the null of ``shuffled`` does, in words."""
        return WITHIN if self.pairs else BY_TEMPLATE

    def shuffled(self, preset: Preset) -> Int[np.ndarray, "permutation row"]:
        """The labels exchanged within pairs; without pairs, whole prompt templates change their label.

        Templates of one set pass their labels round among themselves; those of both sets swap theirs or not.
        """
        options = {"n_permutations": preset.n_permutations, "seed": preset.seed}
        if self.pairs:
            return permuted_labels(self.labels, self.pairs, scheme="within", **options)
        labels, clusters = self.labels, np.array(self.clusters)
        mixed = np.isin(clusters, clusters[labels == 0]) & np.isin(clusters, clusters[labels == 1])
        result = np.empty((preset.n_permutations, len(labels)), dtype=labels.dtype)
        for part in (mixed, ~mixed):
            if part.any():
                result[:, part] = permuted_labels(
                    labels[part], clusters[part].tolist(), scheme="whole", **options
                )
        return result


def side_by_side(
    first: Mapping[str, np.ndarray],
    second: Mapping[str, np.ndarray],
    used: tuple[Bool[np.ndarray, " one"], Bool[np.ndarray, " two"]],
) -> TwoSets:
    """The used rows of two sets, paired where every row of both has a partner's label (array ``pair``).

    Of paired sets only rows whose partner is used too are kept. Sets without labels, or in which most labels have
    no partner, keep all their used rows.
    """
    names = [[str(name) for name in one["pair"]] for one in (first, second)]
    # Answers that happen to be equal in two sets do not make them pairs row by row.
    partners = len(set(names[0]) & set(names[1])) >= min(map(len, names)) / 2
    if not (all(names[0]) and all(names[1]) and partners):
        rows = tuple(np.flatnonzero(each) for each in used)
        clusters = [
            str(one["cluster"][at]) for one, each in zip((first, second), rows, strict=True) for at in each
        ]
        return TwoSets(rows, clusters, [])
    places = [
        {name: at for at, name in enumerate(each) if kept[at]} for each, kept in zip(names, used, strict=True)
    ]
    shared = [name for name in places[1] if name in places[0]]
    rows = tuple(np.array([place[name] for name in shared], dtype=np.int64) for place in places)
    return TwoSets(rows, [str(second["cluster"][at]) for at in rows[1]] * 2, shared * 2)
