"""Several books in one site, and the deposit for an archive."""

from __future__ import annotations

import base64
import csv
import getpass
import hashlib
import io
import json
import platform
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from bs4 import BeautifulSoup, Tag

from remi_book.publishing import (
    Edition,
    SitePreset,
    book_inputs,
    build_book,
    built_from,
    contents_of,
    mark,
    pages_listed,
    pages_of,
)
from remi_book.publishing import check_out as check_out_of_publishing
from remi_book.running import Step, plan, read_cells
from remi_book.words import as_html, as_markdown
from remi_core import __version__
from remi_core.errors import RemiError, UsageError
from remi_core.files import Damaged, check_file, read_sealed, sealed_text, written_whole
from remi_core.keys import canonical_json, file_digest, text_digest
from remi_core.progress import Say, print_line
from remi_core.store import Entry, Store, default_root, project_root
from remi_lab.presets import Preset
from remi_lab.results import Results

# The figures of executed notebooks as files: pictures as they were drawn, with their texts in one index.

START = "data:image/svg+xml;base64,"


def figure_files(steps: Sequence[Step]) -> dict[str, bytes]:
    """File name → bytes: ``NOTEBOOK-01.svg`` …, in page order, and ``index.json`` with alternative text and caption."""
    files: dict[str, bytes] = {}
    index = []
    for step in steps:
        for number, image in enumerate(_images(step), start=1):
            name = f"{step.name}-{number:02d}.svg"
            files[name] = base64.b64decode(str(image["src"]).removeprefix(START))
            figure = image.find_parent("figure")
            caption = figure.find("figcaption") if figure else None
            index.append(
                {
                    "file": name,
                    "notebook": step.name,
                    "text": str(image.get("alt", "")),
                    "caption": caption.get_text() if caption else "",
                }
            )
    text = json.dumps(index, indent=1, ensure_ascii=False)
    return files | {"index.json": f"{text}\n".encode()}


def _images(step: Step) -> Iterator[Tag]:
    for cell in read_cells(step.target):
        for output in cell.get("outputs", []):
            page = BeautifulSoup("".join(output.get("data", {}).get("text/html", "")), "html.parser")
            yield from page.select(f'img[src^="{START}"]')


# The texts of a deposit: the claim table as CSV, the page that comes first, and names in place of local paths.

COLUMNS = (
    "id",
    "section",
    "claim",
    "published",
    "value",
    "unit",
    "ci_low",
    "ci_high",
    "null_kind",
    "null_low",
)
COLUMNS += ("null_high", "n", "seeds", "rule", "verdict", "reason", "notebook")


def claims_csv(rows: Sequence[Mapping[str, object]]) -> str:
    """The rows of the report as CSV: one line a row, the published text and the null in columns of their own."""
    target = io.StringIO()
    writer = csv.DictWriter(target, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        published, null = row["published"] or {}, row["null"] or {}
        parts = {f"null_{key}": null.get(key) for key in ("kind", "low", "high")}
        seeds = ";".join("" if value is None else repr(value) for value in row["seeds"])
        flat = {name: row[name] for name in COLUMNS if name in row}
        writer.writerow(flat | parts | {"published": published.get("text"), "seeds": seeds})
    return target.getvalue()


def local_names(preset: Preset) -> dict[str, str]:
    """Each local path that the preset names → its last part, longest path first."""
    models = [path for spec in preset.variants.values() for path in (spec.source, spec.adapter) if path]
    paths = [path for path in (*models, *(path for _, path in preset.extra_data)) if Path(path).is_absolute()]
    return {path: Path(path).name for path in sorted(set(paths), key=len, reverse=True)}


def with_names(text: str, named: Mapping[str, str]) -> str:
    """The text with each local path replaced by its name."""
    for path, name in named.items():
        text = text.replace(path, name)
    return text


def readme(preset: Preset, about: Mapping[str, object]) -> str:
    """The page that a finder of the archive reads first."""
    title = with_names(preset.title, local_names(preset))
    return f"""# Results of preset {as_markdown(preset.name)}

{as_markdown(title)}.

Made by the package remi-core {about["package"]}, from the preset with fingerprint `{about["fingerprint"]}`.
It holds {about["records"]} records, {about["figures"]} figures and {about["claims"]} rows of the claim table.

| file | what it is |
| --- | --- |
| `claims.json`, `claims.csv` | every claim with value, interval, null and verdict, as `remi report` prints them |
| `figures/` | the figures of the notebooks; `figures/index.json` has the text and the caption of each |
| `records/PRESET/SEED/VARIANT/` | arrays (`.npz`, no pickles), each with a `.json` that tells where it came from |
| `preset.json` | every choice that changes a number |
| `requirements.lock` | versions of all packages |
| `about.json` | counts, fingerprints |
| `manifest-sha256.txt` | SHA-256 of every other file |

To check it: `sha256sum -c manifest-sha256.txt` in this folder.
To make it again: install `requirements.lock`, then
`remi run --preset {preset.name}` and `remi deposit --preset {preset.name}`.
To cite it: `CITATION.cff`, with the fingerprint above.

Code is under the MIT licence (`LICENSE`); records, figures and text are under CC BY 4.0 (`LICENSE-text`).
No row of a real data set is part of it. Paths of the machine are left out; where a record names a folder, only its
last part stands.
"""


# The front page of several books side by side: what each preset is, how much was run, and the way in.

STYLE = """
:root { color-scheme: light dark; --ink: #222832; --muted: #4d5863; --ground: #fff; --card: #f5f7f9;
  --line: #c9d2da; --link: #0b4fae; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e8ee; --muted: #b4bfc9; --ground: #14181e; --card: #1f252d;
  --line: #46525e; --link: #9cc6ff; } }
body { background: var(--ground); color: var(--ink); font: 1.05rem/1.6 system-ui, sans-serif; margin: 0; }
main { margin: 0 auto; max-width: 46rem; padding: 2.5rem 1.2rem; }
h1 { font-size: 1.9rem; line-height: 1.25; margin: 0 0 .6rem; }
h2 { font-size: 1.25rem; margin: 0 0 .3rem; }
ul { list-style: none; padding: 0; }
li { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; margin: 1rem 0;
  padding: 1rem 1.2rem; }
p { margin: .3rem 0; overflow-wrap: anywhere; }
p.detail { color: var(--muted); font-size: .92rem; }
a { color: var(--link); }
"""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the front page says of one preset."""

    name: str
    title: str
    remark: str
    n_run: int
    n_pages: int
    verdicts: Mapping[str, int]
    """Verdict → claims that have it, without their parts."""
    fingerprint: str


def front_page(presets: Sequence[Shown]) -> str:
    """HTML of the page, whole in itself: no script, no other file but the mark of the first book."""
    cards = "\n".join(map(_card, presets))
    icon = as_html(presets[0].name)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>The ReMi book, by preset</title>
<link rel="icon" href="{icon}/_static/logo.svg">
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>The ReMi book, by preset</h1>
<p>The same notebooks on several sets of models. A verdict belongs to a preset: what holds on one set of models is
no result about another. Every page of each book has a switch to the same page of the others.</p>
<ul>
{cards}
</ul>
</main>
</body>
</html>
"""


def _card(one: Shown) -> str:
    counted = ", ".join(f"{count} {as_html(word)}" for word, count in one.verdicts.items())
    claims = f"Claims: {counted}." if counted else "No claims: nothing was run for this preset."
    remark = f'<p class="detail">{as_html(one.remark)}</p>' if one.remark else ""
    return f"""<li>
<h2><a href="{as_html(one.name)}/index.html">{as_html(one.name)}</a></h2>
<p>{as_html(one.title)}</p>
{remark}
<p class="detail">{one.n_run} of {one.n_pages} notebook pages run. {claims}</p>
<p class="detail">Fingerprint <code>{as_html(one.fingerprint[:16])}</code></p>
</li>"""


# Several presets side by side: a book each, one page in front that links them, and a switch on every page.

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
    check_out_of_publishing(out)
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
        from remi_book.claims import report_rows
        from remi_lab.results import Results

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


# What of the machine must not be in a file that is given away: its paths, its name, the name of its user.

SHORTEST = 4
"""Names of fewer characters stand in too many words to tell of a machine."""
COMMON = {"localhost", "root", "user", "admin", "runner"}
"""Names that tell of no machine."""


def traces(content: bytes, *, places: Iterable[Path]) -> list[str]:
    """What of this machine a file holds: ``a path``, ``the host name`` or ``the user name``.

    Paths are the given places and the home folder, also in the four-byte characters of arrays; names are whole words.
    """
    found = []
    for path in {str(place) for place in (*places, Path.home()) if len(place.parts) > 1}:
        if any(path.encode(code) in content for code in ("utf-8", "utf-32-le")):
            found.append("a path")
    for what, name in (("the host name", platform.node()), ("the user name", _user())):
        if len(name) < SHORTEST or name in COMMON:
            continue
        word = re.compile(rb"(?<![A-Za-z0-9_-])" + re.escape(name.encode()) + rb"(?![A-Za-z0-9_-])")
        if word.search(content) or name.encode("utf-32-le") in content:
            found.append(what)
    return found


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user: nothing could have written its name
        return ""


# A deposit: what was measured for a preset, its figures and claims, in one archive that anyone can check.
#
# Equal input gives equal bytes: members in the order of their names, one date, nothing compressed (what a compressor
# writes depends on its version). Nothing in it tells of the machine that made it.

ABOUT, MANIFEST = "about.json", "manifest-sha256.txt"
COPIED = ("CITATION.cff", "LICENSE", "LICENSE-text", "requirements.lock")
DATE = (1980, 1, 1, 0, 0, 0)
"""The earliest date that an archive can hold."""
FILE_MODE = 0o100644 << 16
UNIX = 3

Content = bytes | Path
"""What a file of the archive holds: bytes, or a file of the store that is copied as it is."""


def write_deposit(preset: Preset, store: Store, out: Path) -> int:
    """Number of files in the archive ``out``, which appears whole or not at all.

    Raises:
        UsageError: if ``out`` is something other than a deposit, or its folder does not exist.
        RemiError: if a notebook of the preset was not run (with the command that does), or a file tells of this
            machine.
    """
    check_out(out)
    steps = plan(preset, store)
    check_done(preset, steps, store)
    files = deposit_files(preset, store, steps)
    for name, content in files.items():
        found = traces(_bytes(content), places=[project_root(), store.root, Path.cwd()])
        if found:
            raise RemiError(
                f"the deposit's {name} would hold {found[0]} of this machine; nothing was written"
            )
    with written_whole(out) as part:
        write_archive(part, f"remi-{preset.name}", files)
    return len(files)


def check_out(out: Path) -> None:
    """Nothing.

    Raises:
        UsageError: if no archive can or should be written there.
    """
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: no folder {out.parent}")
    if not out.exists():
        return
    try:
        with ZipFile(out) as archive:
            ours = any(Path(name).name == MANIFEST for name in archive.namelist())
    except (BadZipFile, OSError):
        ours = False
    if not ours:
        raise UsageError(f"--out {out} is something that is not a deposit of ours; name a new file")


def check_done(preset: Preset, steps: Sequence[Step], store: Store) -> None:
    """Nothing.

    Raises:
        RemiError: if a notebook was not run; says the command that runs it.
    """
    missing = [step.name for step in steps if not step.done]
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        named = "" if store.root == default_root() else f" --store {store.root}"
        raise RemiError(
            f"preset {preset.name!r}: {missing[0]}{others} of {len(steps)} notebooks not run as they are now: "
            f"remi run --preset {preset.name}{named}"
        )


def deposit_files(preset: Preset, store: Store, steps: Sequence[Step]) -> dict[str, Content]:
    """Every file of the archive by name, in the order of names, the manifest last."""
    from remi_book.claims import report_rows

    named = local_names(preset)
    rows = report_rows(Results(preset, store))
    records = record_files(store, preset, named)
    figures = figure_files(steps)
    about = {
        "preset": preset.name,
        "fingerprint": preset.fingerprint(),
        "package": __version__,
        "records": sum(name.endswith(".npz") for name in records),
        "figures": sum(name.endswith(".svg") for name in figures),
        "claims": len(rows),
    }
    files: dict[str, Content] = {
        **{f"records/{name}": content for name, content in records.items()},
        **{f"figures/{name}": content for name, content in figures.items()},
        **{name: project_root() / name for name in COPIED},
        "claims.json": _json(rows, named),
        "claims.csv": claims_csv(rows).encode(),
        "preset.json": _json(preset.fields(), named),
        ABOUT: _json(about, named),
        "README.md": readme(preset, about).encode(),
    }
    files = dict(sorted(files.items()))
    lines = [f"{_digest(content)}  {name}\n" for name, content in files.items()]
    return files | {MANIFEST: "".join(lines).encode()}


def record_files(store: Store, preset: Preset, named: Mapping[str, str]) -> dict[str, Content]:
    """Arrays and provenance of the preset's records by name; of several keys of a record the last used one."""
    latest: dict[tuple[object, ...], Entry] = {}
    for entry in store.list(preset.name):
        a = entry.address
        kind = (a.seed, a.variant, a.measurement, a.dataset)
        if kind not in latest or _used(entry) >= _used(latest[kind]):
            latest[kind] = entry
    files: dict[str, Content] = {}
    for entry in latest.values():
        about = entry.path.with_suffix(".json")
        files[entry.path.relative_to(store.root).as_posix()] = entry.path
        files[about.relative_to(store.root).as_posix()] = _provenance(about, entry.path, named)
    return files


def _provenance(about: Path, arrays: Path, named: Mapping[str, str]) -> bytes:
    """The record's own file with no place of this machine in it, sealed again since it may say something else now."""
    try:
        content = read_sealed(about)
        check_file(arrays, content["sha256"])
    except Damaged as error:
        raise RemiError(f"{arrays}: {error}; run again before it is deposited") from None
    return _json(json.loads(sealed_text(json.loads(_json(content, named)))), {})


def write_archive(path: Path, folder: str, files: Mapping[str, Content]) -> None:
    """Return once the archive holds the files, in their order, in a folder of that name."""
    with ZipFile(path, "w", ZIP_STORED) as archive:
        for name, content in files.items():
            member = ZipInfo(f"{folder}/{name}", date_time=DATE)
            member.external_attr, member.create_system = FILE_MODE, UNIX
            archive.writestr(member, _bytes(content))


def _used(entry: Entry) -> float:
    return entry.path.with_suffix(".json").stat().st_mtime


def _bytes(content: Content) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()


def _digest(content: Content) -> str:
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else file_digest(content)


def _json(content: object, named: Mapping[str, str]) -> bytes:
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    return f"{with_names(text, named)}\n".encode()
