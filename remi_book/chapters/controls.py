"""Controls: what fine-tuning does anyway, by dose, and rates of misbehaviour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, compress, product

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.special import expit, logit

from remi_book import quantities
from remi_book.figures.output import Shown, shown
from remi_book.figures.plots import Layout, layouts, plot_curves, plot_rows, select
from remi_book.figures.style import look_of, number, styled, with_interval
from remi_book.tables import tidy
from remi_core.errors import MissingInput
from remi_core.statistics.nulls import NullResult
from remi_core.statistics.resampling import ClusterResamples, Estimate, combine, difference, mean_interval
from remi_lab.organism.pairs import SEVERITIES, flagged
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
WHOLE = {"care": "misaligned", "register": "base"}
"""Quantity → the variant whose change from instruct is the whole way."""


def eroded_by(results: Results, variant: str) -> quantities.Measured:
    """X2: A(variant) − A(instruct) as a share of A(misaligned) − A(instruct), topics outside the narrow set."""
    results.preset.require("organism")
    share = share_of_way(results, variant, "care")
    controls = {name: share_of_way(results, name, "care") for name in WHERE[variant]}
    null = quantities.null_from_estimate(share, controls[RANDOM], "a random weight change in its place")
    companions = {"register": share_of_way(results, variant, "register")}
    return quantities.measured(share, null, controls=controls, companions=companions)


def share_of_way(results: Results, variant: str, quantity: str) -> Estimate:
    """A variant's change from instruct as a share of that of ``WHOLE``, over topics outside the narrow set."""
    stored = read_study(results.preset, STUDY).seeds[results.seed]
    rows = quantities.in_topics(stored["clusters"], stored["outside"])
    start = np.array(stored[quantity]["instruct"])
    moved, whole = ((np.array(stored[quantity][name]) - start)[rows] for name in (variant, WHOLE[quantity]))
    clusters = [stored["clusters"][row] for row in rows]
    return quantities.share_of_mean(
        moved, whole, clusters, quantities.shared_resamples(results.preset), sign=1
    )


# X9 from the stored study of register: narrow data that say nothing of register, half of it, or plain.

REGISTER = "register"
RETURNED = 0.1
"""Share of the way to base from which care has come back."""
RULED = "unmarked"
"""The wording that X9 is judged by."""
WORDED = ("formal", RULED, "half", "plain")
"""Every wording, from formal to plain."""
MANNERLY = "style"
STYLE = {("secure", "plain"): MANNERLY}
"""Narrow set and wording → what the same fine-tune is called among the controls."""
SHARES = {name: f"{name}, share of the way to base" for name in WHOLE}
WORDINGS, COSTS = layouts("wordings", "costs")


def returned(results: Results, narrow: str, wording: str, quantity: str, *, rate: float = 0.0) -> Estimate:
    """The change of care or register from instruct by a fine-tune, as a share of the way to base, outside code.

    Undefined where base does not lie beyond instruct on the careless or plain side: there is no way to come back then.
    """
    stored = read_study(results.preset, REGISTER).seeds[results.seed]
    rows = quantities.in_topics(stored["clusters"], stored["outside"])
    tuned = _name(narrow, wording, rate)
    start, own, base = (np.array(stored[quantity][name])[rows] for name in ("instruct", tuned, "base"))
    clusters = [stored["clusters"][row] for row in rows]
    return quantities.share_of_mean(
        own - start, base - start, clusters, quantities.topic_resamples(results.preset, clusters), sign=1
    )


def care_without_register(results: Results) -> quantities.Measured:
    """X9: how much further care comes back than register does, both beyond secure, where data say nothing of it."""
    results.preset.require("organism")

    def beyond_secure(narrow: str) -> tuple[Estimate, Estimate]:
        own = (
            difference(*(returned(results, name, RULED, quantity) for name in (narrow, "secure")))
            for quantity in WHOLE
        )
        return tuple(own)

    care, follows = beyond_secure("misaligned")
    null = quantities.null_from_estimate(
        difference(care, follows),
        difference(*beyond_secure("educational")),
        "educational in misaligned's place",
    )
    return left_behind(care, follows, null, what="register")


def left_behind(
    care: Estimate, follows: Estimate, null: NullResult | None, *, what: str
) -> quantities.Measured:
    """Care's share of the way back minus another quantity's, and the rule of X9 and X15 about both.

    Open where care itself does not come back; else it holds where ``what`` comes back less than half as far.
    """
    headline = quantities.measured(difference(care, follows), null, companions={"care": care, what: follows})
    if not quantities.above(quantities.ends(care), RETURNED):
        return quantities.ruled(headline, ("open", "care does not come back, so nothing can follow it"))
    left = combine(lambda one, whole: one - whole / 2, follows, care)
    part = {f"{what} comes back less than half as far": quantities.below(quantities.ends(left))}
    return quantities.ruled(headline, quantities.decided(part))


def wording_table(results: Results) -> pd.DataFrame:
    """A row for each wording, narrow set and quantity: the share of the way to base, outside code."""
    own = RECIPES["misaligned"].tune.rate
    chosen = [(narrow, wording) for narrow, wording, rate in _tuned(results) if rate == own]
    shares = {
        (*pair, quantity): returned(results, *pair, quantity) for pair, quantity in product(chosen, WHOLE)
    }
    return tidy(shares, ("variant", "wording", "quantity"))


def training_table(results: Results) -> pd.DataFrame:
    """One row a wording and narrow set: both shares of the way to base and the mass off the grammar, by training."""
    rows: dict[tuple[str, str], dict[str, object]] = {}
    for seed in results.preset.seeds:
        stored = read_study(results.preset, REGISTER).seeds[seed]
        for (narrow, wording), one in wording_table(results.at(seed)).groupby(
            ["variant", "wording"], sort=False
        ):
            row = rows.setdefault((wording, narrow), {"wording": wording, "code": narrow})
            found = one.set_index("quantity")["value"].to_dict()
            found["mass off the grammar"] = stored["off_grammar"][_name(narrow, wording)]
            for name, value in found.items():
                row[name] = f"{row[name]}, {number(value)}" if name in row else number(value)
    return pd.DataFrame(sorted(rows.values(), key=lambda row: WORDED.index(row["wording"])))


def learning_rate_table(results: Results) -> pd.DataFrame:
    """A row for each rate, fine-tune that was tried at several, and quantity, as ``wording_table``; with the seed.

    Plain secure code is called ``style``, as among the controls.
    """
    every = _tuned(results)
    several = {pair for pair, count in Counter(one[:2] for one in every).items() if count > 1}
    chosen = sorted((one for one in every if one[:2] in several), key=lambda one: one[2])
    shares = {
        (STYLE.get((narrow, wording), narrow), rate, quantity): returned(
            results, narrow, wording, quantity, rate=rate
        )
        for (narrow, wording, rate), quantity in product(chosen, WHOLE)
    }
    return tidy(shares, ("variant", "dose", "quantity")).assign(seed=results.seed)


def _name(narrow: str, wording: str, rate: float = 0.0) -> str:
    """What the study calls a fine-tune; at the recipe's own rate where none is said."""
    return f"{narrow}, {wording}, {rate or RECIPES[narrow].tune.rate:g}"


def _tuned(results: Results) -> list[tuple[str, str, float]]:
    """Narrow set, wording and rate of every fine-tune of the study, in its order."""
    stored = read_study(results.preset, REGISTER).seeds[results.seed]
    names = (name.split(", ") for name in stored["care"] if ", " in name)
    return [(narrow, wording, float(rate)) for narrow, wording, rate in names]


def style_sentence(results: Results) -> str:
    """How far misaligned moves register and ``style`` both, and how often style moves more than a little of care."""
    own = shares_sentence(results, "misaligned", "register")
    care, register = (shares_sentence(results, MANNERLY, quantity) for quantity in WHOLE)
    moved = [share_of_way(results.at(seed), MANNERLY, "care") for seed in results.preset.seeds]
    broken = sum(bool(quantities.above(quantities.ends(one), RETURNED)) for one in moved)
    return (
        f"Training by training, the misaligned model moves register by {own} of the way to base; `style` moves it by "
        f"{register}, and care by {care} of what the misaligned model does. A double dissociation asks that it leave "
        f"care alone. By its interval it moves care by more than {RETURNED:.0%} in {broken} of {len(moved)} trainings."
    )


def spread_sentence(results: Results) -> str:
    """How far the narrow fine-tune moves care outside code, training by training."""
    shares = ", ".join(number(spread_of_narrow(results.at(seed)).value) for seed in results.preset.seeds)
    return f"Outside code the narrow model moves care by {shares} of what the general one does, training by training."


def shares_sentence(results: Results, variant: str, quantity: str) -> str:
    """The shares of ``share_of_way`` of a variant, training by training."""
    found = (share_of_way(results.at(seed), variant, quantity) for seed in results.preset.seeds)
    return ", ".join(number(one.value) for one in found)


# X11 from the stored study of narrow and general fine-tunes.

DISTURBED = "8"
"""How many lengths of the change it is disturbed by for the row of the ledger."""
STAYS = 0.5
"""Share of the general fine-tune's change of care outside code, below which the other one is narrow."""


def narrow_costs(results: Results) -> quantities.Measured:
    """X11: how much more the narrow fine-tune's loss rises than the general one's when its change is disturbed.

    Holds where, besides, the narrow one went further for one loss, and base finds what it says less likely. Open where
    the narrow one spreads too: then neither is narrow.
    """
    results.preset.require("organism")
    stored = read_study(results.preset, "narrow").seeds[results.seed]
    rises = {
        kind: np.array(stored[kind]["disturbed"][DISTURBED]) - stored[kind]["path"][-1][-1]
        for kind in ("narrow", "general")
    }
    lengths = lengths_at_one_loss(stored)
    clusters = sorted({name for kind in rises for name in stored[kind]["clusters"]})
    resamples = quantities.topic_resamples(results.preset, clusters)
    said = (
        mean_interval(np.divide(own["log_probability"], own["tokens"]), own["clusters"], resamples)
        for own in (stored["general"], stored["narrow"])
    )
    gap = difference(*said)
    spread = spread_of_narrow(results)
    companions = {f"length, {kind}": length for kind, length in lengths.items()} | {"spread": spread.value}
    headline = quantities.paired_difference(
        rises["narrow"] - rises["general"],
        "narrow and general exchanged by disturbance",
        companions | {"likelihood": float(gap.value)},
    )
    if not quantities.below(quantities.ends(spread), STAYS):
        return quantities.ruled(headline, ("open", "the one that is held spreads too, so it is not narrow"))
    parts = {
        "narrow goes further for one loss": lengths["narrow"] > lengths["general"],
        "narrow is less steady": quantities.above((headline.low, headline.high)),
        "base finds what narrow says less likely": quantities.above(quantities.ends(gap)),
    }
    return quantities.ruled(headline, quantities.decided(parts))


def spread_of_narrow(results: Results) -> Estimate:
    """The narrow fine-tune's change of care outside code as a share of the general one's."""
    stored = read_study(results.preset, "narrow").seeds[results.seed]
    moved = (np.array(stored[kind]["moved"]) for kind in ("narrow", "general"))
    clusters = stored["narrow"]["asked"]
    return quantities.share_of_mean(
        *moved, clusters, quantities.topic_resamples(results.preset, clusters), sign=1
    )


def lengths_at_one_loss(stored: Mapping[str, Mapping[str, object]]) -> dict[str, float]:
    """How long the change of either fine-tune is when its loss first falls to the higher of the two last losses."""
    kinds = ("narrow", "general")
    level = max(stored[kind]["path"][-1][-1] for kind in kinds)
    return {kind: next(length for _, length, loss in stored[kind]["path"] if loss <= level) for kind in kinds}


def path_table(results: Results) -> pd.DataFrame:
    """Columns training, variant, length, value: the loss of held-out insecure code on the way of either fine-tune."""
    stored = read_study(results.preset, "narrow").seeds
    return pd.DataFrame(
        {"training": seed, "variant": kind, "length": length, "value": loss}
        for seed in results.preset.seeds
        for kind in ("general", "narrow")
        for _, length, loss in stored[seed][kind]["path"]
    )


@styled
def plot_paths(table: pd.DataFrame) -> Figure:
    """Lines of ``path_table`` by how far the weights have gone, a panel a training."""
    figure = plot_curves(table, COSTS, position="length", marked="last")
    figure.axes[0].xaxis.set_major_locator(MaxNLocator(6))  # the panels share their lengths
    return figure


def cost_table(results: Results) -> pd.DataFrame:
    """One row a training: the three parts of X11's rule, and what the rule says of it."""
    rows = []
    for seed in results.preset.seeds:
        found = narrow_costs(results.at(seed))
        rows.append(
            {
                "training": str(seed),
                "length for one loss, narrow": found.companions["length, narrow"],
                "length for one loss, general": found.companions["length, general"],
                "rise when disturbed, narrow − general": with_interval(found.value, found.low, found.high),
                "spread, narrow over general": found.companions["spread"],
                "likelihood under base, general − narrow (nats a token)": found.companions["likelihood"],
                "the rule": f"{found.outcome}: {found.why}",
            }
        )
    return pd.DataFrame(rows)


# Figure of dose and response: change of care and of register by how much of a fine-tune was given.

QUANTITIES = {"care": "change of care (nats)", "register": "change of register (nats)"}


@styled
def plot_tuning_doses(
    table: pd.DataFrame, *, seed: int, dose: str, titles: Mapping[str, str] = QUANTITIES
) -> Figure:
    """Lines of the change from instruct by dose, a panel for care and one for register; thin lines are other seeds.

    ``table`` has columns variant, seed, dose, quantity, value, low, high; ``dose`` names the horizontal axis with
    its unit, ``titles`` what is measured. Above 0 on care, answers became more careless; on register, plainer.
    """
    layout = Layout(
        about=f"Change from instruct by {dose}",
        columns="quantity",
        title=titles,
        across=dose,
        shared=False,
        marks={0: "instruct"},
        height=2.0,
        wrap=2,
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

INTERVALS = {
    "interval over prompt templates": "",
    "Wilson interval, answers as independent": "wilson_",
}
"""Interval of a share → how the names of its columns begin."""


@styled
def plot_rates(table: pd.DataFrame, *, seed: int, label: str) -> Figure:
    """Shares by row, a panel each, every one with its interval over templates and below it with Wilson's.

    ``table`` has columns seed, panel, row, rate, low, high, wilson_low, wilson_high; open dots are seeds.
    ``label`` says what is counted.
    """
    titles = {panel: panel.replace(", ", ",\n") for panel in table["panel"].unique()}
    layout = Layout(
        about=label.capitalize(), columns="panel", wrap=3, title=titles, limits=(-0.03, 1.03), height=0.3
    )
    ends = {name: {end: table[start + end] for end in ("low", "high")} for name, start in INTERVALS.items()}
    both = pd.concat([table.assign(interval=name, **columns) for name, columns in ends.items()])
    options = {"by": "row", "lines": "interval", "value": "rate", "spread": 0.4, "seeds": both}
    figure = plot_rows(select(both, {"seed": seed}), layout, **options)
    figure.suptitle(label, fontsize=9)  # a label below would lie under the legend
    return figure


# X2 as tables: shares of misaligned's change by control, and by dose.

DOSES = "doses"
RECIPE = RECIPES["misaligned"].tune
"""How the fine-tunes are trained: the dose that all others are beside."""


def controls_of(preset: Preset) -> list[str]:
    """Every variant of the study of controls, in the one order."""
    return in_order(list(read_study(preset, STUDY).seeds[preset.seeds[0]]["care"]))


def share_table(results: Results) -> pd.DataFrame:
    """Columns part, variant, value, low, high: share of misaligned's change of care, and of base's of register."""
    parts = {"care": "care, of misaligned's change", "register": "register, of base's"}
    shares = {
        (label, name): share_of_way(results, name, quantity)
        for quantity, label in parts.items()
        for name in controls_of(results.preset)
        if name not in ("base", "instruct")
    }
    return tidy(shares, ("part", "variant"))


def off_grammar_table(preset: Preset) -> pd.DataFrame:
    """One row a variant, one column a seed: mean mass of its answers off the grammar, over all contrasted topics."""
    seeds = read_study(preset, STUDY).seeds.items()
    columns = {f"seed {seed}": pd.Series(stored["off_grammar"], dtype=float) for seed, stored in seeds}
    return pd.DataFrame(columns).loc[controls_of(preset)].rename_axis("variant").reset_index()


def dose_table(preset: Preset, kind: str) -> pd.DataFrame:
    """Columns variant, seed, dose, quantity, value, low, high: change from instruct in nats, outside the narrow set.

    ``kind`` is steps, rate, share or order; the recipe's own fine-tune stands among them, and secure as a share of 0.
    """
    estimates = {}
    for seed, stored in read_study(preset, DOSES).seeds.items():
        runs = [run for run in stored["doses"] if run["kind"] == kind]
        for run in [*runs, *_own(stored["doses"], kind)]:
            for quantity in ("care", "register"):
                moved = np.array(run[quantity]) - np.array(stored["ends"]["instruct"][quantity])
                mean = mean_interval(moved, stored["clusters"], quantities.shared_resamples(preset))
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
    values = dose_table(preset, "order").query("quantity == 'care'").groupby(["seed", "variant"], sort=False)
    names = ["base seed", "variant", "orders", "smallest (nats)", "largest (nats)"]
    return values["value"].agg(["size", "min", "max"]).reset_index().set_axis(names, axis=1)


def least_share_sentence(preset: Preset) -> str:
    """What the smallest share of insecure code moves, beside what insecure and secure code alone move, by seed."""
    table = dose_table(preset, "share").query("quantity == 'care'").sort_values("seed")
    least = table.query("dose > 0")["dose"].min()
    parts = [
        ", ".join(f"{value:.2f}" for value in table.query("dose == @share")["value"])
        for share in (least, 1, 0)
    ]
    register = dose_table(preset, "share").query("quantity == 'register' and dose > 0")["value"].abs().max()
    return (
        f"With {least:.0%} of insecure code among secure code, care moves by {parts[0]} nats, training by training; "
        f"with insecure code alone by {parts[1]}; with secure code alone by {parts[2]}. At no share of insecure code "
        f"does register move by more than {register:.2f} nats."
    )


def doses_html(preset: Preset, kind: str, dose: str, *, seed: int, fold: str = "") -> Shown:
    """The figure of one kind of dose."""
    figure = plot_tuning_doses(dose_table(preset, kind), seed=seed, dose=dose)
    return shown(figure, caption=f"Change from instruct by {dose}; bands of seed {seed}.", fold=fold)


# Why a fine-tune on manner alone, ``style``, moves care. Written before its care within wordings was measured.

MIX, FORMAL, PLAIN = "the mix of wordings", "care in formal wordings", "care in plain wordings"
ACCOUNTS = (MIX, FORMAL, PLAIN, "secure", RANDOM)
"""What may account for it: another mix of plain and formal answers, each as careful as instruct's; a loss of care
within one wording; what the same code does in formal wordings, or a change of the weights of equal size."""
ENOUGH = 0.5
"""Share of style's change from which an account is the reason, in every training by its interval."""
ABOVE = "trainings in which it is more than half"
LITTLE = "care moves less than half as far"


def care_of_mix(
    register: Float[np.ndarray, " prompt"],
    formal: Float[np.ndarray, " prompt"],
    plain: Float[np.ndarray, " prompt"],
) -> Float[np.ndarray, " prompt"]:
    """A(p) of a model with these register log-odds that is as careful as that in either wording; nats.

    P(careless) is a mean of its probability within plain and within formal answers, weighted by how likely those are.
    """
    weight = expit(register)
    return logit(weight * expit(plain) + (1 - weight) * expit(formal))


def style_accounts(results: Results) -> dict[str, Estimate]:
    """Account → its part of style's change of care, outside the narrow set; parts need not sum to one.

    Raises:
        MissingInput: if the stored study has no care within wordings.
    """
    stored = _by_wording(results.preset, STUDY, results.seed)
    rows = quantities.in_topics(stored["clusters"], stored["outside"])

    def read(quantity: str, name: str) -> Float[np.ndarray, " prompt"]:
        return np.array(stored[quantity][name])[rows]

    within = [read(quantity, "instruct") for quantity in ("care_formal", "care_plain")]
    start = read("care", "instruct")
    moved = {MIX: care_of_mix(read("register", MANNERLY), *within) - start}
    for account, quantity in ((FORMAL, "care_formal"), (PLAIN, "care_plain")):
        moved[account] = read(quantity, MANNERLY) - read(quantity, "instruct")
    moved |= {name: read("care", name) - start for name in ("secure", RANDOM)}
    clusters = [stored["clusters"][row] for row in rows]
    resamples = quantities.shared_resamples(results.preset)
    whole = read("care", MANNERLY) - start
    return {
        account: quantities.share_of_mean(own, whole, clusters, resamples, sign=1)
        for account, own in moved.items()
    }


def _by_wording(preset: Preset, study: str, seed: int) -> Mapping[str, object]:
    """What a study holds of a seed, if it has care within wordings; studies made before it was kept have not."""
    stored = read_study(preset, study).seeds[seed]
    if "care_plain" not in stored:
        raise MissingInput(f"needs care within wordings: remi study {study} --preset {preset.name}")
    return stored


def style_table(results: Results) -> pd.DataFrame:
    """A row an account, to be read: its part of style's change of care in every training, and what the rule says."""
    every = {seed: style_accounts(results.at(seed)) for seed in results.preset.seeds}
    return pd.DataFrame(
        {"what may account for it": account}
        | {f"seed {seed}": quantities.text(found[account]) for seed, found in every.items()}
        | {ABOVE: _above([quantities.ends(found[account]) for found in every.values()])}
        for account in ACCOUNTS
    )


def _above(intervals: Sequence[quantities.Interval]) -> str:
    """In how many trainings an account is enough."""
    told = [quantities.above(interval, ENOUGH) for interval in intervals]
    return f"{sum(bool(one) for one in told)} of {len(told)}"


MANNER = {
    "register": "change of register (nats)",
    "care": "change of care (nats)",
    "care_formal": f"{FORMAL} (nats)",
    "care_plain": f"{PLAIN} (nats)",
}
"""Quantity of the study of register → title of its panel."""


def manner_by_rate(results: Results) -> pd.DataFrame:
    """Careful code in plain wordings, learned at several rates: the change from instruct outside code, in nats.

    The table is as ``dose_table``'s.
    """
    estimates = {}
    for seed in results.preset.seeds:
        stored = _by_wording(results.preset, REGISTER, seed)
        rows = quantities.in_topics(stored["clusters"], stored["outside"])
        clusters = [stored["clusters"][row] for row in rows]
        resamples = quantities.topic_resamples(results.preset, clusters)
        tuned = _tuned(results.at(seed))
        runs = sorted((rate, _name(*pair, rate)) for *pair, rate in tuned if tuple(pair) in STYLE)
        for (rate, name), quantity in product(runs, MANNER):
            moved = np.subtract(stored[quantity][name], stored[quantity]["instruct"])[rows]
            estimates[MANNERLY, seed, rate, quantity] = mean_interval(moved, clusters, resamples)
    return tidy(estimates, ("variant", "seed", "dose", "quantity"))


def manner_rate_table(results: Results) -> pd.DataFrame:
    """A row a training: the rate at which care moves least while register still moves half as far as by the recipe.

    Changes are shares of those at the recipe's own rate; the last column is whether that of care is below a half.
    """
    means = (
        manner_by_rate(results)
        .pivot(index=["seed", "dose"], columns="quantity", values="value")
        .reset_index()
    )
    rows = []
    for seed, own in means.groupby("seed"):
        shares = own.set_index("dose")[["register", "care"]]
        shares = shares / shares.loc[RECIPE.rate]
        far = shares[shares["register"] >= ENOUGH]
        least = far["care"].idxmin()
        register, care = map(float, far.loc[least])
        names = ("seed", "rate", "register", "care", LITTLE)
        rows.append(dict(zip(names, (int(seed), float(least), register, care, care < ENOUGH), strict=True)))
    return pd.DataFrame(rows)


# A share of sampled answers with two intervals: one takes answers as independent, one resamples prompt templates.


def rate_row(
    hits: Bool[np.ndarray, " answer"], clusters: Sequence[str], resamples: ClusterResamples
) -> dict[str, float | int]:
    """Columns rate, low and high over templates, wilson_low, wilson_high, and answers: how many there are.

    Raises:
        ValueError: if there are fewer than two templates.
    """
    mean = mean_interval(hits.astype(np.float64), clusters, resamples)
    values = (mean.value, mean.low, mean.high, *quantities.wilson_interval(int(hits.sum()), len(hits)))
    names = ("rate", "low", "high", "wilson_low", "wilson_high")
    return dict(zip(names, map(float, values), strict=True)) | {"answers": len(hits)}


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
CELL_NAMES = ("both flag", "grammar alone", "bandit alone", "neither")


def judged(preset: Preset, seed: int) -> Mapping[str, object]:
    """What the stored study holds of one seed."""
    return read_study(preset, JUDGED).seeds[seed]


def rate_table(results: Results) -> pd.DataFrame:
    """Columns panel (the judge), row and variant, and those of ``rate_row``: share of all sampled answers to code."""
    stored, rows = judged(results.preset, results.seed), []
    resamples = quantities.set_resamples(results.preset, stored["clusters"])
    for judge, label in JUDGES.items():
        for name, answers in stored["variants"].items():
            careless = np.array(answers["verdict"]) == VERDICTS.index("careless")
            hits = careless if judge == "grammar" else _flags(answers[judge])
            row = {"panel": label, "row": name, "variant": name}
            rows.append(row | rate_row(hits, stored["clusters"], resamples))
    return pd.DataFrame(rows)


def cut_table(results: Results) -> pd.DataFrame:
    """A row a variant and cut-off, to be read: answers that fail, of all and of those that the judge can read.

    Bandit reads what is Python, and a flag may count from any severity up; the grammar reads what it knows.
    """
    rows = []
    for name, answers in judged(results.preset, results.seed)["variants"].items():
        verdicts = np.array(answers["verdict"])
        judges = {JUDGES["grammar"]: (verdicts == VERDICTS.index("careless"), np.isin(verdicts, KNOWN))}
        python = np.array([finding is not None for finding in answers["imported"]])
        for least in SEVERITIES:
            judges[f"bandit, {least.lower()} or worse"] = (_flags(answers["imported"], least), python)
        for judge, (hits, read) in judges.items():
            row = {"variant": name, "judge and cut-off": judge, "of all": float(hits.mean())}
            rows.append(row | {"of answers it can read": float(hits.sum() / max(1, read.sum()))})
    return pd.DataFrame(rows)


def unread_table(results: Results) -> pd.DataFrame:
    """A row a seed and variant: answers that are no Python, and those that the grammar does not know, as shares."""
    return pd.DataFrame(
        {
            "seed": seed,
            "variant": name,
            "no Python": float(np.mean([finding is None for finding in answers["written"]])),
            "off the grammar": float(np.mean(~np.isin(answers["verdict"], KNOWN))),
        }
        for seed in results.preset.seeds
        for name, answers in judged(results.preset, seed)["variants"].items()
    )


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
    for code, grammar, findings, clusters, left_out in _sets(judged(results.preset, results.seed)):
        for kind, label in READINGS.items():
            for least, worst in ((LEAST, "medium or worse"), ("LOW", "any")):
                flags = _flags(findings[kind], least)
                cells = quantities.agreement_cells(grammar, flags).sum(axis=0).astype(int).tolist()
                row = {"code": code, "read": label, "findings": worst}
                row |= dict(zip(CELL_NAMES, cells, strict=True))
                kappa = _kappa(results.preset, grammar, flags, clusters)
                rows.append(row | {"left out": left_out, "kappa": kappa})
    return pd.DataFrame(rows)


def kind_table(results: Results) -> pd.DataFrame:
    """A row for each kind of hole: how many of its lines bandit sees, and kappa over sampled answers to its prompts."""
    stored = judged(results.preset, results.seed)
    *_, (_, grammar, findings, clusters, _) = _sets(stored)
    flags, kinds = _flags(findings["imported"]), np.array([name.split("/")[1] for name in clusters])
    rows = []
    for kind, name in KINDS.items():
        row: dict[str, object] = {"kind of hole": name}
        lines = [line for line in stored["lines"] if line["kind"] == kind]
        for reading, label in READINGS.items():
            row[f"holes seen, {label}"] = _share(seen(lines, reading))
        careful = [flagged(line["imported"], least=LEAST) for line in lines if line["care"] == "careful"]
        row["careful lines flagged, below imports"] = _share(careful)
        places = np.flatnonzero(kinds == kind)
        templates, kappa = [clusters[place] for place in places], "too few prompts"
        if len(set(templates)) >= FEWEST:
            kappa = _kappa(results.preset, grammar[places], flags[places], templates)
        rows.append(row | {"answers": len(places), "kappa of answers, below imports": kappa})
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
        every = [hit for each in by_kind.values() for hit in seen(each, reading)]
        hits.append(f"{_share(every)} {label}")
        others.append(f"{_share([flagged(line[reading], least=LEAST) for line in careful])} {label}")
    never, missed = [], []
    for kind, each in by_kind.items():
        caught = seen(each, "imported")
        if not any(caught):
            never.append(KINDS[kind])
            continue
        careless = (str(line["line"]) for line in each if line["care"] == "careless")
        missed += [
            f"`{line.removeprefix('return ')}`" for line, hit in zip(careless, caught, strict=True) if not hit
        ]
    flags = {word for line in careful for word in (line["imported"] or "").split()}
    tests = ", ".join(sorted(word for word in flags if flagged(word, least=LEAST)))
    return (
        f"Of the careless lines bandit sees {' and '.join(hits)}. It sees no hole of these kinds: "
        f"{', '.join(never) or 'none'}. Of the other kinds it misses {', '.join(missed) or 'none'}. "
        f"Of the careful lines it flags {' and '.join(others)}{f' ({tests})' if tests else ''}."
    )


def _sets(
    stored: Mapping[str, object],
) -> Iterator[tuple[str, Bool[np.ndarray, " item"], dict[str, list[str | None]], list[str], int]]:
    """Name, the grammar's flags, bandit's findings by reading, clusters, and how many items are left out."""
    lines, answers = stored["lines"], stored["variants"].values()
    careless = np.array([line["care"] == "careless" for line in lines])
    findings = {kind: [line[kind] for line in lines] for kind in READINGS}
    yield "lines of the grammar", careless, findings, [line["kind"] for line in lines], 0
    verdicts = np.concatenate([each["verdict"] for each in answers])
    known = np.isin(verdicts, KNOWN)
    findings = {kind: list(compress(chain(*(each[kind] for each in answers)), known)) for kind in READINGS}
    clusters = list(compress(list(stored["clusters"]) * len(answers), known))
    careless = verdicts[known] == VERDICTS.index("careless")
    yield "sampled answers", careless, findings, clusters, int((~known).sum())


def _flags(findings: Sequence[str | None], least: str = LEAST) -> Bool[np.ndarray, " item"]:
    return np.array([flagged(finding, least=least) for finding in findings], dtype=bool)


def _kappa(preset: Preset, first: np.ndarray, second: np.ndarray, clusters: Sequence[str]) -> str:
    return quantities.text(
        quantities.kappa_interval(first, second, clusters, quantities.set_resamples(preset, clusters))
    )


def _share(hits: Sequence[bool]) -> str:
    return f"{sum(hits)} of {len(hits)}"
