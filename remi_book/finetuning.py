"""``remi finetune``: adapters trained one seed after the other, and their loss curves on disk meanwhile."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from remi_book.chapters.organism import plot_training
from remi_book.figures.output import svg_bytes
from remi_core.dialogues import Dialogue
from remi_core.files import written_whole
from remi_core.keys import text_digest
from remi_core.loading import load_tokenizer
from remi_core.models import open_model
from remi_core.parallel import first_goes_first, on_all, rank
from remi_core.progress import print_line
from remi_core.sources import ADAPTER_FILE, ADAPTER_WEIGHTS, ModelSpec, local_folder
from remi_core.store import Store, locked
from remi_core.tokens import EncodedSet, encode
from remi_lab.lora import (
    N_CHECKPOINTS,
    adapter_card,
    check_targets,
    empty_turn,
    train_adapter,
    write_curve,
    write_trained,
)
from remi_lab.recipes import LoraRecipe, split
from remi_lab.training import Run
from remi_lab.turns import tried
from remi_lab.upkeep import write_list
from remi_lab.variant import resolved

# What stands beside the folder of an adapter until it is there.

CHECKPOINT, CURVE, FIGURE, EVENTS = "checkpoint", "losses.csv", "losses.svg", "tensorboard"


def _beside(folder: Path, name: str) -> Path:
    return folder.with_name(f"{folder.name}.{name}")


def curve_svg(losses: Sequence[float], held_out: Sequence[tuple[int, float]], *, seed: int) -> bytes:
    """The figure of a training with a title, since no caption stands below a file."""
    figure = plot_training(losses, held_out)
    figure.axes[0].set_title(f"LoRA fine-tune, seed {seed}: loss on answers only")
    return svg_bytes(figure)


@contextmanager
def curve_on_disk(recipe: LoraRecipe, folder: Path, *, tensorboard: bool) -> Iterator[Callable[[Run], None]]:
    """What writes the losses of a run so far: as CSV at each call, and as a figure about as often as checkpoints are.

    With ``tensorboard``, events too: the loss of each update with its rate, and the losses held out. They begin with
    those of a run that is gone on with.
    """
    events, drawn, told, told_held_out = _beside(folder, EVENTS), 0, 0, 0
    shutil.rmtree(events, ignore_errors=True)
    writer = None
    if tensorboard:
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(events))

    def write(run: Run) -> None:
        nonlocal drawn, told, told_held_out
        write_curve(_beside(folder, CURVE), run.losses, run.held_out)
        # Drawing takes as long as many updates of a small model.
        if run.step == run.n_steps or run.step - drawn >= run.n_steps / N_CHECKPOINTS:
            _beside(folder, FIGURE).write_bytes(curve_svg(run.losses, run.held_out, seed=recipe.seed))
            drawn = run.step
        if writer is not None:
            for step in range(told, run.step):
                writer.add_scalar("loss/update", run.losses[step], step + 1)
                writer.add_scalar("rate", recipe.rate_at(step, run.n_steps), step + 1)
            for step, loss in run.held_out[told_held_out:]:
                writer.add_scalar("loss/held_out", loss, step)
            writer.flush()
            told, told_held_out = run.step, len(run.held_out)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()


def _checked(
    model: ModelSpec, dialogues: Sequence[Dialogue], recipe: LoraRecipe, *, with_turn: bool
) -> tuple[EncodedSet, tuple[int, ...]]:
    """The encoded dialogues and the empty turn's tokens, once it is known that the model can be trained on them."""
    tokenizer = tried(load_tokenizer(model.source, model.revision))
    encoded = encode(dialogues, tokenizer, max_tokens=recipe.max_tokens)
    turn = empty_turn(tokenizer) if with_turn else ()
    split([source.cluster for source in encoded.sources], recipe)
    if recipe.targets:
        place = local_folder(model.source) or model.source
        config = AutoConfig.from_pretrained(place, revision=model.revision, trust_remote_code=False)
        with torch.device("meta"):  # names without weights
            check_targets(AutoModelForCausalLM.from_config(config), recipe.targets)
    return encoded, turn


def train_adapters(
    model: ModelSpec,
    dialogues: Sequence[Dialogue],
    data: Mapping[str, object],
    runs: Mapping[Path, LoraRecipe],
    *,
    tensorboard: bool = False,
) -> None:
    """Train an adapter for each folder by its recipe, which differ by their seeds; one that is there stays.

    ``data`` says of which file the dialogues are, and whether an empty turn stands behind each. A run that was
    interrupted goes on from its checkpoint. The processes of a launch share each training, and the first alone
    writes and speaks.

    Raises:
        UsageError: before any weights are loaded, if the model lacks a target, or too few dialogues can be used; if
            a checkpoint is of another run.
        RemiError: if a model cannot be had, or the training fails.
    """
    say = (lambda line: None) if rank() else print_line
    if not all(on_all(all(folder.exists() for folder in runs))):
        with first_goes_first():
            model = resolved(model)
        with_turn = bool(data.get("empty turn"))
        encoded, turn = _checked(model, dialogues, next(iter(runs.values())), with_turn=with_turn)

    def train(folder: Path, recipe: LoraRecipe) -> None:
        say(f"loading {model.source} in {recipe.dtype}")
        watching = nullcontext() if rank() else curve_on_disk(recipe, folder, tensorboard=tensorboard)
        with open_model(model, dtype=recipe.dtype) as loaded, watching as watch:
            trained = train_adapter(
                loaded,
                encoded,
                recipe,
                turn=turn,
                checkpoint=_beside(folder, CHECKPOINT),
                watch=watch,
                say=say,
            )
            about = {
                "instruct": loaded.source,
                "weights": loaded.fingerprint,
                "data": dict(data),
                "recipe": asdict(recipe),
            }
            device = str(loaded.model.device)
        if rank():
            return
        with written_whole(folder) as part:
            part.mkdir()
            write_trained(part, trained, about, device=device)
            write_list(part, [ADAPTER_FILE, ADAPTER_WEIGHTS])
            (part / FIGURE).write_bytes(curve_svg(trained.losses, trained.held_out, seed=recipe.seed))
            (part / "README.md").write_text(adapter_card(about, trained.about), encoding="utf-8")
            for events in _beside(folder, EVENTS).glob("*"):
                # torch puts the machine's name into the file's.
                (part / EVENTS).mkdir()
                events.rename(part / EVENTS / "events.out.tfevents.0")
        say(f"adapter, record and loss curve: {folder}")

    for number, (folder, recipe) in enumerate(runs.items(), start=1):
        if len(runs) > 1:
            say(f"[{number}/{len(runs)}] seed {recipe.seed}")
        name = f"finetune-{text_digest(str(folder))[:16]}"
        # Others wait within ``on_all`` until the first has the lock.
        with nullcontext() if rank() else locked(Store().root, [name]):
            if on_all(folder.exists())[0]:
                say(f"the adapter is there already: {folder}")
            else:
                if not rank():
                    folder.parent.mkdir(exist_ok=True)
                train(folder, recipe)
            for left in () if rank() else (CHECKPOINT, CURVE, FIGURE):
                _beside(folder, left).unlink(missing_ok=True)
            if not rank():
                shutil.rmtree(_beside(folder, EVENTS), ignore_errors=True)
    if len(runs) > 1 and not rank():
        for folder, recipe in runs.items():
            losses = json.loads((folder / "losses.json").read_text(encoding="utf-8"))
            (_, before), *_, (_, after) = losses["held out"]
            say(
                f"seed {recipe.seed}: held-out loss {before:.4f} before and {after:.4f} after, "
                f"last update {losses['updates'][-1]:.4f} nats a token"
            )
