"""``remi run``: the notebooks of a preset that are not done, in order."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from remi_book.commands.parser import (
    add_frozen,
    add_preset,
    add_show_text,
    add_store,
    chosen_preset,
    heed_show_text,
    open_store,
    positive,
)
from remi_book.running import missing_lines, plan, read_cells
from remi_book.running import run as run_of_running
from remi_core.errors import UsageError
from remi_lab.own_models import MODEL, check_models, custom_preset, save_custom, with_data
from remi_lab.presets import CONTROLS, TRIPLET, Preset

HELP = "run the notebooks of a preset: what changed or is missing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add preset or triplet, data, choice of notebooks, parameters, and how to run."""
    add_preset(parser)
    parser.add_argument(
        "--name", metavar="NAME", help="run a triplet of your own under this name, a preset from then on"
    )
    for role in (*TRIPLET, *CONTROLS):
        kind = "with --name: the control" if role in CONTROLS else "with --name: the model"
        parser.add_argument(f"--{role}", metavar="MODEL", help=f"{kind} {role}, {MODEL}")
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="[aligned=|misaligned=]FILE",
        help="add a file of dialogues, preference rows or labelled replies (JSON lines) to the preset; may be repeated",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NOTEBOOK",
        help="run only this notebook: name, number or prefix (05); may be repeated",
    )
    parser.add_argument(
        "-p",
        dest="parameters",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="parameter for the chosen notebooks that declare it; may be repeated",
    )
    parser.add_argument(
        "--jobs", type=positive, metavar="N", help="notebooks side by side (default: 1 or 2, what fits)"
    )
    parser.add_argument("--force", action="store_true", help="run also what is done")
    add_show_text(parser)
    add_frozen(parser)
    add_store(parser)


def run(arguments: argparse.Namespace) -> int:
    """0, once every chosen notebook is done."""
    heed_show_text(arguments)
    parameters = parse_pairs(arguments.parameters)
    store = open_store(arguments)
    preset = _preset(arguments)
    steps = plan(preset, store, only=arguments.only, parameters=parameters)
    check_models(preset)
    if arguments.name is not None:
        save_custom(preset, store)
    todo = [step for step in steps if arguments.force or not step.done]
    n_run = run_of_running(preset, store, todo, jobs=arguments.jobs)
    for step in steps:
        for line in missing_lines(step.name, read_cells(step.source), step.lacking):
            print(line)
    print(f"{len(steps)} notebooks of preset {preset.name}: {n_run} run, {len(steps) - n_run} up to date")
    return 0


def _preset(arguments: argparse.Namespace) -> Preset:
    """The preset of ``--preset`` with data added, or the triplet of ``--name``."""
    models = {role: getattr(arguments, role) for role in (*TRIPLET, *CONTROLS) if getattr(arguments, role)}
    if arguments.name is None:
        if models:
            role = next(iter(models))
            raise UsageError(
                f"--{role} names a model of a triplet of your own: --name NAME is needed with it"
            )
        return with_data(chosen_preset(arguments), arguments.data)
    if arguments.preset is not None:
        raise UsageError(f"--name {arguments.name} and --preset {arguments.preset}: give one of them")
    return custom_preset(arguments.name, models, arguments.data)


def parse_pairs(texts: Sequence[str]) -> dict[str, str]:
    """The KEY=VALUE texts as a table.

    Raises:
        UsageError: for a text without "=", or a key given twice.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise UsageError(f"-p {text!r}: expected KEY=VALUE")
        if key in pairs:
            raise UsageError(f"-p {key}: given twice")
        pairs[key] = value
    return pairs
