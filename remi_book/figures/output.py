"""How figures and values reach a page: as SVG with an alternative text, with their passport."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from IPython.display import Markdown, display
from matplotlib.artist import Artist
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from myst_nb import glue

from remi_book.figures.style import SETTINGS, describe, number
from remi_book.words import UNTYPESET, as_html, folded
from remi_lab.presets import in_order
from remi_lab.results import PAGE, PASSPORT, TRAIL, Read, present_cell

# The passport of a figure: the records it was drawn from, as data for a file and as a folded part of the page.

COLUMNS = ("measurement", "models (weights)", "sets", "seeds", "windows", "kept", "dropped", "seconds")


def passport(trail: Sequence[Read], *, cell: int) -> dict[str, object]:
    """What a figure shown by this cell may have been drawn from, as plain JSON values.

    ``records`` were read by the cell itself, ``earlier`` by cells above it (their names): a figure can show a value
    that one of those left behind. Where the cell read nothing, ``records`` are all those above.
    """
    by_cell = [read for read in trail if cell in read.cells]
    shown_by = by_cell or list(trail)
    return {
        "read by this cell": bool(by_cell),
        "records": [_entry(read, cell) for read in shown_by if not read.stored],
        "stored": [{"file": read.name, **read.about} for read in shown_by if read.stored],
        "earlier": [read.name for read in trail if read not in shown_by],
    }


def present_passport() -> dict[str, object]:
    """The passport of a figure that is shown now."""
    return passport(TRAIL.reads(), cell=present_cell())


def _entry(read: Read, cell: int) -> dict[str, object]:
    cells = [read.cells[cell]] if cell in read.cells else read.cells.values()
    windows = sorted(set().union(*cells))
    return {"record": read.name, **({"windows": windows} if windows else {}), **read.about}


def passport_html(content: Mapping[str, object]) -> str:
    """The passport as a part that opens when its summary is clicked; everything escaped."""
    lines = []
    for result in content["stored"]:
        seconds = result.get("seconds", result.get("seconds of measuring"))
        took = "" if seconds is None else f", {seconds:,} seconds"
        file, recipe, machine = (
            as_html(str(result.get(key, "not said"))) for key in ("file", "recipe", "machine")
        )
        lines.append(
            f"<p><strong>A stored result, not computed by this page</strong>: <code>{file}</code>, "
            f"made by <code>{recipe}</code> on {machine}{took}.</p>"
        )
    if content["records"]:
        lines.append(_table(content["records"]))
    lines += [f"<p>{as_html(line)}</p>" for line in _notes(content)]
    return (
        '<details class="remi-passport"><summary>Where this figure comes from</summary>'
        f"{''.join(lines)}<p>{PAGE}</p></details>"
    )


def _notes(content: Mapping[str, object]) -> list[str]:
    """Sentences on what is the same for all records, and on what else the page had read."""
    records, above, notes = content["records"], len(content["earlier"]), []
    if not records and not content["stored"]:
        notes.append("No record and no stored file was read: the figure shows what the preset itself says.")
    elif not content["read by this cell"]:
        notes.append("Its cell read nothing itself: these are all records that the page had read before it.")
    elif above:
        notes.append(f"Cells above it on this page had read {above} more; the file lists them.")
    # The fingerprint of the weights names the digest of template and tokenizer after its own.
    texts = (str(record.get("weights", "")).rpartition("; text ") for record in records)
    presets = (
        f"{_parts(record)[0]} ({str(record['preset'])[:8]})" for record in records if "preset" in record
    )
    versions = (item for record in records for item in record.get("versions", {}).items())
    facts = {
        "Preset": presets,
        "Number format": (str(record.get("dtype", "")) for record in records),
        "Device": (str(record.get("device", "")) for record in records),
        "Template and tokenizer": (digest[:8] for _, mark, digest in texts if mark),
        "Versions": map(" ".join, versions),
    }
    told = [f"{name}: {value}." for name, values in facts.items() if (value := _joined(values))]
    return [*notes, *([" ".join(told)] if told else [])]


def _table(records: Sequence[Mapping[str, object]]) -> str:
    by_model = defaultdict(list)
    for record in records:
        _, _, model, measurement, _ = _parts(record)
        by_model[measurement, model].append(record)
    # Models of which the same was read share a row.
    rows: dict[tuple[str, ...], dict[str, list[Mapping[str, object]]]] = defaultdict(dict)
    for (measurement, model), group in by_model.items():
        sets, seeds = (_joined(_parts(record)[place] for record in group) for place in (4, 1))
        windows = _joined(window for record in group for window in record.get("windows", ()))
        rows[measurement, sets, seeds, windows][model] = group
    body = ""
    for (measurement, *what), models in sorted(rows.items()):
        group = [record for records in models.values() for record in records]
        digests = {
            model: _joined(str(record.get("model", ""))[:8] for record in models[model])
            for model in in_order(list(models))
        }
        named = (f"{model} ({digest})" if digest else model for model, digest in digests.items())
        # The gradients of the audit count the dropped dialogues of each set, all others name them.
        dropped = (each for record in group for each in record.get("dropped", {}).values())
        kept = sum(int(record.get("kept", 0)) for record in group)
        n_dropped = sum(each if isinstance(each, int) else len(each) for each in dropped)
        seconds = sum(float(record.get("seconds", 0)) for record in group)
        cells = ("; ".join(named), *what, str(kept), str(n_dropped), f"{seconds:.1f}")
        inner = "".join(f"<td>{as_html(text) or '—'}</td>" for text in cells)
        body += f'<tr><th scope="row">{as_html(measurement)}</th>{inner}</tr>'
    head = "".join(f'<th scope="col">{name}</th>' for name in COLUMNS)
    return (
        '<div style="overflow-x:auto" tabindex="0" role="region" aria-label="Records behind this figure">'
        '<table class="remi-table remi-plain"><caption>Records behind this figure</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _parts(record: Mapping[str, object]) -> tuple[str, str, str, str, str]:
    """Preset, seed, model, measurement and data set in a record's name; a stitched model's names its donor."""
    preset, seed, model, file = str(record["record"]).split("/")
    measurement, _, rest = file.partition("-")
    return preset, seed, model, measurement, rest.rpartition("-")[0]


def _joined(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(text for text in texts if text))


# A figure as bytes and as the HTML of a notebook page, the same on every run.

RASTER_DPI = 200
"""Resolution of the parts of a figure that are drawn as pixels (large heat maps, large clouds of points)."""


def svg_bytes(figure: Figure) -> bytes:
    """The figure as SVG without dates, versions or random identifiers: same figure, same bytes.

    Its layout is worked out on the first call and kept, since every further round moves panels a little.
    """
    target = io.BytesIO()
    with matplotlib.rc_context(dict(SETTINGS)):
        if figure.get_layout_engine() is not None:
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        figure.savefig(target, format="svg", dpi=RASTER_DPI, metadata={"Date": None, "Creator": None})
    return target.getvalue()


def figure_html(figure: Figure, *, alt: str | None = None, caption: str | None = None) -> str:
    """An HTML ``<figure>`` that holds the picture, its alternative text and its caption, all escaped.

    The alternative text sits on the ``<img>`` alone: a role or label on ``<figure>`` would hide the
    caption from a screen reader and read the same words twice.
    """
    text = as_html(alt or describe(figure))
    data = base64.b64encode(svg_bytes(figure)).decode("ascii")
    image = f'<img alt="{text}" src="data:image/svg+xml;base64,{data}" style="max-width:100%;height:auto">'
    below = f"<figcaption>{as_html(caption)}</figcaption>" if caption else ""
    return f'<figure class="remi-figure {UNTYPESET}" style="margin:0">{image}{below}</figure>'


@dataclass(frozen=True)
class Shown:
    """A figure as the last value of a notebook cell displays it."""

    bundle: Mapping[str, object]
    """Type → form: the page, the alternative text as plain text, and the passport."""

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Mapping[str, object]:
        return self.bundle


def shown(figure: Figure, *, caption: str | None = None, fold: str = "") -> Shown:
    """The figure with its alternative text, its caption and its passport: what was read for it until now.

    With ``fold`` it opens when that summary is clicked.

    Its form is HTML rather than an image because notebook and book take an image's alternative text
    from cell metadata, which is fixed before the cell runs; the text here is computed from the data.
    The plain-text form is the alternative text.

    Raises:
        ValueError: if the figure carries no alternative text.
    """
    content = present_passport()
    page = figure_html(figure, caption=caption) + passport_html(content)
    about = {"caption": caption or "", "drawn": drawn(figure), **content}
    page = folded(fold, page) if fold else page
    return Shown({"text/html": page, "text/plain": describe(figure), PASSPORT: about})


def drawn(figure: Figure) -> list[list[dict[str, object]]]:
    """The numbers a figure was drawn from, as plain JSON: panel by panel, the kind of each mark and its points.

    Points are in the units of the axes, to nine significant digits; of images and cells they are the values. A gap
    is null. Layout, colours and words are no part of it, so two figures of the same data give the same.
    """
    panels = []
    for axes in figure.get_axes():
        marks = []
        for artist in axes.get_children():
            points = _points(artist)
            if artist is not axes.patch and points is not None:
                rows = np.asarray(points, dtype=float)
                rows = rows.reshape(len(rows), -1) if rows.size else rows.reshape(0, 2)
                values = [
                    [float(f"{each:.9g}") if np.isfinite(each) else None for each in row] for row in rows
                ]
                marks.append({"kind": type(artist).__name__, "points": values})
        panels.append(marks)
    return panels


def _points(artist: Artist) -> np.ndarray | None:
    """Numbers behind one mark; None for what carries none (axes, spines, text)."""
    if isinstance(artist, Line2D):
        return artist.get_xydata()
    if isinstance(artist, PathCollection):
        return np.ma.filled(artist.get_offsets(), np.nan)
    if isinstance(artist, PolyCollection | LineCollection):
        return np.concatenate([path.vertices for path in artist.get_paths()] or [np.zeros((0, 2))])
    if isinstance(artist, Rectangle):
        return np.array([[artist.get_x(), artist.get_y()], [artist.get_width(), artist.get_height()]])
    if isinstance(artist, ScalarMappable) and artist.get_array() is not None:
        return np.ma.filled(np.ma.asarray(artist.get_array(), dtype=float), np.nan).reshape(-1, 1)
    return None


def show(figure: Figure, *, caption: str | None = None, fold: str = "") -> None:
    """Display what ``shown`` gives, anywhere in a cell."""
    display(dict(shown(figure, caption=caption, fold=fold).bundle), raw=True)


# Values handed from code to prose, so that no number in the text is typed.

ABSENT = "not defined here"


def glue_rows(rows: Iterable[Mapping[str, object]]) -> None:
    """Glue ``<id>_value``, ``_interval``, ``_null``, ``_verdict``, ``_reason`` and ``_seeds`` of report rows.

    Texts are ready to be read: three significant digits, the unit left to the prose.
    """
    for row in rows:
        null = row["null"]
        texts = {
            "value": _number(row["value"]),
            "interval": _range(row["ci_low"], row["ci_high"]),
            "seeds": _trainings(row),
            "null": f"{null['kind']}: {_range(null['low'], null['high'])}" if null else ABSENT,
            "verdict": str(row["verdict"]),
            "reason": str(row["reason"]),
        }
        for key, text in texts.items():
            glue(f"{str(row['id']).replace('.', '_')}_{key}", text, display=False)


def _trainings(row: Mapping[str, object]) -> str:
    """Of how many trainings the value is the median, and their range."""
    # In some trainings it may have no value, or not have been measured.
    count = sum(each["value"] is not None for each in row["trainings"])
    if not count and len(row["seeds"]) > 1:
        return "no training has a value"
    return (
        f"median of {count} trainings, {_range(row['seed_low'], row['seed_high'])}"
        if count > 1
        else "one training"
    )


def glue_by_hand(measured: np.ndarray | float, stored: np.ndarray | float) -> None:
    """Glues what a page has measured itself and what the store holds, and whether the two agree.

    ``by_hand`` and ``by_hand_stored`` are means over all values, ``by_hand_agree`` is "agree" where no two values
    differ by more than a ten-thousandth of the largest: batches of other sizes differ in the last digits.
    """
    close = np.allclose(measured, stored, rtol=0, atol=1e-4 * float(np.max(np.abs(stored))))
    glue("by_hand", number(float(np.mean(measured))), display=False)
    glue("by_hand_stored", number(float(np.mean(stored))), display=False)
    glue("by_hand_agree", "agree" if close else "do not agree", display=False)


def glue_markdown(name: str, text: str) -> None:
    """Glue a sentence whose markup counts, for the role ``{glue:md}``: a command stays as it must be typed."""
    glue(name, Markdown(text), display=False)


def _number(value: float | None) -> str:
    return ABSENT if value is None else number(value)


def _range(low: float | None, high: float | None) -> str:
    return ABSENT if low is None or high is None else f"{number(low)} to {number(high)}"
