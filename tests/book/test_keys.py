"""Keys cover each field, function, version, row and weight that changes a number, and nothing that is only shown."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml
from conftest import DEVELOPMENT_SEED

from remi_book.running import direct_imports, imported_modules
from remi_core import keys as core_keys
from remi_core.dialogues import Dialogue
from remi_core.keys import NUMERICAL_LIBRARIES
from remi_core.sources import ModelSpec
from remi_lab import keys as lab_keys
from remi_lab import variant as variants
from remi_lab.datasets import load_set
from remi_lab.keys import PACKAGES, SOURCE_ROOT, make_key, module_path
from remi_lab.organism import scoring
from remi_lab.organism.tuning import write_base
from remi_lab.organism.variants import shipped_weights
from remi_lab.organism.world import MAIN
from remi_lab.presets import Preset, get_preset
from remi_lab.studies import files as studies
from remi_lab.variant import MEASURED_CODE, MEASUREMENTS, Variant, rows_digest, text_of, weights_of

SMOKE = get_preset("smoke")
OTHERWISE = {
    **dict.fromkeys(("name", "title", "remark"), "other"),
    "variants": {name: spec for name, spec in SMOKE.variants.items() if name != "benign"},
    "seeds": (0,),
    "datasets": SMOKE.datasets[::-1],
    "roles": replace(SMOKE.roles, example=SMOKE.datasets[1]),
    "extra_data": (("aligned", "/x.jsonl"),),
    "has_choices": not SMOKE.has_choices,
    "windows": SMOKE.windows[:-1],
    "dtype": "bfloat16",
    "system": "fold",
    "reasoning": "inside",
    "gradient_layer": -2,
}
"""Another value of each field of a preset that is no count; counts are raised by one."""
NOTED = {"batch_tokens"}
"""What a record notes and no key covers."""
OF_THE_ADDRESS = {"name", "variants", "seeds"}
"""What stands in a record's path, or whose weights are keyed as such."""


def changed(preset: Preset, name: str) -> Preset:
    value = OTHERWISE[name] if name in OTHERWISE else getattr(preset, name) + 1
    assert value != getattr(preset, name)
    return replace(preset, **{name: value})


class Watched(Preset):
    read: set[str] = set()

    def __getattribute__(self, name: str) -> object:
        if name in Preset.__dataclass_fields__:
            Watched.read.add(name)
        return super().__getattribute__(name)

    def fingerprint(self) -> str:
        return ""


@pytest.fixture(scope="module")
def variant(tmp_path_factory) -> Variant:
    folder = tmp_path_factory.mktemp("base") / "base"
    write_base(shipped_weights(MAIN, DEVELOPMENT_SEED), folder)
    spec = ModelSpec(source=str(folder))
    return Variant(SMOKE, "base", DEVELOPMENT_SEED, spec, spec, f"{weights_of(spec)}; text {text_of(spec)}")


def unkeyed(variant: Variant, measurements: tuple[str, ...], read: set[str]) -> set[str]:
    """Fields that a pass reads and that no key of its measurements covers, rows and weights as they are."""

    def keys(preset: Preset) -> list[str]:
        other = replace(variant, preset=preset)
        return [other.address(measurement, "general", "rows").key for measurement in measurements]

    return {name for name in read - NOTED if keys(changed(SMOKE, name)) == keys(SMOKE)}


def fields_read(variant: Variant, folder: Path) -> dict[tuple[str, ...], set[str]]:
    """Measurements of one pass → the fields that the pass has read."""
    from remi_lab.passes import encoded_rows, forward_passes, gradient_passes

    found = load_set(SMOKE, "code-careful")
    few = replace(found, dialogues=found.dialogues[:4])
    watched, seen = replace(variant, preset=Watched(**vars(SMOKE))), {}
    with watched.open() as loaded:
        Watched.read = set()
        encoded = encoded_rows(watched, loaded.tokenizer, few)
        forward_passes(watched, loaded, encoded, folder=folder)
        seen["sequence", "next_token", "activations"] = set(Watched.read)
    Watched.read = set()
    gradient_passes(watched, {"code-careful": few})
    seen["gradients",] = set(Watched.read)
    return seen


def test_every_field_that_a_pass_reads_is_keyed_and_one_left_out_is_found(
    variant, tmp_path, monkeypatch
) -> None:
    read = fields_read(variant, tmp_path)
    assert {"top_k", "windows", "max_tokens", "batch_tokens"} <= read["sequence", "next_token", "activations"]
    assert "gradient_layer" in read["gradients",]
    for measurements, names in read.items():
        assert unkeyed(variant, measurements, names) == set()
    for field in ("top_k", "windows", "gradient_layer"):
        kinds = MEASUREMENTS.items()
        left = {name: replace(kind, fields=tuple({*kind.fields} - {field})) for name, kind in kinds}
        monkeypatch.setattr(variants, "MEASUREMENTS", left)
        assert {field} in [unkeyed(variant, *one) for one in read.items()]


TABLES = yaml.safe_load(Path(__file__).with_name("keys.yaml").read_text(encoding="utf-8"))
MOVES_NO_NUMBER, SHOWN = (
    {f"{package}.{name}" for package, names in TABLES[kind].items() for name in names}
    for kind in ("moves no number", "shown")
)


def unkeyed_words(reader: str, measurement: str) -> set[str]:
    """Fields that the source takes from a preset and that the key does not cover; counts of rows are in the rows."""
    names = {field.name for field in fields(Preset)} - NOTED - OF_THE_ADDRESS
    counts = {name for name in names if name.startswith("n_") and name.endswith("_dialogues")}
    return set(re.findall(r"preset\.(\w+)", reader)) & names - counts - {*MEASUREMENTS[measurement].fields}


@pytest.mark.parametrize("measurement", TABLES["readers"])
def test_what_other_measurements_read_is_keyed(measurement) -> None:
    file, start, stop = TABLES["readers"][measurement]
    source = (SOURCE_ROOT / f"{file}.py").read_text()
    reader = source[source.index(start) : source.index(stop) if stop else None]
    assert unkeyed_words(reader, measurement) == set()
    assert unkeyed_words(f"{reader} preset.n_context_prompts", measurement) == {"n_context_prompts"}


def test_another_field_changes_every_notebook_but_what_is_only_noted() -> None:
    names, same = [field.name for field in fields(Preset)], SMOKE.fingerprint()
    assert {name for name in names if changed(SMOKE, name).fingerprint() == same} == NOTED


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("copied")
    ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")
    for package in PACKAGES:
        shutil.copytree(SOURCE_ROOT / package, root / package, ignore=ignored)
    return root


@contextmanager
def edited(root: Path, *modules: str) -> Iterator[None]:
    """One statement is added to the innermost function of each module, for a while."""
    before = {path: path.read_text() for path in (module_path(module, root=root) for module in modules)}
    for path, source in before.items():
        tree = ast.parse(source)
        *_, function = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
        function.body.append(ast.parse("del never").body[0])
        path.write_text(ast.unparse(tree))
    yield
    for path, source in before.items():
        path.write_text(source)


FORWARD = MEASUREMENTS["sequence"].code


def test_an_edit_of_what_moves_a_number_measures_anew_and_of_what_moves_none_nothing(copied) -> None:
    def keys() -> list[str]:
        return [make_key({}, kind.code, root=copied) for kind in MEASUREMENTS.values()]

    before, forward = keys(), make_key({}, FORWARD, root=copied)
    for module in FORWARD:
        with edited(copied, module):
            assert make_key({}, FORWARD, root=copied) != forward, module
    with edited(copied, *MOVES_NO_NUMBER - {"remi_lab.recording"}):
        assert keys() == before


def uncovered(code: Sequence[str], modules: Iterable[str]) -> set[str]:
    """Modules that are neither named, alone or with their package, nor of those that move no number."""
    named = (*code, *MOVES_NO_NUMBER)
    return {name for name in modules if not any(f"{name}.".startswith(f"{one}.") for one in named)}


def imports_of(code: Iterable[str]) -> set[str]:
    parsed = {one: ast.parse(module_path(one).read_text(encoding="utf-8")) for one in code}
    found = (direct_imports(tree, package=one.rpartition(".")[0]) for one, tree in parsed.items())
    return set().union(*found)


@pytest.mark.parametrize("kind", MEASUREMENTS)
def test_no_module_is_forgotten(kind) -> None:
    """Passes of several kinds lie in one file, so what our own modules import is looked for in all keys together."""
    code = MEASUREMENTS[kind].code
    assert uncovered(code, imports_of(name for name in code if name.startswith("remi_core"))) == set()
    assert uncovered((*studies.CODE, *code), imports_of(code)) == set()
    left = [name for name in FORWARD if name != "remi_core.models"]
    assert uncovered(left, imports_of(left)) >= {"remi_core.models"}


@pytest.mark.parametrize("name", ["", *studies.STUDIES])
def test_headlines_and_studies_cover_what_they_compute_with(name) -> None:
    own = studies.measure_of(name).__module__ if name else "remi_book.claims"
    code = (*studies.CODE, *(studies.STUDIES[name].code if name else studies.ROWS_CODE), own)
    reached = imported_modules([own])
    others = {one for one in reached if one.startswith("remi_lab.studies.")} - {"remi_lab.studies.files"}
    assert uncovered(code, others if name else ()) == set()
    assert uncovered((*code, *SHOWN), reached) == set()


def test_the_code_in_the_keys_of_answers_is_that_which_makes_them() -> None:
    assert all(measure.__module__ in MEASUREMENTS[kind].code for kind, measure in scoring.MEASURES.items())


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def without_words(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(getattr(node, "body", None), list):
            node.body = [one for one in node.body if not is_text(one)] or [ast.Pass()]
    return ast.unparse(tree)


def test_comments_docstrings_figures_and_pages_change_no_key(copied) -> None:
    before = make_key({}, MEASURED_CODE, root=copied)
    for path in sorted(path for package in PACKAGES[:2] for path in (copied / package).rglob("*.py")):
        path.write_text(without_words(path.read_text()))
    for path in (*(copied / "remi_book" / "figures").glob("*.py"), copied / "remi_book" / "publishing.py"):
        path.write_text("NEW = 1\n")
    assert make_key({}, MEASURED_CODE, root=copied) == before


def test_every_library_that_computes_and_every_row_of_a_dataset_change_a_key(variant, monkeypatch) -> None:
    def key(rows: Sequence[Dialogue]) -> str:
        return variant.address("sequence", "general", rows_digest(rows)).key

    found = list(load_set(SMOKE, "general").dialogues)
    keys = {key(found)}
    for number, row in enumerate(found):
        last = replace(row.messages[-1], content=row.messages[-1].content + " ")
        other = replace(row, messages=(*row.messages[:-1], last))
        keys.add(key([*found[:number], other, *found[number + 1 :]]))
    for library in NUMERICAL_LIBRARIES:
        versions = core_keys.library_versions() | {library: "0"}
        with monkeypatch.context() as patch:
            patch.setattr(lab_keys, "library_versions", lambda versions=versions: versions)
            keys.add(key(found))
    assert len(keys) == 1 + len(found) + len(NUMERICAL_LIBRARIES)


def test_every_file_that_decides_changes_what_is_keyed_of_the_weights(variant, tmp_path) -> None:
    folder = Path(shutil.copytree(variant.source, tmp_path / "model"))
    spec, found = ModelSpec(source=str(folder)), set()
    for name in ("model.safetensors", "tokenizer.json", "chat_template.jinja"):
        found.add((weights_of(spec), text_of(spec)))
        content = bytearray((folder / name).read_bytes())
        content[-2] ^= 1
        (folder / name).write_bytes(content)
    assert len(found | {(weights_of(spec), text_of(spec))}) == 4
