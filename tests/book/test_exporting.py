"""An export holds the numbers of pages and records as they are, withholds what pages withhold, and measures nothing."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from own_files import write_preset
from planting import REPORT_ROW
from warm_kernel import execute_here, write_notebook

from remi_book import cli, exporting, running
from remi_book.chapters.gradients import gradient_datasets
from remi_book.exporting import DICTIONARY, MISSING, TOLD, write_export
from remi_book.running import plan, run_notebook
from remi_book.words import MARK, SWITCH, as_cell
from remi_core.errors import RemiError, UsageError
from remi_core.store import Store
from remi_lab.organism.topics import CONTRASTED
from remi_lab.own_models import save_custom
from remi_lab.recording import measure_forward
from remi_lab.results import Results
from remi_lab.variant import Variant

CELL = """
import pandas as pd
from remi_book.tables import table_html
table = pd.DataFrame({"=word": ["=1+1", "-2", "–"], "value": [-0.123456789012345, 1e-30, float("nan")]})
table_html(table, "A caption", fold="Open")
"""
SENTENCES = ("never close", "open on the", "of France", "help you with")
"""Parts of what stands in the files."""


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Iterator[Results]:
    """Base and instruct on all sets, their gradients, and base patched into instruct on one; misaligned on none."""
    place = tmp_path_factory.mktemp("own")
    preset = write_preset(place, "preferences", "replies")
    results = Results(preset, Store(place / "store"))
    save_custom(preset, results.store)
    for name in ("base", "instruct"):
        measure_forward(results.variant(name), results.store)
    results.gradients("instruct", gradient_datasets(results))
    results.patched("base", "instruct", preset.roles.outside[0])
    _ = results.vocabulary
    yield results


@pytest.fixture(autouse=True)
def notebooks(tmp_path, monkeypatch, results) -> None:
    """Two notebooks, of which the first was run; no model can be opened from here on."""
    monkeypatch.delenv(SWITCH, raising=False)
    monkeypatch.setattr(running, "project_root", lambda: tmp_path)
    monkeypatch.setattr(running, "_execute", execute_here)
    monkeypatch.setattr(exporting, "report_rows", lambda results, say: [REPORT_ROW])
    write_notebook(tmp_path / "notebooks" / "01_one.ipynb", [CELL])
    write_notebook(tmp_path / "notebooks" / "02_two.ipynb", ["preset"])
    (step,) = plan(results.preset, results.store, only=["01"])
    run_notebook(step.source, step.target, dict(step.parameters), key=step.key)
    monkeypatch.setattr(Variant, "open", lambda own: pytest.fail("a model was opened"))


def exported(results: Results, out: Path, **options: str) -> tuple[Path, list[str]]:
    n_files, missing = write_export(results.preset, Store(results.store.root), out, **options)
    found = [path for path in out.rglob(f"*.{options.get('form', 'csv')}")]
    assert len({path for path in found if path.name not in (DICTIONARY, MISSING)}) == n_files
    return out, missing


def test_values_are_those_of_the_records(results, tmp_path) -> None:
    out, _ = exported(results, tmp_path / "out")
    name = results.preset.roles.outside[0]

    def rows(file: str, variant: str = "instruct") -> pd.DataFrame:
        table = read(out / "records" / f"{file}.csv")
        return table[(table["variant"] == variant) & (table["dataset"] == name)]

    for variant in ("base", "instruct"):
        arrays, table = results.arrays(variant, "sequence", name), rows("token_log_probabilities", variant)
        for column in ("log_probability", "entropy"):
            assert table[column].to_numpy(np.float32).tolist() == arrays[column].tolist()
        counts = table.groupby("dialogue", sort=False).size()
        assert counts.index.tolist() == arrays["identifier"].tolist()
        assert counts.tolist() == np.diff(arrays["offsets"]).tolist()
        means, table = results.arrays(variant, "activations", name)["mean"], rows("activations", variant)
        coordinates = [column for column in table if column[1:].isdigit()]
        np.testing.assert_array_equal(
            table[coordinates].to_numpy(np.float32).reshape(means.shape), means, strict=True
        )
        assert table["window"].unique().tolist() == list(results.preset.windows)
    arrays, table = results.arrays("instruct", "next_token", name), rows("next_tokens")
    top = table["log_probability"].to_numpy(np.float32)
    assert top.tolist() == arrays["top_log_probabilities"][arrays["valid"]].ravel().tolist()
    mean = rows("mean_next_tokens")["probability"]
    assert mean.is_monotonic_decreasing and sorted(mean) == sorted(arrays["mean_probability"])
    gram = results.gradients("instruct", gradient_datasets(results))["gram"]
    table = read(out / "records" / "gradients.csv")
    square = np.zeros_like(gram)
    square[np.triu_indices(len(gram))] = table["inner_product"]
    np.testing.assert_array_equal(square, np.triu(gram))
    arrays, table = results.patched("base", "instruct", name), rows("patching")
    table = table[table["donor"] == "base"]
    wide = table.pivot(index="layer", columns="dialogue", values="loss")[arrays["identifier"].tolist()]
    np.testing.assert_array_equal(wide.to_numpy(), arrays["loss"])
    assert set(read(out / "records" / "records.csv")["measurement"]) >= {
        "sequence",
        "patched-base",
        "gradients",
    }


def test_tables_of_pages_are_exact_and_no_cell_is_a_formula(results, tmp_path) -> None:
    out, _ = exported(results, tmp_path / "out")
    text = (out / "tables" / "01_one-01.csv").read_text()
    assert text.splitlines() == ["'=word,value", "'=1+1,-0.123456789012345", "'-2,1e-30", ","]
    assert read(out / "claims.csv")["value"].tolist() == [REPORT_ROW["value"]]
    for before in ("=1", "+", "@x", "\tx", "-", "'=1", "''-"):
        assert as_cell(before) == f"'{before}"
    assert [as_cell(text) for text in ("a=1", "", "'", "1-2")] == ["a=1", "", "'", "1-2"]


def test_text_of_others_is_withheld_unless_the_switch_says_otherwise(results, tmp_path, monkeypatch) -> None:
    def texts(out: Path) -> tuple[str, pd.DataFrame]:
        whole = "".join(path.read_text(encoding="utf-8") for path in out.rglob("*.*"))
        return whole, read(out / "records" / "token_log_probabilities.csv")

    whole, table = texts(exported(results, tmp_path / "without")[0])
    assert not [sentence for sentence in SENTENCES if sentence in whole]
    assert table["token_id"].isna().all() and table["token"].str.startswith(MARK).all()
    assert str(tmp_path) not in whole and str(results.store.root.parent) not in whole
    monkeypatch.setenv(SWITCH, "1")
    _, table = texts(exported(results, tmp_path / "with")[0])
    first = table[table["dialogue"] == table["dialogue"][0]]
    arrays = results.arrays("base", "sequence", first["dataset"].iloc[0])
    assert first["token_id"].tolist()[:3] == arrays["token"][:3].tolist()
    assert MARK not in "".join(first["token"].dropna())


def test_what_is_missing_is_counted_and_every_column_is_explained(results, tmp_path, capsys) -> None:
    out, missing = exported(results, tmp_path / "out")
    listed = read(out / MISSING)
    assert listed["what"].tolist() == missing and listed["reason"].notna().all()
    seed, sets = results.preset.seeds[0], len(set(read(out / "records" / "activations.csv")["dataset"]))
    assert [what for what in missing if what.startswith("tables")] == ["tables of 02_two"]
    assert sum(what.endswith(f"misaligned, seed {seed}") for what in missing) == 3 * sets + 1
    assert not [
        what for what in missing if what.endswith(f"instruct, seed {seed}") and "patching" not in what
    ]
    told = read(out / DICTIONARY)
    for file, lines in told.groupby("file"):
        table = read(out / file)
        assert list(table.columns) == lines["column"].tolist()
        assert set(lines["rows"]) == {len(table)} and lines["row"].notna().all()
        assert lines["meaning"].notna().all()
    assert f"({len(missing)} lines)" in (out / "README.md").read_text()
    words = ["export", "--preset", "mine", "--out", str(out), "--store", str(results.store.root)]
    assert cli.main(words) == 0
    assert f"{len(missing)} notebooks or records are not there" in capsys.readouterr().err


def test_parquet_holds_the_same_and_without_its_package_one_line_says_so(
    results, tmp_path, monkeypatch, capsys
) -> None:
    words = ["export", "--preset", "mine", "--format", "parquet", "--out", str(tmp_path / "p")]
    words += ["--store", str(results.store.root)]
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "needs pyarrow: pip install" in said and not (tmp_path / "p").exists()
    pytest.importorskip("pyarrow", reason="Parquet needs the extra 'parquet'")
    assert cli.main(words) == 0
    csv, _ = exported(results, tmp_path / "csv")
    for path in (tmp_path / "p").rglob("*.parquet"):
        own, other = pd.read_parquet(path), read((csv / path.relative_to(tmp_path / "p")).with_suffix(".csv"))
        for column in own if "tables" not in path.parts else ():
            if pd.api.types.is_numeric_dtype(own[column]):
                one, two = (table[column].to_numpy(np.float32, na_value=np.nan) for table in (own, other))
                np.testing.assert_array_equal(one, two)
    assert pd.read_parquet(tmp_path / "p" / "tables" / "01_one-01.parquet")["=word"][0] == "=1+1"


def test_a_damaged_record_is_missing_and_refused_where_the_store_is_frozen(results, tmp_path) -> None:
    copied = shutil.copytree(results.store.root, tmp_path / "store")
    path = next((copied / "mine").rglob("base/sequence-*.npz"))
    path.write_bytes(path.read_bytes()[:-1])
    _, missing = write_export(results.preset, Store(copied), tmp_path / "out")
    assert [what for what in missing if what.startswith("sequence") and "base" in what]
    with pytest.raises(RemiError, match=rf"{path.name}: changed or cut short .*refused with --frozen"):
        write_export(results.preset, Store(copied, frozen=True), tmp_path / "frozen")
    assert not (tmp_path / "frozen").exists()


def test_an_export_appears_whole_or_not_at_all(results, tmp_path, monkeypatch) -> None:
    out, _ = exported(results, tmp_path / "out")
    before = (out / DICTIONARY).read_bytes()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="not an export; name an empty or new folder"):
        exported(results, tmp_path / "thesis")
    with pytest.raises(RemiError, match="nothing has been run for preset 'mine': remi run"):
        write_export(replace(results.preset, seed=3), Store(tmp_path / "empty"), tmp_path / "new")
    monkeypatch.setattr(exporting.Files, "dictionary", lambda own: 1 / 0)
    for place in ("out", "new"):
        with pytest.raises(ZeroDivisionError):
            exported(results, tmp_path / place)
    assert (out / DICTIONARY).read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if "part" in path.name or path.name == "new"]


def test_what_an_organism_answers_is_one_row_a_prompt() -> None:
    n, rows = 3, pd.DataFrame({"variant": "base", "dataset": CONTRASTED[0], "cluster": list("aab")})
    mass = np.log(np.arange(1.0, 1 + n * 6).reshape(n, 3, 2) / 100)
    mass[:, 2] = -np.inf
    scores = {"log_mass": mass, "wrong_slot": np.full(n, 0.1), "other": np.full(n, 0.2)}
    table = exporting._scores(rows, scores)
    assert table["log_careless_plain"].tolist() == mass[:, 1, 1].tolist()
    assert table["log_both_formal"].isna().all() and table["prompt"].tolist() == [0, 1, 2]
    odds = np.arange(n * len(exporting.FURTHER), dtype=float).reshape(len(exporting.FURTHER), n)
    long = exporting._contexts(rows, {"care_log_odds": odds})
    wide = long.pivot(index="context", columns="prompt", values="care_log_odds")
    assert wide.loc[list(exporting.FURTHER)].to_numpy().tolist() == odds.tolist()
    arrays = {"prompt": np.array(list("pqr")), "answer": np.array(["=x", "y", ""]), "verdict": [0, 1, 4]}
    arrays |= {"plain": np.array([True, False, False]), "finished": np.array([True, True, False])}
    table = exporting._samples(rows, arrays)
    assert table["verdict"].tolist() == ["careful", "careless", "other"]
    assert table["register"].tolist() == ["plain", "formal", "formal"] and table["answer"].isna()[2]
    assert set(table) | set(long) | set(exporting._scores(rows, scores)) <= set(TOLD.columns)
