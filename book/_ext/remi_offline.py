"""Keeps the built book free of other hosts: MathJax is copied in, scripts appear once, no live code."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

MATHJAX_ENTRY = "tex-chtml.js"
MATHJAX_PARTS = ("output/chtml/fonts/woff-v2/*.woff", "input/tex/extensions/*.js")
"""What the entry script loads by itself: fonts, and TeX extensions on first use; the other 24 MB stay behind."""


def mathjax_source() -> Path:
    """Folder of MathJax 3 inside the installed package sphinx-mathjax-offline.

    Raises:
        ModuleNotFoundError: if the package is not installed; names it.
    """
    # The package's module name has hyphens, so an import statement cannot name it.
    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("sphinx-mathjax-offline is missing: pip install -r requirements.lock")
    return Path(spec.origin).parent / "static" / "mathjax"


def mathjax_files(source: Path) -> Iterator[Path]:
    """Files to copy, relative to `source`: the entry script, fonts and TeX extensions."""
    yield Path(MATHJAX_ENTRY)
    for pattern in MATHJAX_PARTS:
        yield from sorted(path.relative_to(source) for path in source.glob(pattern))


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Copies MathJax into `_static/mathjax` of a finished HTML build."""
    if error is not None or app.builder.format != "html":
        return
    source, target = mathjax_source(), Path(app.outdir) / "_static" / "mathjax"
    for relative in mathjax_files(source):
        (target / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / relative, target / relative)


def is_live_code(script: object) -> bool:
    """True for the scripts of Thebe, which runs code on a server that a book built here does not have."""
    body = getattr(script, "attributes", {}).get("body") or ""
    name = str(getattr(script, "filename", script) or "")
    return "THEBE_JS_URL" in body or name.endswith("sphinx-thebe.js")


def is_laboratory(script: object) -> bool:
    """True for the scripts of the laboratory: jupyter-book puts all of `_static` on every page, one page loads them."""
    return str(getattr(script, "filename", script) or "").removeprefix("_static/").startswith("laboratory/")


def unique_scripts(scripts: list[object]) -> list[object]:
    """Scripts in order, each once, for every page and without live code; Sphinx 7.4 lists inline scripts twice."""
    kept: dict[tuple[str, str], object] = {}
    for script in scripts:
        if is_live_code(script) or is_laboratory(script):
            continue
        body = getattr(script, "attributes", {}).get("body") or ""
        name = str(getattr(script, "filename", script) or "")
        kept.setdefault(("body", body) if body else ("file", name), script)
    return list(kept.values())


def mend_scripts(
    app: Sphinx, page: str, template: str, context: dict[str, object], doctree: nodes.document | None
) -> None:
    """Puts the unique scripts into the context of one page, just before it is written."""
    scripts = context.get("script_files")
    if isinstance(scripts, list):
        scripts[:] = unique_scripts(scripts)


def setup_offline(app: Sphinx) -> None:
    """Connects the two mends to a Sphinx application."""
    app.config.mathjax_path = f"mathjax/{MATHJAX_ENTRY}"
    # After every other handler (the default priority is 500): they are the ones who add scripts twice.
    app.connect("html-page-context", mend_scripts, priority=950)
    app.connect("build-finished", copy_mathjax)
