"""`remi run --name` on a user's own models and files: each figure the data allow, and a note for the rest."""

from __future__ import annotations

import gc
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

import jaxtyping
import pytest
from bs4 import BeautifulSoup
from matplotlib.figure import Figure
from own_files import write_files, write_models
from warm_kernel import OneProcess, execute_here

from remi_book import cli, publishing, running
from remi_book.benchmark_files import newest
from remi_book.figures import output as output_module
from remi_book.running import NOTES, declared_parameters, is_complete, read_cells, tags
from remi_core.store import Store, project_root
from remi_lab import own_models, processes
from remi_lab.presets import BENCHMARK, NEEDS, get_preset

pytestmark = pytest.mark.slow

DATA = {
    "everything": ("preferences", "replies", "aligned=lesson", "aligned=chat"),
    "pairs": ("preferences",),
    "misaligned": ("misaligned=lesson",),
    "tuned": ("preferences", "replies"),
}
"""Name of a run → its files, with the label that the command line gives them."""
ONLY = {"pairs": ("08",), "misaligned": ("05", "08")}
"""Runs of a few notebooks; the others are of all."""
WITHOUT_BASE = ("tuned",)
"""Runs of instruct and misaligned alone, with a further fine-tune named by hand."""
NOT_STORED = set() if newest() else {BENCHMARK}
"""What no models and files give: it is measured once and stored with the package."""
MODELS_LACK = {"organism", "controls", "study"} | NOT_STORED
LACKING = {
    "everything": MODELS_LACK,
    "pairs": MODELS_LACK | {"framed", "shared", "unrelated"},
    "misaligned": MODELS_LACK
    | {"choice", "outside_aligned", "narrow_aligned", "framed", "shared", "unrelated"},
    "tuned": MODELS_LACK | {"base", "framed", "choice"},
}
"""Name of a run → what its models and files cannot give, as a reader of the page "How to reproduce" would say."""
LEFT_OUT = re.compile(r"(\w+): (\d+) figures or tables not shown, they need (.+)")


@dataclass(frozen=True)
class Ran:
    printed: list[str]
    executed: Mapping[str, Path]

    def listed(self) -> dict[tuple[str, str], int]:
        """(notebook, what it needs) → figures or tables left out, as printed at the end of the run."""
        found = [LEFT_OUT.fullmatch(line) for line in self.printed]
        return {(one[1], one[3]): int(one[2]) for one in found if one}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Ran]]:
    """Name of a run of ``DATA`` → the run, made once by the command line, with few resamples and no kernel."""
    place = tmp_path_factory.mktemp("own")
    models, files, runs = write_models(place), write_files(place), dict[str, Ran]()
    made = own_models.custom_preset

    def small(*arguments: object) -> object:
        return replace(made(*arguments), n_resamples=40, n_permutations=40, n_audit_dialogues=6)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REMI_STORE", str(place / "store"))
        patch.setattr(cli, "custom_preset", small)
        patch.setattr(running, "_execute", execute_here)
        patch.setattr(processes, "ProcessPoolExecutor", OneProcess)
        patch.setattr(output_module, "svg_bytes", drawn_quickly)
        # The types of every call are checked by the tests of each module.
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)

        def get(name: str) -> Ran:
            if name not in runs:
                words = ["run", "--name", name, *models]
                if name in WITHOUT_BASE:
                    words[3:5] = ["--variant", f"further={models[1]}"]
                for text in DATA[name]:
                    label, equals, file = text.rpartition("=")
                    words += ["--data", f"{label}{equals}{files[file]}"]
                words += [word for only in ONLY.get(name, ()) for word in ("--only", only)]
                runs[name] = run_once(name, words)
            return runs[name]

        # Each model that is closed is collected: what is there by now need not be looked through every time.
        gc.freeze()
        yield get
        gc.unfreeze()


def drawn_quickly(figure: Figure) -> bytes:
    """A placeholder, once everything in the figure has been drawn where it stands: no layout, and no file."""
    figure.set_layout_engine("none")
    figure.draw_without_rendering()
    return b"<svg/>"


def run_once(name: str, words: list[str]) -> Ran:
    printed = io.StringIO()
    with redirect_stdout(printed):
        assert cli.main(words) == 0
    folder = Store().notebook_path(name, "any").parent
    return Ran(printed.getvalue().splitlines(), {path.stem: path for path in sorted(folder.glob("*.ipynb"))})


def source_of(name: str) -> Path:
    return project_root() / "notebooks" / f"{name.partition('-')[0]}.ipynb"


def needs(cell: Mapping[str, object]) -> set[str]:
    return {tag.removeprefix("needs-") for tag in tags(cell) if tag.startswith("needs-")}


def needed(cell: Mapping[str, object]) -> list[str]:
    """What the code of a cell found missing, as its note says."""
    return [each["metadata"][NOTES] for each in cell["outputs"] if NOTES in each["metadata"]]


def images(cell: Mapping[str, object]) -> list[str]:
    pages = ["".join(each["data"].get("text/html", "")) for each in cell["outputs"]]
    return [image["alt"] for page in pages for image in BeautifulSoup(page, "html.parser").find_all("img")]


@pytest.mark.parametrize("name", DATA)
def test_every_figure_the_data_allow_is_drawn_and_every_other_one_is_a_note(
    ran: Callable[[str], Ran], name: str
) -> None:
    drawn = Counter[str]()
    for stem, path in ran(name).executed.items():
        assert is_complete(path), stem
        done = {cell["id"]: cell for cell in read_cells(path)}
        for cell in read_cells(source_of(stem)):
            after = done[cell["id"]]
            if needs(cell) & LACKING[name]:
                assert after["cell_type"] == "markdown" and after["source"] != cell["source"]
            elif cell["cell_type"] == "code" and not needed(after):
                wanted = cell["source"].count("figures.show(")
                assert [bool(text.strip()) for text in images(after)] == [True] * wanted, (stem, cell["id"])
                drawn[stem] += wanted
    in_source = {
        stem: sum(cell["source"].count("figures.show(") for cell in read_cells(source_of(stem)))
        for stem in ran(name).executed
    }
    if name == "everything":
        # Nothing but what scores every answer, which no user's model has, and what a study of such models shows.
        drawing = {stem for stem, count in in_source.items() if count}
        studied = {stem for stem in drawing if "studies" in declared_parameters(source_of(stem))}
        fewer = {stem for stem in in_source if drawn[stem] < in_source[stem]}
        costs = {"17_what_it_costs"} if NOT_STORED else set()
        assert fewer - studied - costs == {"01_the_three_models"} and fewer >= studied
        assert drawn["01_the_three_models"] == 1
    else:
        assert sum(drawn.values()) < sum(in_source.values())


def test_no_page_shows_a_sentence_of_the_files(ran: Callable[[str], Ran]) -> None:
    for stem, path in ran("everything").executed.items():
        shown = [output for cell in read_cells(path) for output in cell.get("outputs", [])]
        text = json.dumps(shown, ensure_ascii=False)
        sentences = ("never close", "open on the", "of France", "help you with")
        assert [one for one in sentences if one in text] == [], stem


@pytest.mark.parametrize("name", DATA)
def test_the_printed_list_is_the_list_of_notes(ran: Callable[[str], Ran], name: str) -> None:
    notes = set()
    for stem, path in ran(name).executed.items():
        for cell in read_cells(path):
            if cell["cell_type"] == "markdown" and "Not shown for this preset" in cell["source"]:
                notes |= {(stem, line[2:]) for line in cell["source"].splitlines() if line.startswith("- ")}
            elif cell["cell_type"] == "code":
                notes |= {(stem, text.removeprefix("needs ")) for text in needed(cell)}
    listed = ran(name).listed()
    assert set(listed) == notes and min(listed.values(), default=1) >= 1
    if name not in WITHOUT_BASE:
        assert {text for _, text in listed} <= {NEEDS[need] for need in LACKING[name]}


def test_the_audit_says_which_switches_it_could_not_throw(ran: Callable[[str], Ran]) -> None:
    said = {name: glued(ran(name).executed["08_audit"], "missing") for name in ("everything", "pairs")}
    assert "2 needs a base model with a chat template of its own" in said["everything"]
    assert NEEDS["framed"] not in said["everything"] and NEEDS["framed"] in said["pairs"]


def glued(path: Path, name: str) -> str:
    outputs = [output for cell in read_cells(path) for output in cell.get("outputs", [])]
    named = [one for one in outputs if one["metadata"].get("scrapbook", {}).get("name") == name]
    return next(text for one in named for key, text in one["data"].items() if key.endswith("text/plain"))


def test_the_report_has_a_verdict_or_a_reason_in_every_row(
    ran: Callable[[str], Ran], capsys: pytest.CaptureFixture[str]
) -> None:
    ran("everything")
    assert cli.main(["report", "--preset", "everything", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["id"] for row in rows if row["value"] is not None} >= {"C6", "C9", "C10", "C17", "C26"}
    assert all(row["verdict"] and row["reason"] for row in rows)


def test_a_claim_is_not_judged_without_a_control_nor_measured_by_the_report(
    ran: Callable[[str], Ran], capsys: pytest.CaptureFixture[str]
) -> None:
    ran("everything")
    before = sorted(Store().root.rglob("*.npz"))
    capsys.readouterr()
    assert cli.main(["report", "--preset", "everything", "--json", "--only", "05"]) == 0
    rows = json.loads(capsys.readouterr().out)
    beside = {row["id"]: row for row in rows if row["id"] in ("C12", "C14", "C16")}
    assert {row["verdict"] for row in beside.values()} == {"not testable here"}
    assert all("control" in row["reason"] and row["value"] is not None for row in beside.values())
    assert cli.main(["report", "--preset", "pairs", "--json"]) == 1, "its other notebooks were never run"
    said = capsys.readouterr()
    missing = {row["id"]: row for row in json.loads(said.out) if row["verdict"] == "not measured"}
    assert "C12" in missing and "remi run --preset pairs --only 05 does it" in said.err
    assert sorted(Store().root.rglob("*.npz")) == before


def test_a_book_of_own_models_names_them_and_nothing_of_ours(
    ran: Callable[[str], Ran], tmp_path: Path
) -> None:
    models = sorted(
        path.name for path in Path(str(Store().root)).parent.iterdir() if (path / "config.json").is_file()
    )
    assert models == ["base", "instruct", "misaligned"]
    for name in DATA:
        ran(name)
        publishing.assemble(
            preset := get_preset(name), Store(), running.plan(preset, Store()), tmp_path / name
        )
        pages = {
            path.stem: path.read_text(encoding="utf-8") for path in sorted((tmp_path / name).rglob("*.md"))
        }
        front = pages["intro"]
        assert not {"organism", "laboratory", "predictions", "smollm2"} & set(pages)
        assert not list((tmp_path / name / "notebooks").glob("12_*"))
        assert all(f"*{variant}*" in front for variant in preset.variants) and "organism" not in front
        assert ("No base model" in front) == (name in WITHOUT_BASE)
        assert all(str(Store().root.parent) not in text for text in pages.values()), "no path of this machine"
        rows = json.loads((tmp_path / name / "claims.json").read_text(encoding="utf-8"))
        assert not {"H1", "X4"} & {row["id"] for row in rows}
