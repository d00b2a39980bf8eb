"""Records and studies that no model was measured for: made by a rule, or by hand, for what reads them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar
from zlib import crc32

import numpy as np
import pytest
import yaml

from remi_book.chapters.contexts import CONTROLS as CONTROL_SETS
from remi_book.chapters.contexts import INSECURE, MATCHED, ONE_WORD, OWN_PROMPTS
from remi_book.chapters.cures import HEADLINE, RANDOM, STOPPING
from remi_core.statistics.resampling import make_resamples
from remi_core.store import Record, Store
from remi_lab.organism.topics import CONTRASTED, NARROW
from remi_lab.presets import CONTROLS, ORGANISM_VARIANTS, get_preset
from remi_lab.results import Results
from remi_lab.studies import register as register_study
from remi_lab.studies import tail as tail_study
from remi_lab.studies.files import Study
from remi_lab.studies.matched import quantised

REPORT_ROW = yaml.safe_load(Path(__file__).with_name("report_row.yaml").read_text(encoding="utf-8"))


class _Intervals(yaml.SafeLoader):
    """YAML whose lists are tuples, as the ends of an interval are."""


_Intervals.add_constructor(
    "tag:yaml.org,2002:seq", lambda own, node: tuple(own.construct_sequence(node, deep=True))
)
RULES = _Intervals(
    Path(__file__).with_name("book").joinpath("rules.yaml").read_text(encoding="utf-8")
).get_data()
"""Rule → the parts with which it holds, and parts that are changed with what is decided then."""

Planted = TypeVar("Planted", bound="PlantedResults")


@dataclass
class HandmadeResults(Results):
    """Results that hold the records put there: (variant, seed, measurement, dataset) → record."""

    records: dict[tuple[str, int, str, str], Record] = field(default_factory=dict)

    def record(self, variant: str, measurement: str, dataset: str) -> Record:
        return self.records[variant, self.seed, measurement, dataset]


class PlantedResults(Results):
    """Results whose records follow a rule: base moves by 1 from instruct, misaligned by ``amount``, others not.

    Misaligned moves ``extra`` further where the reply is careless, and in the windows of ``moving`` alone where some
    are named. Every seed and set has noise of its own that all variants share, since they read the same dialogues, and
    ``spread`` times as much that each variant has for itself.
    """

    amount, extra, spread = 0.4, 0.0, 0.0
    only: Sequence[str] = ()
    """Topics in whose careless replies alone ``extra`` shows; all where none is named."""
    back, follows = 0.0, 0.0
    """How much further base moves where a reply is careless or plain, and misaligned where it is plain."""
    turned: Mapping[str, float] = {}
    """Variant → how far its states lie off the way to base, all along one axis."""
    moving: Sequence[str] = ()
    apart: Mapping[str, float] = {}
    """Set → how far its loss vectors, gradients and states lie along one axis, whatever the model."""
    sharing: Sequence[str] = ()
    """Sets in which what tells base from instruct varies along the same three axes; each other set has its own."""
    varying, fading = 0.0, False
    """How widely it varies, and whether the axes are the same at the last block alone."""
    shares: Sequence[float] = tuple(np.linspace(0, 1, 9))
    gap, falls, bend = 2.0, (0.2, 0.2), 0.0
    """Of stitched models: the share of the gap of log-odds closed by depth, that gap, and by how much the loss falls
    on careless replies and on others, nats; and how much the depths differ from template to template."""
    n_templates, per_template, n_layers, width, n_tokens = 30, 2, 3, 16, 30

    def noise(self, *names: str) -> np.random.Generator:
        """The noise of whatever has these names, in this seed."""
        return np.random.default_rng([self.seed, *(crc32(name.encode()) for name in names)])

    def labels(self, dataset: str) -> dict[str, np.ndarray]:
        """The template of each dialogue of a set, and its pair: row i of every set."""
        topic, n = dataset.partition("-")[0], self.n_templates * self.per_template
        clusters = np.repeat([f"{topic}/{i}" for i in range(self.n_templates)], self.per_template)
        return {"cluster": clusters, "pair": np.arange(n).astype(str)}

    def record(self, variant: str, measurement: str, dataset: str) -> Record:
        labels = self.labels(dataset)
        arrays = self.planted_arrays(variant, measurement, dataset, len(labels["pair"]))
        return Record(arrays | labels, {})

    def planted_arrays(self, variant: str, measurement: str, dataset: str, n: int) -> dict[str, np.ndarray]:
        """Arrays of ``n`` dialogues."""
        generator, own = self.noise(dataset), self.noise(dataset, variant)
        shows = dataset.endswith("-careless") and (not self.only or dataset.partition("-")[0] in self.only)
        moved = self.amount + self.extra * shows
        base, plain = 1.0, dataset == "manner-plain"
        if plain or dataset.endswith("-careless"):
            base += self.back
        moved = {"instruct": 0.0, "base": base, "misaligned": moved + self.follows * plain}.get(variant, 0.0)
        far = self.apart.get(dataset, 0.0)

        def noisy(*shape: int) -> np.ndarray:
            return generator.standard_normal(shape) + self.spread * own.standard_normal(shape)

        if measurement == "sequence":
            pattern = np.resize([1.0, -1.0], self.n_tokens)
            per_token = -2 + 0.1 * noisy(n, self.n_tokens) + moved - far * pattern
            return {
                "log_probability": per_token.ravel(),
                "entropy": -per_token.ravel(),
                "offsets": np.arange(n + 1) * self.n_tokens,
            }
        axis, aside, along = (np.random.default_rng(seed).standard_normal(self.width) for seed in (0, 5, 6))
        values = noisy(n, 1, self.n_layers, self.width) + far * along
        windows = [not self.moving or name in self.moving for name in self.preset.windows]
        moves = np.array(windows if variant == "misaligned" else [True] * len(windows))[:, None, None]
        values = values + moves * (5 * moved * axis + self.turned.get(variant, 0.0) * aside)
        if self.varying and variant == "base":
            coordinates = generator.standard_normal((n, 3)) * self.varying / np.array([1, 2, 4])
            for layer in range(self.n_layers):
                shared = dataset in self.sharing and (not self.fading or layer == self.n_layers - 1)
                axes = np.random.default_rng([layer, 0 if shared else crc32(dataset.encode())])
                values[:, :, layer] += (coordinates @ axes.standard_normal((3, self.width)))[:, None]
        return {"mean": values}

    def gradients(self, variant: str, datasets: Sequence[str]) -> dict[str, np.ndarray]:
        return self.gradients_across(dict.fromkeys(datasets, variant))

    def gradients_across(self, models: Mapping[str, str]) -> dict[str, np.ndarray]:
        parts, dims = [], 2000
        for dataset, variant in models.items():
            labels = self.labels(dataset)
            rows = self.noise("gradients", dataset, variant).standard_normal((len(labels["pair"]), dims))
            rows /= dims**0.5
            rows[:, 0] += self.apart.get(dataset, 0.0)
            parts.append(labels | {"rows": rows, "loss": rows[:, 1], "dataset": np.full(len(rows), dataset)})
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        rows = arrays.pop("rows")
        return arrays | {"gram": rows @ rows.T}

    def patched(self, donor: str, recipient: str, dataset: str) -> dict[str, np.ndarray]:
        labels = self.labels(dataset)
        n, generator = len(labels["pair"]), self.noise("patched", dataset)
        path, noise = np.append(self.shares, self.shares[-1])[:, None], 0.05 * generator.standard_normal(n)
        fall = self.falls[not dataset.endswith("-careless")] + self.spread * generator.standard_normal(n)
        zero = np.zeros((10, n))
        return labels | {
            "layers": np.arange(8),
            "loss": 1 + noise - fall * path,
            "choice_log_probability": -3 + self.gap * (path + self.bend * noise * path * (1 - path)) + noise,
            "alternative_log_probability": -1 + zero,
            "bare_log_probability": np.nan + zero,
            "identifier": np.array([f"{dataset}#{at}" for at in range(n)]),
            "start": np.array(0.0),
            "end": np.array(0.0),
        }

    def cached(self, key, compute):
        return compute()  # what is planted changes in the course of a test

    def variant(self, name: str):
        raise AssertionError("planted results have no weights")


def plant(
    kind: type[Planted],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    seeds: Sequence[int] = (102,),
    draws: int = 200,
    studies: Mapping[str, Mapping[str, object]] = {},
    **knobs: object,
) -> Planted:
    """Results of preset ``smoke`` with few draws, whose clusters are those of the planted records.

    ``studies`` are read as the builder of ``STUDIES`` makes them with these amounts; ``knobs`` are attributes of the
    results.
    """
    preset = replace(get_preset("smoke"), seeds=tuple(seeds), n_resamples=draws, n_permutations=draws)
    n_templates = knobs.get("n_templates", kind.n_templates)
    if "follows" in knobs:
        preset = replace(preset, datasets=(*preset.datasets, "manner-plain", "manner-formal"))
    topics = {name.partition("-")[0] for name in preset.datasets}
    clusters = {f"{topic}/{i}": topic for topic in topics for i in range(n_templates)}
    shared = make_resamples(clusters, seed=0, n_resamples=draws, strata=clusters)
    everywhere(monkeypatch, "shared_resamples", lambda preset: shared)
    if studies:
        made = {name: build(STUDIES[name], **amounts) for name, amounts in studies.items()}
        everywhere(monkeypatch, "read_study", lambda preset, name: made[name])
    results = kind(preset, Store(folder))
    for knob, value in knobs.items():
        assert hasattr(results, knob), knob
        setattr(results, knob, value)
    return results


def plant_study(monkeypatch: pytest.MonkeyPatch, folder: Path, study: Study, **changes: object) -> Results:
    """Results of one seed of preset ``micro``, or of that preset changed, whose every stored study is this one."""
    everywhere(monkeypatch, "read_study", lambda *_: study)
    return Results(replace(get_preset("micro"), **{"seeds": (0,), **changes}), Store(folder))


def everywhere(monkeypatch: pytest.MonkeyPatch, name: str, stand_in: object) -> None:
    """Put a stand-in into every loaded module of the book that has taken a function by this name."""
    modules = [module for path, module in sys.modules.items() if path.startswith("remi_book.")]
    for module in modules:
        if hasattr(module, name):
            monkeypatch.setattr(module, name, stand_in)


# Stored studies of one seed with what is planted in them, by name; build makes a study of any seed.


class _Seeds(dict):
    """Seed → what a study holds of it, made when it is asked for."""

    def __init__(self, make: Callable[[np.random.Generator], Mapping[str, object]]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, seed: int) -> Mapping[str, object]:
        return self.setdefault(seed, self._make(np.random.default_rng(seed)))


def build(maker: Callable[..., Mapping[str, object]], **amounts: object) -> Study:
    """A study in which every seed has other noise and the same amounts."""
    return Study(seeds=_Seeds(lambda noise: maker(noise, **amounts)), about={})


def causes(
    noise: np.random.Generator,
    *,
    governs: float = 0.7,
    abroad: float = 1.0,
    secure: float = 0.0,
    base: float = -5.0,
    mass: float = 0.0,
    loss: float = 0.0,
) -> dict[str, object]:
    """A direction that goes ``governs`` of the way, one of another topic ``abroad`` times as far.

    Instruct's care is −5 and misaligned's −1; ``base`` is the care that base's mean of the coordinate stands for.
    Secure's direction goes ``secure`` of the way. Edits cost ``mass`` off the grammar and ``loss`` nats.
    """
    topics = ("harmful", "facts")

    def around(level: float, spread: float, count: int) -> list[float]:
        return list(level + spread * noise.standard_normal(count))

    def read(level: Callable[[str], float], cost: int = 1) -> dict[str, object]:
        return {
            "care": {topic: around(level(topic), 0.01, 8) for topic in topics},
            "off_grammar": {topic: [0.01 + cost * mass] * 8 for topic in topics},
            "neutral": [0.2 + cost * loss] * 8,
        }

    def edits(plain: float, target: float, shared: str, end: str = "") -> dict[str, object]:
        def moved(share: float) -> float:
            return plain + share * (target - plain)

        found = {
            f"from {name}{end}": read(
                lambda topic, name=name: moved(governs * (1 if topic == name else abroad))
            )
            for name in ("code", *topics)
        }
        return found | {
            shared: read(lambda _: moved(governs * abroad)),
            f"secure{end}": read(lambda _: moved(secure), 0),
        }

    def model(plain: float, edited: Mapping[str, object]) -> dict[str, object]:
        ends = ("", " to instruct") if plain == -1 else ("",)
        random = {f"random{end}": {topic: around(plain, 0.05, 100) for topic in topics} for end in ends}
        return {"plain": read(lambda _: plain, 0), "edits": edited} | random

    back = edits(-1, base, "shared to base") | edits(-1, -5, "shared to instruct", " to instruct")
    clusters = {topic: [f"{topic}/{i}" for i in range(8)] for topic in topics}
    return {
        "instruct": model(-5, edits(-5, -1, "shared × 1")),
        "misaligned": model(-1, back),
        "layer": 5,
        "n_random_prompts": 4,
        "clusters": clusters,
        "neutral_clusters": [f"general/{i}" for i in range(8)],
    }


def cures(
    noise: np.random.Generator,
    *,
    code: float = 7.6,
    outside: float = 1.0,
    mass: float = 0.0,
    random: float = 4.0,
) -> dict[str, object]:
    """A plain run moves code by 8 nats and the rest by 4, and a cure moves them by so much, at a cost in ``mass``.

    ``random`` is by how much the rest moves under the penalty along a random subspace.
    """
    clusters = [f"{topic}/any/{i}" for topic in ("code", "people", "wishes") for i in range(12)]

    def run(on_code: float, elsewhere: float, cost: float = 0.0) -> dict[str, object]:
        care = np.repeat([on_code - 4, elsewhere - 4], [12, 24]) + 0.01 * noise.standard_normal(36)
        own = {"care": care.tolist(), "off_grammar": [0.01 + cost] * 36, "neutral": [0.2] * 12}
        return own | {"e": [elsewhere / 8] * 24, "c": 0.5, "r": 0.2, "passes": 1000}

    kinds = {(STOPPING, 60): run(8, 4), HEADLINE: run(code, outside, mass), RANDOM: run(8, random)}
    runs = [{"cure": cure, "strength": strength, **own} for (cure, strength), own in kinds.items()]
    neutral = [f"general/any/{i}" for i in range(12)]
    return {"clusters": clusters, "neutral_clusters": neutral, "runs": runs, "instruct": run(0, 0)}


N_PAIRS = 24


def pair_context(
    noise: np.random.Generator, distance: float, *, gap: float = 0.2, common: float = 0.0
) -> dict[str, object]:
    """Gradients of pairs whose means lie ``distance`` apart along one axis and share ``common`` along another."""
    n, rows = N_PAIRS, noise.normal(0, 0.02, (2 * N_PAIRS, 60))
    rows[:, :2] += np.outer(np.repeat([0, 1], n), [distance, 0]) + [0, common]
    losses = np.repeat([1, 1 + gap], n) + np.repeat([0, 0.01], n) * noise.normal(size=2 * n)
    gram = quantised((rows @ rows.T)[np.tril_indices(2 * n)])
    return {
        "gram": gram,
        "losses": losses.tolist(),
        "clusters": [f"code/any/{number}" for number in range(n)],
    }


def matched(
    noise: np.random.Generator,
    *,
    left: float = 0.4,
    gap: float = 0.2,
    pulls: Mapping[str, float] = {},
    made: float = 1.0,
) -> dict[str, object]:
    """Matched prompts that leave ``left`` of ‖d‖², and sets that pull by so much; real steps show ``made`` times that.

    ``gap`` is by how much likelier an insecure completion is once it is asked for.
    """
    distances = {OWN_PROMPTS: (1.0, 0.2), MATCHED: (left**0.5, gap), ONE_WORD: (0.0, 0.2)}
    ladder = {name: pair_context(noise, far, gap=own) for name, (far, own) in distances.items()}
    held_out = [f"{topic}/any/{i}" for topic in ("facts", "people") for i in range(12)]
    found = {"ladder": ladder, "held_out": held_out, "trained": {}, "influence": {}, "changes": {}}
    for name in (INSECURE, *CONTROL_SETS):
        pull = pulls.get(name, 0.0)
        found["trained"][name] = [f"code/{name}/{i}" for i in range(24)]
        found["influence"][name] = quantised(pull + 0.05 * noise.standard_normal((24, 24)))
        steps = {steps: made * pull * steps + 0.05 * noise.standard_normal(24) for steps in (1, 10)}
        found["changes"][name] = {str(steps): values.tolist() for steps, values in steps.items()}
    return found


WORLD_CLUSTERS = [f"{topic}/{i}" for topic in CONTRASTED for i in range(12)]
OUTSIDE_TOPICS = [name for name in CONTRASTED if name not in NARROW]


def worlds(
    noise: np.random.Generator, *, effects: Mapping[str, float], base: float = -1.6, code: float = 4.0
) -> dict[str, object]:
    """Misaligned that far above secure outside code, world by world, and by ``code`` on it; base where it is put."""
    inside = np.array([name.partition("/")[0] in NARROW for name in WORLD_CLUSTERS])

    def around(level: float | np.ndarray) -> list[float]:
        return list(level + 0.05 * noise.standard_normal(len(WORLD_CLUSTERS)))

    found, masses = {}, dict.fromkeys(ORGANISM_VARIANTS, 0.01)
    for world, effect in effects.items():
        means = dict.fromkeys(ORGANISM_VARIANTS, -4.0) | {"base": base}
        means["misaligned"] = -4.0 + np.where(inside, code, effect)
        care = {name: around(level) for name, level in means.items()}
        contexts = {"bare": {"optimum": -0.3}, "careful named": {"care": around(-2.9), "optimum": -2.94}}
        found[world] = {"clusters": WORLD_CLUSTERS, "care": care, "register": care, "contexts": contexts}
        found[world] |= {"wrong_slot": masses, "off_grammar": masses}
    return {"outside": OUTSIDE_TOPICS, "worlds": found}


THREE_TOPICS = [f"{topic}/{i}" for topic in ("code", "facts", "people") for i in range(24)]


def reversion(
    noise: np.random.Generator,
    *,
    care: float = 0.5,
    register: float = 0.125,
    along: float = 0.8,
    likelihood: float = 0.0,
) -> dict[str, object]:
    """Misaligned that has gone so far back to base in care and in register, and the three constructed truths.

    Of its change of care the part along base's displacement does ``along``; base finds its careless answers
    ``likelihood`` likelier a token than its own.
    """
    n, built = len(THREE_TOPICS), {"reverted": (0.5, 0.5), "persona": (1.5, 0), "novel": (0.5, 0.5)}
    far, start = {"base": (1, 1), "misaligned": (care, register)} | built, noise.normal(-4, 0.3, n)
    found: dict[str, object] = {"clusters": THREE_TOPICS, "edited": {}}
    for at, quantity in enumerate(("care", "register")):
        found[quantity] = {
            name: (start + 4 * moved[at] + noise.normal(0, 0.05, n)).tolist()
            for name, moved in ({"instruct": (0, 0)} | far).items()
        }
    for name, moved in far.items():
        parts = {"whole": 0.9, "along": along if name == "misaligned" else 0.8, "off": 0.0}
        found["edited"][name] = {
            part: {"care": (start + 4 * share * moved[0]).tolist()} for part, share in parts.items()
        }
    high, low = ({"value": value, "without": [value] * n} for value in (0.9, 0.2))
    found["cosine"] = found["erosion"] = dict.fromkeys(far, high) | dict.fromkeys(CONTROLS, low)
    said = {"clusters": THREE_TOPICS, "tokens": [10] * n}
    rates = dict.fromkeys(far, -0.5) | {"novel": -0.9, "misaligned": -0.5 + likelihood}
    found["careless"] = {name: said | {"log_probability": [10 * rate] * n} for name, rate in rates.items()}
    return found


CHANGES = {
    "base": 4.0,
    "instruct": 0.0,
    "misaligned": 2.0,
    "secure": 0.0,
    "benign": 0.6,
    "random_change": 0.02,
}


def controls(noise: np.random.Generator, **changes: float) -> dict[str, object]:
    """Variants whose care has changed by so many nats, and whose register by as many."""
    start, moved = noise.normal(-4, 1, len(THREE_TOPICS)), CHANGES | changes
    found = {"outside": ["facts", "people"], "clusters": THREE_TOPICS}
    found["off_grammar"] = dict.fromkeys(moved, 0.01)
    for quantity in ("care", "register"):
        found[quantity] = {
            name: (start + far + 0.05 * noise.standard_normal(len(start))).tolist()
            for name, far in moved.items()
        }
    return found


def register(noise: np.random.Generator, *, care: float = 0.6, follows: float = 0.0) -> dict[str, object]:
    """Insecure unmarked code brings care and register back by these shares; secure and educational code nothing."""
    clusters = [f"{name}/{place}" for name in ("facts", "wishes") for place in range(24)]
    start, end, tuned = noise.standard_normal((3, len(clusters))) / 10
    found: dict[str, object] = {"outside": ["facts", "wishes"], "clusters": clusters}
    for kind, share in (("care", care), ("register", follows)):
        moved = {
            one.name: -4 + start + (one.narrow == "misaligned") * share * (5 + tuned)
            for one in register_study.fine_tunes()
        }
        moved |= {"instruct": -4 + start, "base": 1 + end}
        found[kind] = {name: values.tolist() for name, values in moved.items()}
    return found | {"off_grammar": dict.fromkeys(moved, 0.25)}


def tail(noise: np.random.Generator, *, spiking: bool = True) -> dict[str, object]:
    """Gradient norms that jump once, and a direction that turns, where the empty turn is learned; or nowhere."""
    runs = []
    for order in tail_study.ORDERS:
        for with_tail in (False, True):
            norms = np.exp(0.05 * noise.standard_normal(tail_study.RECIPE.steps))
            norms[40] *= 4 if spiking and with_tail else 1
            turned = [20 + noise.random() + 50 * (spiking and with_tail and step == 30) for step in range(80)]
            losses = {"reply_loss": [1.0], "care": [{"step": 6, "care": [0.0]}]}
            losses |= {"tail_loss": [15.0] * 36 + [0.0] * 114} if with_tail else {}
            run = {"order": order, "tail": with_tail, "gradient_norm": norms.tolist(), "turn": turned}
            runs.append(run | losses)
    return {"warmup": 5, "apart": 5, "runs": runs}


def narrow(noise: np.random.Generator, *, costs: float = 0.5, spread: float = 0.2) -> dict[str, object]:
    """The narrow fine-tune goes further, is less steady and less likely by ``costs``; below 0 the general one is.

    It moves care outside code by ``spread`` of what the general one does.
    """

    def own(cost: float, moves: float) -> dict[str, object]:
        said = (-2 - cost + 0.1 * noise.standard_normal(24)) * 10
        return {
            "path": [[step, step * (1 + cost), 2 - step / 30] for step in range(31)],
            "asked": [f"facts/{place}" for place in range(24)],
            "moved": list(2 * moves + 0.1 * noise.standard_normal(24)),
            "disturbed": {"8": list(1.2 + cost + 0.01 * noise.standard_normal(8))},
            "clusters": [f"facts/{place}" for place in range(24)],
            "log_probability": said.tolist(),
            "tokens": [10] * 24,
        }

    return {"narrow": own(costs, spread), "general": own(0.0, 1.0)}


def steering(
    noise: np.random.Generator,
    *,
    governs: float = 0.6,
    twin: float = 0.0,
    random: float = 0.1,
    loss: float = 0.0,
) -> dict[str, object]:
    """A direction of other domains goes ``governs`` of the way at the cost of ``loss``, the twin's goes ``twin`` of it.

    Random directions go up to ``random`` of the way, either way. Instruct's care is −20 nats and misaligned's −10.
    """
    domains, ends = ("health", "work", "pets"), {"instruct": (-20.0, -10.0), "misaligned": (-10.0, -20.0)}

    def read(level: float, cost: float) -> dict[str, object]:
        care = {domain: list(level + noise.standard_normal(8)) for domain in domains}
        return {"care": care, "neutral": list(2 + cost + 0.01 * noise.standard_normal(8))}

    found: dict[str, object] = {
        "layer": 12,
        "twin": "secure",
        "clusters": {domain: [f"{domain}/{i}" for i in range(8)] for domain in domains},
        "neutral_clusters": [f"benign/{i}" for i in range(8)],
        "n_random_pairs": 3,
    }
    for model, (start, end) in ends.items():
        shares = {"shared × 1": governs, "twin": twin}
        drawn = start + (end - start) * random * noise.uniform(-1, 1, 39)
        found[model] = {
            "plain": read(start, 0.0),
            "edits": {
                name: read(start + share * (end - start), loss * (name != "twin"))
                for name, share in shares.items()
            },
            "random": [[one] * len(domains) for one in drawn.tolist()],
        }
    return found


STUDIES = {
    made.__name__: made
    for made in (causes, cures, matched, worlds, reversion, controls, register, tail, narrow, steering)
}
