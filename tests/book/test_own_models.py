"""`remi run --name` on a user's own models and files: each figure the data allow, and a note for the rest."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from itertools import chain
from pathlib import Path

import jaxtyping
import pytest
import yaml
from bs4 import BeautifulSoup
from matplotlib.figure import Figure
from own_files import write_files, write_models
from own_pages import ABOUT_NO_MODEL, captions, prose, untrue
from warm_kernel import OneProcess, execute_here

from remi_book import cli, publishing, running
from remi_book.figures import output
from remi_book.running import NOTES, declared_parameters, is_complete, read_cells, tags
from remi_core.store import Store, project_root
from remi_lab import own_models, processes
from remi_lab.presets import NEEDS, get_preset

pytestmark = pytest.mark.slow

Cells = list[dict]
RUNS = yaml.safe_load(Path(__file__).with_name("own_runs.yaml").read_text(encoding="utf-8"))
SENTENCES = ("never close", "open on the", "of France", "help you with")
"""Parts of what stands in the files."""
LEFT_OUT = re.compile(r"(\w+): ([1-9]\d*) figures or tables not shown, they need (.+)")


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Iterator[Callable[[str], tuple[str, dict[str, Cells]]]]:
    """Name of a run → what it printed, and the cells of its notebooks; made once, with few resamples and no kernel."""
    place = tmp_path_factory.mktemp("own")
    models, files, runs = write_models(place), write_files(place), {}
    made = own_models.custom_preset

    def small(*arguments: object, **named: object) -> object:
        return replace(made(*arguments, **named), n_resamples=40, n_permutations=40, n_audit_dialogues=6)

    def get(name: str) -> tuple[str, dict[str, Cells]]:
        if name not in runs:
            words = ["run", "--name", name, *models]
            if RUNS[name].get("without_base"):
                words[3:5] = ["--variant", f"further={models[1]}"]
            words += [word for one in RUNS[name].get("only", ()) for word in ("--only", one)]
            for label, equals, file in (text.rpartition("=") for text in RUNS[name]["files"]):
                words += ["--data", f"{label}{equals}{files[file]}"]
            with redirect_stdout(io.StringIO()) as printed:
                assert cli.main(words) == 0
            paths = sorted(Store().notebook_path(name, "any").parent.glob("*.ipynb"))
            assert all(map(is_complete, paths))
            runs[name] = printed.getvalue(), {path.stem: read_cells(path) for path in paths}
        return runs[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REMI_STORE", str(place / "store"))
        patch.setattr(cli, "custom_preset", small)
        patch.setattr(running, "_execute", execute_here)
        patch.setattr(processes, "ProcessPoolExecutor", OneProcess)
        patch.setattr(output, "svg_bytes", drawn_quickly)
        # The types of every call are checked by the tests of each module.
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        yield get


def drawn_quickly(figure: Figure) -> bytes:
    """A placeholder, once everything in the figure has been drawn where it stands: no layout, and no file."""
    figure.set_layout_engine("none")
    figure.draw_without_rendering()
    return b"<svg/>"


def missed(cell: Mapping[str, object]) -> list[str]:
    """What the code of a cell found missing, as its note says."""
    outputs = cell.get("outputs", [])
    return [one["metadata"][NOTES].removeprefix("needs ") for one in outputs if NOTES in one["metadata"]]


def alternatives(cell: Mapping[str, object]) -> list[str]:
    pages = ["".join(each["data"].get("text/html", "")) for each in cell["outputs"]]
    return [image["alt"] for page in pages for image in BeautifulSoup(page, "html.parser").find_all("img")]


@pytest.mark.parametrize("name", RUNS)
def test_every_figure_the_data_allow_is_drawn_and_no_sentence_is_shown(ran, name) -> None:
    printed, executed = ran(name)
    lacking, fewer, studied, notes = RUNS[name]["lacks"], set(), set(), set()
    for stem, cells in executed.items():
        done = {cell["id"]: cell for cell in cells}
        source = project_root() / "notebooks" / f"{stem.partition('-')[0]}.ipynb"
        for cell in read_cells(source):
            after, wanted = done[cell["id"]], cell["source"].count("figures.show(")
            if wanted and "studies" in declared_parameters(source):
                studied.add(stem)
            if {f"needs-{need}" for need in lacking} & set(tags(cell)):
                assert after["cell_type"] == "markdown" and after["source"] != cell["source"]
                fewer |= {stem} if wanted else set()
            elif cell["cell_type"] == "code" and (needed := missed(after)):
                notes |= {(stem, text) for text in needed}
                fewer |= {stem} if wanted else set()
            elif cell["cell_type"] == "code" and after["cell_type"] == "code":
                texts = alternatives(after)
                assert len(texts) == wanted and all(map(str.strip, texts)), (stem, cell["id"])
        shown = json.dumps([cell.get("outputs", []) for cell in cells], ensure_ascii=False)
        assert [one for one in SENTENCES if one in shown] == [], stem
        told = [cell["source"] for cell in cells if "Not shown for this preset" in cell["source"]]
        lines = [line.replace("`", "") for each in told for line in each.splitlines()]
        notes |= {(stem, line[2:]) for line in lines if line.startswith("- ")}
    listed = [LEFT_OUT.fullmatch(line) for line in printed.splitlines()]
    assert {(one[1], one[3]) for one in listed if one} == notes
    assert {text for _, text in notes} <= {NEEDS[need] for need in lacking} or "without_base" in RUNS[name]
    if name == "everything":
        # Nothing but what scores every answer, which no user's model has; studies of such models are no pages here.
        assert fewer == {"01_the_three_models"}
    assert fewer and not studied


def test_the_audit_says_which_switches_it_could_not_throw(ran) -> None:
    def glued(name: str, key: str) -> str:
        outputs = [each for cell in ran(name)[1]["08_audit"] for each in cell.get("outputs", [])]
        (said,) = [one for one in outputs if one["metadata"].get("scrapbook", {}).get("name") == key]
        return next(text for kind, text in said["data"].items() if kind.endswith("text/plain"))

    everything, pairs = glued("everything", "missing"), glued("pairs", "missing")
    assert "2 needs a base model with a chat template of its own" in everything
    assert NEEDS["framed"] not in everything and NEEDS["framed"] in pairs


def test_the_report_has_a_verdict_or_a_reason_in_every_row(ran, capsys) -> None:
    ran("everything")
    assert cli.main(["report", "--preset", "everything", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["id"] for row in rows if row["value"] is not None} >= {"C6", "C9", "C10", "C17", "C26"}
    assert all(row["verdict"] and row["reason"] for row in rows)


def test_a_claim_is_not_judged_without_a_control_nor_measured_by_the_report(ran, capsys) -> None:
    ran("everything"), ran("pairs")
    before = sorted(Store().root.rglob("[!h]*.npz"))  # all but headlines
    capsys.readouterr()
    assert cli.main("report --preset everything --json --only 05".split()) == 0
    rows = {row["id"]: row for row in json.loads(capsys.readouterr().out)}
    for row in map(rows.__getitem__, ("C12", "C14", "C16")):
        assert (
            row["verdict"] == "not testable here" and "control" in row["reason"] and row["value"] is not None
        )
    assert cli.main("report --preset pairs --json".split()) == 1, "its other notebooks were never run"
    said = capsys.readouterr()
    missing = {row["id"] for row in json.loads(said.out) if row["verdict"] == "not measured"}
    assert "C21" in missing and "remi run --preset pairs --only 07 does it" in said.err
    assert sorted(Store().root.rglob("[!h]*.npz")) == before


@pytest.mark.parametrize("name", RUNS)
def test_a_book_of_own_models_names_them_and_has_nothing_of_ours(ran, name, tmp_path) -> None:
    ran(name)
    preset, place = get_preset(name), tmp_path / "source"
    publishing.assemble(preset, Store(), running.plan(preset, Store()), place)
    pages = {path.stem: path.read_text(encoding="utf-8") for path in place.rglob("*.md")}
    assert not {"organism", "laboratory", "predictions"} & set(pages)
    assert (
        not [*(place / "notebooks").glob("12_*"), *(place / "notebooks").glob("22_*")]
        and "organism" not in pages["intro"]
    )
    assert all(f"*{variant}*" in pages["intro"] for variant in preset.variants)
    assert ("No base model" in pages["intro"]) == ("base" not in preset.variants)
    assert all(str(Store().root.parent) not in text for text in pages.values()), "no path of this machine"
    for path in sorted((place / "notebooks").glob("*.ipynb")):
        cells = read_cells(path) if path.stem != ABOUT_NO_MODEL else []
        assert untrue(preset, chain(prose(cells), captions(cells))) == [], path.stem
    front = (line for line in pages["intro"].splitlines() if line[:1] not in ("|", "-"))
    assert untrue(preset, front) == []
    rows = json.loads((place / "claims.json").read_text(encoding="utf-8"))
    assert not {"H1", "X4"} & {row["id"] for row in rows}
