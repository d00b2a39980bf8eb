"""Several presets side by side: one page in front, a switch on every page; launch links only with an address."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from test_book_build import CONFIG, SMOKE, project, run_some  # noqa: F401

from remi_book import cli, publishing, running, site
from remi_book.publishing import Edition, build_book
from remi_book.site import build_site, front_page, site_edition
from remi_core.errors import UsageError
from remi_core.store import Store
from remi_lab.presets import TRIPLET, Preset

EXTENSION = Path(__file__).parents[2] / "book" / "_ext"
sys.path.insert(0, str(EXTENSION))
from remi_site import add_edition  # noqa: E402

FEW = replace(
    SMOKE, name="few", variants={name: SMOKE.variants[name] for name in TRIPLET}, remark="<b>few</b>"
)
ADDRESS = "https://github.com/owner/name"


@pytest.fixture
def place(project: Path) -> Path:  # noqa: F811
    """The small project, its pages made with the book's own extension, its three notebooks once a variant."""
    shutil.copytree(EXTENSION, project / "book" / "_ext", ignore=shutil.ignore_patterns("__pycache__"))
    config = CONFIG | {"sphinx": {"local_extensions": {"remi_pages": "_ext"}, "config": {"numfig": True}}}
    (project / "book" / "_config.yml").write_text(json.dumps(config))
    chapters = [{"file": f"notebooks/{name}"} for name in ("00_each", "01_one", "02_two")]
    (project / "book" / "_toc.yml").write_text(
        json.dumps({"format": "jb-book", "root": "intro", "chapters": chapters})
    )
    return project


def parsed(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def switches(path: Path) -> dict[str, str]:
    """Text of each link of the switch → where it leads; {} where there is no switch."""
    return {link.get_text(): str(link["href"]) for link in parsed(path).select(".remi-switch a")}


def build(place: Path, presets: tuple[Preset, ...] = (SMOKE, FEW), **options: str) -> bool:
    return build_site(presets, Store(place / "store"), place / "site", say=lambda line: None, **options)


def test_books_stand_side_by_side_and_lead_to_each_other(place: Path) -> None:
    run_some(Store(place / "store"), ("01_one",))
    assert build(place)
    out = place / "site"
    front = parsed(out / "index.html")
    assert [link["href"] for link in front.select("li a")] == ["smoke/index.html", "few/index.html"]
    assert "1 of 8 notebook pages run" in front.get_text() and "0 of 5 notebook pages run" in front.get_text()
    assert "<b>few</b>" in front.get_text() and not front.select("li b")
    for name in ("smoke", "few"):
        pages = [path for path in (out / name).rglob("*.html") if "_static" not in path.parts]
        assert len(pages) > 5
        for path in pages:
            if path.name == "index.html":
                continue
            links = switches(path)
            assert list(links) == ["All presets", "smoke", "few"], path
            assert all((path.parent / href).resolve().is_file() for href in links.values()), path
            assert parsed(path).select_one(".remi-switch [aria-current]").get_text() == name
    assert switches(out / "smoke" / "notebooks" / "01_one.html")["few"] == "../../few/notebooks/01_one.html"
    lone = out / "smoke" / "notebooks" / "00_each-secure.html"
    assert (
        switches(lone)["few"] == "../../few/index.html"
        and not (out / "few" / "notebooks" / lone.name).exists()
    )
    assert "was not run for the preset" in (out / "few" / "notebooks" / "01_one.html").read_text()
    assert sorted(path.name for path in place.iterdir() if "part" in path.name) == []


def test_a_second_build_does_nothing_and_a_change_builds_only_what_changed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert build(place) and not build(place)
    built: list[str] = []
    real = publishing.build_book

    def watched(preset: Preset, *arguments: object, **options: object) -> bool:
        built.append(preset.name)
        return real(preset, *arguments, **options)

    monkeypatch.setattr(site, "build_book", watched)
    run_some(Store(place / "store"), ("01_one",))
    assert build(place) and built == ["smoke"]


def test_another_folder_is_not_overwritten_by_books(place: Path) -> None:
    (place / "site").mkdir()
    (place / "site" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="not a book of ours"):
        build(place)


def test_a_book_alone_has_no_switch_and_no_launch_link(place: Path) -> None:
    out = place / "html"
    build_book(SMOKE, Store(place / "store"), out)
    for path in out.rglob("*.html"):
        assert not parsed(path).select(".remi-switch, .remi-launch")
        assert "mybinder" not in path.read_text()


def test_launch_links_appear_with_a_public_address_and_lead_to_notebooks(place: Path) -> None:
    out = place / "html"
    build_book(SMOKE, Store(place / "store"), out, edition=Edition(repository=ADDRESS))
    for name, notebook in (("01_one", "01_one"), ("00_each-base", "00_each")):
        run, source = parsed(out / "notebooks" / f"{name}.html").select(".remi-launch a")
        assert (
            run["href"] == f"https://mybinder.org/v2/gh/owner/name/HEAD?labpath=notebooks%2F{notebook}.ipynb"
        )
        assert (place / "notebooks" / f"{notebook}.ipynb").is_file()
        assert source["href"] == ADDRESS
    assert not parsed(out / "intro.html").select(".remi-launch")
    assert not build_book(SMOKE, Store(place / "store"), out, edition=Edition(repository=ADDRESS))
    assert build_book(SMOKE, Store(place / "store"), out)


@pytest.mark.parametrize("address", ["http://github.com/a/b", "https://github.com/a", "javascript:alert(1)"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="expected https://github.com/OWNER/NAME"):
        Edition(repository=address)
    assert cli.main(["book", "--preset", "smoke", "--repository", address]) == 2


def test_the_front_page_is_whole_and_escaped() -> None:
    about = dict(
        name="a",
        title="<i>",
        remark="",
        n_run=0,
        n_pages=2,
        verdicts={"<u>": 3},
        fingerprint="0123456789abcdef00",
    )
    page = BeautifulSoup(front_page([about]), "html.parser")
    assert page.html["lang"] == "en" and page.title.get_text() and not page.select("script, i, u")
    assert "3 <u>" in page.get_text() and "0123456789abcdef" in page.get_text()
    assert "nothing was run" in front_page([about | {"verdicts": {}}])


def test_a_page_without_the_place_for_a_switch_stays(place: Path) -> None:
    data = site_edition([SMOKE, FEW], Store(place / "store")).page_data("smoke") | {"notebooks": {}}
    assert add_edition("<p>x</p>", data, "intro") == "<p>x</p>"
    changed = add_edition('<div class="bd-article-container"></div>', data, "intro")
    assert 'href="../few/intro.html"' in changed


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the command would build, instead of building it."""
    said: list[str] = []
    commands = "remi_book.cli"
    monkeypatch.setattr(f"{commands}.build_book", lambda one, *rest, **more: said.append(one.name) or True)
    monkeypatch.setattr(
        f"{commands}.build_site",
        lambda many, *rest, **more: said.append("+".join(one.name for one in many)) or True,
    )
    return said


def test_one_preset_is_a_book_and_several_are_a_site(asked: list[str], tmp_path: Path, capsys) -> None:
    out = ["--out", str(tmp_path / "html")]
    assert cli.main(["book", "--preset", "smoke", *out]) == 0
    assert cli.main(["book", "--preset", "micro", "--preset", "smollm2", *out]) == 0
    assert asked == ["smoke", "micro+smollm2"]
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"book of preset smoke built: {tmp_path / 'html' / 'index.html'}"
    assert said[1].startswith("books of presets micro, smollm2 built: ")
    assert cli.main(["book", "--preset", "smoke", "--preset", "smoke"]) == 2
    assert cli.main(["book"]) == 2
    assert cli.main(["book", "--preset", "smoke", "--preset", "smolm2"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert (
        "given twice" in errors[0] and "--preset NAME is needed" in errors[1] and "did you mean" in errors[2]
    )


def test_the_fingerprint_follows_the_edition(place: Path) -> None:
    steps = running.plan(SMOKE, Store(place / "store"))
    alone, public = (
        publishing.book_inputs(SMOKE, Store(place / "store"), steps, one)
        for one in (Edition(), Edition(repository=ADDRESS))
    )
    assert alone != public and len(alone) == 64
