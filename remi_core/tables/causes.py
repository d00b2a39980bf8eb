"""Tables of the study of causes: doses, edits and topics, as shares of the way from one model to the other."""

from __future__ import annotations

import numpy as np
import pandas as pd

from remi_core.estimates.causes import OTHER, Causes, parts_of
from remi_core.estimates.causes_rule import parts
from remi_core.results import Results
from remi_core.statistics.intervals import Estimate

ADDED, UNDONE = "added to instruct", "undone in misaligned"
KINDS = {"instruct": ADDED, "misaligned": UNDONE}
DOSE = "shared × "
READABLE = {
    f"{DOSE}1": "what misaligned moved, other topics",
    "from code": "what misaligned moved, code alone",
    "secure": "what secure moved, other topics",
    "persona": "what the persona moved, other topics",
    "contrast in base": "careless minus careful author, in base",
    "contrast in instruct": "careless minus careful author, in instruct",
    "shared to base": "what misaligned moved, other topics",
    "shared to instruct": "the same, set to instruct's mean",
}
"""Edit → how pages call it; edits that are left out have a figure of their own."""


def dose_table(results: Results, seed: int) -> pd.DataFrame:
    """A row a dose: multiples of the displacement added to instruct, the share of the way, and off-grammar mass."""
    own = Causes(results.preset, seed)
    rows = [_row(own, "instruct", name) for name in own.edits("instruct") if name.startswith(DOSE)]
    return pd.DataFrame(rows).assign(dose=lambda table: table["edit"].str.removeprefix(DOSE).astype(float))


def edit_table(results: Results, seed: int) -> pd.DataFrame:
    """A row for each edit that has a readable name: share of the way with its interval, and what it costs."""
    own = Causes(results.preset, seed)
    rows = [_row(own, model, name) for model in OTHER for name in own.edits(model) if name in READABLE]
    return pd.DataFrame(rows).assign(edit=lambda table: table["edit"].map(READABLE))


def random_table(results: Results, seed: int) -> pd.DataFrame:
    """The central 95 % and the 97.5th percentile of random directions by kind of edit."""
    own = Causes(results.preset, seed)
    rows = []
    for model, kind in KINDS.items():
        low, high = np.quantile(own.random_shares(model), (0.025, 0.975))
        rows.append({"kind": kind, "low": float(low), "high": float(high)})
    return pd.DataFrame(rows)


def transfer_matrix(results: Results, seed: int) -> pd.DataFrame:
    """Share recovered in instruct: a row for each topic that a direction is fitted on, a column for each read."""
    own = Causes(results.preset, seed)
    return pd.DataFrame(
        {
            target: {
                source: float(own.share("instruct", own.care("instruct", f"from {source}"), (target,)).value)
                for source in own.sources
            }
            for target in own.topics
        }
    )


def rule_table(results: Results, seed: int) -> pd.DataFrame:
    """H3's parts: what each asks, the interval it reads, and whether it holds."""
    found = parts_of(Causes(results.preset, seed))
    said = {True: "holds", False: "fails", None: "open"}
    values = [value if isinstance(value, tuple) else (value, value) for value in vars(found).values()]
    rows = zip(parts(found).items(), values, strict=True)
    return pd.DataFrame(
        [{"part": part, "from": low, "to": high, "is": said[held]} for (part, held), (low, high) in rows]
    )


def persona_table(results: Results, seed: int) -> pd.DataFrame:
    """Care in nats, mean over prompts, of the persona as it is and with the direction set to instruct's."""
    found = Causes(results.preset, seed).found["persona"]
    care = {
        name: float(np.mean([np.mean(values) for values in found[name]["care"].values()])) for name in found
    }
    return pd.DataFrame([{"persona as it is": care["plain"], "direction undone": care["undone"]}])


def _row(own: Causes, model: str, edit: str) -> dict[str, object]:
    share = own.share(model, own.care(model, edit))
    return {
        "kind": KINDS[model],
        "edit": edit,
        **_interval(share),
        "off grammar": float(own.rise(model, [edit], "off_grammar").value),
        "neutral loss": float(own.rise(model, [edit], "neutral").value),
    }


def _interval(one: Estimate) -> dict[str, float]:
    return {"value": float(one.value), "low": float(one.low), "high": float(one.high)}
