"""How to cite the book, one build of it, and the paper, from ``CITATION.cff``: as text and as BibTeX."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from remi_core.escaping import as_latex, as_line

Entry = dict[str, str]
"""A citation: keys ``text`` and ``bibtex``."""


def citation(source: Path, *, preset: str, fingerprint: str, address: str = "") -> dict[str, object]:
    """Keys ``book`` and ``paper``, each an ``Entry``, with ``preset`` and ``fingerprint`` of the build.

    ``address`` is where the book's repository is public, "" where it is not.
    """
    about = yaml.safe_load(source.read_text(encoding="utf-8"))
    build = f"build for preset {preset}, fingerprint {fingerprint}"
    book = {"title": about["title"], "version": str(about["version"]), "note": build, "url": address}
    return {
        "book": _entry("software", "remi_book", about["authors"], book),
        "paper": _paper(about["references"][0]),
        "preset": preset,
        "fingerprint": fingerprint,
    }


def _paper(reference: Mapping[str, object]) -> Entry:
    authors = list(reference["authors"])
    key = f"{authors[0]['family-names']}{reference['year']}".lower()
    fields = {"title": reference["title"], "year": str(reference["year"])}
    fields |= {"note": str(reference.get("notes", "")), "url": str(reference["url"])}
    return _entry("misc", key, authors, fields)


def _entry(kind: str, key: str, authors: list[Mapping[str, str]], fields: Mapping[str, object]) -> Entry:
    """One citation; fields without content are left out."""
    given = {name: as_line(str(value)) for name, value in fields.items() if value}
    names = [as_line(_name(author)) for author in authors]
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


def _name(author: Mapping[str, str]) -> str:
    if "name" in author:
        return author["name"]
    return f"{author['family-names']}, {author['given-names']}"
