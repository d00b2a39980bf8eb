"""Export: the tables of a preset's pages and its records as files that any program opens, each column explained."""

from __future__ import annotations

import importlib.util
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from remi_book.chapters.gradients import gradient_datasets
from remi_book.claims import report_rows
from remi_book.publishing import check_out, filled
from remi_book.running import plan
from remi_book.site import claims_csv
from remi_book.words import as_cell, as_markdown, is_withheld, local_names, shown_tokens, visible, with_names
from remi_core import __version__
from remi_core.errors import RemiError, UsageError
from remi_core.files import written_whole
from remi_core.keys import text_digest
from remi_core.progress import Say, notice
from remi_core.store import Record, Store
from remi_lab.datasets import dataset_names
from remi_lab.organism.grammar import CLASSES
from remi_lab.organism.topics import IN_CONTEXT, REGISTERS, SAMPLES, SCORES, VERDICTS
from remi_lab.organism.world import FURTHER
from remi_lab.own_models import real_sets
from remi_lab.presets import TRIPLET, Preset
from remi_lab.processes import SOON, Meter
from remi_lab.recording import measure_behaviour, measure_gradients, measure_patching, stored_forward
from remi_lab.results import TABLE, NotMeasured, Results
from remi_lab.strict import read_yaml
from remi_lab.variant import FORWARD, patch_plan

# Files of tables in one folder, in either format; what each column is goes into a dictionary beside them.

PARQUET = "parquet"
DICTIONARY, MISSING = "columns.csv", "missing.csv"
"""Two files of every export, whatever it holds."""


@dataclass(frozen=True)
class Told:
    """What the YAML file beside this module says."""

    rows: dict[str, str]
    """File → what a row of it is."""
    columns: dict[str, tuple[str, str]]
    """Column → its meaning and its unit."""


TOLD = read_yaml(Path(__file__).with_suffix(".yaml"), Told)
COORDINATE = re.compile(r"d\d+")
"""A column of one coordinate of the residual stream; ``TOLD`` speaks of the first."""


class Files(ExitStack):
    """The files of an export; a table may come in parts, each with the columns of the first."""

    def __init__(self, folder: Path, form: str) -> None:
        super().__init__()
        self._folder, self._form = folder, form
        self._heads: dict[str, tuple[pd.DataFrame, str]] = {}
        self._n_rows: dict[str, int] = {}
        self._writers: dict[str, object] = {}

    def add(self, name: str, part: pd.DataFrame, caption: str = "") -> None:
        """Write a table, or a part of one behind what was written under its name; ``caption`` is its page's."""
        path = self._folder / f"{name}.{self._form}"
        path.parent.mkdir(exist_ok=True)
        if self._form == PARQUET:
            self._add_parquet(name, path, part)
        else:
            write_csv(path, part, first=name not in self._heads)
        self._heads.setdefault(name, (part.head(0), caption))
        self._n_rows[name] = self._n_rows.get(name, 0) + len(part)

    def _add_parquet(self, name: str, path: Path, part: pd.DataFrame) -> None:
        import pyarrow
        from pyarrow.parquet import ParquetWriter

        # Of numbers and words in one column, all become words.
        part = each_text(part, visible).astype(dict.fromkeys(worded(part), "string"))
        if name not in self._writers:
            schema = pyarrow.Schema.from_pandas(part, preserve_index=False)
            self._writers[name] = self.enter_context(ParquetWriter(path, schema))
        writer = self._writers[name]
        writer.write_table(pyarrow.Table.from_pandas(part, schema=writer.schema, preserve_index=False))

    def dictionary(self) -> pd.DataFrame:
        """Columns file, rows (their number), row (what one is), column, type, meaning, unit: one row a column."""
        lines = []
        for name, (head, caption) in self._heads.items():
            about = f"{name}.{self._form}", self._n_rows[name], caption or TOLD.rows[name]
            for column, kind in head.dtypes.items():
                known = COORDINATE.sub("d0", column)
                said = ("as its page says", "") if caption else TOLD.columns[known]
                lines.append((*about, column, str(kind), *said))
        return pd.DataFrame(lines, columns="file rows row column type meaning unit".split())


def write_csv(path: Path, part: pd.DataFrame, *, first: bool = True) -> None:
    """Write the rows into a file, behind those that are there unless it is the first part."""
    part = each_text(part, as_cell).rename(columns=as_cell)
    part.to_csv(path, mode="w" if first else "a", header=first, index=False, lineterminator="\n")


def worded(part: pd.DataFrame) -> list[str]:
    """The columns that hold texts, or anything."""
    return [name for name, kind in part.dtypes.items() if kind.kind == "O"]


def each_text(part: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """The table with each text in it changed, numbers and gaps left alone."""
    changed = {}
    for name in worded(part):
        texts = {value: change(value) for value in part[name].unique() if isinstance(value, str)}
        changed[name] = part[name].map(lambda value, texts=texts: texts.get(value, value))
    return part.assign(**changed)


# Records as tables: one row a token, a reply, a window and layer, a pair of replies, a prompt.

Part = tuple[str, pd.DataFrame]
"""Name of a file, and rows for it."""
Read = Callable[[], Iterator[Part]]

MOST_NUMBERS = 2**24
"""Numbers of block outputs that are made into rows at once."""


def records_of(results: Results) -> Iterator[tuple[str, Read]]:
    """Of everything that the book reads of a preset's models: what it is in words, and what gives its rows.

    What gives the rows raises ``RemiError`` where the record is not there.
    """
    preset, sets = results.preset, gradient_datasets(results)
    yield "the vocabulary", partial(_vocabulary, results)
    for own in map(results.at, preset.seeds):
        for variant in own.variants:
            whose = f"{variant}, seed {own.seed}"
            for name in dataset_names(preset):
                for kind in FORWARD:
                    yield f"{kind} of {name}, {whose}", partial(_forward, own, variant, kind, name)
            if variant in TRIPLET and len(sets) > 1:
                yield f"gradients of {' + '.join(sets)}, {whose}", partial(_gradients, own, variant, sets)
            if preset.is_organism:
                yield f"{SCORES}, {SAMPLES} and {IN_CONTEXT}, {whose}", partial(_behaviour, own, variant)
        for (donor, recipient), names in patch_plan(preset).items():
            for name in names:
                what = f"patching of {name}, {donor} into {recipient}, seed {own.seed}"
                yield what, partial(_patching, own, donor, recipient, name)


def _about(results: Results, variant: str, measurement: str, dataset: str, record: Record) -> Part:
    """The line that says of a record what it was made of and with."""
    about = record.provenance
    lost = sum(each if isinstance(each, int) else len(each) for each in about["dropped"].values())
    line = {"variant": variant, "seed": results.seed, "measurement": measurement, "dataset": dataset}
    line |= {"kept": about["kept"], "dropped": lost, "dtype": about["dtype"], "device": about["device"]}
    return "records/records", _frame(line | {"model": about["model"], "seconds": about["seconds"]}, index=[0])


def _frame(columns: Mapping[str, object], index: Sequence[int] | None = None) -> pd.DataFrame:
    """The columns as a table whose texts are of the type for texts, also where all are missing; "" is missing."""
    table = pd.DataFrame(columns, index=index)
    texts = worded(table)
    return table.astype(dict.fromkeys(texts, "string")).replace(dict.fromkeys(texts, ""), pd.NA)


def _rows(results: Results, variant: str, datasets: Sequence[str], arrays: Mapping) -> pd.DataFrame:
    """Whose and which each row of a record is; ``datasets`` names the set of each.

    Of sets whose text is withheld, what may be a text is replaced by a digest.
    """
    real = real_sets(results.preset)
    hidden = {name: name in real and is_withheld(results.preset, [name]) for name in set(datasets)}
    columns: dict[str, object] = {"variant": variant, "seed": results.seed, "dataset": list(datasets)}
    if "identifier" in arrays:
        columns["dialogue"] = arrays["identifier"].tolist()
    for name in ("cluster", "pair"):
        if name in arrays:
            labels = zip(map(str, arrays[name]), datasets, strict=True)
            columns[name] = [text_digest(text)[:12] if text and hidden[of] else text for text, of in labels]
    return _frame(columns)


def _repeated(rows: pd.DataFrame, counts: np.ndarray | int, further: Mapping[str, object]) -> pd.DataFrame:
    """Each row so many times, with further columns behind."""
    again = rows.loc[rows.index.repeat(counts)].reset_index(drop=True)
    return pd.concat([again, _frame(further)], axis=1)


def _tokens(results: Results, dataset: str, ids: np.ndarray) -> dict[str, object]:
    """Columns of tokens: the number of each, and its text or the sign in its place; -1 is none."""
    numbers = pd.array(ids, dtype="Int64")
    numbers[(ids < 0) | is_withheld(results.preset, [dataset])] = pd.NA
    try:
        words = results.vocabulary
    except NotMeasured:
        return {"token_id": numbers, "token": [""] * len(ids)}
    texts = {token: words.text(token) for token in np.unique(ids).tolist()}
    shown = dict(zip(texts, shown_tokens(results.preset, [dataset], texts.values()), strict=True))
    return {"token_id": numbers, "token": [shown[token] for token in ids.tolist()]}


def _vocabulary(results: Results) -> Iterator[Part]:
    texts = results.vocabulary.texts
    yield "records/vocabulary", _frame({"token_id": range(len(texts)), "token": texts})


def _forward(results: Results, variant: str, kind: str, dataset: str) -> Iterator[Part]:
    record = stored_forward(results.variant(variant), results.store, kind, dataset)
    if record is None:
        raise NotMeasured(f"{kind} of {dataset} for {variant} is not there")
    arrays = record.arrays
    rows = _rows(results, variant, [dataset] * len(arrays["identifier"]), arrays)
    tables = {"sequence": _sequence, "next_token": _predictions, "activations": _activations}
    yield from tables[kind](results, dataset, rows, arrays)
    yield _about(results, variant, kind, dataset, record)


def _sequence(results: Results, dataset: str, rows: pd.DataFrame, arrays: Mapping) -> Iterator[Part]:
    counts = np.diff(arrays["offsets"])
    further = {"position": np.concatenate([np.arange(count) for count in counts])}
    further |= _tokens(results, dataset, arrays["token"])
    further |= {name: arrays[name] for name in ("log_probability", "entropy")}
    yield "records/token_log_probabilities", _repeated(rows, counts, further)


def _predictions(results: Results, dataset: str, rows: pd.DataFrame, arrays: Mapping) -> Iterator[Part]:
    own = ("choice_log_probability", "alternative_log_probability")
    yield "records/choices", rows.assign(**{name: arrays[name] for name in own})
    used = arrays["valid"]
    top, n_ranks = rows[used].reset_index(drop=True), arrays["top_ids"].shape[1]
    further = {"rank": np.tile(np.arange(1, n_ranks + 1), len(top))}
    further |= _tokens(results, dataset, arrays["top_ids"][used].ravel())
    further |= {"log_probability": arrays["top_log_probabilities"][used].ravel()}
    yield "records/next_tokens", _repeated(top, n_ranks, further)
    # In the order of the vocabulary the place of a token would tell which it is.
    likeliest = np.argsort(-arrays["mean_probability"], kind="stable") if used.any() else np.arange(0)
    further = {"rank": np.arange(1, len(likeliest) + 1), **_tokens(results, dataset, likeliest)}
    further |= {"probability": arrays["mean_probability"][likeliest]}
    whose = rows[["variant", "seed", "dataset"]].head(1)
    yield "records/mean_next_tokens", _repeated(whose, len(likeliest), further)


def _activations(results: Results, dataset: str, rows: pd.DataFrame, arrays: Mapping) -> Iterator[Part]:
    n, n_windows, n_layers, width = arrays["mean"].shape
    step = max(1, MOST_NUMBERS // (n_windows * n_layers * width))
    for start in range(0, n, step):
        part = np.asarray(arrays["mean"][start : start + step])
        further = {
            "window": np.tile(np.repeat(results.preset.windows, n_layers), len(part)),
            "n_tokens": arrays["count"][start : start + step].repeat(n_layers),
            "layer": np.tile(np.arange(n_layers), len(part) * n_windows),
        }
        labels = _repeated(rows[start : start + step], n_windows * n_layers, further)
        means = pd.DataFrame(part.reshape(-1, width), columns=[f"d{place}" for place in range(width)])
        yield "records/activations", pd.concat([labels, means], axis=1)


def _gradients(results: Results, variant: str, sets: Sequence[str]) -> Iterator[Part]:
    record = measure_gradients(results.variant(variant), results.store, sets)
    rows = _rows(results, variant, record.arrays["dataset"].tolist(), record.arrays)
    yield "records/gradient_losses", rows.assign(loss=record.arrays["loss"])
    one, other = np.triu_indices(len(rows))
    pairs = rows.loc[one, ["variant", "seed", "dataset", "dialogue"]].reset_index(drop=True)
    for name in ("dataset", "dialogue"):
        pairs[f"other_{name}"] = rows.loc[other, name].to_numpy()
    pairs["inner_product"] = record.arrays["gram"][one, other]
    yield "records/gradients", pairs
    yield _about(results, variant, "gradients", " + ".join(sets), record)


def _patching(results: Results, donor: str, recipient: str, dataset: str) -> Iterator[Part]:
    pair = donor, recipient
    variants = {name: results.variant(name) for name in {"instruct", *pair}}
    record = measure_patching(variants, results.store, {pair: (dataset,)})[pair, dataset]
    arrays = record.arrays
    rows = _rows(results, recipient, [dataset] * len(arrays["identifier"]), arrays)
    rows.insert(1, "donor", donor)
    layers = [-1, *arrays["layers"].tolist(), int(arrays["layers"][-1]) + 1]
    own = ("loss", "choice_log_probability", "alternative_log_probability", "bare_log_probability")
    further = {"layer": np.tile(layers, len(rows))} | {name: arrays[name].T.ravel() for name in own}
    yield "records/patching", _repeated(rows, len(layers), further)
    yield _about(results, recipient, f"patched-{donor}", dataset, record)


def _behaviour(results: Results, variant: str) -> Iterator[Part]:
    for (kind, topic), record in measure_behaviour(results.variant(variant), results.store).items():
        arrays = record.arrays
        rows = _rows(results, variant, [topic] * len(arrays["cluster"]), arrays)
        table = {SCORES: _scores, SAMPLES: _samples, IN_CONTEXT: _contexts}[kind]
        yield f"records/{kind}", table(rows, arrays)
        yield _about(results, variant, kind, topic, record)


def _scores(rows: pd.DataFrame, arrays: Mapping) -> pd.DataFrame:
    masses = {
        f"log_{care}_{register}": arrays["log_mass"][:, row, column]
        for row, care in enumerate(CLASSES)
        for column, register in enumerate(REGISTERS)
    }
    masses |= {name: arrays[name] for name in ("wrong_slot", "other")}
    # Minus infinity is a gap: not every program reads it as a number.
    return rows.assign(prompt=range(len(rows)), **masses).replace(-np.inf, np.nan)


def _samples(rows: pd.DataFrame, arrays: Mapping) -> pd.DataFrame:
    texts = {name: arrays[name].tolist() for name in ("prompt", "answer")}
    texts["verdict"] = [VERDICTS[place] for place in arrays["verdict"]]
    texts["register"] = np.where(arrays["plain"], REGISTERS[1], REGISTERS[0])
    return pd.concat([rows, _frame(texts | {"finished": arrays["finished"]})], axis=1)


def _contexts(rows: pd.DataFrame, arrays: Mapping) -> pd.DataFrame:
    further = {
        "prompt": np.repeat(np.arange(len(rows)), len(FURTHER)),
        "context": np.tile(FURTHER, len(rows)),
        "care_log_odds": arrays["care_log_odds"].T.ravel(),
    }
    return _repeated(rows, len(FURTHER), further)


# The export: claims, tables of the pages that were run, and records, in a folder that appears whole.


def write_export(
    preset: Preset, store: Store, out: Path, *, form: str = "csv", say: Say = notice
) -> tuple[int, list[str]]:
    """Number of tables in the folder ``out``, and in words what is not there because it was not run or measured.

    Each table is a file, of format ``csv`` or ``parquet``. Nothing is measured.

    Raises:
        UsageError: if ``out`` is something other than an export, or a package is missing.
        RemiError: if nothing of the preset was run (with the command that does), or a record is damaged and the store
            frozen.
    """
    check_out(out, marker=DICTIONARY, what="an export")
    if form == PARQUET and importlib.util.find_spec("pyarrow") is None:
        raise UsageError('--format parquet needs pyarrow: pip install -e ".[parquet]"')
    steps, results = plan(preset, store), Results(preset, store, measures=False)
    named, missing = local_names(preset), dict[str, str]()
    if not store.list(preset.name) and not any(step.done for step in steps):
        raise RemiError(f"nothing has been run for preset {preset.name!r}: remi run --preset {preset.name}")

    def local(content: object) -> object:
        return json.loads(with_names(json.dumps(content), named))

    with written_whole(out) as folder:
        folder.mkdir()
        with Files(folder, form) as files:
            claims = io.StringIO(claims_csv(local(report_rows(results, say=say))))
            files.add("claims", pd.read_csv(claims, keep_default_na=False, na_values=[""]))
            for step in steps:
                if not step.done:
                    missing[f"tables of {step.name}"] = "the notebook was not run as it is now"
                for number, content in enumerate(local(tables_of(step.target)) if step.done else [], 1):
                    files.add(f"tables/{step.name}-{number:02d}", shown_table(content), content["caption"])
            records = dict(records_of(results))
            meter = Meter(f"export of {preset.name}", len(records), say, unit="records", after=SOON)
            for what in meter.each(records):
                try:
                    for part in records[what]():
                        files.add(*part)
                except RemiError as error:
                    if store.frozen and not isinstance(error, NotMeasured):
                        raise
                    missing[what] = str(error)
            told = files.dictionary()
        write_csv(folder / DICTIONARY, told)
        write_csv(folder / MISSING, pd.DataFrame(local(list(missing.items())), columns=["what", "reason"]))
        words = {"preset": as_markdown(preset.name), "name": preset.name, "format": form}
        words |= {"fingerprint": preset.fingerprint(), "package": __version__, "missing": len(missing)}
        (folder / "README.md").write_text(filled("export.md", words), encoding="utf-8")
    return told["file"].nunique(), list(missing)


def tables_of(executed: Path) -> list[dict[str, object]]:
    """The tables that an executed notebook shows, in its order: caption, columns and rows of each."""
    notebook = json.loads(executed.read_text(encoding="utf-8"))
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    return [output["data"][TABLE] for output in outputs if TABLE in output.get("data", {})]


def shown_table(content: Mapping[str, object]) -> pd.DataFrame:
    """A table of a page as its numbers are, before they were rounded for it; a dash on the page is a gap."""
    rows = [[None if cell == "–" else cell for cell in row] for row in content["rows"]]
    return pd.DataFrame(rows, columns=content["columns"])
