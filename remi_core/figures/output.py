"""A figure as bytes and as the HTML of a notebook page, the same on every run."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib
from IPython.display import display
from matplotlib.figure import Figure

from remi_core.escaping import UNTYPESET, as_html
from remi_core.figures.alt import describe
from remi_core.figures.passport import passport_html, present_passport
from remi_core.figures.style import SETTINGS
from remi_core.trail import PASSPORT

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


def shown(figure: Figure, *, alt: str | None = None, caption: str | None = None) -> Shown:
    """The figure with its alternative text, its caption and its passport: what was read for it until now.

    Its form is HTML rather than an image because notebook and book take an image's alternative text
    from cell metadata, which is fixed before the cell runs; the text here is computed from the data.
    The plain-text form is the alternative text.

    Raises:
        ValueError: if no ``alt`` is given and the figure carries none.
    """
    text, found = alt or describe(figure), present_passport()
    page = figure_html(figure, alt=text, caption=caption) + passport_html(found)
    return Shown({"text/html": page, "text/plain": text, PASSPORT: {"caption": caption or "", **found}})


def show(figure: Figure, *, alt: str | None = None, caption: str | None = None) -> None:
    """Nothing; displays what ``shown`` gives, anywhere in a cell.

    Raises:
        ValueError: if no ``alt`` is given and the figure carries none.
    """
    display(dict(shown(figure, alt=alt, caption=caption).bundle), raw=True)
