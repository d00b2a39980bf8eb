"""Text of data sets and models stays text: on pages, in Markdown, in LaTeX and on a terminal, through one escaper."""

from __future__ import annotations

import ast
import copy
import html
import re
import types
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from docutils import nodes
from docutils.core import publish_doctree
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from myst_parser.docutils_ import Parser

import remi_book.chapters.organism
import remi_book.chapters.tokens
import remi_book.figures.output
import remi_book.site
import remi_book.tables
from remi_book import words
from remi_book.cli import main
from remi_book.figures.style import SETTINGS, visible_token
from remi_book.words import as_html, as_latex, as_line, as_markdown, visible
from remi_core.keys import SOURCE_ROOT, parse
from remi_core.tokens import EncodedDialogue
from remi_lab.presets import PRESETS, DataRoles

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "$$ x^2 $$ and $y$ and \\(z\\) \\[w\\]",
    "`code` ``more`` ```fence```",
    "```{include} /etc/hostname\n```",
    "{directive} {eval-rst}`x` {raw}`html <b>`",
    ":::{admonition} Title\nbody\n:::",
    "[link](javascript:alert(1)) ![image](http://x/y.png) <http://x.example>",
    "&lt;b&gt; &amp; &#60;i&#62; &nbsp;",
    "# heading\n\n- item\n\n1. one\n\n> quote\n\n| a |\n|---|\n| b |",
    "*a* _b_ **c** ~~d~~ (target)= % comment {{ substitution }} [^1]",
    "\x1b[31mred\x1b[0m \x1b]8;;http://x\x07link\x1b]8;;\x07 \r over \x08 back \x00",
    "left \u202e right \u200b none \u2028 line",
    "\\input{x} \\def\\a{b} 100% #1 ~ ^",
    "--- ... (c) \"quotes\" 'single'",
)
EXTENSIONS = "amsmath attrs_inline colon_fence deflist dollarmath html_image replacements smartquotes "
EXTENSIONS += "substitution tasklist"
MARKUP = {"tables", "cards", "publishing", "site", "figures.output", "exercises.checking", "facts"}
MARKUP |= {"chapters.tokens", "chapters.organism", "chapters.audit_tables", "chapters.controls"}
"""Modules that write HTML by hand."""


@pytest.mark.parametrize("text", HOSTILE)
def test_html_shows_the_text_and_nothing_else(text: str) -> None:
    page = BeautifulSoup(
        f"<p title='{as_html(text)}' lang=\"{as_html(text)}\">{as_html(text)}</p>", "html.parser"
    )
    assert [tag.name for tag in page.find_all()] == ["p"]
    assert page.p.get_text() == visible(text) == page.p["title"] == page.p["lang"]
    assert set(page.p.attrs) == {"title", "lang"}


def read_markdown(text: str) -> nodes.document:
    """The text as the book's parser reads it."""
    settings = {"myst_enable_extensions": EXTENSIONS.split(), "report_level": 5}
    return publish_doctree(text, parser=Parser(), settings_overrides=settings)


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_shows_the_text_and_nothing_else(text: str) -> None:
    document = read_markdown(f"Before {as_markdown(text)} after.")
    kinds = {type(node).__name__ for node in document.findall()}
    assert kinds == {"document", "paragraph", "Text"}
    assert document.astext() == f"Before {as_line(text)} after."


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


def test_latex_has_no_command_or_group_of_the_text() -> None:
    for text in HOSTILE:
        rest = as_latex(text)
        for written in words.LATEX.values():
            rest = rest.replace(written, "")
        assert not set(rest) & set("\\{}$&#_%~^"), text


def test_a_terminal_shows_no_escape_sequence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["book", "--preset", "mi\x1b[31mcro"]) == 2
    said = capsys.readouterr().err
    assert said.endswith("\n") and said[:-1].isprintable()


# Pages: every builder, each call of the escaper taken away in turn.


def again(module: types.ModuleType, *, without: int | None = None) -> types.ModuleType:
    """The module, made again with call number ``without`` of ``as_html`` replaced by what it was to escape."""
    tree = copy.deepcopy(parse_module(module))
    calls = escapes(module, tree)
    if without is not None:
        calls[without].func = ast.Name("str", ast.Load())
    changed = types.ModuleType(module.__name__)
    changed.__dict__.update(__package__=module.__package__, __file__=module.__file__)
    # The array shapes are not checked again: that hook works on imports.
    exec(compile(ast.fix_missing_locations(tree), str(module.__file__), "exec"), changed.__dict__)
    return changed


def parse_module(module: types.ModuleType) -> ast.Module:
    return parse(SOURCE_ROOT.joinpath(*module.__name__.split(".")).with_suffix(".py"))


def escapes(module: types.ModuleType, tree: ast.Module) -> list[ast.Call]:
    """Calls of the escaper in the functions that are tried."""
    tried = [part for part in tree.body if isinstance(part, ast.FunctionDef) and part.name in TRIED[module]]
    assert len(tried) == len(TRIED[module])
    return [node for part in tried for node in ast.walk(part) if is_escape(node)]


def is_escape(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "as_html"


def tables(module: types.ModuleType, text: str) -> Iterator[str]:
    """What the module of tables makes of a text, wherever it takes one."""
    yield module.table_html(pd.DataFrame({"a": [text]}), "x").data
    yield module.table_html(pd.DataFrame({text: ["a"]}), "x").data
    yield module.table_html(pd.DataFrame({"a": ["b"]}), text).data
    yield module.folded(text, "inside")
    yield module.quoted(text)


def pictures(module: types.ModuleType, text: str) -> Iterator[str]:
    yield module.figure_html(Figure(), alt=text)
    yield module.figure_html(Figure(), alt="x", caption=text)


def dialogues(module: types.ModuleType, text: str) -> Iterator[str]:
    one = EncodedDialogue(identifier="x", input_ids=(0, 0), answer_start=1, answer_stop=2)
    results = types.SimpleNamespace(
        encoded=lambda name: types.SimpleNamespace(dialogues=[one]),
        vocabulary=types.SimpleNamespace(text=lambda token: text),
        preset=replace(PRESETS["smoke"], datasets=("set", text), roles=DataRoles()),
    )
    yield module.inspector_html(results, {"set": [0, 0]}).data
    results.vocabulary.text = lambda token: "x"
    yield module.inspector_html(results, {text: [0, 0]}).data


def samples(module: types.ModuleType, text: str) -> Iterator[str]:
    def results(variant: str, prompt: str, answer: str, seed: int | str = 0) -> types.SimpleNamespace:
        one = {"prompt": np.array([prompt]), "answer": np.array([answer]), "finished": [True], "verdict": [0]}
        return types.SimpleNamespace(seed=seed, variants=[variant], arrays=lambda *where: one)

    yield module.samples_html(results("x", text, "x")).data
    yield module.samples_html(results("x", "x", text)).data
    yield module.samples_html(results(text, "x", "x")).data
    yield module.samples_html(results("x", "x", "x", seed=text)).data


def fronts(module: types.ModuleType, text: str) -> Iterator[str]:
    texts = ("name", "title", "remark", "fingerprint")
    plain = dict.fromkeys(texts, "x") | {"n_run": 0, "n_pages": 1, "verdicts": {}}
    for name in texts:
        yield module.front_page([plain | {name: text}])
    yield module.front_page([plain | {"verdicts": {text: 1}}])


BUILDERS: dict[types.ModuleType, Callable[[types.ModuleType, str], Iterator[str]]] = {
    remi_book.tables: tables,
    remi_book.figures.output: pictures,
    remi_book.chapters.tokens: dialogues,
    remi_book.chapters.organism: samples,
    remi_book.site: fronts,
}


TRIED = {
    remi_book.tables: {"table_html", "folded", "quoted", "_shown"},
    remi_book.figures.output: {"figure_html"},
    remi_book.chapters.tokens: {"inspector_html", "_dialogue"},
    remi_book.chapters.organism: {"_samples_table"},
    remi_book.site: {"front_page", "_card"},
}
"""Module → its functions that write what the builder shows."""


ALLOWED = set(
    "html head meta title link style body main section h1 h2 div p ul li a span br wbr code details summary figure img "
    "figcaption table caption thead tbody tr th td fieldset legend label input select optgroup option".split()
)
"""Elements that pages have of their own."""


def acting(page: str, text: str) -> list[str]:
    """What of a page comes from the text and is no text: elements, and attributes that start a script."""
    found = []
    for tag in BeautifulSoup(page, "html.parser").find_all():
        ours = tag.name != "img" or str(tag.get("src", "")).startswith("data:image/svg+xml;base64,")
        if tag.name not in ALLOWED or not ours or any(name.startswith("on") for name in tag.attrs):
            found.append(str(tag)[:60])
    return found


@pytest.mark.parametrize("module", BUILDERS, ids=lambda module: module.__name__)
def test_no_page_acts_on_a_text(module: types.ModuleType) -> None:
    for text in HOSTILE:
        for page in BUILDERS[module](again(module), text):
            assert acting(page, text) == []
            assert "\x1b" not in page and "\u202e" not in page


@pytest.mark.parametrize("module", BUILDERS, ids=lambda module: module.__name__)
def test_a_page_acts_on_a_text_where_one_call_of_the_escaper_is_taken_away(module: types.ModuleType) -> None:
    n_calls = len(escapes(module, parse_module(module)))
    assert n_calls > 0
    for place in range(n_calls):
        changed = again(module, without=place)
        pages = [(page, text) for text in HOSTILE for page in BUILDERS[module](changed, text)]
        assert any(acting(page, text) for page, text in pages), place


def test_a_page_acts_on_a_text_where_the_escaper_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words.html, "escape", lambda text, quote=True: text)
    for module, builder in BUILDERS.items():
        assert any(acting(page, text) for text in HOSTILE for page in builder(again(module), text)), module


def own_escapes(tree: ast.Module) -> list[str]:
    """Escaping that a module does by itself."""
    found = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    found += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = [name for name in found if name.split(".")[0] in ("html", "xml", "markupsafe")]
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return names + [text for text in texts if text in ("&lt;", "&gt;", "&amp;", "&quot;")]


def writes_markup(tree: ast.Module) -> bool:
    """Whether a module puts values between tags."""
    pieces = [part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values]
    written = [str(part.value) for part in pieces if isinstance(part, ast.Constant)]
    return any(
        re.search(r"</?(p|a|div|span|table|t[hdr]|li|h\d|nav|code|details|figure|img)[ >]", one)
        for one in written
    )


def test_no_other_module_escapes_and_those_that_write_markup_are_known() -> None:
    book = SOURCE_ROOT / "remi_book"
    trees = {path: parse(path) for path in sorted(book.rglob("*.py"))}
    names = {path: ".".join(path.relative_to(book).with_suffix("").parts) for path in trees}
    assert [names[path] for path, tree in trees.items() if own_escapes(tree)] == ["words"]
    found = {names[path] for path, tree in trees.items() if writes_markup(tree)}
    assert found <= MARKUP
    for path in trees:
        if names[path] in found:
            assert "remi_book.words" in path.read_text(encoding="utf-8"), names[path]
    assert own_escapes(ast.parse("import html")) and own_escapes(ast.parse("x.replace('<', '&lt;')"))
    assert writes_markup(ast.parse("f'<p>{x}</p>'")) and not writes_markup(ast.parse("f'{x} < {y}'"))


def test_a_token_on_a_figure_is_no_formula_and_no_control() -> None:
    assert SETTINGS["text.parse_math"] is False
    assert all(visible_token(text).isprintable() for text in HOSTILE)
