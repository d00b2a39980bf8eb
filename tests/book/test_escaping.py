"""Text of data sets and models stays text: on pages, in Markdown, in LaTeX and on a terminal, through one escaper."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jaxtyping
import numpy as np
import pandas as pd
import pytest
import yaml
from bs4 import BeautifulSoup
from docutils import nodes
from docutils.core import publish_doctree
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from myst_parser.docutils_ import Parser

from remi_book import site, words
from remi_book import tables as tables_module
from remi_book.chapters import organism, tokens
from remi_book.cli import main
from remi_book.figures import output
from remi_book.figures.style import SETTINGS, visible_token
from remi_book.words import as_html, as_latex, as_line, as_markdown
from remi_core.progress import visible
from remi_core.tokens import EncodedDialogue
from remi_lab.presets import PRESETS, DataRoles

HOSTILE = yaml.safe_load(Path(__file__).with_name("hostile.yaml").read_text(encoding="utf-8"))["texts"]
EXTENSIONS = "amsmath attrs_inline colon_fence deflist dollarmath html_image replacements smartquotes "
EXTENSIONS += "substitution tasklist"


def read_markdown(text: str) -> nodes.document:
    settings = {"myst_enable_extensions": EXTENSIONS.split(), "report_level": 5}
    return publish_doctree(text, parser=Parser(), settings_overrides=settings)


@pytest.mark.parametrize("text", HOSTILE)
def test_html_markdown_and_latex_show_the_text_and_nothing_else(text: str) -> None:
    shown = as_html(text)
    page = BeautifulSoup(f"<p title='{shown}' lang=\"{shown}\">{shown}</p>", "html.parser")
    assert [tag.name for tag in page.find_all()] == ["p"] and set(page.p.attrs) == {"title", "lang"}
    assert page.p.get_text() == visible(text) == page.p["title"] == page.p["lang"]
    document = read_markdown(f"Before {as_markdown(text)} after.")
    assert {type(node).__name__ for node in document.findall()} == {"document", "paragraph", "Text"}
    assert document.astext() == f"Before {as_line(text)} after."
    rest = as_latex(text)
    for written in words.LATEX.values():
        rest = rest.replace(written, "")
    assert not set(rest) & set("\\{}$&#_%~^")
    # On a figure it is neither formula nor control.
    assert SETTINGS["text.parse_math"] is False and visible_token(text).isprintable()


def test_markdown_that_is_not_escaped_is_read() -> None:
    kinds = {type(node).__name__ for text in HOSTILE for node in read_markdown(f"{text}").findall()}
    assert {"raw", "math", "literal", "reference", "image", "title", "emphasis"} <= kinds


@given(st.text())
def test_any_text_stays_text(text: str) -> None:
    assert html.unescape(as_html(text)) == visible(text)
    assert not set(as_html(text)) & set("<>\"'")
    assert visible(visible(text)) == visible(text)
    assert all(one.isprintable() or one in "\n\t" for one in visible(text))
    assert as_line(text).isprintable()
    assert re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", as_markdown(text)) == as_line(text)


def test_a_terminal_shows_no_escape_sequence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["book", "--preset", "mi\x1b[31mcro"]) == 2
    said = capsys.readouterr().err
    assert said.endswith("\n") and said[:-1].isprintable()


def tables(text: str) -> Iterator[str]:
    yield tables_module.table_html(pd.DataFrame({"a": [text]}), "x").data
    yield tables_module.table_html(pd.DataFrame({text: ["a"]}), "x").data
    yield tables_module.table_html(pd.DataFrame({"a": ["b"]}), text).data
    yield tables_module.folded(text, "inside")
    yield tables_module.quoted(text)


def pictures(text: str) -> Iterator[str]:
    yield output.figure_html(Figure(), alt=text)
    yield output.figure_html(Figure(), alt="x", caption=text)


def dialogues(text: str) -> Iterator[str]:
    one = EncodedDialogue(identifier="x", input_ids=(0, 0), answer_start=1, answer_stop=2)
    encoded = SimpleNamespace(dialogues=[one])
    preset = replace(PRESETS["smoke"], datasets=("set", text), roles=DataRoles())
    for token, name in ((text, "set"), ("x", text)):
        vocabulary = SimpleNamespace(text=lambda number, token=token: token)
        results = SimpleNamespace(encoded=lambda _: encoded, vocabulary=vocabulary, preset=preset)
        yield tokens.inspector_html(results, {name: [0, 0]}).data


def samples(text: str) -> Iterator[str]:
    for place in range(4):
        variant, prompt, answer, seed = (text if place == each else "x" for each in range(4))
        one = {"prompt": np.array([prompt]), "answer": np.array([answer]), "finished": [True], "verdict": [0]}
        results = SimpleNamespace(seed=seed, variants=[variant], arrays=lambda *_, one=one: one)
        yield organism.samples_html(results).data


def fronts(text: str) -> Iterator[str]:
    texts = ("name", "title", "remark", "fingerprint")
    plain = dict.fromkeys(texts, "x") | {"n_run": 0, "n_pages": 1, "verdicts": {}}
    for name in texts:
        yield site.front_page([plain | {name: text}])
    yield site.front_page([plain | {"verdicts": {text: 1}}])


BUILDERS = (tables, pictures, dialogues, samples, fronts)
"""What makes HTML by hand of a text, wherever it takes one."""

ALLOWED = set(
    "html head meta title link style body main section h1 h2 div p ul li a span br wbr code details summary figure img "
    "figcaption table caption thead tbody tr th td fieldset legend label input select optgroup option".split()
)
"""Elements that pages have of their own."""


def acting(page: str) -> list[str]:
    """What of a page is not of our own: other elements and images, and attributes that start a script."""
    return [
        str(tag)[:60]
        for tag in BeautifulSoup(page, "html.parser").find_all()
        if tag.name not in ALLOWED
        or (tag.name == "img" and not str(tag.get("src", "")).startswith("data:image/svg+xml;base64,"))
        or any(name.startswith("on") for name in tag.attrs)
    ]


@pytest.mark.parametrize("builder", BUILDERS)
def test_no_page_acts_on_a_text(builder: Callable[[str], Iterator[str]], monkeypatch) -> None:
    # Stand-ins have the methods, not the types.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    pages = [page for text in HOSTILE for page in builder(text)]
    assert [acting(page) for page in pages if acting(page)] == []
    assert not any("\x1b" in page or "\u202e" in page for page in pages)
    monkeypatch.setattr(words.html, "escape", lambda text, quote=True: text)
    assert any(acting(page) for text in HOSTILE for page in builder(text)), "nothing was escaped"
