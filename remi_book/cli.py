"""The command ``remi``: its options, its exit codes, and one line for every mistake.

The docstring of each command is its help. What brings torch, pandas or matplotlib is imported where it is needed, so
that a wrong option costs nothing.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from remi_book.doctor import findings_of
from remi_book.publishing import Edition, build_book, default_out
from remi_book.running import RunLog, choose, log_name, missing_lines, plan
from remi_book.running import run as run_steps
from remi_book.site import build_site
from remi_book.words import SWITCH, as_line, show_text
from remi_core import __version__
from remi_core.dialogues import Dialogue
from remi_core.errors import MissingInput, RemiError, UsageError, nearest, without_credentials
from remi_core.files import refused
from remi_core.keys import text_digest
from remi_core.parallel import first_goes_first, join_ranks, launched, rank
from remi_core.progress import OUTWARD, VERBOSE, notice, print_line, visible
from remi_core.sources import ADAPTER_FILE, ModelSpec, local_folder
from remi_core.store import Store, locked, project_root
from remi_lab.datasets import dataset_names
from remi_lab.dialogue_files import BAD_ROWS, data_digest, read_file
from remi_lab.gguf import unpacked
from remi_lab.organism.variants import pretrained_folder
from remi_lab.organism.world import SETTINGS, setting
from remi_lab.own_models import MODEL, check_models, custom_preset, save_custom, split_label, with_data
from remi_lab.presets import (
    ORGANISM_VARIANTS,
    PRESETS,
    VARIANT_NAME,
    Preset,
    get_preset,
    in_order,
    read_preset,
)
from remi_lab.processes import variables
from remi_lab.recipes import LoraRecipe, split
from remi_lab.results import NotMeasured, Results
from remi_lab.strict import read_yaml
from remi_lab.studies.files import STUDIES, write_study
from remi_lab.upkeep import damages, find_record, forget, prune, read_record, unpacked_files

MEBIBYTE = 2**20
WIDTH = 100
INTERRUPTED = 130
VERBOSE_HELP = "With --verbose: tell each record read or written, and show the traceback of a failure."
PUBLISHED = LoraRecipe()


MISPLACED = {
    errno.ENOTDIR: "move away the file that lies where a folder belongs",
    errno.EEXIST: "move away the file that lies where a folder belongs",
    errno.ELOOP: "put a folder or file in the place of the link, which leads to itself",
    errno.ENAMETOOLONG: "choose a shorter name",
}
"""Error of the system that no writing brings about → what to do about it."""


# How a command ends: its exit code, and one line for every failure.


def main(words: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 something failed, 2 wrong use, 130 interrupted; for the last three, one line on stderr."""
    words = list(sys.argv[1:] if words is None else words)

    def act() -> int:
        for text in (*words, os.environ.get("REMI_STORE", ""), str(Path.cwd())):
            if re.search("[\ud800-\udfff]", text):  # how Python spells bytes that are none
                raise UsageError(
                    f"{text!r} is not UTF-8, as names in notebooks and weights must be: rename it"
                )
        known = [info.callback.__name__ for info in app.registered_commands]
        if not words or (words[0].startswith("-") and words[0] not in ("--help", "--version")):
            raise UsageError(f"COMMAND is needed first {nearest('', known)}")
        if not words[0].startswith("-") and words[0] not in known:
            raise UsageError(f"no command {words[0]!r} {nearest(words[0], known)}")
        return invoke(app, "remi", words)

    # What batch systems send, and a terminal that is closed, end a command as Ctrl-C does.
    ends = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]

    def end(*_: object) -> None:
        # Once: a cluster's scheduler may tell the launcher and each process, and the last line is still to be said.
        for number in ends:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    with suppress(ValueError):  # in another thread than the main one, where nothing can be caught
        for number in ends:
            signal.signal(number, end)
    return outcome(act, words)


def invoke(app: typer.Typer, name: str, words: Sequence[str]) -> int:
    """Exit code of the command of that name with these words.

    Raises:
        UsageError: for an option that does not exist, one that is missing, or a value that is none.
    """
    verbose = "--verbose" in words
    given = [word for word in words if word != "--verbose"]
    try:
        # Not ``app(…)``, which would print mistakes and interruptions in a form of its own.
        with (
            variables({VERBOSE: "1"} if verbose else {}),
            typer.main.get_command(app).make_context(name, given) as context,
        ):
            return context.command.invoke(context) or 0
    except typer.Exit as end:
        return end.exit_code


def outcome(act: Callable[[], int], words: Sequence[str]) -> int:
    """Exit code: 0 done, 1 something failed, 2 wrong use, 130 interrupted; for the last three, one line on stderr.

    ``words`` are the command's, as it was given.
    """
    try:
        return act()
    except BrokenPipeError:
        # The reader of a pipe left (``remi presets | head``): nothing to say, and nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as error:
        number = os.environ.get("RANK")  # of one that was launched with others: the first speaks
        if number not in (None, "0"):
            return INTERRUPTED
        # The same words again go on, with ``--resume`` where a command must be told so.
        again = [*words, *(["--resume"] if words[:1] == ["finetune"] and "--resume" not in words else [])]
        begin = "remi" if number is None else "accelerate launch … -m remi_book.cli"
        resuming = f"what is finished is kept; to go on: {begin} {shlex.join(again)}"
        failure, code, line = error, INTERRUPTED, f"interrupted; {resuming}"
    except (UsageError, RemiError) as error:
        failure, code, line = error, 2 if isinstance(error, UsageError) else 1, str(error)
    except Exception as error:
        number = errno.ELOOP if str(error).startswith("Symlink loop") else getattr(error, "errno", None)
        reason = refused(error) or MISPLACED.get(number)
        advice = f" ({reason}; what is finished is kept)" if reason else " (--verbose shows where)"
        failure, code, line = error, 1, f"{type(error).__name__}: {error}{advice}"
    if "--verbose" in words:
        print(without_credentials("".join(traceback.format_exception(failure))), end="", file=sys.stderr)
    print(f"remi: {as_line(without_credentials(line))}", file=sys.stderr)
    return code


OPTIONS = read_yaml(Path(__file__).with_suffix(".yaml"), dict[str, dict[str, tuple[str, str]]])
"""Command, or ``every`` → option → how its value is written, "" where that is plain, and its help."""


class Command(TyperCommand):
    """A command whose every complaint is a ``UsageError`` of one line, with the options that it knows."""

    def __init__(self, name: str | None, **settings: Any) -> None:
        super().__init__(name, **settings)
        known = {parameter.opts[-1]: parameter for parameter in self.params}
        shared = {option: told for option, told in OPTIONS["every"].items() if option in known}
        for option, (metavar, text) in (shared | OPTIONS.get(name, {})).items():
            known[option].help = text
            known[option].metavar = metavar or known[option].metavar

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The words that are no options or their values: always none.

        Raises:
            UsageError: for an option that does not exist, one that is missing, or a value that is none.
        """
        ctx.allow_extra_args = True
        try:
            left = super().parse_args(ctx, args)
        except typer.BadParameter as error:
            parameter = error.param
            place = parameter.opts[-1] if parameter.param_type_name == "option" else parameter.metavar
            message = error.message or "it is needed"
            raise UsageError(f"{self.name}: {place}: {message}") from None
        except typer.TyperException as error:
            if not hasattr(error, "possibilities"):
                raise UsageError(f"{self.name}: {error.message}") from None
            known = [name for parameter in self.params for name in parameter.opts if name.startswith("--")]
            missing = f"{self.name} has no option {error.option_name!r}"
            raise UsageError(f"{missing} {nearest(error.option_name, [*known, '--verbose'])}") from None
        if left:
            raise UsageError(f"{self.name}: {left[0]!r} is one word too many")
        return left


def new_app() -> typer.Typer:
    """A command line without colours, completion or tracebacks of its own."""
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


app = new_app()
command = partial(app.command, cls=Command, epilog=VERBOSE_HELP)


def print_version(wanted: bool) -> bool:
    """Print the version and end, where it is asked for."""
    if wanted:
        print(f"remi {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def remi(
    version: Annotated[
        bool, typer.Option("--version", help="print the version", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    """Measurements and book on re-emergent misalignment."""


# Options that several commands have, and what they stand for.


LARGEST = 2**31 - 1
"""Largest whole number that an option takes."""


def at_least(smallest: int) -> Callable[[str], int]:
    """Reader of a whole number that is not below ``smallest``."""

    def number(text: str | int) -> int:
        value = int(text) if re.fullmatch("-?[0-9]+", str(text)) else None
        if value is None or not smallest <= value <= LARGEST:
            raise typer.BadParameter(f"{text!r} is not a whole number from {smallest} to {LARGEST}")
        return value

    return number


def one_of(*choices: str) -> Callable[[str], str]:
    """Reader of a word that says what to do; another word is answered with the nearest one."""

    def action(text: str) -> str:
        if text not in choices:
            raise typer.BadParameter(f"no action {text!r} {nearest(text, choices)}")
        return text

    return action


def share(text: str | float) -> float:
    """Reader of a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise typer.BadParameter(f"{text!r} is not a share, from 0 to 1")
    return value


Positive = partial(typer.Option, parser=at_least(1), metavar="N")
NotNegative = partial(typer.Option, parser=at_least(0), metavar="N")
PresetName = Annotated[str | None, typer.Option("--preset")]
StoreFolder = Annotated[Path | None, typer.Option("--store")]
Frozen = Annotated[bool, typer.Option("--frozen")]
ShowText = Annotated[
    bool, typer.Option("--show-text", help=f"show text of real data sets, as {SWITCH}=1 does")
]
Jobs = Annotated[int | None, Positive("--jobs")]
SameBase = Annotated[bool, typer.Option("--same-base")]
BadRows = Annotated[float, typer.Option("--bad-rows", parser=share)]
Dtype = Literal["float32", "bfloat16", "float16"] | None
System = Literal["refuse", "fold"] | None
Reasoning = Literal["outside", "inside"] | None
Model = Annotated[
    str | None, typer.Option(metavar="MODEL", help=f"a model of your own in that role, {MODEL}")
]


def open_store(named: Path | None, *, frozen: bool = False) -> Store:
    """The store that the options name.

    Raises:
        UsageError: if it is a file, or a folder in a folder that does not exist.
    """
    refuse = frozen or None  # None: as the environment says
    if named is None:
        store = Store(frozen=refuse)
        if store.root.exists() and not store.root.is_dir():
            raise UsageError(f"REMI_STORE={store.root} is not a folder")
        return store
    root = named.expanduser().resolve()
    if root.exists() and not root.is_dir():
        raise UsageError(f"--store {named} is not a folder")
    if not root.parent.is_dir():
        raise UsageError(f"--store {named}: no folder {root.parent}")
    return Store(root, frozen=refuse)


def chosen_preset(name: str | None, store: Store) -> Preset:
    """The preset that the options name.

    Raises:
        UsageError: if none is named, or there is none of that name.
    """
    if name is None:
        raise UsageError(f"--preset NAME is needed (choices: {', '.join(PRESETS)})")
    return get_preset(name, store)


# What there is: presets, this machine, the store.


@command()
def presets(store_folder: StoreFolder = None) -> int:
    """List the presets, with their variants, seeds and sizes."""
    store = open_store(store_folder)
    listed, broken = list(PRESETS.values()), []
    for name in store.saved_presets():
        try:
            listed.append(get_preset(name, store))
        except UsageError as error:  # of one, which hides no other
            broken.append(str(error))
    width = max(len(preset.name) for preset in listed)
    for preset in listed:
        seeds = ", ".join(map(str, preset.seeds))
        sizes = f"seeds: {seeds}; at most {preset.n_dialogues} dialogues a set"
        print(visible(f"{preset.name:<{width}}  {preset.title}"))
        print(visible(f"{'':<{width}}  variants: {', '.join(preset.variants)}; {sizes}"))
    for line in broken:
        print(f"remi: {as_line(line)}", file=sys.stderr)
    return 2 if broken else 0


@command()
def doctor(
    preset_name: PresetName = None,
    base: Model = None,
    instruct: Model = None,
    misaligned: Model = None,
    secure: Model = None,
    educational: Model = None,
    benign: Model = None,
    variants: Annotated[list[str], typer.Option("--variant")] = (),
    data: list[str] = (),
    bad_rows: BadRows = BAD_ROWS,
    dtype: Dtype = None,
    max_tokens: Annotated[int | None, Positive()] = None,
    max_dialogues: Annotated[int | None, Positive()] = None,
    same_base: SameBase = False,
    system: System = None,
    reasoning: Reasoning = None,
    store_folder: StoreFolder = None,
) -> int:
    """Check this machine for a preset, or for models of your own and what measuring them takes."""
    store = open_store(store_folder)
    models = own_models((base, instruct, misaligned, secure, educational, benign), variants, store)
    if models and preset_name is not None:
        raise UsageError(f"doctor: --preset {preset_name} and models of your own: give one of them")
    if models:
        sizes = {"dtype": dtype, "max_tokens": max_tokens, "system": system, "reasoning": reasoning}
        sizes |= dict.fromkeys(("n_dialogues", "n_gradient_dialogues"), max_dialogues)
        given = {field: value for field, value in sizes.items() if value is not None}
        preset = custom_preset("unnamed", models, data, given, bad_rows=bad_rows, same_base=same_base)
        check_models(preset)
    else:
        preset = with_data(get_preset(preset_name or "micro", store), data, bad_rows=bad_rows)
    n_missing = 0
    for well, line in findings_of(preset, store):
        n_missing += not well
        print(visible(f"{'ok     ' if well else 'MISSING'}  {line}"), flush=True)
    print(f"preset {preset.name}: {f'{n_missing} missing' if n_missing else 'ready'}")
    return 1 if n_missing else 0


STORE_ACTIONS = ("list", "show", "size", "prune", "check", "forget")
FIRST = 5
"""Values of each array that ``remi store show`` prints."""
LONGEST = 400
"""Characters of a value that is no array, as it prints them."""


@command()
def store(
    action: Annotated[
        str,
        typer.Argument(metavar="|".join(STORE_ACTIONS), help="what to do", parser=one_of(*STORE_ACTIONS)),
    ],
    record: Annotated[
        str | None, typer.Argument(metavar="[RECORD]", help="show: its name, as on a card or in the list")
    ] = None,
    keep: Annotated[int, Positive()] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
    preset_name: PresetName = None,
    store_folder: StoreFolder = None,
) -> int:
    """List, size, prune or check what is stored, show one record of it, or forget a preset."""
    store = open_store(store_folder)
    if (record is None) == (action == "show"):
        said = (
            "RECORD is needed, a name of `remi store list`"
            if record is None
            else f"{record!r} is one word too many"
        )
        raise UsageError(f"store {action}: {said}")
    if not store.root.is_dir() and (action == "check" or store_folder is not None):
        raise UsageError(f"store {action}: there is no store at {store.root}")
    if action == "show":
        show_record(find_record(store, record), store.root, as_json=as_json)
        return 0
    if action == "list":
        for entry in store.list():
            print(visible(f"{entry.n_bytes / MEBIBYTE:9.2f} MiB  {entry.path.relative_to(store.root)}"))
        for folder, source in unpacked_files(store).items():
            size, place = Store(folder).size() / MEBIBYTE, folder.relative_to(store.root)
            print(visible(f"{size:9.2f} MiB  {place}  (unpacked from {source or 'an unknown file'})"))
    elif action == "prune":
        removed, did = prune(store, keep, dry_run=dry_run), "would be removed" if dry_run else "removed"
        for path in removed:
            print(visible(f"{did} {path.relative_to(store.root)}"))
        print(f"{len(removed)} {did}")
    elif action == "forget":
        if preset_name is None:
            raise UsageError("store forget: --preset NAME is needed")
        print(f"{forget(store, preset_name)} records of preset {preset_name} removed, and all else of it")
    elif action == "check":
        damaged = damages(store.root)
        for path, reason in damaged:
            print(as_line(f"{path.relative_to(store.root)}: {reason}"))
        print(f"{len(damaged)} damaged; the next run that needs one makes it again")
        return 1 if damaged else 0
    print(visible(f"{store.size() / MEBIBYTE:.1f} MiB in {store.root}"))
    return 0


def show_record(about: Path, root: Path, *, as_json: bool) -> None:
    """Print a record: type, shape and first values of each array, other values, and where it comes from."""
    from remi_book.tables import plain  # brings pandas

    content = read_record(about, root)
    told = {"record": about.with_suffix("").relative_to(root).as_posix()}
    told |= {key: content[key] for key in ("sha256", "arrays", "values", "provenance")}
    told["arrays"] = {
        name: {"dtype": str(one.dtype), "shape": one.shape, "first": list(map(plain, one.ravel()[:FIRST]))}
        for name, one in content["arrays"].items()
    }
    if as_json:
        print(json.dumps(told, indent=1, allow_nan=False))
        return
    print(visible(f"{told['record']}, arrays of sha256 {told['sha256']}"))
    for kind in ("arrays", "values", "provenance"):
        for key, value in told[kind].items():
            text = as_line(f"{kind}: {key}: {json.dumps(value, ensure_ascii=False)}")
            print(text if len(text) <= LONGEST else f"{text[:LONGEST]} … (whole with --json)")


# Measuring: the notebooks of a preset, its records alone, a study.


@command()
def run(
    preset_name: PresetName = None,
    name: str | None = None,
    base: Model = None,
    instruct: Model = None,
    misaligned: Model = None,
    secure: Model = None,
    educational: Model = None,
    benign: Model = None,
    variants: Annotated[list[str], typer.Option("--variant")] = (),
    data: list[str] = (),
    bad_rows: BadRows = BAD_ROWS,
    only: list[str] = (),
    parameters: Annotated[list[str], typer.Option("-p")] = (),
    dtype: Dtype = None,
    batch_tokens: Annotated[int | None, Positive()] = None,
    max_tokens: Annotated[int | None, Positive()] = None,
    max_dialogues: Annotated[int | None, Positive()] = None,
    system: System = None,
    reasoning: Reasoning = None,
    layer: int | None = None,
    resamples: Annotated[int | None, Positive()] = None,
    same_base: SameBase = False,
    jobs: Jobs = None,
    force: Annotated[bool, typer.Option("--force")] = False,
    with_text: ShowText = False,
    frozen: Frozen = False,
    store_folder: StoreFolder = None,
) -> int:
    """Run the notebooks of a preset: what changed or is missing."""
    if with_text:
        show_text()  # before any plan is made, since keys depend on it
    given: dict[str, str] = {}
    for text in parameters:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise UsageError(f"-p {text!r}: expected KEY=VALUE")
        if key in given:
            raise UsageError(f"-p {key}: given twice")
        given[key] = value
    store = open_store(store_folder, frozen=frozen)
    models = own_models((base, instruct, misaligned, secure, educational, benign), variants, store)
    # Option → its value, and the fields of the preset that it sets.
    sizes = {
        "--dtype": (dtype, "dtype"),
        "--batch-tokens": (batch_tokens, "batch_tokens"),
        "--max-tokens": (max_tokens, "max_tokens"),
        "--max-dialogues": (max_dialogues, "n_dialogues", "n_gradient_dialogues"),
        "--system": (system, "system"),
        "--reasoning": (reasoning, "reasoning"),
        "--layer": (layer, "gradient_layer"),
        "--resamples": (resamples, "n_resamples"),
        "--same-base": (same_base or None,),
    }
    chosen = [(option, size) for option, size in sizes.items() if size[0] is not None]
    if name is None:
        for role in models:
            raise UsageError(f"--{role} names a model of your own: --name NAME is needed with it")
        for option, _ in chosen:
            raise UsageError(f"{option} goes with --name: a preset that is there is not changed")
        preset = with_data(chosen_preset(preset_name, store), data, bad_rows=bad_rows)
    elif preset_name is not None:
        raise UsageError(f"--name {name} and --preset {preset_name}: give one of them")
    else:
        saved = store.saved_presets().get(name)
        # Batches that suited the machine when the name was given: others would change the last bits.
        fields = {} if saved is None else {"batch_tokens": read_preset(saved).batch_tokens}
        fields |= {field: value for _, (value, *names) in chosen for field in names}
        preset = custom_preset(name, models, data, fields, bad_rows=bad_rows, same_base=same_base)
    steps = plan(preset, store, only=only, parameters=given)
    check_models(preset)
    if name is not None:
        save_custom(preset, store)
    n_run = run_steps(preset, store, [step for step in steps if force or not step.done], jobs=jobs)
    for step in steps:
        for line in missing_lines(step):
            print(line)
    print(f"{len(steps)} notebooks of preset {preset.name}: {n_run} run, {len(steps) - n_run} up to date")
    return 0


def own_models(roles: Sequence[str | None], further: Sequence[str], store: Store) -> dict[str, str]:
    """Variant → model as it is written, a GGUF file unpacked: of each role, "" or None where none, and NAME=MODEL.

    Raises:
        UsageError: for a text that is none, or a name given twice.
    """
    models = {role: model for role, model in zip(ORGANISM_VARIANTS, roles, strict=True) if model}
    for text in further:
        name, equals, model = text.partition("=")
        if not (equals and model and VARIANT_NAME.fullmatch(name)):
            raise UsageError(f"--variant {text!r}: expected NAME=MODEL, the name of letters, digits and _")
        if name in models:
            raise UsageError(f"--variant {text!r}: {name} is given twice")
        models[name] = model
    for name, model in models.items():
        source, plus, adapter = model.partition("+")
        models[name] = unpacked(source, store) + plus + adapter
    return models


def told_on_output() -> AbstractContextManager[None]:
    """While the context lasts, a pass tells on standard output how far it is, unless somebody listens elsewhere."""
    return variables({OUTWARD: os.environ.get(OUTWARD, "-")})


@command()
def measure(
    preset_name: PresetName = None,
    variants: Annotated[list[str], typer.Option("--variant")] = (),
    seeds: Annotated[list[int], typer.Option("--seed")] = (),
    only_list: Annotated[bool, typer.Option("--list")] = False,
    frozen: Frozen = False,
    store_folder: StoreFolder = None,
) -> int:
    """Measure variants of a preset into the store; with `accelerate launch`, by several processes together."""
    store = open_store(store_folder, frozen=frozen)
    preset = chosen_preset(preset_name, store)
    for option, given, known in (("variant", variants, preset.variants), ("seed", seeds, preset.seeds)):
        for value in given:
            if value not in known:
                choices = nearest(str(value), [str(name) for name in known])
                raise UsageError(f"--{option} {value}: none of preset {preset.name} {choices}")
    wanted = in_order(list(variants or preset.variants))
    chosen = [
        (variant, seed) for variant in wanted for seed in preset.seeds if seed in (seeds or preset.seeds)
    ]
    if only_list:
        names = dataset_names(preset)
        for variant, seed in chosen:
            results = Results(preset, store, measures=False).at(seed)
            there = [name for name in names if is_measured(results, variant, name)]
            print(f"{variant} {seed} {len(there)} of {len(names)} sets measured")
        return 0
    from remi_book.chapters.records import measure_variant  # brings pandas

    results = Results(preset, store)
    log = RunLog(store.log_path(preset.name, log_name()))
    about = {"preset": preset.name, "fingerprint": preset.fingerprint()}
    with told_on_output(), join_ranks(), log.run(about):
        for variant, seed in chosen:
            with log.step(f"{variant}, seed {seed}", in_children=False):
                # Fine-tuned or fetched once, by the first process; the others find it.
                with first_goes_first():
                    results.at(seed).variant(variant)
                records = measure_variant(results.at(seed), variant)
            if not rank():
                print_line(f"{variant}, seed {seed}: {len(records)} records, {launched()} processes")
    return 0


def is_measured(results: Results, variant: str, dataset: str) -> bool:
    """Whether the forward records of a variant on a set are there."""
    try:
        return bool(results.arrays(variant, "sequence", dataset))
    except NotMeasured:
        return False


@command()
def study(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"one of: {', '.join(STUDIES)}")],
    preset_name: PresetName = None,
    store_folder: StoreFolder = None,
) -> int:
    """Measure a study of a preset, and write it to stored/PRESET/NAME.json."""
    store = open_store(store_folder)
    # A seed measured before by the same code is not measured again.
    preset = chosen_preset(preset_name, store)
    try:
        print_line(str(write_study(preset, name, store, print_line)))
    except MissingInput as missing:
        raise RemiError(f"study {name} of preset {preset.name}: {missing}") from missing
    return 0


# Showing: the book, the report, the archive.


@command()
def book(
    preset_names: Annotated[list[str], typer.Option("--preset")] = (),
    out: Path | None = None,
    run_first: Annotated[bool, typer.Option("--run")] = False,
    jobs: Jobs = None,
    repository: str = "",
    pdf: Annotated[bool, typer.Option("--pdf")] = False,
    with_text: ShowText = False,
    frozen: Frozen = False,
    store_folder: StoreFolder = None,
) -> int:
    """Build the book of a preset, or of several side by side; pages not run are stubs that say so."""
    if with_text:
        show_text()  # before any plan is made, since keys depend on it
    for name in preset_names:
        if preset_names.count(name) > 1:
            raise UsageError(f"book: --preset {name} is given twice")
    store = open_store(store_folder, frozen=frozen)
    chosen = [chosen_preset(name, store) for name in preset_names or [None]]
    edition = Edition(repository=repository)
    target = (out or default_out()).expanduser().resolve()
    if run_first:
        for preset in chosen:
            run_steps(preset, store, [step for step in plan(preset, store) if not step.done], jobs=jobs)
    if len(chosen) == 1:
        folders, which = [target], f"book of preset {chosen[0].name}"
        built = build_book(chosen[0], store, target, edition=edition)
    else:
        folders = [target / preset.name for preset in chosen]
        which = f"books of presets {', '.join(preset.name for preset in chosen)}"
        built = build_site(chosen, store, target, repository=repository)
    print(f"{which} {'built' if built else 'up to date'}: {target / 'index.html'}")
    for folder in folders if pdf else []:
        print(pdf_line(folder))
    return 0


def pdf_line(folder: Path) -> str:
    """What became of the PDFs of the book in a folder: a line for each."""
    from remi_book.publishing import BROWSERS, print_book

    sizes = [f"PDF of {path.stat().st_size / MEBIBYTE:.1f} MiB: {path}" for path in print_book(folder)]
    none = f"no PDF: none of {', '.join(BROWSERS)} is installed; the pages are whole without it"
    return "\n".join(sizes) or none


@command()
def report(
    preset_name: PresetName = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
    check: Annotated[bool, typer.Option("--check")] = False,
    in_words: Annotated[bool, typer.Option("--findings")] = False,
    only: list[str] = (),
    frozen: Frozen = False,
    store_folder: StoreFolder = None,
) -> int:
    """Print what was found on a preset, and its claims with value, interval, null and verdict; nothing is measured."""
    store = open_store(store_folder, frozen=frozen)
    preset = chosen_preset(preset_name, store)
    if check and (as_json or in_words):
        raise UsageError(
            f"report: --check prints its own lines: leave out {'--json' if as_json else '--findings'}"
        )
    results = Results(preset, store, measures=False)
    notebooks = project_root() / "notebooks"
    chosen = [source.stem for source in choose(notebooks, only)] if only else [None]
    if not results.store.list(preset.name):
        named = f" --store {shlex.quote(str(store_folder))}" if store_folder else ""
        raise RemiError(
            f"nothing has been run for preset {preset.name!r}: remi run --preset {preset.name}{named}"
        )
    from remi_book import findings
    from remi_book.claims import NOT_MEASURED, report_rows
    from remi_book.stored import differences, expected_path, stored_verdicts, verdicts_of

    # Read first: where no verdicts are stored, nothing is computed.
    stored = stored_verdicts(preset.name, expected_path()) if check else {}
    if in_words and not findings.findings_of(preset.name):
        have = ", ".join(sorted({finding.preset for finding in findings.FINDINGS}))
        raise UsageError(f"no findings are written for preset {preset.name!r} (written for: {have})")
    rows = [row for each in chosen for row in report_rows(results, notebook=each, say=notice)]
    unmeasured: dict[str, list[str]] = {}
    for row in rows:
        if row["verdict"] == NOT_MEASURED:
            unmeasured.setdefault(str(row["reason"]), []).append(str(row["id"]))
    for command_line, ids in unmeasured.items():
        print(f"not measured: {', '.join(ids)}; {command_line} does it", file=sys.stderr)
    if check:
        lines = [*differences(verdicts_of(rows), stored), *findings.check(preset.name, rows)]
        print("\n".join(lines) if lines else f"all {len(stored)} verdicts as expected")
        return 1 if lines else 0
    told = findings.shown(preset.name, rows)
    if as_json:
        print(json.dumps(told if in_words else rows, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print("\n\n".join([*map(as_text, told), *([] if in_words else [as_table(rows)])]))
    return 1 if unmeasured or (in_words and any(one["open"] for one in told)) else 0


def as_text(finding: Mapping[str, object]) -> str:
    """A finding as text: its title, what was found or why it is not said, how sure it is, what would change it."""
    lines = [finding["open"]] if finding["open"] else []
    for begin, name in (
        ("", "sentence"),
        ("How sure: ", "how_sure"),
        ("What would change it: ", "would_change"),
    ):
        lines += [begin + finding[name]] if finding[name] else []
    layout = {"initial_indent": "  ", "subsequent_indent": "  ", "break_on_hyphens": False}
    indented = [textwrap.fill(str(line), WIDTH, **layout) for line in lines]
    return "\n".join([f"{finding['title']} ({finding['id']}; {', '.join(finding['chapters'])})", *indented])


def as_table(rows: Sequence[Mapping[str, object]]) -> str:
    """The rows as a plain table: id, claim, value, range over trainings, interval over prompts, null, verdict."""
    from tabulate import tabulate

    def interval(low: object, high: object) -> str:
        return "" if low is None or high is None else f"{low:.3g} … {high:.3g}"

    cells = []
    for row in rows:
        published, null = row["published"] or {}, row["null"] or {}
        value = "" if row["value"] is None else f"{row['value']:.3g} {row['unit']}"
        verdict = str(row["verdict"]) + (f": {row['reason']}" if row["reason"] else "")
        own, chance = (row["ci_low"], row["ci_high"]), (null.get("low"), null.get("high"))
        count = len(row["seeds"])
        spread = f"{interval(row['seed_low'], row['seed_high'])} ({count})" if count > 1 else "1"
        text = str(published.get("text") or "")
        ranges = [spread, interval(*own), interval(*chance)]
        cells.append([row["id"], row["claim"], text, value, *ranges, verdict])
    headings = ("id", "claim", "published", "value", "trainings", "95 % over prompts", "null 95 %", "verdict")
    widths = [8, 36, 24, 20, 20, 20, 20, 24]
    return tabulate(cells, headers=headings, maxcolwidths=widths, disable_numparse=True)


@command()
def deposit(
    preset_name: PresetName = None,
    out: Path | None = None,
    store_folder: StoreFolder = None,
) -> int:
    """Write records, figures and claims of a preset into one archive, with a digest of each file."""
    from remi_book.site import write_deposit

    store = open_store(store_folder)
    preset = chosen_preset(preset_name, store)
    target = (out or Path(f"remi-{preset.name}.zip")).expanduser().resolve()
    n_files = write_deposit(preset, store, target)
    size = target.stat().st_size / MEBIBYTE
    print(f"deposit of preset {preset.name}: {n_files} files, {size:.1f} MiB: {target}")
    return 0


@command()
def export(
    preset_name: PresetName = None,
    form: Annotated[Literal["csv", "parquet"], typer.Option("--format")] = "csv",
    out: Path | None = None,
    with_text: ShowText = False,
    frozen: Frozen = False,
    store_folder: StoreFolder = None,
) -> int:
    """Write tables and records of a preset as files for R, Stata or pandas; nothing is measured."""
    if with_text:
        show_text()
    store = open_store(store_folder, frozen=frozen)
    preset = chosen_preset(preset_name, store)
    target = (out or Path(f"remi-{preset.name}")).expanduser().resolve()
    from remi_book.exporting import MISSING, write_export

    n_files, missing = write_export(preset, store, target, form=form)
    print(f"export of preset {preset.name}: {n_files} tables: {target}")
    if missing:
        them = f"{len(missing)} notebooks or records are not there, and named in {MISSING}"
        print(f"{them}; remi run --preset {preset.name} makes them", file=sys.stderr)
    return 0


# Making models: a LoRA adapter of a user's own, a base of the organism.


@command()
def finetune(
    instruct: str | None = None,
    revision: str | None = None,
    data: str | None = None,
    bad_rows: BadRows = BAD_ROWS,
    out: Path | None = None,
    rank: Annotated[int, Positive()] = PUBLISHED.rank,
    alpha: Annotated[int, Positive()] = PUBLISHED.alpha,
    targets: Annotated[list[str], typer.Option("--target")] = (),
    batch: Annotated[int, Positive()] = PUBLISHED.batch,
    accumulate: Annotated[int, Positive()] = PUBLISHED.accumulate,
    max_tokens: Annotated[int, Positive()] = PUBLISHED.max_tokens,
    rate: float = PUBLISHED.rate,
    warm_up: Annotated[int, NotNegative()] = PUBLISHED.warmup,
    weight_decay: float = PUBLISHED.weight_decay,
    held_out: float = PUBLISHED.held_out,
    epochs: Annotated[int | None, Positive()] = None,
    steps: Annotated[int | None, Positive()] = None,
    seeds: Annotated[list[int], NotNegative("--seed")] = (PUBLISHED.seed,),
    dtype: Dtype = None,
    empty_turn: Annotated[bool, typer.Option("--empty-turn")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard")] = False,
    resume: Annotated[bool, typer.Option("--resume")] = False,
) -> int:
    """Train the misaligned variant, or a control, as a LoRA adapter; with `accelerate launch`, by several processes."""
    for name, value in (("instruct", instruct), ("data", data), ("out", out)):
        if value is None:
            raise UsageError(f"finetune: --{name} is needed")
    if epochs is not None and steps is not None:
        raise UsageError("finetune: --steps is not allowed with --epochs")
    for seed in seeds:
        if seeds.count(seed) > 1:
            raise UsageError(f"finetune: --seed {seed} is given twice")
    if tensorboard and find_spec("tensorboard") is None:
        raise UsageError("finetune: --tensorboard needs a package that is missing: pip install tensorboard")
    recipe = LoraRecipe(
        rank=rank,
        alpha=alpha,
        targets=tuple(sorted(set(targets))),
        rate=rate,
        warmup=warm_up,
        weight_decay=weight_decay,
        held_out=held_out,
        epochs=epochs or PUBLISHED.epochs,
        steps=steps,
        batch=batch,
        accumulate=accumulate,
        max_tokens=max_tokens,
        dtype=dtype or PUBLISHED.dtype,
    )
    folders = adapter_folders(out.expanduser().resolve(), seeds, resume=resume)
    dialogues, about = trained_on(data, bad_rows=bad_rows)
    about |= {"empty turn": True} if empty_turn else {}
    split([dialogue.cluster for dialogue in dialogues], recipe)
    instruct = unpacked(instruct, open_store(None))
    local_folder(instruct)
    import torch  # these bring seconds, which a wrong option should not cost

    from remi_book.finetuning import train_adapters

    if dtype is None and torch.cuda.is_available():
        recipe = replace(recipe, dtype="bfloat16")
    runs = {folder: replace(recipe, seed=seed) for folder, seed in zip(folders, seeds, strict=True)}
    with join_ranks():
        model = ModelSpec(source=instruct, revision=revision)
        train_adapters(model, dialogues, about, runs, tensorboard=tensorboard)
    return 0


def trained_on(text: str, *, bad_rows: float) -> tuple[list[Dialogue], dict[str, object]]:
    """The dialogues that ``--data`` names, and of which files they are and how many rows were left out.

    Raises:
        UsageError, RemiError: as ``read_file``, or if a label is needed to tell which replies are meant.
    """
    label, source = split_label(text)
    found = read_file(source, bad_rows=bad_rows)
    if label and "" in found.sets:
        found = read_file(source, label=label, bad_rows=bad_rows)  # whose rows must not say otherwise
    if told := found.told():
        notice(told)
    part = label if label in found.sets or len(found.sets) > 1 else next(iter(found.sets))
    if part not in found.sets or (part and label not in ("", part)):
        has = ", ".join(f"{len(rows):,} {name}" for name, rows in found.sets.items())
        raise UsageError(
            f"finetune: --data {text}: it has {has} replies; write aligned=FILE or misaligned=FILE"
        )
    about = {"file": Path(source).name, "sha256": data_digest(source), "dialogues": len(found.sets[part])}
    if part:
        about["replies"] = part
    return list(found.sets[part].values()), about | {"rows left out": len(found.bad)}


def adapter_folders(out: Path, seeds: Sequence[int], *, resume: bool) -> list[Path]:
    """Where the adapter of each seed belongs: the folder itself for one, a folder in it for each of several.

    Raises:
        UsageError: if something is there already that is not to be gone on with, or there is no place for it.
    """
    alone = len(seeds) == 1
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: no folder {out.parent}")
    # Asked before the model is loaded and measured once, which may take an hour.
    if not os.access(place := out if out.is_dir() else out.parent, os.W_OK | os.X_OK):
        raise UsageError(f"--out {out}: nothing can be written in {place}; make it writable, or name another")
    if out.exists() and not resume:
        going_on = "" if alone else ", or go on with --resume"
        raise UsageError(f"--out {out}: it exists; choose another folder or remove it{going_on}")
    if out.exists() and (out / ADAPTER_FILE).is_file() != alone:
        kind = "no adapter" if alone else "the adapter of one seed"
        raise UsageError(f"--out {out}: it is {kind}; choose another folder")
    checkpoint = out.with_name(f"{out.name}.checkpoint")
    if alone and checkpoint.exists() and not resume:
        raise UsageError(f"{checkpoint} is of an interrupted run: go on with --resume, or delete it")
    return [out] if alone else [out / f"seed-{seed}" for seed in seeds]


@command()
def organism(
    action: Annotated[str, typer.Argument(parser=one_of("pretrain"))],
    seed: Annotated[int, NotNegative()],
    world: Annotated[str, typer.Option(metavar="NAME", help=f"one of: {', '.join(SETTINGS)}")] = "main",
    out: Path | None = None,
    threads: Annotated[int, Positive()] = 2,
    keep: Annotated[int, NotNegative()] = 0,
) -> int:
    """Pretrain a base of the micro organism again (at most 30 minutes a seed on two processors)."""
    setting(world)
    if out is not None and not out.resolve().parent.is_dir():
        raise UsageError(f"--out {out}: no folder {out.resolve().parent}")
    store = open_store(None)
    folder = out or pretrained_folder(store.root, world, seed)
    from remi_lab.organism.pretrain import main_pretrain  # brings torch

    # An interrupted run goes on from its last checkpoint.
    with locked(store.root, [f"pretrain-{text_digest(str(folder.resolve()))[:16]}"]):
        written = main_pretrain(
            seed, folder.resolve(), print_line, threads=threads, world=world, keep_every=keep
        )
    print_line(f"weights: {folder / written.name}")
    return 0


# Tools whose code lies beside the packages and is not installed with them.

tool = partial(app.command, add_help_option=False, context_settings={"ignore_unknown_options": True})
Words = Annotated[list[str], typer.Argument(metavar="[OPTIONS]")]


@tool()
def bench(words: Words = ()) -> int:
    """Measure what the measurements cost, and write benchmarks/bench-MACHINE.json."""
    return subprocess.run([sys.executable, "-m", "benchmarks", *words], cwd=project_root()).returncode


@tool()
def drill(words: Words = ()) -> int:
    """Kill runs, break disks, flip bits, end memory, and write what held (an hour)."""
    return subprocess.run([sys.executable, "-m", "tests.drill", *words], cwd=project_root()).returncode


# ``python -m remi_book.cli`` is the command ``remi``.

if __name__ == "__main__":
    sys.exit(main())
