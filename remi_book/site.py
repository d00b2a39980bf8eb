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
import shlex
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple
from functools import partial
from pathlib import Path
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from bs4 import BeautifulSoup

from remi_book import publishing
from remi_book.publishing import check_out as check_book_out
from remi_book.running import Step, plan, read_cells
from remi_book.words import as_html, as_markdown, local_names, with_names
from remi_core import __version__
from remi_core.errors import RemiError, UsageError
from remi_core.files import Damaged, check_file, read_sealed, sealed_text, written_whole
from remi_core.keys import canonical_json, text_digest
from remi_core.progress import Say, notice, print_line
from remi_core.store import Address, Store, default_root, project_root
from remi_lab.presets import Preset
from remi_lab.results import NotMeasured, Results
from remi_lab.variant import patch_plan

# The figures of executed notebooks as files: pictures as they were drawn, with their texts in one index.

START = "data:image/svg+xml;base64,"


def figure_files(steps: Sequence[Step]) -> dict[str, bytes]:
    """File name → bytes: ``NOTEBOOK-01.svg`` …, in page order, and ``index.json`` with alternative text and caption."""
    files: dict[str, bytes] = {}
    index = []
    for step in steps:
        outputs = [output for cell in read_cells(step.target) for output in cell.get("outputs", [])]
        texts = ["".join(output.get("data", {}).get("text/html", "")) for output in outputs]
        pages = (BeautifulSoup(text, "html.parser") for text in texts)
        images = [image for page in pages for image in page.select(f'img[src^="{START}"]')]
        for number, image in enumerate(images, start=1):
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


# The texts of a deposit: the claim table as CSV, the page that comes first, and names in place of local paths.

COLUMNS = "id section claim published value unit ci_low ci_high null_kind null_low null_high n".split()
COLUMNS += "median seed_low seed_high seeds trainings rule verdict reason notebook".split()


def claims_csv(rows: Sequence[Mapping[str, object]]) -> str:
    """The rows of the report as CSV: one line a row, the published text and the null in columns of their own."""
    target = io.StringIO()
    writer = csv.DictWriter(target, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        published, null = row["published"] or {}, row["null"] or {}
        parts = {f"null_{key}": null.get(key) for key in ("kind", "low", "high")}
        seeds = ";".join("" if value is None else repr(value) for value in row["seeds"])
        trainings = ";".join(f"{each['preset']}/{each['seed']}" for each in row["trainings"])
        flat = {name: row[name] for name in COLUMNS if name in row}
        flat |= {"published": published.get("text"), "seeds": seeds, "trainings": trainings}
        writer.writerow(flat | parts)
    return target.getvalue()


# The front page of several books side by side: what each preset is, how much was run, and the way in.


def front_page(presets: Sequence[Mapping[str, object]]) -> str:
    """HTML of the page, whole in itself: no script, no other file but the mark of the first book.

    Of each preset, as ``shown`` gives it, it says what it is, how much was run and how its claims stand.
    """
    cards = "\n".join(map(_card, presets))
    return publishing.filled("front_page.html", {"icon": as_html(presets[0]["name"]), "cards": cards})


def _card(about: Mapping[str, object]) -> str:
    counted = ", ".join(f"{count} {as_html(word)}" for word, count in about["verdicts"].items())
    claims = f"Claims: {counted}." if counted else "No claims: nothing was run for this preset."
    remark = f'<p class="detail">{as_html(about["remark"])}</p>' if about["remark"] else ""
    texts = {key: as_html(about[key]) for key in ("name", "title", "fingerprint")}
    counts = {"n_run": about["n_run"], "n_pages": about["n_pages"], "claims": claims, "remark": remark}
    return publishing.filled("front_page_card.html", texts | counts)


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
    check_book_out(out)
    edition = site_edition(presets, store, repository)
    inputs = {
        preset.name: publishing.book_inputs(preset, store, plan(preset, store), edition) for preset in presets
    }
    page = front_page([shown(preset, store, inputs[preset.name]) for preset in presets])
    whole = text_digest(canonical_json([inputs, page]))
    if publishing.built_from(out) == whole:
        return False
    with written_whole(out) as part:
        part.mkdir()
        for preset in presets:
            folder = part / preset.name
            if publishing.built_from(out / preset.name) == inputs[preset.name]:
                shutil.copytree(out / preset.name, folder)
            else:
                say(f"building the book of preset {preset.name}")
                publishing.build_book(preset, store, folder, edition=edition, say=say)
        (part / FRONT).write_text(page, encoding="utf-8")
        publishing.mark(part, whole, preset=" ".join(inputs))
    return True


def site_edition(presets: Sequence[Preset], store: Store, repository: str = "") -> publishing.Edition:
    """The edition whose pages each know the other presets and what pages these have."""
    sides = [
        {
            "name": preset.name,
            "title": preset.title,
            "pages": publishing.pages_of(publishing.contents_of(preset, plan(preset, store))),
        }
        for preset in presets
    ]
    return publishing.Edition(repository=repository, presets=sides)


def shown(preset: Preset, store: Store, fingerprint: str) -> dict[str, object]:
    """What the front page says of one preset: pages run of all, and verdict → claims that have it, without parts."""
    steps = plan(preset, store)
    listed = publishing.pages_listed(publishing.contents_of(preset, steps))
    verdicts: Counter[str] = Counter()
    if store.list(preset.name):
        from remi_book.claims import report_rows  # brings pandas

        rows = report_rows(Results(preset, store, measures=False), say=notice)
        verdicts = Counter(str(row["verdict"]) for row in rows if "." not in str(row["id"]))
    n_run = sum(step.done for step in steps if step.name in listed)
    counts = {"n_run": n_run, "n_pages": len(listed), "verdicts": dict(verdicts.most_common())}
    names = {"name": preset.name, "title": preset.title, "remark": preset.remark}
    return {**names, **counts, "fingerprint": fingerprint[:16]}


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
        RemiError: if no notebook of the preset was run (with the command that does), or a file tells of this machine.
    """
    check_out(out)
    steps = plan(preset, store)
    done = [step for step in steps if step.done]
    if not done:
        named = "" if store.root == default_root() else f" --store {shlex.quote(str(store.root))}"
        raise RemiError(
            f"preset {preset.name!r}: none of {len(steps)} notebooks was run as it is now: "
            f"remi run --preset {preset.name}{named}"
        )
    files = deposit_files(preset, store, done, [step.name for step in steps if not step.done])
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
    """Check that an archive can be written to a file.

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


def deposit_files(
    preset: Preset, store: Store, steps: Sequence[Step], not_run: Sequence[str] = ()
) -> dict[str, Content]:
    """Every file of the archive by name, in the order of names, the manifest last.

    ``steps`` are the notebooks that were run, ``not_run`` names the others.
    """
    from remi_book.claims import report_rows

    named = local_names(preset)
    rows = report_rows(Results(preset, store, measures=False), say=notice)
    records = record_files(store, preset, named)
    figures = figure_files(steps)
    about = {
        "preset": preset.name,
        "fingerprint": preset.fingerprint(),
        "package": __version__,
        "records": sum(name.endswith(".npz") for name in records),
        "figures": sum(name.endswith(".svg") for name in figures),
        "claims": len(rows),
        "notebooks not run": list(not_run),
    }
    title = as_markdown(with_names(preset.title, named))
    words = {"preset": as_markdown(preset.name), "title": title, "name": preset.name}
    files: dict[str, Content] = {
        **{f"records/{name}": content for name, content in records.items()},
        **{f"figures/{name}": content for name, content in figures.items()},
        **{name: project_root() / name for name in COPIED},
        "claims.json": _json(rows, named),
        "claims.csv": claims_csv(rows).encode(),
        "preset.json": _json(preset.fields(), named),
        ABOUT: _json(about, named),
        "README.md": publishing.filled("deposit.md", about | words).encode(),
    }
    files = dict(sorted(files.items()))
    lines = [f"{hashlib.sha256(_bytes(content)).hexdigest()}  {name}\n" for name, content in files.items()]
    return files | {MANIFEST: "".join(lines).encode()}


def record_files(store: Store, preset: Preset, named: Mapping[str, str]) -> dict[str, Content]:
    """Arrays and provenance of the preset's records by name.

    Of several keys of a record it is that of the present weights, data and code; where no page asks for the record, the
    last used one.
    """
    entries = sorted(
        store.list(preset.name), key=lambda entry: entry.path.with_suffix(".json").stat().st_mtime
    )
    present = present_addresses(Results(preset, store, measures=False))
    chosen = {astuple(address)[:-1]: address for address in present}  # all of an address but its key
    latest = {
        astuple(entry.address)[:-1]: entry
        for entry in entries
        if chosen.get(astuple(entry.address)[:-1], entry.address) == entry.address
    }
    files: dict[str, Content] = {}
    for entry in latest.values():
        about = entry.path.with_suffix(".json")
        files[entry.path.relative_to(store.root).as_posix()] = entry.path
        files[about.relative_to(store.root).as_posix()] = _provenance(about, entry.path, named)
    return files


def present_addresses(results: Results) -> set[Address]:
    """Where the records lie, under their present keys, of which tables, figures and claims are made."""
    from remi_book.chapters.records import measure_variant  # these bring pandas
    from remi_book.claims import headlines_of, ledger_rows

    for seed in results.preset.seeds:
        here = results.at(seed)
        for ask in (
            *(partial(measure_variant, here, variant) for variant in results.variants),
            *(
                partial(here.patched, *pair, name)
                for pair, names in patch_plan(results.preset).items()
                for name in names
            ),
            partial(headlines_of, here, ledger_rows(results.preset)),
        ):
            with suppress(NotMeasured):
                ask()
    return results.store.asked


def _provenance(about: Path, arrays: Path, named: Mapping[str, str]) -> bytes:
    """The record's own file with no place of this machine in it, sealed again since it may say something else now."""
    try:
        content = read_sealed(about)
        check_file(arrays, content["sha256"])
    except Damaged as error:
        raise RemiError(f"{arrays}: {error}; run again before it is deposited") from None
    return _json(json.loads(sealed_text(json.loads(_json(content, named)))), {})


def write_archive(path: Path, folder: str, files: Mapping[str, Content]) -> None:
    """Write the files into an archive, in their order, in a folder of that name."""
    with ZipFile(path, "w", ZIP_STORED) as archive:
        for name, content in files.items():
            member = ZipInfo(f"{folder}/{name}", date_time=DATE)
            member.external_attr, member.create_system = FILE_MODE, UNIX
            archive.writestr(member, _bytes(content))


def _bytes(content: Content) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()


def _json(content: object, named: Mapping[str, str]) -> bytes:
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    return f"{with_names(text, named)}\n".encode()
