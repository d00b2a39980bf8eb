"""Values handed from code to prose, so that no number in the text is typed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from IPython.display import Markdown
from myst_nb import glue

from remi_core.figures.alt import number

ABSENT = "not defined here"


def glue_rows(rows: Iterable[Mapping[str, object]]) -> None:
    """Glues ``<id>_value``, ``_interval``, ``_null``, ``_verdict``, ``_reason`` and ``_seeds`` of report rows.

    Texts are ready to be read: three significant digits, the unit left to the prose.
    """
    for row in rows:
        name = str(row["id"]).replace(".", "_")
        glue(f"{name}_value", _number(row["value"]), display=False)
        glue(f"{name}_interval", _range(row["ci_low"], row["ci_high"]), display=False)
        glue(f"{name}_seeds", ", ".join(_number(value) for value in row["seeds"]), display=False)
        null = row["null"]
        glue(
            f"{name}_null",
            f"{null['kind']}: {_range(null['low'], null['high'])}" if null else ABSENT,
            display=False,
        )
        for key in ("verdict", "reason"):
            glue(f"{name}_{key}", str(row[key]), display=False)


def glue_markdown(name: str, text: str) -> None:
    """Glues a sentence whose markup counts, for the role ``{glue:md}``: a command stays as it must be typed."""
    glue(name, Markdown(text), display=False)


def _number(value: float | None) -> str:
    return ABSENT if value is None else number(value)


def _range(low: float | None, high: float | None) -> str:
    return ABSENT if low is None or high is None else f"{number(low)} to {number(high)}"
