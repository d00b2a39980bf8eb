"""Several presets side by side: a book each, one page in front that links them, and a switch on every page."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from remi_core.execution.pipeline import plan
from remi_core.fingerprint import canonical_json, text_digest
from remi_core.presets.known import Preset
from remi_core.progress import Say, print_line
from remi_core.publishing.book import book_inputs, build_book, built_from, check_out, mark
from remi_core.publishing.contents import contents_of, pages_listed, pages_of
from remi_core.publishing.edition import Edition, SitePreset
from remi_core.publishing.site_page import Shown, front_page
from remi_core.storage.store import Store, written_whole

FRONT = "index.html"


def build_site(
    presets: Sequence[Preset], store: Store, out: Path, *, repository: str = "", say: Say = print_line
) -> bool:
    """Whether anything was built: False where ``out`` holds the books of exactly the same inputs.

    Each book lies in a folder named after its preset. One whose inputs did not change is copied; the folder ``out``
    appears whole, or stays as it was.

    Raises:
        UsageError: if ``out`` is a folder with other content, before anything is built.
        RemiError: if a build has warnings or fails; they are said line by line before.
    """
    check_out(out)
    edition = site_edition(presets, store, repository)
    inputs = {one.name: book_inputs(one, store, plan(one, store), edition) for one in presets}
    page = front_page([shown(one, store, inputs[one.name]) for one in presets])
    whole = text_digest(canonical_json([inputs, page]))
    if built_from(out) == whole:
        return False
    with written_whole(out) as part:
        part.mkdir()
        for preset in presets:
            folder = part / preset.name
            if built_from(out / preset.name) == inputs[preset.name]:
                shutil.copytree(out / preset.name, folder)
            else:
                say(f"building the book of preset {preset.name}")
                build_book(preset, store, folder, edition=edition, say=say)
        (part / FRONT).write_text(page, encoding="utf-8")
        mark(part, whole, preset=" ".join(one.name for one in presets))
    return True


def site_edition(presets: Sequence[Preset], store: Store, repository: str = "") -> Edition:
    """The edition whose pages each know the other presets and what pages these have."""
    sides = [
        SitePreset(name=one.name, title=one.title, pages=tuple(pages_of(contents_of(plan(one, store)))))
        for one in presets
    ]
    return Edition(repository=repository, presets=tuple(sides))


def shown(preset: Preset, store: Store, fingerprint: str) -> Shown:
    """What the front page says of one preset: pages run, and how many claims have which verdict."""
    steps = plan(preset, store)
    listed = pages_listed(contents_of(steps))
    n_run = sum(step.done for step in steps if step.name in listed)
    verdicts: Counter[str] = Counter()
    if store.list(preset.name):
        from remi_core.claims import report_rows
        from remi_core.results import Results

        rows = report_rows(Results(preset, store))
        verdicts = Counter(str(row["verdict"]) for row in rows if "." not in str(row["id"]))
    return Shown(
        name=preset.name,
        title=preset.title,
        remark=preset.remark,
        n_run=n_run,
        n_pages=len(listed),
        verdicts=dict(verdicts.most_common()),
        fingerprint=fingerprint,
    )
