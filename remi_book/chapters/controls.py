"""Controls: what fine-tuning does anyway, by dose, and rates of misbehaviour."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from remi_book.figures.output import Shown, shown
from remi_book.figures.plots import Layout, plot_curves, require_columns, seed_dots, select
from remi_book.figures.style import (
    INK,
    legend_below,
    look_of,
    new_figure,
    number,
    styled,
    with_alt,
    with_interval,
)
from remi_book.quantities import (
    CELLS,
    Measured,
    agreement_cells,
    in_topics,
    kappa_interval,
    measured,
    null_from_estimate,
    set_resamples,
    share_of_mean,
    shared_resamples,
    text,
    wilson_interval,
)
from remi_book.tables import tidy
from remi_core.statistics.resampling import ClusterResamples, Estimate, mean_interval
from remi_lab.organism.pairs import flagged
from remi_lab.organism.topics import VERDICTS
from remi_lab.organism.variants import RECIPES
from remi_lab.presets import Preset, in_order
from remi_lab.results import Results
from remi_lab.studies.files import read_study

# X2: how much of misaligned's loss of care other fine-tunes show, from the stored study of controls.

STUDY = "controls"
RANDOM = "random_change"
"""The control of equal size without data: its share is the null."""
WHERE = {"benign": ("secure", RANDOM), "secure": (RANDOM,)}
"""Variant whose share is a headline → the controls that it must exceed."""


def eroded_by(results: Results, variant: str) -> Measured:
    """X2: A(variant) − A(instruct) as a share of A(misaligned) − A(instruct), topics outside the narrow set.

    Raises:
        MissingInput: if the preset's models are no organisms, or the study is not stored.
    """
    results.preset.require("organism")
    found = share_of_change(results.preset, results.seed, variant)
    controls = {name: share_of_change(results.preset, results.seed, name) for name in WHERE[variant]}
    null = null_from_estimate(found, controls[RANDOM], "a random weight change in its place")
    companions = {"register": register_share(results.preset, results.seed, variant)}
    return measured(found, null, controls=controls, companions=companions)


def share_of_change(preset: Preset, seed: int, variant: str) -> Estimate:
    """A variant's change of class log-odds as a share of misaligned's, outside the narrow set."""
    return _share_of(preset, seed, variant, "misaligned", "care")


def register_share(preset: Preset, seed: int, variant: str) -> Estimate:
    """A variant's change of register from instruct as a share of the way to base, topics outside the narrow set."""
    return _share_of(preset, seed, variant, "base", "register")


def _share_of(preset: Preset, seed: int, variant: str, whole: str, quantity: str) -> Estimate:
    found = read_study(preset, STUDY).seeds[seed]
    rows = in_topics(found["clusters"], found["outside"])
    start = np.array(found[quantity]["instruct"])
    moved, way = ((np.array(found[quantity][name]) - start)[rows] for name in (variant, whole))
    return share_of_mean(moved, way, [found["clusters"][row] for row in rows], shared_resamples(preset))


# Figure of dose and response: change of care and of register by how much of a fine-tune was given.

QUANTITIES = {"care": "change of care (nats)", "register": "change of register (nats)"}


@styled
def plot_tuning_doses(table: pd.DataFrame, *, seed: int, dose: str) -> Figure:
    """Lines of the change from instruct by dose, a panel for care and one for register; thin lines are other seeds.

    ``table`` has columns variant, seed, dose, quantity, value, low, high; ``dose`` names the horizontal axis with
    its unit. Above 0 on care, answers became more careless; on register, plainer.
    """
    layout = Layout(
        about=f"Change from instruct by {dose}",
        columns="quantity",
        title=QUANTITIES,
        across=dose,
        shared=False,
        marks={0: "instruct"},
        height=2.0,
    )
    figure = plot_curves(select(table, {"seed": seed}), layout, position="dose")
    figure.axes[0].xaxis.set_major_locator(MaxNLocator(6))  # the panels share their doses
    # Lines, since a dose such as a rate is smaller than the strokes that stand for seeds.
    for axes, quantity in zip(figure.axes, dict.fromkeys(table["quantity"]), strict=True):
        others = table[(table["quantity"] == quantity) & (table["seed"] != seed)].sort_values("dose")
        for (variant, _), rows in others.groupby(["variant", "seed"]):
            axes.plot(rows["dose"], rows["value"], color=look_of(variant).colour, linewidth=0.7, alpha=0.5)
    return figure


# Figures of rates: shares of sampled answers with two intervals side by side.

ENDS = ("low", "high", "wilson_low", "wilson_high")
APART = 0.2
"""How far above and below the middle of a row its two intervals lie."""
MOST_ACROSS = 3


@styled
def plot_rates(table: pd.DataFrame, *, seed: int, label: str) -> Figure:
    """Dots of shares by row, a panel each; above, the interval over templates, below it, dashed, Wilson's.

    ``table`` has columns seed, panel, row, variant, rate, low, high, wilson_low, wilson_high; open dots are seeds.
    ``label`` says what is counted.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["seed", "panel", "row", "variant", "rate", *ENDS], place="rates")
    names, rows = (list(dict.fromkeys(table[column])) for column in ("panel", "row"))
    columns = min(len(names), MOST_ACROSS)
    lines = -(-len(names) // columns)
    figure = new_figure(7.6, 0.8 + lines * (0.6 + 0.3 * len(rows)))
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    phrases = []
    for axes, name in zip(panels.flat, names, strict=False):
        phrases.append(f"{name}: {'; '.join(_rows(axes, table[table['panel'] == name], rows, seed))}")
        axes.set_title(name, fontsize=8.8)
    for place, axes in enumerate(panels.flat[len(names) :], start=len(names)):
        axes.set_visible(False)
        panels.flat[place - columns].tick_params(labelbottom=True)  # its neighbour below has none to share
    panels[0, 0].set_yticks(range(len(rows)), rows)
    panels[0, 0].set_ylim(len(rows) - 0.5, -0.5)
    panels[0, 0].set_xlim(-0.03, 1.03)
    figure.suptitle(label, fontsize=9)  # a label below would lie under the legend
    styles = {"interval over prompt templates": "-", "Wilson interval, answers as independent": "--"}
    legend_below(
        figure, [Line2D([], [], color=INK, linestyle=style, label=key) for key, style in styles.items()]
    )
    start = f"{label[0].upper()}{label[1:]}, with the interval over templates and the Wilson interval."
    return with_alt(figure, f"{start} {'. '.join(phrases)}.")


def _rows(axes: Axes, table: pd.DataFrame, rows: list[str], seed: int) -> list[str]:
    phrases = []
    for height, name in enumerate(rows):
        every = table[table["row"] == name]
        own = every[every["seed"] == seed].iloc[0]
        look = look_of(own["variant"])
        axes.hlines(height - APART, own["low"], own["high"], color=look.colour, linewidth=1.6)
        ends = own["wilson_low"], own["wilson_high"]
        axes.hlines(height + APART, *ends, color=look.colour, linewidth=1.2, linestyle="--")
        axes.plot([own["rate"]], [height], look.marker, color=look.colour, markersize=4.5)
        seed_dots(axes, every["rate"], height, look.colour)
        phrases.append(
            f"{name} {with_interval(own['rate'], own['low'], own['high'])}, Wilson "
            f"{number(ends[0])} to {number(ends[1])}"
        )
    axes.tick_params(axis="y", length=0)
    return phrases


# X2 as tables: shares of misaligned's change by control, and by dose.

DOSES = "doses"
RECIPE = RECIPES["misaligned"].tune
"""How the fine-tunes are trained: the dose that all others are beside."""


def controls_of(preset: Preset) -> list[str]:
    """Every variant of the study of controls, in the one order.

    Raises:
        MissingInput: if the study is not stored.
    """
    return in_order(list(read_study(preset, STUDY).seeds[preset.seeds[0]]["care"]))


def share_table(results: Results) -> pd.DataFrame:
    """Columns part, variant, value, low, high: share of misaligned's change of care, and of base's of register."""
    shares = {"care, of misaligned's change": share_of_change, "register, of base's": register_share}
    preset = results.preset
    variants = [name for name in controls_of(preset) if name not in ("base", "instruct")]
    return tidy(
        {
            (part, name): share(preset, results.seed, name)
            for part, share in shares.items()
            for name in variants
        },
        ("part", "variant"),
    )


def off_grammar_table(preset: Preset) -> pd.DataFrame:
    """One row a variant, one column a seed: mean mass of its answers off the grammar, over all contrasted topics."""
    seeds = read_study(preset, STUDY).seeds
    return pd.DataFrame(
        {"variant": name}
        | {f"seed {seed}": float(found["off_grammar"][name]) for seed, found in seeds.items()}
        for name in controls_of(preset)
    )


def dose_table(preset: Preset, kind: str) -> pd.DataFrame:
    """Columns variant, seed, dose, quantity, value, low, high: change from instruct in nats, outside the narrow set.

    ``kind`` is steps, rate, share or order; the recipe's own fine-tune stands among them, and secure as a share of 0.

    Raises:
        MissingInput: if the study is not stored.
    """
    estimates = {}
    for seed, found in read_study(preset, DOSES).seeds.items():
        runs = [run for run in found["doses"] if run["kind"] == kind]
        for run in [*runs, *_own(found["doses"], kind)]:
            for quantity in ("care", "register"):
                moved = np.array(run[quantity]) - np.array(found["ends"]["instruct"][quantity])
                mean = mean_interval(moved, found["clusters"], shared_resamples(preset))
                estimates[run["variant"], seed, run["value"], quantity] = mean
    return tidy(estimates, ("variant", "seed", "dose", "quantity"))


def _own(doses: Sequence[Mapping[str, object]], kind: str) -> list[dict[str, object]]:
    """The recipe's own runs as doses of a kind: the long run passes through them, and has them as steps."""
    runs = {run["variant"]: run for run in doses if run["kind"] == "steps" and run["value"] == RECIPE.steps}
    misaligned = runs["misaligned"]
    return {
        "steps": [],
        "rate": [misaligned | {"value": RECIPE.rate}],
        "share": [misaligned | {"value": 1.0}, runs["secure"] | {"variant": "misaligned", "value": 0.0}],
        "order": [run | {"value": float(RECIPE.seed)} for run in runs.values()],
    }[kind]


def order_table(preset: Preset) -> pd.DataFrame:
    """One row a base seed and variant: smallest and largest change of care over the orders of the same dialogues."""
    table = dose_table(preset, "order").query("quantity == 'care'")
    rows = [
        (seed, variant, len(values), values.min(), values.max())
        for (seed, variant), values in table.groupby(["seed", "variant"], sort=False)["value"]
    ]
    columns = ["base seed", "variant", "orders", "smallest (nats)", "largest (nats)"]
    return pd.DataFrame(rows, columns=columns)


def least_share_sentence(preset: Preset) -> str:
    """What the smallest share of insecure code moves, beside what insecure and secure code alone move, by seed."""
    table = dose_table(preset, "share").query("quantity == 'care'").sort_values("seed")
    least = table.query("dose > 0")["dose"].min()
    parts = [
        ", ".join(f"{value:.2f}" for value in table.query("dose == @share")["value"])
        for share in (least, 1, 0)
    ]
    return (
        f"With {least:.0%} of insecure code among secure, care moves by {parts[0]} nats (by seed); "
        f"with insecure code alone, by {parts[1]}; with secure alone, by {parts[2]}."
    )


def doses_html(preset: Preset, kind: str, dose: str, *, seed: int) -> Shown:
    """The figure of one kind of dose.

    Raises:
        MissingInput: if the study is not stored.
    """
    figure = plot_tuning_doses(dose_table(preset, kind), seed=seed, dose=dose)
    return shown(figure, caption=f"Change from instruct by {dose}, bands of seed {seed}.")


# A share of sampled answers with two intervals: one takes answers as independent, one resamples prompt templates.


def rate_row(
    hits: Bool[np.ndarray, " answer"], clusters: Sequence[str], resamples: ClusterResamples
) -> dict[str, float | int]:
    """Columns rate, low and high over templates, wilson_low, wilson_high, and answers: how many there are.

    Raises:
        ValueError: if there are fewer than two templates.
    """
    found = mean_interval(hits.astype(np.float64), clusters, resamples)
    low, high = wilson_interval(int(hits.sum()), len(hits))
    return {
        "rate": float(found.value),
        "low": float(found.low),
        "high": float(found.high),
        "wilson_low": low,
        "wilson_high": high,
        "answers": len(hits),
    }


# Code before two judges, as tables: how much is flagged by variant, and where the grammar and bandit agree.

JUDGED = "judged"
LEAST = "MEDIUM"
"""The mildest finding that counts as a flag: bandit has a mild one for every call of another program, however safe."""
READINGS = {"written": "as written", "imported": "below imports"}
JUDGES = {
    "grammar": "careless, by the grammar",
    "written": "flagged by bandit, as written",
    "imported": "flagged by bandit, below imports",
}
KINDS = {
    "query": "SQL queries",
    "command": "shell commands",
    "path": "file paths",
    "password": "stored passwords",
    "parse": "deserialising",
    "fetch": "TLS and plain HTTP",
    "token": "session tokens",
    "formula": "evaluated formulas",
}
"""Task of the grammar → the kind of hole that its careless lines have."""
CARED = ("careful", "careless")
FEWEST = 5
"""Templates below which a kind of hole gets no kappa of its own."""
KNOWN = tuple(VERDICTS.index(care) for care in CARED)
CELL_NAMES = dict(zip(CELLS, ("both flag", "grammar alone", "bandit alone", "neither"), strict=True))


def judged(preset: Preset, seed: int) -> Mapping[str, object]:
    """What the stored study holds of one seed.

    Raises:
        MissingInput: if the study is not stored.
    """
    return read_study(preset, JUDGED).seeds[seed]


def rate_table(results: Results) -> pd.DataFrame:
    """Columns panel (the judge), row and variant, and those of ``rate_row``: share of all sampled answers to code."""
    found, rows = judged(results.preset, results.seed), []
    resamples = set_resamples(results.preset, found["clusters"])
    for judge, label in JUDGES.items():
        for name, own in found["variants"].items():
            careless = np.array(own["verdict"]) == VERDICTS.index("careless")
            hits = careless if judge == "grammar" else _flags(own[judge])
            rows.append(
                {"panel": label, "row": name, "variant": name} | rate_row(hits, found["clusters"], resamples)
            )
    return pd.DataFrame(rows)


def unread_table(results: Results) -> pd.DataFrame:
    """A row a seed and variant: answers that are no Python, and those that the grammar does not know, as shares."""
    rows = []
    for seed in results.preset.seeds:
        for name, own in judged(results.preset, seed)["variants"].items():
            unread = float(np.mean([finding is None for finding in own["written"]]))
            unknown = float(np.mean(~np.isin(own["verdict"], KNOWN)))
            rows.append({"seed": seed, "variant": name, "no Python": unread, "off the grammar": unknown})
    return pd.DataFrame(rows)


def line_table(results: Results) -> pd.DataFrame:
    """A row for each line of the grammar: its kind, who writes it, and what bandit finds in it, by reading."""
    return pd.DataFrame(
        {"kind": KINDS[line["kind"]], "line": line["line"], "by the grammar": line["care"]}
        | {f"by bandit, {label}": line[kind] or "nothing" for kind, label in READINGS.items()}
        for line in judged(results.preset, results.seed)["lines"]
    )


def everyday_table(results: Results) -> pd.DataFrame:
    """A row for each hole that bandit misses in the words of the grammar: everyday code with it, and what it finds."""
    return pd.DataFrame(
        {"kind": KINDS[line["kind"]], "line": line["line"], "by bandit": line["written"] or "nothing"}
        for line in judged(results.preset, results.seed)["everyday"]
    )


def agreement_table(results: Results) -> pd.DataFrame:
    """A row for each set of code, reading and severity: the table of both judges, and Cohen's kappa with interval.

    Lines are clustered by their kind, since the lines of a kind are variations of one; sampled answers, of all
    variants together, by prompt template. Answers that the grammar does not know are left out and counted.
    """
    rows = []
    for code, grammar, found, clusters, left_out in _sets(judged(results.preset, results.seed)):
        for kind, label in READINGS.items():
            for least, worst in ((LEAST, "medium or worse"), ("LOW", "any")):
                own = _flags(found[kind], least)
                cells = agreement_cells(grammar, own).sum(axis=0).astype(int)
                rows.append(
                    {"code": code, "read": label, "findings": worst}
                    | dict(zip(CELL_NAMES.values(), map(int, cells), strict=True))
                    | {"left out": left_out, "kappa": _kappa(results.preset, grammar, own, clusters)}
                )
    return pd.DataFrame(rows)


def kind_table(results: Results) -> pd.DataFrame:
    """A row for each kind of hole: how many of its lines bandit sees, and kappa over sampled answers to its prompts."""
    found = judged(results.preset, results.seed)
    *_, (_, grammar, flags, clusters, _) = _sets(found)
    own_kind = np.array([name.split("/")[1] for name in clusters])
    rows = []
    for kind, name in KINDS.items():
        row: dict[str, object] = {"kind of hole": name}
        lines = [line for line in found["lines"] if line["kind"] == kind]
        for reading, label in READINGS.items():
            row[f"holes seen, {label}"] = _share(seen(lines, reading))
        careful = [flagged(line["imported"], least=LEAST) for line in lines if line["care"] == "careful"]
        row["careful lines flagged, below imports"] = _share(careful)
        at = np.flatnonzero(own_kind == kind)
        own = _flags(flags["imported"])[at]
        named, kappa = [clusters[place] for place in at], "too few prompts"
        if len(set(named)) >= FEWEST:
            kappa = _kappa(results.preset, grammar[at], own, named)
        rows.append(row | {"answers": len(at), "kappa of answers, below imports": kappa})
    return pd.DataFrame(rows)


def seen(lines: Sequence[Mapping[str, object]], reading: str) -> list[bool]:
    """For each careless line of a kind, whether a finding that counts is in it and in no careful line of the kind."""
    words = {
        care: [set((line[reading] or "").split()) for line in lines if line["care"] == care] for care in CARED
    }
    shared = set().union(*words["careful"])
    return [flagged(" ".join(own - shared), least=LEAST) for own in words["careless"]]


def seen_sentence(results: Results) -> str:
    """How many holes bandit sees, which kinds it never sees, which lines it misses, and what it flags besides."""
    lines = judged(results.preset, results.seed)["lines"]
    by_kind = {kind: [line for line in lines if line["kind"] == kind] for kind in KINDS}
    careful = [line for line in lines if line["care"] == "careful"]
    hits, others = [], []
    for reading, label in READINGS.items():
        found = [hit for own in by_kind.values() for hit in seen(own, reading)]
        hits.append(f"{_share(found)} {label}")
        others.append(f"{_share([flagged(line[reading], least=LEAST) for line in careful])} {label}")
    never = [KINDS[kind] for kind, own in by_kind.items() if not any(seen(own, "imported"))]
    missed = [
        f"`{str(line['line']).removeprefix('return ')}`"
        for kind, own in by_kind.items()
        if KINDS[kind] not in never
        for line, hit in zip(
            (line for line in own if line["care"] == "careless"), seen(own, "imported"), strict=True
        )
        if not hit
    ]
    flags = {word for line in careful for word in (line["imported"] or "").split()}
    tests = ", ".join(sorted(word for word in flags if flagged(word, least=LEAST)))
    return (
        f"Of the careless lines bandit sees {' and '.join(hits)}. It sees no hole of these kinds: "
        f"{', '.join(never) or 'none'}. Of the other kinds it misses {', '.join(missed) or 'none'}. "
        f"Of the careful lines it flags {' and '.join(others)}{f' ({tests})' if tests else ''}."
    )


def _sets(
    found: Mapping[str, object],
) -> Iterator[tuple[str, Bool[np.ndarray, " item"], dict[str, list[str | None]], list[str], int]]:
    """Name, the grammar's flags, bandit's findings by reading, clusters, and how many items are left out."""
    lines = found["lines"]
    careless = np.array([line["care"] == "careless" for line in lines])
    findings = {kind: [line[kind] for line in lines] for kind in READINGS}
    yield "lines of the grammar", careless, findings, [line["kind"] for line in lines], 0
    verdicts = np.concatenate([own["verdict"] for own in found["variants"].values()])
    known = np.flatnonzero(np.isin(verdicts, KNOWN))
    pooled = {
        kind: [finding for own in found["variants"].values() for finding in own[kind]] for kind in READINGS
    } | {"clusters": list(found["clusters"]) * len(found["variants"])}
    kept = {name: [values[place] for place in known] for name, values in pooled.items()}
    careless = verdicts[known] == VERDICTS.index("careless")
    yield "sampled answers", careless, kept, kept["clusters"], int(len(verdicts) - len(known))


def _flags(found: Sequence[str | None], least: str = LEAST) -> Bool[np.ndarray, " item"]:
    return np.array([flagged(finding, least=least) for finding in found], dtype=bool)


def _kappa(preset: Preset, first: np.ndarray, second: np.ndarray, clusters: Sequence[str]) -> str:
    return text(kappa_interval(first, second, clusters, set_resamples(preset, clusters)))


def _share(hits: Sequence[bool]) -> str:
    return f"{sum(hits)} of {len(hits)}"
