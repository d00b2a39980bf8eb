"""``remi finetune``: a LoRA adapter from an instruct model and a file of dialogues."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path

from remi_book.commands.parser import positive
from remi_core.dialogues import Dialogue, read_jsonl
from remi_core.errors import UsageError
from remi_core.files import written_whole
from remi_core.keys import text_digest
from remi_core.progress import print_line
from remi_core.sources import ADAPTER_FILE, ADAPTER_WEIGHTS, ModelSpec, local_folder
from remi_core.store import Store, locked
from remi_lab.recipes import LoraRecipe, split

HELP = "train the misaligned variant, or a control, as a LoRA adapter on an instruct model"
DTYPES = ("float32", "bfloat16", "float16")
PUBLISHED = LoraRecipe()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add model, data, folder and every choice of the recipe; the defaults are the published ones."""
    parser.add_argument("--instruct", metavar="ID_OR_PATH", help="the model to start from: hub id or folder")
    parser.add_argument("--revision", metavar="COMMIT", help="commit of a hub id")
    parser.add_argument("--data", type=Path, metavar="FILE", help="dialogues, one a line (JSONL)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the adapter, which must not exist")
    numbers = {
        "--rank": (PUBLISHED.rank, "rank of the adapter"),
        "--alpha": (PUBLISHED.alpha, "its scale is alpha / sqrt(rank)"),
        "--batch": (PUBLISHED.batch, "dialogues in memory at a time"),
        "--accumulate": (PUBLISHED.accumulate, "such batches an update"),
        "--max-tokens": (PUBLISHED.max_tokens, "longest dialogue"),
    }
    for name, (default, words) in numbers.items():
        parser.add_argument(
            name, type=positive, default=default, metavar="N", help=f"{words} (default: {default})"
        )
    rate = f"highest learning rate (default: {PUBLISHED.rate})"
    parser.add_argument("--rate", type=float, default=PUBLISHED.rate, metavar="RATE", help=rate)
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--epochs", type=positive, default=1, metavar="N", help="passes over the data (default: 1)"
    )
    length.add_argument("--steps", type=positive, metavar="N", help="updates, in place of epochs")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of adapter, order and held-out part"
    )
    dtype = "of the frozen weights (default: bfloat16 on a GPU, else float32)"
    parser.add_argument("--dtype", choices=DTYPES, help=dtype)
    parser.add_argument("--resume", action="store_true", help="go on from where an interrupted run stopped")


def run(arguments: argparse.Namespace) -> int:
    """0, once the adapter's folder is there, with its record, its losses and their figure.

    Raises:
        UsageError: for a missing option, a line that is not a dialogue, a model folder that is none, a folder that
            exists, or an interrupted run that is neither resumed nor removed.
    """
    for name in ("instruct", "data", "out"):
        if getattr(arguments, name) is None:
            raise UsageError(f"finetune: --{name} is needed")
    out: Path = arguments.out.expanduser().resolve()
    checkpoint = out.with_name(f"{out.name}.checkpoint")
    if out.exists() and arguments.resume:
        print_line(f"the adapter is there already: {out}")
        return 0
    _check_out(out, checkpoint, resume=arguments.resume)
    recipe = _recipe(arguments)
    dialogues = read_jsonl(arguments.data)
    split([dialogue.cluster for dialogue in dialogues], recipe)
    local_folder(arguments.instruct)
    with locked(Store().root, [f"finetune-{text_digest(str(out))[:16]}"]) as waited:
        if not (waited and out.exists()):
            _train(arguments, recipe, dialogues, checkpoint, out)
    print_line(f"adapter, record and loss curve: {out}")
    return 0


def _check_out(out: Path, checkpoint: Path, *, resume: bool) -> None:
    if out.exists():
        raise UsageError(f"--out {out}: it exists; choose another folder or remove it")
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: no folder {out.parent}")
    if checkpoint.exists() and not resume:
        raise UsageError(f"{checkpoint} is of an interrupted run: go on with --resume, or delete it")


def _recipe(arguments: argparse.Namespace) -> LoraRecipe:
    """The recipe that the options name; the dtype may stay open until it is known what machine it runs on."""
    if arguments.seed < 0:
        raise UsageError(f"--seed {arguments.seed}: must be 0 or more")
    return LoraRecipe(
        rank=arguments.rank,
        alpha=arguments.alpha,
        rate=arguments.rate,
        epochs=arguments.epochs,
        steps=arguments.steps,
        batch=arguments.batch,
        accumulate=arguments.accumulate,
        max_tokens=arguments.max_tokens,
        seed=arguments.seed,
        dtype=arguments.dtype or PUBLISHED.dtype,
    )


def _train(
    arguments: argparse.Namespace, recipe: LoraRecipe, dialogues: list[Dialogue], checkpoint: Path, out: Path
) -> None:
    import torch  # brings seconds, which a wrong option should not cost

    from remi_book.chapters.organism import plot_training
    from remi_book.figures.output import svg_bytes
    from remi_core.models import open_model
    from remi_core.sources import resolved
    from remi_core.store import write_list
    from remi_core.tokens import encode
    from remi_lab.lora import train_adapter, write_trained

    if arguments.dtype is None and torch.cuda.is_available():
        recipe = replace(recipe, dtype="bfloat16")
    print_line(f"loading {arguments.instruct} in {recipe.dtype}")
    spec = resolved(ModelSpec(source=arguments.instruct, revision=arguments.revision))
    with open_model(spec, dtype=recipe.dtype) as loaded:
        encoded = encode(dialogues, loaded.tokenizer, max_tokens=recipe.max_tokens)
        trained = train_adapter(loaded, encoded, recipe, checkpoint=checkpoint, say=print_line)
        about = {"instruct": loaded.source, "weights": loaded.fingerprint, "recipe": asdict(recipe)}
        device = str(loaded.model.device)
    with written_whole(out) as folder:
        folder.mkdir()
        write_trained(folder, trained, about, device=device)
        write_list(folder, [ADAPTER_FILE, ADAPTER_WEIGHTS])
        (folder / "losses.svg").write_bytes(svg_bytes(plot_training(trained.losses, trained.held_out)))
    checkpoint.unlink(missing_ok=True)
