"""The figure of the front page, drawn while the book is built, with its passport and the sentence below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from remi_core import figures
from remi_core.escaping import as_html
from remi_core.figures.passport import passport_html, present_passport
from remi_core.publishing.passports import passports_text
from remi_core.results import Results
from remi_core.tables.answer import way_back, way_back_sentence
from remi_core.tables.seeds import by_seed
from remi_core.trail import PAGE, TRAIL

PASSPORT_FILE = "front.passports.json"
HEADLINES = ("H1", "H2", "H3")
CAPTION = (
    "The way from instruct back to base, by what comes back; intervals of seed {seed}, open dots all seeds."
)


def front(results: Results, rows: Sequence[Mapping[str, object]]) -> tuple[dict[str, str], str]:
    """What the front page shows, as HTML and text by name, and the JSON text of the figure's passport.

    ``rows`` are those of the report: the verdict on the first headline claim stands below the figure.
    """
    seed = results.preset.seeds[0]
    TRAIL.clear()  # the builder is no notebook: what it read for other pages is no part of this figure
    table, seeds = way_back(results, seed), by_seed(results, way_back)
    found = present_passport()
    caption = CAPTION.format(seed=seed)
    link = f'<a href="{as_html(PASSPORT_FILE)}">this passport as a file</a>'
    page = f"Computed from the records while the book was built; {link} (JSON)."
    picture = figures.figure_html(figures.plot_way_back(table, seeds=seeds), caption=caption)
    shown = {
        "figure": picture + passport_html(found).replace(PAGE, page),
        "sentence": f"{way_back_sentence(table, seeds)} {verdict_sentence(rows)}",
    }
    return shown, passports_text({"page": "front"}, [{"caption": caption, **found}])


def verdict_sentence(rows: Sequence[Mapping[str, object]]) -> str:
    """The verdict on each headline claim, in the words of the report."""
    told = [
        f"{row['id']}, \N{LEFT DOUBLE QUOTATION MARK}{str(row['claim']).rstrip('.')}"
        f"\N{RIGHT DOUBLE QUOTATION MARK}: {row['verdict']}"
        for row in rows
        if row["id"] in HEADLINES
    ]
    return f"By the rules declared beforehand, the paper's headline claims stand so: {'; '.join(told)}."
