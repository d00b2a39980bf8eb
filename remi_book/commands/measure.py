"""``remi measure``: what the notebooks read of chosen variants, without the notebooks, by one process or several."""

from __future__ import annotations

import argparse

from remi_book.commands.parser import add_frozen, add_preset, add_store, chosen_preset, open_store
from remi_core.errors import UsageError, nearest
from remi_core.parallel import first_goes_first, join_ranks, launched, rank
from remi_core.progress import print_line, told_on_output
from remi_lab.presets import Preset, in_order

HELP = "measure variants of a preset into the store; with `accelerate launch`, by several processes together"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add preset, choice of variants and seeds, and whether only to list them."""
    add_preset(parser)
    parser.add_argument(
        "--variant", action="append", default=[], metavar="VARIANT", help="only this one; may be repeated"
    )
    parser.add_argument(
        "--seed", action="append", default=[], type=int, metavar="SEED", help="only this one; may be repeated"
    )
    parser.add_argument(
        "--list", action="store_true", help="only print what would be measured, a line `VARIANT SEED` each"
    )
    add_frozen(parser)
    add_store(parser)


def run(arguments: argparse.Namespace) -> int:
    """0, once all that the notebooks read of the chosen variants and seeds is in the store."""
    preset, store = chosen_preset(arguments), open_store(arguments)
    chosen = chosen_parts(preset, arguments.variant, arguments.seed)
    if arguments.list:
        for variant, seed in chosen:
            print(variant, seed)
        return 0
    from remi_book.chapters.records import measure_variant  # brings pandas
    from remi_book.running import RunLog, log_name
    from remi_lab.results import Results

    results = Results(preset, store)
    log = RunLog(store.log_path(preset.name, log_name()))
    about = {"preset": preset.name, "fingerprint": preset.fingerprint()}
    with told_on_output(), join_ranks(), log.run(about):
        for variant, seed in chosen:
            with log.step(f"{variant}, seed {seed}", in_children=False):
                # Fine-tuned or fetched once, by the first process; the others find it.
                with first_goes_first():
                    results.subject(variant, seed)
                records = measure_variant(results, variant, seed)
            if not rank():
                print_line(f"{variant}, seed {seed}: {len(records)} records, {launched()} processes")
    return 0


def chosen_parts(preset: Preset, variants: list[str], seeds: list[int]) -> list[tuple[str, int]]:
    """(variant, seed) of all that were named, in the one order; of all there are where none was.

    Raises:
        UsageError: if the preset has no such variant or seed.
    """
    for variant in variants:
        if variant not in preset.variants:
            known = nearest(variant, preset.variants)
            raise UsageError(f"--variant {variant}: none of preset {preset.name} {known}")
    for seed in seeds:
        if seed not in preset.seeds:
            known = ", ".join(map(str, preset.seeds))
            raise UsageError(f"--seed {seed}: none of preset {preset.name} (choices: {known})")
    own = in_order(list(preset.variants))
    return [
        (v, s) for v in own if v in (variants or own) for s in preset.seeds if s in (seeds or preset.seeds)
    ]
