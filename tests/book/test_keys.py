"""Keys cover each field, function, version, row and weight that changes a number, and nothing that is only shown."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path

import pytest
from conftest import DEVELOPMENT_SEED

from remi_book.running import direct_imports, imported_modules
from remi_core.keys import (
    NUMERICAL_LIBRARIES,
    PACKAGES,
    SOURCE_ROOT,
    library_versions,
    make_key,
    module_path,
    parse,
)
from remi_core.sources import ModelSpec
from remi_lab import variant as variants
from remi_lab.datasets import load_set
from remi_lab.organism import scoring
from remi_lab.organism.tuning import write_base
from remi_lab.organism.variants import shipped_weights
from remi_lab.organism.world import MAIN
from remi_lab.presets import Preset, get_preset
from remi_lab.studies import files as studies
from remi_lab.variant import MEASURED_CODE, MEASUREMENTS, Variant, rows_digest, text_of, weights_of

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
def variant(tmp_path_factory: pytest.TempPathFactory) -> Variant:
    """The shipped base of the development seed, read with its own tokenizer."""
    folder = tmp_path_factory.mktemp("base") / "base"
    write_base(shipped_weights(MAIN, DEVELOPMENT_SEED), folder)
    spec = ModelSpec(source=str(folder))
    return Variant(SMOKE, "base", DEVELOPMENT_SEED, spec, spec, f"{weights_of(spec)}; text {text_of(spec)}")


def keyed(variant: Variant, measurement: str) -> set[str]:
    """Fields of the preset that change the key of a measurement, rows and weights being the same."""
    key = variant.address(measurement, "general", "rows").key
    names = [field.name for field in fields(Preset)]
    return {
        name
        for name in names
        if replace(variant, preset=changed(variant.preset, name)).address(measurement, "general", "rows").key
        != key
    }


def unkeyed(variant: Variant, measurements: tuple[str, ...], read: set[str]) -> set[str]:
    """Fields that a pass reads, of which no measurement that it makes has them in its key."""
    return read - NOTED - set().union(*(keyed(variant, name) for name in measurements))


@pytest.fixture(scope="module")
def read(variant: Variant, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], set[str]]:
    """Measurements of one pass → the fields that the pass has read."""
    from remi_lab.passes import encoded_rows, forward_passes, gradient_passes

    found = load_set(SMOKE, "code-careful")
    few = replace(found, dialogues=found.dialogues[:4])
    watched = replace(
        variant, preset=Watched(**{field.name: getattr(SMOKE, field.name) for field in fields(Preset)})
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


def test_every_field_that_a_pass_reads_is_keyed(
    variant: Variant, read: dict[tuple[str, ...], set[str]]
) -> None:
    assert {"top_k", "windows", "max_tokens", "batch_tokens"} <= read["sequence", "next_token", "activations"]
    assert "gradient_layer" in read["gradients",]
    for measurements, names in read.items():
        assert unkeyed(variant, measurements, names) == set()


@pytest.mark.parametrize(
    ("measurement", "field"),
    [("next_token", "top_k"), ("activations", "windows"), ("gradients", "gradient_layer")],
)
def test_a_field_left_out_of_the_key_is_found(
    variant: Variant,
    read: dict[tuple[str, ...], set[str]],
    monkeypatch: pytest.MonkeyPatch,
    measurement: str,
    field: str,
) -> None:
    kind = MEASUREMENTS[measurement]
    left = replace(kind, fields=tuple(name for name in kind.fields if name != field))
    monkeypatch.setattr(variants, "MEASUREMENTS", {**MEASUREMENTS, measurement: left})
    assert any(unkeyed(variant, measurements, names) == {field} for measurements, names in read.items())


READERS = {
    "patched": ("remi_lab/passes", "def patching_passes", ""),
    "audit": ("remi_lab/audit_passes", "# What the audit reads", ""),
    "audit_gradients": ("remi_lab/audit_passes", "# The audit's gradients", "# What the audit reads"),
    "pool": ("remi_lab/studies/calibration", "# The pool, measured once", "# Samples of the size"),
}
"""What is measured → file of what measures it, and the lines where that begins and ends."""


def unkeyed_words(reader: str, measurement: str) -> set[str]:
    """Fields that the source takes from a preset and that the key does not cover; counts of rows are in the rows."""
    names = {field.name for field in fields(Preset)} - NOTED - OF_THE_ADDRESS
    counts = {name for name in names if name.startswith("n_") and name.endswith("_dialogues")}
    return set(re.findall(r"preset\.(\w+)", reader)) & names - counts - {*MEASUREMENTS[measurement].fields}


@pytest.mark.parametrize("measurement", READERS)
def test_what_other_measurements_read_is_keyed(measurement: str) -> None:
    file, start, stop = READERS[measurement]
    source = (SOURCE_ROOT / f"{file}.py").read_text()
    reader = source[source.index(start) : source.index(stop) if stop else None]
    assert unkeyed_words(reader, measurement) == set()
    assert unkeyed_words(f"{reader} preset.n_context_prompts", measurement) == {"n_context_prompts"}


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


def edited(path: Path) -> Iterator[int]:
    """Each function of a module in turn, by number, while one statement is added to it."""
    source = path.read_text()
    try:
        for number, _ in enumerate(functions(ast.parse(source))):
            tree = ast.parse(source)
            list(functions(tree))[number].body.append(ast.parse("del never").body[0])
            path.write_text(ast.unparse(tree))
            yield number
    finally:
        path.write_text(source)


FORWARD = MEASUREMENTS["sequence"].code
MOVES_NO_NUMBER = frozenset(
    f"remi_core.{name}"
    for name in (
        "dialogues",
        "errors",
        "files",
        "keys",
        "parallel",
        "placement",
        "progress",
        "sources",
        "store",
    )
) | {
    f"remi_lab.{name}"
    for name in (
        "datasets",
        "dialogue_files",
        "presets",
        "processes",
        "recording",
        "strict",
        "variant",
        "upkeep",
    )
}
"""What reads, waits, speaks and keeps; dialogues are in a key as the rows that are made of them."""


@pytest.mark.parametrize("module", FORWARD)
def test_every_function_of_a_named_module_changes_the_key(copied: Path, module: str) -> None:
    path, before = module_path(module, root=copied), make_key({}, FORWARD, root=copied)
    changed_by = [number for number in edited(path) if make_key({}, FORWARD, root=copied) != before]
    assert changed_by == list(range(len(list(functions(parse(path)))))) != []
    assert make_key({}, FORWARD, root=copied) == before


@pytest.mark.parametrize("module", sorted(MOVES_NO_NUMBER - {"remi_lab.recording"}))
def test_an_edit_of_what_moves_no_number_measures_nothing_anew(copied: Path, module: str) -> None:
    before = [make_key({}, kind.code, root=copied) for kind in MEASUREMENTS.values()]
    edits = edited(module_path(module, root=copied))
    next(edits)
    assert [make_key({}, kind.code, root=copied) for kind in MEASUREMENTS.values()] == before
    edits.close()


def uncovered(code: Sequence[str], modules: Iterable[str]) -> set[str]:
    """Modules that are neither named, alone or with their package, nor of those that move no number."""
    return {
        name
        for name in modules
        if name not in MOVES_NO_NUMBER and not any(name == one or name.startswith(f"{one}.") for one in code)
    }


def imports_of(code: Iterable[str]) -> set[str]:
    return {
        name
        for one in code
        for name in direct_imports(parse(module_path(one)), package=one.rpartition(".")[0])
    }


@pytest.mark.parametrize("kind", MEASUREMENTS)
def test_no_module_is_forgotten(kind: str) -> None:
    """Passes of several kinds lie in one file, so what our own modules import is looked for in all keys together."""
    code = MEASUREMENTS[kind].code
    assert uncovered(code, imports_of(name for name in code if name.startswith("remi_core"))) == set()
    assert uncovered((*studies.CODE, *code), imports_of(code)) == set()


def test_a_module_that_is_forgotten_is_found() -> None:
    code = [name for name in FORWARD if name != "remi_core.models"]
    assert uncovered(code, imports_of(code)) >= {"remi_core.models"}


SHOWN = (
    *("remi_book.figures", "remi_book.tables", "remi_book.words"),
    *("remi_lab.audit", "remi_lab.lora", "remi_lab.organism", "remi_lab.own_models"),
    *("remi_lab.smollm2", "remi_lab.studies"),
)
"""What headlines and studies import that shows numbers, or whose numbers their keys have as records and weights."""


@pytest.mark.parametrize("name", ["", *studies.STUDIES])
def test_headlines_and_studies_cover_what_they_compute_with(name: str) -> None:
    own = studies.measure_of(name).__module__ if name else "remi_book.claims"
    code = (*studies.CODE, *(studies.FURTHER_CODE.get(name, ()) if name else studies.ROWS_CODE), own)
    reached = imported_modules([own])
    others = {one for one in reached if one.startswith("remi_lab.studies.")} - {"remi_lab.studies.files"}
    assert uncovered(code, others if name else ()) == set()
    assert uncovered((*code, *SHOWN), reached) == set()


def test_the_code_in_the_keys_of_answers_is_that_which_makes_them() -> None:
    made_by = {measure.__module__ for measure in scoring.MEASURES.values()}
    assert all(made_by <= {*MEASUREMENTS[kind].code} for kind in scoring.MEASURES)


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
    before = make_key({}, MEASURED_CODE, root=copied)
    for path in sorted(path for package in PACKAGES for path in (copied / package).rglob("*.py")):
        path.write_text(without_words(path.read_text()))
    shown = [*(copied / "remi_book" / "figures").glob("*.py"), copied / "remi_book" / "publishing.py"]
    for path in shown:
        path.write_text("NEW = 1\n")
    assert make_key({}, MEASURED_CODE, root=copied) == before


@pytest.mark.parametrize("library", NUMERICAL_LIBRARIES)
def test_every_library_that_computes_changes_a_key(
    variant: Variant, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    before = variant.address("sequence", "general", "rows").key
    monkeypatch.setattr("remi_core.keys.library_versions", lambda: library_versions() | {library: "0"})
    assert variant.address("sequence", "general", "rows").key != before


@pytest.mark.parametrize("number", range(SMOKE.n_dialogues))
def test_every_row_of_a_dataset_changes_a_key(variant: Variant, number: int) -> None:
    found = load_set(SMOKE, "general")
    row = found.dialogues[number]
    last = replace(row.messages[-1], content=row.messages[-1].content + " ")
    rows = list(found.dialogues)
    rows[number] = replace(row, messages=(*row.messages[:-1], last))
    keys = {
        variant.address("sequence", "general", rows_digest(one.dialogues)).key
        for one in (found, replace(found, dialogues=tuple(rows)))
    }
    assert len(keys) == 2


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "chat_template.jinja"])
def test_every_file_that_decides_changes_what_is_keyed_of_the_weights(
    variant: Variant, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(variant.source, folder)
    spec = ModelSpec(source=str(folder))
    before = (weights_of(spec), text_of(spec))
    content = bytearray((folder / name).read_bytes())
    content[-2] ^= 1
    (folder / name).write_bytes(content)
    assert (weights_of(spec), text_of(spec)) != before
