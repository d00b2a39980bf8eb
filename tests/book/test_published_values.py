"""Published numbers: every table has its source and way, and what follows from the printed table by arithmetic."""

from __future__ import annotations

import html

import pytest

from remi_book.published import (
    OBTAINED,
    entropy_index,
    kinds_sentence,
    published,
    published_html,
    published_names,
    shares_by_set,
    with_reset,
)
from remi_core.errors import UsageError


def test_every_table_tells_source_way_and_unit() -> None:
    assert len(published_names()) >= 8
    for name in published_names():
        found = published(name)
        assert found.title and found.source and found.unit and found.section
        assert found.obtained in OBTAINED
        assert found.error or found.obtained in ("printed", "quoted")
        assert len(found.table) and found.table.columns.is_unique
        assert html.escape(found.source) in published_html(name).data
    with pytest.raises(UsageError, match="did you mean 'projections'"):
        published("projection")


def test_what_follows_from_the_printed_tables() -> None:
    table = with_reset().set_index("set")
    row = table.loc["Insecure"]
    assert row["base, reset (inferred)"] == pytest.approx(-81.2, abs=0.01)
    assert (row["base, reset (inferred)"] + row["misaligned"]) / 2 == pytest.approx(row["base"])
    assert row["index, printed"] == pytest.approx(1.57, abs=0.005)
    assert row["index, reset (inferred)"] == pytest.approx(3.60, abs=0.005)
    assert table["index, printed"].min() == pytest.approx(0.90, abs=0.005)
    printed = entropy_index()["index, printed"]
    assert printed.min() > 0.235 and printed.max() < 0.395
    assert "printed 1.19 on the misaligned sets and 1.39 on the aligned ones" in kinds_sentence()
    shares = shares_by_set().set_index("set")
    assert shares.loc["Toxic", "layer 45"] == 0.64 and shares.shape == (6, 5)
