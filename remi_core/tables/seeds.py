"""One table of every seed: seeds are dots in a figure, never an interval."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from remi_core.results import Results


def by_seed(results: Results, table: Callable[..., pd.DataFrame], *further: object) -> pd.DataFrame:
    """``table(results, seed, *further)`` of every seed, one under another, with a column ``seed``."""
    tables = [table(results, seed, *further).assign(seed=seed) for seed in results.preset.seeds]
    return pd.concat(tables, ignore_index=True)
