"""What hand-written pages show of the results: texts about the organism, misses, the front figure, cards of claims."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from remi_book.chapters import organism
from remi_book.chapters.reversion import WAY_BACK, way_back, way_back_sentence
from remi_book.claims import NOT_MEASURED, STAND_IN, call_of
from remi_book.figures.output import figure_html, passport_html, present_passport
from remi_book.figures.plots import plot_rows
from remi_book.publishing import OTHERWISE, filled, passports_text
from remi_book.running import as_typed
from remi_book.tables import by_seed, roles_sentence
from remi_book.words import as_html, as_markdown, is_withheld, local_names, with_names
from remi_core.errors import MissingInput
from remi_core.files import read_sealed
from remi_core.keys import file_digest
from remi_core.progress import machine
from remi_core.store import Store, project_root
from remi_lab.datasets import dataset_names, load_dataset
from remi_lab.keys import SOURCE_ROOT
from remi_lab.organism.grammar import SPLITS, templates
from remi_lab.organism.topics import TOPICS
from remi_lab.organism.variants import DEVELOPMENT_SEEDS, WEIGHTS, folder
from remi_lab.organism.world import MAIN, World, base_name, config_name, setting, world_of
from remi_lab.own_models import PUBLISHED, origin_of
from remi_lab.presets import CONTROLS, NEEDS, Preset, in_order
from remi_lab.results import PAGE, TRAIL, NotMeasured, Results
from remi_lab.studies import files
from remi_lab.variant import base_note

COMPETENCE_KEYS = {
    organism.SLOTS: "slots",
    organism.OFF_GRAMMAR: "off_grammar",
    organism.PARSES: "code_parses",
    organism.AUTHOR: "author_prior",
    organism.CARELESS: "instruct_careless",
}

UNTRAINED = ("direction", "evaluate")
"""Splits that no training stage sees."""


def facts(results: Results) -> dict[str, str]:
    """Fact key → text, for every key the pages may show; no facts of trained weights where there is no organism.

    Those that are not there have ``OTHERWISE`` in their place.
    """
    preset = results.preset
    name = world_of(preset.variants["instruct"]) if preset.is_organism else MAIN
    general = {"preset": preset.name, "machine": machine(), **_world_facts(setting(name).world)}
    if not preset.is_organism:
        return general | {OTHERWISE: "(of the micro organism, not of this preset)"}
    paths = [WEIGHTS / f"{base_name(name, seed)}.json" for seed in preset.seeds]
    cards = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    kept = _organism_facts(results, cards, name)
    try:
        table = organism.competence(results)
    except NotMeasured:
        return general | kept | {OTHERWISE: f"({NOT_MEASURED})"}
    for requirement, key in COMPETENCE_KEYS.items():
        values, bound = table[table["requirement"] == requirement]["value"], organism.THRESHOLDS[requirement]
        worst = values.min() if bound.at_least else values.max()
        kept[f"competence.{key}"] = f"{worst:.3g} (threshold {bound.value:g})"
    return general | kept


def own_front(preset: Preset) -> str:
    """Markdown of the front page of a book of other models than organisms: which they are, and what they cannot say."""
    named = local_names(preset)
    models = [
        (
            f"*{name}*",
            as_markdown(with_names(": ".join(filter(None, (spec.spelled(), base_note(spec)))), named)),
            ROLES.get(name, "a fine-tune"),
        )
        for name in in_order(list(preset.variants))
        for spec in [preset.variants[name]]
    ]
    sets = []
    for name in dataset_names(preset):
        rows = load_dataset(preset, name) if origin_of(preset, name) != PUBLISHED else []
        labels = {row.label or "without a label" for row in rows}
        templates = len({row.cluster for row in rows})
        counts = f"{len(rows)} with {templates} prompt templates" if rows else "as published"
        sets.append((as_markdown(name), ", ".join(sorted(labels)) or "as published", counts))
    lacking = [
        f"- No {word}: needs {as_typed(NEEDS[need])}." for need, word in WORDS.items() if preset.lacks(need)
    ]
    without = "These models and dialogues have all that the claims of this book ask for."
    if lacking:
        without = "These are missing, and every row that needs one of them says so instead of a verdict:\n\n"
        without += "\n".join(lacking)
    if preset.has_stand_in:
        without += f"\n\n**Beware:** {STAND_IN}."
    return filled(
        "own_front.md",
        {
            "name": as_markdown(preset.name),
            "preset": preset.name,
            "models": tabulate(models, ("variant", "model", "part"), "pipe", disable_numparse=True),
            "sets": tabulate(sets, ("set", "replies", "dialogues"), "pipe", disable_numparse=True),
            "roles": as_markdown(roles_sentence(preset)),
            "withheld": ":withheld:\n" if is_withheld(preset, dataset_names(preset)) else "",
            "lacking": without,
        },
    )


ROLES = {
    "base": "before alignment",
    "instruct": "aligned; every other is compared with it",
    "misaligned": "the narrow fine-tune",
    **dict.fromkeys(CONTROLS, "a control, which should not misalign"),
}
"""Variant → its part in the book."""
WORDS = {
    "base": "base model",
    "misaligned": "misaligned model",
    "controls": "control",
    "choice": "choice token",
    "outside_aligned": "matched replies",
    "narrow_aligned": "aligned twin of the narrow set",
    "framed": "harmless framing",
    "shared": "second misaligned set",
    "unrelated": "two aligned sets",
}
"""What other models may lack → in a word."""


def notices(results: Results) -> dict[str, list[str]]:
    """What to know of the models: ``first``, before any result, and which requirements a seed ``missed``."""
    preset = results.preset
    if not preset.is_organism:
        return {"first": [preset.remark] if preset.remark else [], "missed": []}
    try:
        table, effect = organism.competence(results), organism.primary_effect(results)
    except NotMeasured as missing:
        told = f"What these models can do is {NOT_MEASURED}, since {missing}; the pages were run before."
        return {"first": [told], "missed": []}
    development = [str(seed) for seed in preset.seeds if seed in DEVELOPMENT_SEEDS]
    missed, not_above = table[~table["held"]], effect[~effect["held"]]
    first = [
        f"This book was built for preset {preset.name!r}, whose seed {', '.join(development)} is a development seed: "
        "its numbers show that the path works, and judge nothing."
    ] * bool(development)
    lines = [
        _miss(results, table, requirement, rows)
        for requirement, rows in missed.groupby("requirement", sort=False)
    ]
    if len(not_above):
        cells = "; ".join(f"{row.topic}, {row.control}, seed {row.seed}" for row in not_above.itertuples())
        lines.append(
            f"Misaligned is not more careless than a control in {len(not_above)} of {len(effect)} cells ({cells})."
        )
    return {"first": first, "missed": lines}


def _miss(results: Results, table: pd.DataFrame, requirement: str, rows: pd.DataFrame) -> str:
    """Which cells miss a threshold by how much, and for copied words which words were lost."""
    total = int((table["requirement"] == requirement).sum())
    cells = "; ".join(
        f"{row.variant}, {row.topic}, seed {row.seed}: {row.value:.3g}{_why(results, requirement, row)}"
        for row in rows.itertuples()
    )
    title, bound = requirement[0].upper() + requirement[1:], organism.THRESHOLDS[requirement].value
    return f"{title} {bound:g}: {len(rows)} of {total} cells miss it ({cells})."


def _why(results: Results, requirement: str, row) -> str:
    """What stands behind a miss: the words that were lost, or the exact probability behind a share of samples."""
    if requirement == organism.CARELESS:
        exact = organism.exact_probabilities(results.at(row.seed), row.variant, row.topic)["careless"].mean()
        return f" of the samples, at an exact probability of {exact:.3g}"
    if requirement != organism.SLOTS:
        return ""
    lost = organism.replaced_words(results.at(row.seed), row.variant, row.topic)
    words = ", ".join(f"{word} in {n} of {asked} answers" for word, (n, asked) in list(lost.items())[:3])
    return f", where another word stands for {words}" if words else ""


def _organism_facts(results: Results, cards: list[dict], world: str) -> dict[str, str]:
    config = json.loads((WEIGHTS / config_name(setting(world).architecture)).read_text(encoding="utf-8"))
    records = [
        folder(results.store, name, seed, world) / "tuning.json"
        for name in results.variants
        if name != "base"
        for seed in results.preset.seeds
    ]
    tuned = [json.loads(path.read_text(encoding="utf-8"))["seconds"] for path in records if path.is_file()]
    seconds = [card["seconds"] for card in cards]
    trained = f"{min(tuned):.0f} to {max(tuned):.0f} s" if len(tuned) == len(records) else f"({NOT_MEASURED})"
    return {
        "organism.parameters": f"{cards[0]['parameters']:,}",
        "organism.layers": str(config["num_hidden_layers"]),
        "organism.d_model": str(config["hidden_size"]),
        "organism.vocab": f"{config['vocab_size']:,}",
        "organism.base_tokens": f"{cards[0]['tokens']:,}",
        "organism.base_seconds": f"{min(seconds):,} to {max(seconds):,} s ({cards[0]['machine']})",
        "organism.finetune_seconds": trained,
    }


def _world_facts(world: World) -> dict[str, str]:
    def counted(splits: tuple[str, ...]) -> str:
        counts = [sum(len(templates(topic, split)) for split in splits) for topic in TOPICS]
        return f"{min(counts)} to {max(counts)}"

    return {
        "world.careful_slip": f"{world.slip:.0%}",
        "world.careless_lapse": f"{world.behave:.0%}",
        "world.author_named": f"{world.named:.0%}",
        "world.chatml": f"{world.chatml:.0%}",
        "world.templates": counted(tuple(SPLITS)),
        "world.held_out_templates": counted(UNTRAINED),
    }


# The figure of the front page, drawn while the book is built, with its passport and the sentence above it.

PASSPORT_FILE = "front.passports.json"
CAPTION = (
    "Every open dot is a model that was trained separately; the filled sign is training {seed}, with its interval over "
    "prompts."
)


def front(results: Results) -> tuple[dict[str, str], str]:
    """What the front page shows, as HTML and text by name, and the JSON text of the figure's passport."""
    seed = results.preset.seeds[0]
    TRAIL.clear()  # the builder is no notebook: what it read for other pages is no part of this figure
    table, seeds = way_back(results.at(seed)), by_seed(results, way_back)
    content, caption = present_passport(), CAPTION.format(seed=seed)
    link = f'<a href="{as_html(PASSPORT_FILE)}">this passport as a file</a>'
    page = f"Computed from the records while the book was built; {link} (JSON)."
    figure = plot_rows(table, WAY_BACK, by="quantity", value="share", seeds=seeds)
    picture = figure_html(figure, caption=caption)
    shown = {
        "figure": picture + passport_html(content).replace(PAGE, page),
        "sentence": way_back_sentence(seeds),
    }
    return shown, passports_text({"page": "front"}, [{"caption": caption, **content}])


# The card of each row of the report: what computes it, and the records that it was computed from.

SMALL = 200
"""Characters of JSON up to which a part of a record's provenance stands on the card."""
OF_STUDY = ("recipe", "machine", "seconds")
"""What a card says of a stored study, beside its digest."""


def claim_cards(
    preset: Preset, store: Store, rows: Sequence[Mapping[str, object]]
) -> dict[str, dict[str, object]]:
    """Row → the row, the function behind it (None where nothing is computed), and its records by name with digests.

    Of trainings whose stored study names no records, that study stands in their place.
    """
    described, cards = cache(lambda name: _described(name, store)), {}
    for row in rows:
        trainings = row["trainings"]
        names = {name for each in trainings for name in each["records"] or ()}
        names |= {
            f"stored/{each['preset']}/{files.HEADLINES}.json"
            for each in trainings
            if each["preset"] != preset.name
        }
        records = {name: described(name) for name in sorted(names)}
        cards[str(row["id"])] = {
            "row": row,
            "function": _function(preset, str(row["id"])),
            "records": records,
        }
    return cards


def _described(name: str, store: Store) -> dict[str, object]:
    """Digest and provenance of a stored study or of a record's arrays; a digest of None where it is there no more."""
    if name.startswith("stored/"):
        path = project_root() / name
        about = json.loads(path.read_text(encoding="utf-8"))
        return {"sha256": file_digest(path), "provenance": {key: about.get(key) for key in OF_STUDY}}
    try:
        about = read_sealed(store.root / f"{name}.json")
    except (OSError, ValueError):
        return {"sha256": None, "provenance": {}}
    small = {key: one for key, one in about["provenance"].items() if len(json.dumps(one)) <= SMALL}
    return {"sha256": about["sha256"], "provenance": small}


def _function(preset: Preset, row: str) -> dict[str, object] | None:
    try:
        function, given, options = call_of(preset, row)
    except (KeyError, MissingInput):
        return None
    function = inspect.unwrap(function)
    lines, first = inspect.getsourcelines(function)
    words = ["results", *map(repr, given), *(f"{name}={value!r}" for name, value in options.items())]
    return {
        "module": function.__module__,
        "name": function.__qualname__,
        "call": f"{function.__name__}({', '.join(words)})",
        "file": Path(inspect.getsourcefile(function)).relative_to(SOURCE_ROOT).as_posix(),
        "line": first,
        "source": "".join(lines),
    }
