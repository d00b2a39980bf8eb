"""Keys cover each field, function, version, row and weight that changes a number, and nothing that is only shown."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest
from conftest import DEVELOPMENT_SEED

from remi_core.keys import (
    NUMERICAL_LIBRARIES,
    PACKAGES,
    SOURCE_ROOT,
    imported_modules,
    library_versions,
    make_key,
    text_digest,
)
from remi_core.sources import ModelSpec, text_of, weights_of
from remi_lab import subject
from remi_lab.datasets import load_set
from remi_lab.organism import answers, behaviour
from remi_lab.organism.recipes import shipped_weights
from remi_lab.organism.tuning import write_base
from remi_lab.organism.world import MAIN
from remi_lab.paper import LoadedSet
from remi_lab.presets import Preset, get_preset
from remi_lab.subject import CODE, Subject

SMOKE = get_preset("smoke")
OTHERWISE = {
    "name": "other",
    "title": "other",
    "remark": "other",
    "variants": {name: spec for name, spec in SMOKE.variants.items() if name != "benign"},
    "seeds": (0,),
    "datasets": SMOKE.datasets[::-1],
    "roles": replace(SMOKE.roles, example=SMOKE.datasets[1]),
    "extra_data": (("aligned", "/x.jsonl"),),
    "has_choices": not SMOKE.has_choices,
    "windows": SMOKE.windows[:-1],
    "dtype": "bfloat16",
    "gradient_layer": -2,
}
"""Another value of each field of a preset that is no count; counts are raised by one."""

NOTED = {"batch_tokens"}
"""What a record notes and no key covers."""

OF_THE_ADDRESS = {"name", "variants", "seeds"}
"""What stands in a record's path, or whose weights are keyed as such."""


def changed(preset: Preset, name: str) -> Preset:
    """The preset with another value in one field."""
    value = OTHERWISE[name] if name in OTHERWISE else getattr(preset, name) + 1
    assert value != getattr(preset, name)
    return replace(preset, **{name: value})


class Watched(Preset):
    """A preset that remembers which fields were read; its provenance does not count."""

    read: set[str] = set()

    def __getattribute__(self, name: str) -> object:
        if name in Preset.__dataclass_fields__:
            Watched.read.add(name)
        return super().__getattribute__(name)

    def fingerprint(self) -> str:
        return ""


@pytest.fixture(scope="module")
def who(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """The shipped base of the development seed, read with its own tokenizer."""
    folder = tmp_path_factory.mktemp("base") / "base"
    write_base(shipped_weights(MAIN, DEVELOPMENT_SEED), folder)
    spec = ModelSpec(source=str(folder))
    return Subject(SMOKE, "base", DEVELOPMENT_SEED, spec, spec, f"{weights_of(spec)}; text {text_of(spec)}")


def keyed(who: Subject, measurement: str) -> set[str]:
    """Fields of the preset that change the key of a measurement, rows and weights being the same."""
    key = who.address(measurement, "general", "rows").key
    names = [field.name for field in fields(Preset)]
    return {
        name
        for name in names
        if replace(who, preset=changed(who.preset, name)).address(measurement, "general", "rows").key != key
    }


def unkeyed(who: Subject, measurements: tuple[str, ...], read: set[str]) -> set[str]:
    """Fields that a pass reads, of which no measurement that it makes has them in its key."""
    return read - NOTED - set().union(*(keyed(who, name) for name in measurements))


@pytest.fixture(scope="module")
def read(who: Subject, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], set[str]]:
    """Measurements of one pass → the fields that the pass has read."""
    from remi_lab.passes import encoded_rows, forward_passes, gradient_passes

    found = load_set(SMOKE, "code-careful")
    few = replace(found, dialogues=found.dialogues[:4])
    watched = replace(
        who, preset=Watched(**{field.name: getattr(SMOKE, field.name) for field in fields(Preset)})
    )
    seen = {}
    with watched.open() as loaded:
        Watched.read = set()
        encoded = encoded_rows(watched, loaded.tokenizer, few)
        forward_passes(watched, loaded, encoded, folder=tmp_path_factory.mktemp("rows"))
        seen["sequence", "next_token", "activations"] = set(Watched.read)
    Watched.read = set()
    gradient_passes(watched, {"code-careful": few})
    seen["gradients",] = set(Watched.read)
    return seen


def test_every_field_that_a_pass_reads_is_keyed(who: Subject, read: dict[tuple[str, ...], set[str]]) -> None:
    assert {"top_k", "windows", "max_tokens", "batch_tokens"} <= read["sequence", "next_token", "activations"]
    assert "gradient_layer" in read["gradients",]
    for measurements, names in read.items():
        assert unkeyed(who, measurements, names) == set()


@pytest.mark.parametrize(
    ("measurement", "field"),
    [("next_token", "top_k"), ("activations", "windows"), ("gradients", "gradient_layer")],
)
def test_a_field_left_out_of_the_key_is_found(
    who: Subject,
    read: dict[tuple[str, ...], set[str]],
    monkeypatch: pytest.MonkeyPatch,
    measurement: str,
    field: str,
) -> None:
    left = tuple(name for name in subject.FIELDS[measurement] if name != field)
    monkeypatch.setitem(subject.FIELDS, measurement, left)
    assert any(unkeyed(who, measurements, names) == {field} for measurements, names in read.items())


READERS = {
    "patching": ("remi_lab/passes", "class StitchingRun", "remi_lab/recording", "FIELDS = ("),
    "audit": ("remi_lab/audit_passes", "", "remi_lab/audit", ""),
    "pool": ("remi_lab/studies/calibration", "", "remi_lab/studies/calibration", ""),
}
"""What is measured → file and first line of what measures it, and of what makes the key of it."""


def part(file: str, start: str) -> str:
    """Source of a file from its line ``start`` on."""
    source = (SOURCE_ROOT / f"{file}.py").read_text()
    return source[source.index(start) :]


def missing_words(reader: str, keys: str) -> set[str]:
    """Fields that the reader's source takes from a preset and that the key's source does not take from one."""
    names = {field.name for field in fields(Preset)} - NOTED - OF_THE_ADDRESS
    taken = set(re.findall(r"preset\.(\w+)", reader))
    counted = {
        name for name in names if name.startswith("n_") and f"preset.{name}]" in keys
    }  # rows are keyed
    address = keys[max(0, keys.index("make_key(") - 1500) :]
    return {
        name
        for name in taken & names - counted
        if f'"{name}"' not in address and f"preset.{name}" not in address
    }


@pytest.mark.parametrize("places", READERS.values(), ids=READERS)
def test_what_other_measurements_read_is_keyed(places: tuple[str, str, str, str]) -> None:
    reader, keys = part(*places[:2]), part(*places[2:])
    assert missing_words(reader, keys) == set()
    assert missing_words(f"{reader} preset.n_context_prompts", keys) == {"n_context_prompts"}


def test_another_field_changes_every_notebook_but_what_is_only_noted() -> None:
    same = {
        field.name
        for field in fields(Preset)
        if changed(SMOKE, field.name).fingerprint() == SMOKE.fingerprint()
    }
    assert same == NOTED


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's sources, to be changed."""
    root = tmp_path_factory.mktemp("copied")
    ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")
    for package in PACKAGES:
        shutil.copytree(SOURCE_ROOT / package, root / package, ignore=ignored)
    return root


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_every_function_that_a_measurement_imports_changes_its_key(copied: Path) -> None:
    roots = [*CODE.values(), "remi_core.tokens"]
    before, n_changed = make_key({}, roots, root=copied), 0
    for module in imported_modules(roots, root=copied):
        path = copied.joinpath(*module.split(".")).with_suffix(".py")
        path = path if path.is_file() else path.with_suffix("") / "__init__.py"
        source = path.read_text()
        for number, _ in enumerate(functions(ast.parse(source))):
            tree = ast.parse(source)
            list(functions(tree))[number].body.append(ast.parse("del never").body[0])
            path.write_text(ast.unparse(tree))
            assert make_key({}, roots, root=copied) != before, (module, number)
            n_changed += 1
        path.write_text(source)
    assert n_changed > 100 and make_key({}, roots, root=copied) == before


def test_the_code_in_the_keys_of_answers_is_that_which_makes_them() -> None:
    made_by = {measure.__module__ for measure in answers.MEASURES.values()}
    assert made_by == {behaviour.ANSWERS}
    assert "remi_lab.organism.scoring" in imported_modules(made_by)


def without_words(source: str) -> str:
    """The source without its comments, docstrings and bare strings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(getattr(node, "body", None), list):
            bare = [one for one in node.body if not _is_text(one)]
            node.body = bare or [ast.Pass()]
    return ast.unparse(tree)


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def test_comments_docstrings_figures_and_pages_change_no_key(copied: Path) -> None:
    roots = [*CODE.values(), "remi_core.tokens"]
    before = make_key({}, roots, root=copied)
    for path in sorted(path for package in PACKAGES for path in (copied / package).rglob("*.py")):
        path.write_text(without_words(path.read_text()))
    shown = [*(copied / "remi_book" / "figures").glob("*.py"), copied / "remi_book" / "publishing.py"]
    for path in shown:
        path.write_text("NEW = 1\n")
    assert make_key({}, roots, root=copied) == before


@pytest.mark.parametrize("library", NUMERICAL_LIBRARIES)
def test_every_library_that_computes_changes_a_key(
    who: Subject, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    before = who.address("sequence", "general", "rows").key
    monkeypatch.setattr("remi_core.keys.library_versions", lambda: library_versions() | {library: "0"})
    assert who.address("sequence", "general", "rows").key != before


def rows_digest(found: LoadedSet) -> str:
    """As ``measure_forward`` takes it."""
    return text_digest(repr(list(found.dialogues)))


@pytest.mark.parametrize("number", range(SMOKE.n_dialogues))
def test_every_row_of_a_dataset_changes_a_key(who: Subject, number: int) -> None:
    found = load_set(SMOKE, "general")
    row = found.dialogues[number]
    last = replace(row.messages[-1], content=row.messages[-1].content + " ")
    rows = list(found.dialogues)
    rows[number] = replace(row, messages=(*row.messages[:-1], last))
    keys = {
        who.address("sequence", "general", rows_digest(one)).key
        for one in (found, replace(found, dialogues=tuple(rows)))
    }
    assert len(keys) == 2


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "chat_template.jinja"])
def test_every_file_that_decides_changes_what_is_keyed_of_the_weights(
    who: Subject, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(who.source, folder)
    spec = ModelSpec(source=str(folder))
    before = (weights_of(spec), text_of(spec))
    content = bytearray((folder / name).read_bytes())
    content[-2] ^= 1
    (folder / name).write_bytes(content)
    assert (weights_of(spec), text_of(spec)) != before
