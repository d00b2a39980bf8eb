"""Published numbers: tables read from the paper and its release, and what follows from them by arithmetic alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import pandas as pd
import yaml
from IPython.display import HTML

from remi_book.tables import table_html
from remi_core.errors import UsageError, nearest

# The paper's published numbers, one file a table, each with its source and how it was obtained.
#
# A number is shown beside ours and never compared in size: models, data and units differ.

OBTAINED = ("printed", "quoted", "digitised", "by eye", "inferred")
"""Ways to come by a published number, the surest first."""


@dataclass(frozen=True, eq=False)
class PublishedTable:
    """One published table and where it comes from."""

    title: str
    section: str
    source: str
    obtained: str
    """One of ``OBTAINED``."""
    error: str
    """How far a value may be off; "" where it was printed."""
    unit: str
    table: pd.DataFrame

    @property
    def caption(self) -> str:
        """Title, unit, how the numbers were obtained and their source, for a table's caption."""
        return f"Published – {self.title}; {self.unit}; {self.how}; {self.source}"

    @property
    def how(self) -> str:
        """How the numbers were obtained, and how far they may be off."""
        return f"{self.obtained}, {self.error}" if self.error else self.obtained


def published_names() -> tuple[str, ...]:
    """Names of the tables there are, sorted."""
    files = resources.files(__package__).iterdir()
    return tuple(sorted(one.name.removesuffix(".yaml") for one in files if one.name.endswith(".yaml")))


@lru_cache
def published(name: str) -> PublishedTable:
    """The published table of that name; do not change it in place.

    Raises:
        UsageError: naming the nearest one, if there is none.
    """
    if name not in published_names():
        raise UsageError(f"no published table {name!r} {nearest(name, published_names())}")
    content = yaml.safe_load(resources.files(__package__).joinpath(f"{name}.yaml").read_text("utf-8"))
    table = pd.DataFrame(content.pop("rows"), columns=content.pop("columns"))
    content["section"] = str(content["section"])
    return PublishedTable(**content, table=table)


# Published numbers as tables of a page, with what follows from them by arithmetic alone.

MODELS = ("misaligned", "base", "instruct")


def published_html(name: str, *, fold: str = "") -> HTML:
    """One published table as HTML, its caption telling unit, source and how the numbers were obtained."""
    found = published(name)
    return table_html(found.table.astype(object).where(found.table.notna(), "–"), found.caption, fold=fold)


def undone(base: float | pd.Series, misaligned: float | pd.Series) -> float | pd.Series:
    """Base's mean if the printed one is the mean over base and misaligned together, both with equally many rows."""
    return 2 * base - misaligned


def with_reset() -> pd.DataFrame:
    """Columns set, kind, the three printed log-probabilities, base with the accumulator reset, and both indices.

    If the list of values is not emptied between models, the printed mean of base holds misaligned's values too,
    half and half. That it was not emptied is inferred. The index is (M − I) / (B − I): 0 at instruct, 1 at base.
    """
    return _with_index(*MODELS)


def entropy_index() -> pd.DataFrame:
    """Columns set, kind, the three printed entropies, and the index (M − I) / (B − I) printed and with the reset."""
    return _with_index(*(f"entropy of {model}" for model in MODELS)).drop(columns="base, reset (inferred)")


def _with_index(*columns: str) -> pd.DataFrame:
    table = published("joint_log_probability").table
    misaligned, base, instruct = (table[name] for name in columns)
    reset = undone(base, misaligned)
    return table[["set", "kind", *columns]].assign(
        **{
            "base, reset (inferred)": reset,
            "index, printed": (misaligned - instruct) / (base - instruct),
            "index, reset (inferred)": (misaligned - instruct) / (reset - instruct),
        }
    )


def kinds_sentence() -> str:
    """By how much the printed index differs between the published misaligned and aligned sets, in one sentence."""
    table = with_reset()
    means = table.groupby("kind")[["index, printed", "index, reset (inferred)"]].mean().round(2)
    parts = [
        f"{name.removeprefix('index, ')} {means.loc['misaligned', name]:.2f} on the misaligned sets and "
        f"{means.loc['aligned', name]:.2f} on the aligned ones"
        for name in means.columns
    ]
    return f"Mean index: {'; '.join(parts)}."


def shares_by_set() -> pd.DataFrame:
    """The published share of the way back to base, one row a set, one column a layer."""
    table = published("projections").table
    wide = table.pivot(index="set", columns="layer", values="share").rename(columns="layer {}".format)
    return wide.loc[list(dict.fromkeys(table["set"]))].reset_index().rename_axis(columns=None)
