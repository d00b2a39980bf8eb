"""The book as pages: front, contents, sources, printing, results and passports."""

from __future__ import annotations

import errno
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from string import Template

import yaml
from bs4 import BeautifulSoup, Tag

from remi_book import running
from remi_book.laboratory import add_laboratory, described
from remi_book.words import as_html, as_latex, as_line, is_withheld, local_names, with_names
from remi_core.errors import RemiError, UsageError
from remi_core.files import written_whole
from remi_core.keys import canonical_json, file_digest, text_digest
from remi_core.progress import Say, machine, notice, print_line
from remi_core.store import Store, project_root
from remi_lab.datasets import dataset_names
from remi_lab.keys import PACKAGES, SOURCE_ROOT, syntax_digest
from remi_lab.presets import NEEDS, Preset
from remi_lab.processes import SOON, Meter
from remi_lab.results import PAGE, PASSPORT, TABLE, NotMeasured, Results
from remi_lab.strict import read_yaml
from remi_lab.studies.files import study_digests

# How to cite the book, one build of it, and the paper, from ``CITATION.cff``: as text and as BibTeX.

Entry = dict[str, str]
"""A citation: keys ``text`` and ``bibtex``."""


def citation(source: Path, *, preset: str, fingerprint: str, address: str = "") -> dict[str, object]:
    """Keys ``book`` and ``paper``, each an ``Entry``, with ``preset`` and ``fingerprint`` of the build.

    ``address`` is where the book's repository is public, "" where it is not.
    """
    about = yaml.safe_load(source.read_text(encoding="utf-8"))
    build = f"build for preset {preset}, fingerprint {fingerprint}"
    book = {"title": about["title"], "version": about["version"], "note": build, "url": address}
    paper = about["references"][0]
    key = f"{paper['authors'][0]['family-names']}{paper['year']}".lower()
    fields = {name: paper[name] for name in ("title", "year")}
    fields |= {"note": paper.get("notes", ""), "url": paper["url"]}
    return {
        "book": _entry("software", "remi_book", about["authors"], book),
        "paper": _entry("misc", key, paper["authors"], fields),
        "preset": preset,
        "fingerprint": fingerprint,
    }


def _entry(kind: str, key: str, authors: list[Mapping[str, str]], fields: Mapping[str, object]) -> Entry:
    """One citation; fields without content are left out."""
    given = {name: as_line(str(value)) for name, value in fields.items() if value}
    names = [
        as_line(author.get("name") or f"{author['family-names']}, {author['given-names']}")
        for author in authors
    ]
    year = f" ({given['year']})" if "year" in given else ""
    version = [f"version {given['version']}"] if "version" in given else []
    rest = [given[name] for name in ("note", "url") if name in given]
    text = f"{'; '.join(names)}{year}. {', '.join([given['title'], *version, *rest])}."
    # A name of several words that is no person's is kept together by braces of its own.
    writers = " and ".join(
        f"{{{as_latex(name)}}}" if "name" in author else as_latex(name)
        for name, author in zip(names, authors, strict=True)
    )
    lines = [f"  author = {{{writers}}}", f"  title = {{{{{as_latex(given.pop('title'))}}}}}"]
    lines += [
        f"  {name} = {{{value if name == 'url' else as_latex(value)}}}" for name, value in given.items()
    ]
    return {"text": text, "bibtex": "@" + f"{kind}{{{key},\n" + ",\n".join(lines) + "\n}"}


# The table of contents: which pages a preset's book has, and from which notebook each is made.


OTHERWISE = "otherwise"
"""Key of the text shown for facts that a preset has none of."""


def contents_of(preset: Preset, steps: Sequence[running.Step]) -> dict[str, object]:
    """The table of contents of a preset's book, each chapter whose notebook runs once a variant replaced by its pages.

    A book of other models than organisms has no page of ``ORGANISMS_ONLY``, and no part without pages.
    """
    pages = {step.source.stem: [] for step in steps if step.variant}
    for step in steps:
        if step.variant:
            pages[step.source.stem].append({"file": f"notebooks/{step.name}"})
    toc = yaml.safe_load((project_root() / "book" / "_toc.yml").read_text(encoding="utf-8"))
    absent = () if preset.is_organism else running.ORGANISMS_ONLY
    for part in toc.get("parts", [toc]):
        chapters = [
            pages.get(Path(one["file"]).name, [one])
            for one in part.get("chapters", [])
            if one["file"] not in absent
        ]
        part["chapters"] = [page for group in chapters for page in group]
    if "parts" in toc:
        toc["parts"] = [part for part in toc["parts"] if part["chapters"]]
    return toc


def without_pages(folder: Path, names: Collection[str]) -> None:
    """Remove pages from the sources of a book, and each link to one of them: its text, or the page's title, stays.

    A page is named as in the table of contents; those of notebooks may not be there at all. A list item that begins
    with such a link is about the page, and goes with it.
    """
    titles: dict[str, str] = {}
    labels: dict[str, str] = {}
    for name in names:
        place = folder / f"{name}.md"
        notebook = project_root() / "notebooks" / f"{Path(name).name}.ipynb"
        source = place.read_text(encoding="utf-8") if place.is_file() else _prose(notebook)
        titles[name] = _title(source) or name
        labels |= dict.fromkeys(re.findall(r"^\(([\w-]+)\)=", source, re.MULTILINE), titles[name])
        place.unlink(missing_ok=True)
    stems = {Path(name).name: title for name, title in titles.items()}
    links = (
        (rf"\[([^\]]*)\]\((?:\.\./)?(?:notebooks/)?({_any(stems)})(?:\.md|\.ipynb)?(?:#[^)]*)?\)", stems),
        (rf"{{page}}`()({_any(stems)})`", stems),
        (rf"{{(?:ref|numref)}}`(?:([^`<]+?) *<)?({_any(labels)})>?`", labels),
    )
    for page in [*folder.glob("*.md"), *folder.glob("notebooks/*.ipynb")]:
        text = page.read_text(encoding="utf-8")
        text = re.sub(rf"^- {links[0][0]}.*\n?", "", text, flags=re.MULTILINE)
        for link, told in links:
            text = re.sub(link, lambda found, told=told: found[1] or f"‘{told[found[2]]}’", text)
        page.write_text(text, encoding="utf-8")


TAGGED = re.compile(r"^% ((?:(?:only|not)-\w+ ?)+)\n((?:.+\n?)+)\n?", re.MULTILINE)
"""A comment with tags of a cell (``% only-organism``), and the block below it, up to an empty line."""


def without_hidden(text: str, lacking: Collection[str]) -> str:
    """Markdown of a page without the blocks whose tags hide them from a preset that lacks these needs."""

    def kept(found: re.Match[str]) -> str:
        return "" if running.is_hidden({"metadata": {"tags": found[1].split()}}, lacking) else found[0]

    return TAGGED.sub(kept, text)


def _any(words: Collection[str]) -> str:
    return "|".join(map(re.escape, words)) or "(?!)"


def _prose(source: Path) -> str:
    return "\n".join(cell["source"] for cell in running.read_cells(source) if cell["cell_type"] == "markdown")


def _title(source: str) -> str:
    heading = re.search(r"^# +(.+)$", source, re.MULTILINE)
    return heading[1].strip() if heading else ""


def pages_of(toc: Mapping[str, object]) -> list[str]:
    """Names of all pages in a table of contents, as ``notebooks/05_alignment_direction``, the front page first."""
    chapters = [chapter for part in toc.get("parts", [toc]) for chapter in part.get("chapters", [])]
    sections = [section for chapter in chapters for section in chapter.get("sections", [])]
    return [str(toc["root"]), *(str(entry["file"]) for entry in (*chapters, *sections) if "file" in entry)]


def pages_listed(toc: Mapping[str, object]) -> list[str]:
    """Names of the notebook pages in a table of contents, in its order."""
    return [Path(name).stem for name in pages_of(toc) if name.startswith("notebooks/")]


def source_of(name: str) -> tuple[Path, str]:
    """The notebook of a page, and the variant that the page is of, or "".

    Raises:
        RemiError: if there is no such notebook.
    """
    folder = project_root() / "notebooks"
    for stem, variant in ((name, ""), name.rpartition("-")[::2]):
        if stem and (folder / f"{stem}.ipynb").is_file():
            return folder / f"{stem}.ipynb", variant
    raise RemiError(f"book/_toc.yml names notebooks/{name}, but there is no such notebook in {folder}")


# What sets one build of the book apart from another: presets side by side, and where it is published, if anywhere.

REPOSITORY = re.compile(r"https://github\.com/([A-Za-z0-9][\w-]*)/([\w.-]+?)(?:\.git)?/?")
BINDER = "https://mybinder.org/v2/gh"


@dataclass(frozen=True, kw_only=True)
class Edition:
    """How a book is published; by default alone, and nowhere.

    Raises:
        UsageError: if the repository is not an address on GitHub, which is what Binder and Pages start from.
    """

    repository: str = ""
    """Public address of the repository, ``https://github.com/OWNER/NAME``; only with it are there launch buttons."""
    presets: Sequence[Mapping[str, object]] = ()
    """The presets side by side, none where the book stands alone: name, title, and the names of its pages."""

    def __post_init__(self) -> None:
        if self.repository and not REPOSITORY.fullmatch(self.repository):
            raise UsageError(f"--repository {self.repository}: expected https://github.com/OWNER/NAME")

    def page_data(self, preset: str) -> dict[str, object]:
        """What the pages of one preset show of the edition, as plain JSON."""
        public = REPOSITORY.fullmatch(self.repository)
        # Where Binder opens the repository; the path of a notebook is added to it.
        launch = f"{BINDER}/{public[1]}/{public[2]}/HEAD?labpath=" if public else ""
        repository = {"repository": self.repository, "launch": launch}
        return {"preset": preset, "presets": list(self.presets), **repository}


# Pages of the book: executed notebooks made ready to show, and stubs for those not run for a preset.

NOT_RUN = "*not run*"
NOT_SHOWN = "*not shown*"
OWN_GLUE = re.compile(r"\{glue(?::\w+)?\}`([^`:]+)`")

TARGET = re.compile(
    r"^\(([\w.-]+)\)=\s*$|^:(?:name|label): *([\w.-]+)\s*$|\$\$ *\(([\w.-]+)\)\s*$", re.MULTILINE
)
"""Labels that Markdown defines: before a heading, as option of a directive, after an equation."""

GLUE_ROLE = re.compile(r"\{glue(?::\w+)?\}`[^`]*?([\w.-]+)\.ipynb::[^`]+`")
GLUE_BLOCK = re.compile(
    r"^(`{3,}|:{3,})\{glue.*\n(?:(?!\1).*\n)*?:doc: .*?([\w.-]+)\.ipynb\s*\n(?:(?!\1).*\n)*\1\s*$",
    re.MULTILINE,
)


SHOWS_WORDS = read_yaml(Path(__file__).with_suffix(".yaml"), tuple[str, ...])
"""Functions by which a notebook shows words of a data set or of a model."""
CONTENT_NOTE = "```{remi-content-note}\n```"
FOUND = "```{remi-findings}\n```"
"""At the head of each page of a notebook: what was found there, or nothing."""


def shows_words(cells: Collection[Mapping[str, str]]) -> bool:
    """Whether a notebook shows words of a data set or of a model, so that its page says so."""
    called = re.compile(rf"\b({'|'.join(SHOWS_WORDS)})\(")
    return any(cell["cell_type"] == "code" and called.search(cell["source"]) for cell in cells)


def page_text(
    executed: Path,
    *,
    source: Path,
    variant: str = "",
    not_run: Collection[str] = (),
    note: str = CONTENT_NOTE,
) -> str:
    """JSON text of an executed notebook as a page: no run times, no injected cell that repeats the defaults.

    With a ``variant``, one notebook gives several pages: its title and labels then end in the variant's name.
    ``not_run`` names the pages whose glued values are missing; ``note`` stands on a page that shows words.
    """
    notebook = json.loads(executed.read_text(encoding="utf-8"))
    notebook["metadata"].pop("papermill", None)
    declared = {name: parameter.default for name, parameter in running.declared_parameters(source).items()}
    given = running.execution_record(executed).get("parameters", {})
    if all(declared.get(name) == value for name, value in given.items()):
        notebook["cells"] = [
            cell for cell in notebook["cells"] if "injected-parameters" not in running.tags(cell)
        ]
    labels = _labels(running.read_cells(source)) if variant else []
    # What was hidden for this preset left an empty cell.
    notebook["cells"] = [
        cell
        for cell in notebook["cells"]
        if cell["cell_type"] != "markdown" or "".join(cell["source"]).strip()
    ]
    about = [
        out["metadata"]
        for cell in notebook["cells"]
        for out in cell.get("outputs", [])
        if out.get("metadata")
    ]
    glued = {each["scrapbook"]["name"] for each in about if "scrapbook" in each}
    # A value is missing for a good reason only where a cell was left out.
    left_out = any(running.NOTES in each for each in about)
    for cell in notebook["cells"]:
        cell["metadata"].pop("papermill", None)
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop(TABLE, None)
        if cell["cell_type"] == "markdown":
            text = without_missing_glue("".join(cell["source"]), not_run)
            if left_out:
                text = OWN_GLUE.sub(lambda role: role[0] if role[1] in glued else NOT_SHOWN, text)
            for label in labels:
                before, after = r"((?:[(`<#]|:name: *|:label: *))", r"(?=[)`>\s]|$)"
                text = re.sub(before + re.escape(label) + after, rf"\g<1>{label}-{variant}", text)
            cell["source"] = text
        figure = cell["metadata"].get("mystnb", {}).get("figure", {})
        if variant and "name" in figure:
            figure["name"] = f"{figure['name']}-{variant}"
    titles = (cell for cell in notebook["cells"] if variant and cell["cell_type"] == "markdown")
    for cell in titles:
        text = "".join(cell["source"])
        cell["source"] = re.sub(r"^(# +.+?)\s*$", rf"\1: {variant}", text, count=1, flags=re.MULTILINE)
        if cell["source"] != text:
            break
    heads = [(1, "found", FOUND)]  # behind the title, and the note behind what the page is for
    heads += [(3, "content-note", note)] if shows_words(running.read_cells(executed)) else []
    for place, name, text in heads:
        cell = {"cell_type": "markdown", "id": name, "metadata": {}, "source": text}
        notebook["cells"].insert(place, cell)
    return json.dumps(notebook, indent=1, sort_keys=True)


def stub_text(source: Path, *, preset: str, variant: str = "", lacking: Collection[str] = ()) -> str:
    """JSON text of a page that says its notebook was not run for this preset, with all labels others may refer to.

    Its title is the one that a preset with these needs unmet is shown.
    """
    cells = running.read_cells(source)
    end = f"-{variant}" if variant else ""
    figures = [cell["metadata"].get("mystnb", {}).get("figure", {}).get("name") for cell in cells]
    targets = [f"({label}{end})=" for label in _labels(cells) if label not in figures]
    placeholders = [
        f":::{{figure-md}} {name}{end}\n![Not run](not-run.svg)\n\nNot run for this preset.\n:::"
        for name in figures
        if name
    ]
    shown = [cell["source"] for cell in cells if not running.is_hidden(cell, lacking)]
    title = _title("\n".join(shown)) or source.stem.replace("_", " ")
    title += f": {variant}" if variant else ""
    command = f"remi run --preset {preset} --only {source.stem.partition('_')[0]}"
    note = f"This notebook was not run for the preset `{preset}`; `{command}` runs it."
    blocks = [*targets, f"# {title}", f":::{{note}}\n{note}\n:::", *placeholders]
    cell = {"cell_type": "markdown", "id": "not-run", "metadata": {}, "source": "\n\n".join(blocks)}
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1)


def without_missing_glue(text: str, not_run: Collection[str]) -> str:
    """Markdown with every value or figure glued from a page in ``not_run`` replaced by the words "not run"."""
    text = GLUE_BLOCK.sub(lambda glued: NOT_RUN if glued[2] in not_run else glued[0], text)
    return GLUE_ROLE.sub(lambda glued: NOT_RUN if glued[1] in not_run else glued[0], text)


def _labels(cells: Collection[Mapping[str, str]]) -> list[str]:
    texts = [cell["source"] for cell in cells if cell["cell_type"] == "markdown"]
    written = [next(filter(None, found)) for text in texts for found in TARGET.findall(text)]
    figures = [cell["metadata"].get("mystnb", {}).get("figure", {}).get("name") for cell in cells]
    return list(dict.fromkeys([*written, *filter(None, figures)]))


# The passports of a page's figures as one file beside the page, and what the page adds to each.

ENDING = ".passports.json"
"""End of the name of a page's file of passports; the built book holds it beside the page."""

OF_A_FIGURE = ("record", "windows")
"""What a figure says of a record; the rest is the record's own and stands in the file once."""


def split_passports(page: str, name: str, about: Mapping[str, object]) -> tuple[str, str]:
    """JSON texts of a page without its figures' passports, and of these, each record described once; "" for none.

    On the page each folded part says which notebook ran, when, how long and on what: ``about`` is the record of
    the execution, as ``execution_record`` gives it.
    """
    notebook, found = json.loads(page), []
    ran = [f"Notebook <code>{as_html(name)}</code>"]
    if about.get("seconds") is not None:
        ran.append(f"run in {float(about['seconds']):.0f} seconds")
    for word, key in (("on", "machine"), ("ended", "ended")):
        if about.get(key):
            ran.append(f"{word} {as_html(str(about[key]))}")
    link = f'<a href="{as_html(name)}{ENDING}">all passports of this page as a file</a>'
    line = f"{', '.join(ran)}; {link} (JSON)."
    for output in (one for cell in notebook["cells"] for one in cell.get("outputs", ())):
        if PASSPORT in output.get("data", {}):
            found.append(output["data"].pop(PASSPORT))
            text = "".join(output["data"]["text/html"])
            output["data"]["text/html"] = text.replace(PAGE, line)
    if not found:
        return page, ""
    run = {key: about.get(key) for key in ("parameters", "key", "ended", "seconds", "machine")}
    return json.dumps(notebook, indent=1, sort_keys=True), passports_text({"notebook": name, **run}, found)


def passports_text(page: Mapping[str, object], found: Sequence[Mapping[str, object]]) -> str:
    """JSON text of a page's passports, after what is known of the page: figures in order, each record once."""
    figures, records = [], {}
    for number, passport in enumerate(found, start=1):
        read = [{key: record[key] for key in OF_A_FIGURE if key in record} for record in passport["records"]]
        figures.append({"figure": number, **passport, "records": read})
        for record in passport["records"]:
            about = {key: value for key, value in record.items() if key not in OF_A_FIGURE}
            records[str(record["record"])] = about
    whole = {**page, "figures": figures, "records": dict(sorted(records.items()))}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


# The built book as one printable page, and as a PDF where there is a Chromium to print it.

PDF, SHEET = "remi-book.pdf", "what-we-found.pdf"
"""The whole book, and the findings of its front page in full on one page."""
SHEET_STYLE = (
    "<style>@page { size: A4; margin: 12mm } html { font-size: 62% } p { line-height: 1.4 }"
    " .remi-rest { display: none } article { break-before: auto !important } p { margin: 0 0 0.45em }</style>"
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync "
    # Mathematics is set by a script: the clock of the page may run this far ahead before it is printed.
    "--no-pdf-header-footer --virtual-time-budget=120000"
).split()
LONGEST = 600
"""Seconds after which a browser that has not printed is stopped."""

NAMING = ("id", "name", "for", "aria-labelledby", "aria-describedby")
"""Attributes whose values must not meet those of another page."""


def print_book(folder: Path) -> list[Path]:
    """The PDFs of the built pages in ``folder``, beside them; none where there is no Chromium.

    Raises:
        RemiError: if the browser fails or prints nothing.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        return []
    printed = [_printed(browser, folder, one_page(folder, contents(folder)), PDF)]
    if (folder / "findings.html").is_file():
        sheet = one_page(folder, ["findings.html"]).replace("</head>", f"{SHEET_STYLE}</head>", 1)
        printed.append(_printed(browser, folder, sheet, SHEET))
    return printed


def _printed(browser: str, folder: Path, text: str, name: str) -> Path:
    """The PDF that a browser prints of the HTML of one page, in the folder."""
    page = folder / ".print.html"
    page.write_text(text, encoding="utf-8")
    try:
        with written_whole(folder / name) as part:
            command = [browser, *FLAGS, f"--print-to-pdf={part}", page.as_uri()]
            done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=False)
            if done.returncode or not part.is_file():
                lines = done.stderr.strip().splitlines() or ["no message"]
                raise RemiError(f"{browser} printed no PDF of {folder}: {lines[-1]}")
    except subprocess.TimeoutExpired:
        raise RemiError(f"{browser} printed no PDF of {folder} within {LONGEST} seconds") from None
    finally:
        page.unlink()
    return folder / name


def contents(folder: Path) -> list[str]:
    """File names of all pages of a built book in the order of its contents."""
    links = _parsed(folder / "intro.html").select("nav.bd-links a.reference.internal[href]")
    listed = [str(link["href"]).partition("#")[0] for link in links]
    return list(dict.fromkeys(["intro.html", *(name for name in listed if (folder / name).is_file())]))


def one_page(folder: Path, pages: Sequence[str]) -> str:
    """HTML of some pages of a built book, one under another, links between them kept inside."""
    front = _parsed(folder / "intro.html")
    articles = "".join(_article(_parsed(folder / name), name, pages) for name in pages)
    body = f'<main class="bd-main"><div class="bd-article">{articles}</div></main>'
    return f'<!DOCTYPE html><html lang="en" data-theme="light">{front.head}<body>{body}</body></html>'


def _parsed(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def _article(page: BeautifulSoup, name: str, pages: Sequence[str]) -> str:
    article = page.select_one("article")
    if article is None:
        raise RemiError(f"{name} has no article: it is no page of a built book")
    for tag in article.select("script, .headerlink"):
        tag.decompose()
    for tag in article.find_all(True):
        _rename(tag, name, pages)
    article["id"], article["style"] = _inside(name, ""), "break-before:page"
    return str(article)


def _rename(tag: Tag, name: str, pages: Sequence[str]) -> None:
    """Makes names the page's own, and addresses those of the whole."""
    for key in NAMING:
        if tag.has_attr(key):
            tag[key] = " ".join(_inside(name, word) for word in str(tag[key]).split())
    for key in ("href", "src"):
        address = str(tag.get(key, ""))
        if not address or ":" in address.partition("/")[0]:
            continue
        path, _, fragment = address.partition("#")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
        tag[key] = f"#{_inside(target, fragment)}" if target in pages else target


def _inside(name: str, fragment: str) -> str:
    """The name that a place of a page has in the whole."""
    return f"{name.removesuffix('.html').replace('/', '-')}--{fragment}"


# The result files that the directives of the book read: written beside the pages, none where nothing was run.

SITE, CITATION = "site.json", "citation.json"

OUTCOMES = ("drill.json", "fuzz.json", "families.json")
"""In ``stored/`` and beside the pages: what was broken, what was fed in, and which families of models were tried."""


def write_results(preset: Preset, store: Store, steps: Sequence[running.Step], folder: Path) -> None:
    """Write claims and their declarations, findings, status, facts, notices and data cards into the folder.

    Raises:
        RemiError: naming each finding whose evidence changed.
    """
    from remi_book.cards import data_cards  # brings pandas, as the other imports here
    from remi_book.claims import CLAIMS, report_rows
    from remi_book.facts import claim_cards
    from remi_book.findings import check, shown

    results, status = Results(preset, store, measures=False), []
    for step in steps:
        about = running.execution_record(step.target) if step.done else {}
        row = {"notebook": step.name, "finished": step.done, "device": about.get("machine")}
        status.append(row | {key: about.get(key) for key in ("ended", "seconds")})
    files: dict[str, object] = {
        "status.json": status,
        "declarations.json": [asdict(claim) for claim in CLAIMS],
        "data-cards.json": data_cards(preset, store),
    }
    listed = {step.source.stem for step in steps}
    if store.list(preset.name):
        rows = report_rows(results, say=notice)
        if changed := check(preset.name, rows):
            raise RemiError("; ".join(changed))
        files["findings.json"] = shown(preset.name, rows)
        files["claims.json"] = [
            row for row in rows if preset.is_organism or not row["notebook"] or row["notebook"] in listed
        ]
        write_cards(claim_cards(preset, store, files["claims.json"]), folder)
    files["facts.json"] = {"preset": preset.name, "machine": machine(), OTHERWISE: "(not run)"}
    if steps and all(step.done for step in steps):
        from remi_book.facts import PASSPORT_FILE, facts, front, notices

        files |= {"facts.json": facts(results), "notice.json": notices(results)}
        if preset.is_organism:
            with suppress(NotMeasured):  # without the file the page says so
                files["front.json"], passport = front(results)
                (folder / PASSPORT_FILE).write_text(passport, encoding="utf-8")
    write_json(folder, files)


CARDS, STORED = "claims", "stored"
"""Folders beside the pages: the card of each row of the report as JSON, and the stored studies that cards name."""


def write_cards(cards: Mapping[str, Mapping[str, object]], folder: Path) -> None:
    """Write each card into ``CARDS``, and copy the stored studies that they name."""
    (folder / CARDS).mkdir(exist_ok=True)
    write_json(folder / CARDS, {f"{row}.json": dict(card) for row, card in cards.items()})
    for name in {
        name for card in cards.values() for name in card["records"] if name.startswith(f"{STORED}/")
    }:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(project_root() / name, folder / name)


def filled(template: str, texts: Mapping[str, object]) -> str:
    """The text of a file in ``templates/`` with each ``$name`` replaced."""
    path = Path(__file__).parent / "templates" / template
    return Template(path.read_text(encoding="utf-8")).substitute(texts)


def stored_files() -> dict[str, Path]:
    """Name beside the pages → its file, of those of ``OUTCOMES`` that are stored."""
    stored = project_root() / "stored"
    return {name: stored / name for name in OUTCOMES if (stored / name).is_file()}


def write_json(folder: Path, files: dict[str, object]) -> None:
    """Write each content into the folder under its name."""
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


# The sources of a preset's book in one folder: pages by hand, executed notebooks, stubs for what was not run.

GENERATED = {"_build", "__pycache__"}


def assemble(
    preset: Preset,
    store: Store,
    steps: Sequence[running.Step],
    folder: Path,
    *,
    edition: Edition | None = None,
    fingerprint: str = "",
) -> None:
    """Put all sources of the book into ``folder``: pages, notebooks or stubs, and the result files.

    Raises:
        RemiError: if the table of contents names a notebook that does not exist.
    """
    shutil.copytree(project_root() / "book", folder, ignore=shutil.ignore_patterns(*GENERATED))
    pages = folder / "notebooks"
    pages.mkdir(exist_ok=True)
    # What stands in a stub for each figure that other pages may refer to by number.
    shutil.copy(Path(__file__).parent / "templates" / "not-run.svg", pages)
    for name, path in stored_files().items():
        shutil.copyfile(path, folder / name)
    toc = contents_of(preset, steps)
    (folder / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False), encoding="utf-8")
    listed = pages_listed(toc)
    known = {step.name: step for step in steps}
    not_run = {name for name in listed if name not in known or not known[name].done}
    lacking = [need for need in NEEDS if preset.lacks(need)]
    own = not preset.is_organism and is_withheld(preset, dataset_names(preset))
    note = CONTENT_NOTE.replace("\n", "\n:withheld:\n") if own else CONTENT_NOTE
    for name in listed:
        source, variant = source_of(name)
        if name in not_run:
            text = stub_text(source, preset=preset.name, variant=variant, lacking=lacking)
        else:
            target = known[name].target
            text = page_text(target, source=source, variant=variant, not_run=not_run, note=note)
            text, passports = split_passports(text, name, running.execution_record(target))
            if passports:
                (pages / f"{name}{ENDING}").write_text(passports, encoding="utf-8")
        (pages / f"{name}.ipynb").write_text(text, encoding="utf-8")
    add_laboratory(preset, store, folder)
    for page in folder.glob("*.md"):
        text = without_hidden(page.read_text(encoding="utf-8"), lacking)
        page.write_text(text.replace(CONTENT_NOTE, note), encoding="utf-8")
    if not preset.is_organism:
        from remi_book.facts import own_front  # brings pandas

        (folder / f"{toc['root']}.md").write_text(own_front(preset), encoding="utf-8")
        without_pages(folder, running.ORGANISMS_ONLY)
    for page in folder.glob("*.md"):
        page.write_text(without_missing_glue(page.read_text(encoding="utf-8"), not_run), encoding="utf-8")
    write_results(preset, store, [step for step in steps if step.name in listed], folder)
    edition = edition or Edition()
    notebooks = {f"notebooks/{name}": f"notebooks/{source_of(name)[0].name}" for name in listed}
    files: dict[str, object] = {SITE: edition.page_data(preset.name) | {"notebooks": notebooks}}
    source = project_root() / "CITATION.cff"
    if source.is_file():
        about = {"preset": preset.name, "fingerprint": fingerprint, "address": edition.repository}
        files[CITATION] = citation(source, **about)
    write_json(folder, files)
    named = local_names(preset)
    for page in [*folder.glob("*"), *folder.glob("notebooks/*"), *folder.glob(f"{CARDS}/*")] if named else []:
        if page.suffix in (".md", ".json", ".ipynb"):
            page.write_text(with_names(page.read_text(encoding="utf-8"), named), encoding="utf-8")


# Build the book of a preset, strictly and whole, where its inputs changed since it was built last.

MARKER = ".remi-book.json"
"""File in a built book that says from which inputs it was made."""

BUILDER = "import sys; from jupyter_book.cli.main import main; sys.exit(main())"
BUILDERS = ("jupyter-book", "Sphinx", "myst-nb", "sphinx-book-theme")


def default_out() -> Path:
    """Folder of the built pages: ``book/_build/html`` in the repository."""
    return project_root() / "book" / "_build" / "html"


def build_book(
    preset: Preset, store: Store, out: Path, *, edition: Edition | None = None, say: Say = print_line
) -> bool:
    """Whether a book was built: False where ``out`` holds one of exactly the same inputs.

    Pages whose notebook has no complete run under its present key are stubs that say so. The build is strict
    (warnings are errors); the finished folder is renamed to ``out`` at the end, so a failure leaves the old book.

    Raises:
        UsageError: if ``out`` is a folder with other content, before anything is built.
        RemiError: if the build has warnings or fails; they are said line by line before.
    """
    check_out(out)
    edition, steps = edition or Edition(), running.plan(preset, store)
    inputs = book_inputs(preset, store, steps, edition)
    if built_from(out) == inputs:
        return False
    with written_whole(out) as part:
        source, build = part.parent / "source", part.parent / "build"
        assemble(preset, store, steps, source, edition=edition, fingerprint=inputs)
        _build(source, build, say)
        os.replace(build / "_build" / "html", part)
        for beside in (CARDS, STORED):
            if (source / beside).is_dir():
                shutil.copytree(source / beside, part / beside)
        for passports in sorted(source.rglob(f"*{ENDING}")):
            shutil.copyfile(passports, part / passports.relative_to(source))
        mark(part, inputs, preset=preset.name)
    return True


def check_out(out: Path, *, marker: str = MARKER, what: str = "a book of ours") -> None:
    """Check that a book, or what else has a file of the name ``marker``, can be written to a folder.

    Raises:
        UsageError: if ``out`` is there and is neither ``what`` it should be nor an empty folder.
    """
    if out.exists() and not (out / marker).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out {out} holds something that is not {what}; name an empty or new folder")


def built_from(out: Path) -> str | None:
    """Fingerprint of the inputs that a built book or site was made from; None where there is none."""
    marker = out / MARKER
    return json.loads(marker.read_text(encoding="utf-8")).get("inputs") if marker.is_file() else None


def mark(folder: Path, inputs: str, *, preset: str) -> None:
    """Write into the folder from which inputs, and for which presets, it was made."""
    text = json.dumps({"inputs": inputs, "preset": preset}, indent=1)
    (folder / MARKER).write_text(f"{text}\n", encoding="utf-8")


def book_inputs(preset: Preset, store: Store, steps: Sequence[running.Step], edition: Edition) -> str:
    """Fingerprint, 64 hexadecimal digits, of everything that the built pages depend on."""
    book = project_root() / "book"
    pages = [
        path
        for path in sorted(book.rglob("*"))
        if path.is_file() and not GENERATED & set(path.relative_to(book).parts)
    ]
    code, data = (
        sorted(path for package in PACKAGES for path in (SOURCE_ROOT / package).rglob(ending))
        for ending in ("*.py", "*.yaml")
    )
    shown = [*data, project_root() / "CITATION.cff"]
    inputs = {
        "edition": edition.page_data(preset.name),
        "preset": preset.fingerprint(),
        "pages": {path.relative_to(book).as_posix(): file_digest(path) for path in pages},
        "notebooks": {
            step.name: [step.key, file_digest(step.target) if step.done else None] for step in steps
        },
        "records": [
            [entry.path.relative_to(store.root).as_posix(), entry.address.key]
            for entry in store.list(preset.name)
        ],
        "stored": {name: file_digest(path) for name, path in stored_files().items()},
        "studies": study_digests(preset.name),
        "laboratory": described(preset, store),
        "code": {path.relative_to(SOURCE_ROOT).as_posix(): syntax_digest(path) for path in code},
        "data": {path.name: file_digest(path) for path in shown if path.is_file()},
        "builders": {name: version(name) for name in BUILDERS},
    }
    return text_digest(canonical_json(inputs))


PAGE_OF_BUILD = re.compile(r"(reading sources|writing output)\.\.\. \[ *(\d+)%\] (\S+)")
"""How Sphinx says which page it is at."""


def _build(source: Path, build: Path, say: Say) -> None:
    options = ["build", str(source), "--path-output", str(build), "-W", "-n", "--keep-going"]
    command, meters, lines = [sys.executable, "-c", BUILDER, *options], dict[str, Meter](), list[str]()
    into = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, **into, text=True, encoding="utf-8") as building:
        try:
            for line in building.stdout:
                lines.append(re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip())
                if at := PAGE_OF_BUILD.search(lines[-1]):
                    meter = Meter(f"book: {at[1]}", 100, notice, unit="%", after=SOON)
                    meters.setdefault(at[1], meter)(int(at[2]), at[3])
        except BaseException:
            building.kill()
            raise
    if building.returncode == 0:
        return
    # Sphinx names a full disk once for each file that it could not write.
    if any(os.strerror(errno.ENOSPC) in line for line in lines):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(build))
    told = [line for line in lines if re.search(r"\b(WARNING|ERROR|CRITICAL|[Ee]xception)\b", line)] or lines[
        -20:
    ]
    for line in told:
        say(line.replace(f"{source}/", ""))
    raise RemiError(f"the book did not build: {len(told)} warnings or errors, listed above")
