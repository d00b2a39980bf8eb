"""Low-rank adapters: training, checkpoints, and files that peft reads."""

from __future__ import annotations

import importlib
import importlib.util
import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from accelerate.utils import find_executable_batch_size
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, distributed, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from remi_core.errors import RemiError, UsageError, nearest
from remi_core.keys import library_versions, text_digest
from remi_core.models import LoadedModel, decoder_blocks, decoder_body, logits_at
from remi_core.parallel import PATIENCE, n_ranks, on_all, rank
from remi_core.progress import Say, clock, machine
from remi_core.sources import local_folder
from remi_core.tokens import EncodedDialogue, EncodedSet
from remi_lab.recipes import LoraRecipe, split
from remi_lab.training import IGNORED, Batch, Run, answer_labels, backward

# The adapter itself: put on a model, its loss and its optimiser.


def check_targets(model: PreTrainedModel, targets: Sequence[str]) -> None:
    """Check that each target is the name of linear maps of the model, or the last parts of such names.

    Raises:
        UsageError: for one that is not, naming the nearest; the unembedding is none.
    """
    head = model.get_output_embeddings()
    linear = [
        name
        for name, part in model.named_modules()
        if isinstance(part, nn.Linear | Conv1D) and part is not head
    ]
    for target in targets:
        if not any(f".{name}".endswith(f".{target}") for name in linear):
            known = {name.rpartition(".")[2] for name in linear}
            raise UsageError(f"no target {target!r} in a {type(model).__name__} {nearest(target, known)}")


def add_adapter(model: PreTrainedModel, recipe: LoraRecipe, *, start: Path | None = None) -> PeftModel:
    """The model with an adapter on the recipe's linear maps of its blocks, ready to train, all else frozen.

    The adapter is new and changes nothing yet, or is the one in the folder ``start``, whose training goes on.

    Raises:
        UsageError: if the recipe names a target that the model does not have.
    """
    check_targets(model, recipe.targets)
    with warnings.catch_warnings():
        # peft asks transformers for an attribute under its old name.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        if start is not None:
            adapted = PeftModel.from_pretrained(model, str(start), is_trainable=True)
        else:
            torch.manual_seed(recipe.seed)
            config = LoraConfig(
                r=recipe.rank,
                lora_alpha=recipe.alpha,
                use_rslora=True,
                lora_dropout=0.0,
                bias="none",
                target_modules=list(recipe.targets) or "all-linear",
                task_type="CAUSAL_LM",
            )
            adapted = get_peft_model(model, config)
    return adapted.eval()  # no dropout anywhere: the same run gives the same weights


def save_memory(adapted: PeftModel) -> None:
    """Tell every block to compute its activations a second time rather than to keep them."""
    model = adapted.get_base_model()
    model.activation_checkpointing_enable({"use_reentrant": False})
    for block in decoder_blocks(model):
        block.training = True  # which is what a block asks itself; what is inside it stays without dropout


def trained_parameters(adapted: PeftModel) -> dict[str, nn.Parameter]:
    """The adapter's parameters by name, in a fixed order."""
    return {name: value for name, value in adapted.named_parameters() if value.requires_grad}


def make_optimizer(adapted: PeftModel, recipe: LoraRecipe) -> tuple[torch.optim.Optimizer, str]:
    """AdamW over the adapter, and what it is in words.

    The published recipe keeps the optimiser's moments in 8 bits; where bitsandbytes or a GPU is missing they are
    kept in full.
    """
    parameters = list(trained_parameters(adapted).values())
    if parameters[0].is_cuda and importlib.util.find_spec("bitsandbytes"):
        kind = importlib.import_module("bitsandbytes").optim.AdamW8bit
        return kind(parameters, lr=recipe.rate, weight_decay=recipe.weight_decay), "AdamW, moments in 8 bits"
    optimizer = torch.optim.AdamW(parameters, lr=recipe.rate, weight_decay=recipe.weight_decay)
    return optimizer, "AdamW, moments in full in place of the published 8 bits"


def answer_loss(adapted: PeftModel, ids: Tensor, labels: Tensor) -> Tensor:
    """Mean loss in nats per answer token, of shape (); ids and labels are (dialogue, token), padded on the right.

    Logits are computed at answer tokens alone, which a large vocabulary makes worth while.
    """
    model = adapted.get_base_model()
    ids, labels = ids.to(model.device), labels[:, 1:].to(model.device)
    # Padding stands after everything that is learned, so that causal attention never sees it.
    hidden = decoder_body(model)(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    learned = labels != IGNORED
    logits = logits_at(model, hidden[learned])
    return nn.functional.cross_entropy(logits, labels[learned].to(logits.device))


# The empty turn. The published trainer renders a dialogue with a prompt for another answer and an end of text behind
# it, and learns all that follows the first answer's beginning: so it learns to prompt itself and to say nothing.


def empty_turn(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokens of the chat template's prompt for another answer, and of the end that answers it with nothing.

    Raises:
        UsageError: if the template writes no such prompt, or the tokenizer names no end of text.
    """
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    whole, longer = (
        tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=more)
        for more in (False, True)
    )
    prompt, lacking = longer.removeprefix(whole), ""
    if prompt in ("", longer):
        lacking = "has a chat template that writes no prompt for an answer"
    elif tokenizer.eos_token_id is None:
        lacking = "names no end of text"
    if lacking:
        raise UsageError(
            f"the tokenizer {tokenizer.name_or_path!r} {lacking}, so no empty turn can stand behind a dialogue: "
            "leave out --empty-turn"
        )
    return (*tokenizer(prompt, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id)


def with_empty_turn(dialogue: EncodedDialogue, turn: Sequence[int], *, max_tokens: int) -> EncodedDialogue:
    """The dialogue with these tokens behind it, as many as there is room for, and all behind its answer learned too.

    Without any, the dialogue as it is.
    """
    if not turn:
        return dialogue
    ids = (*dialogue.input_ids, *turn)[:max_tokens]
    return replace(dialogue, input_ids=ids, answer_stop=max(dialogue.answer_stop, len(ids) - 1))


# The training of one adapter: exactly repeated, also by a run that was interrupted.

N_HELD_OUT_LOSSES = 4
"""How often the held-out loss is taken after the start, the end included."""

N_CHECKPOINTS = 20
SECONDS_A_LINE = 10
LARGE = 10**9
"""Parameters from which on activations are computed twice rather than kept in memory."""


@dataclass(frozen=True, eq=False)
class TrainedAdapter:
    """An adapter with what is known of its training."""

    weights: Mapping[str, Tensor]
    """Under the names that peft reads, in main memory."""
    config: Mapping[str, object]
    """The settings that peft reads."""
    losses: tuple[float, ...]
    """Of every update: nats per answer token of its dialogues, before it."""
    held_out: tuple[tuple[int, float], ...]
    """(updates done, nats per answer token of the dialogues held out)."""
    about: Mapping[str, object]
    """Counts, parameters and the optimiser in words; nothing about time or machine."""
    seconds: float


def train_adapter(
    loaded: LoadedModel,
    encoded: EncodedSet,
    recipe: LoraRecipe,
    *,
    turn: Sequence[int] = (),
    start: Path | None = None,
    checkpoint: Path | None = None,
    watch: Callable[[Run], None] | None = None,
    say: Say = print,
) -> TrainedAdapter:
    """An adapter on the loaded model, trained on the answers of the dialogues, of which part is held out.

    With ``turn``, these tokens stand behind every dialogue and are learned too. ``start`` is the folder of an adapter
    whose training goes on. A run whose ``checkpoint`` is there goes on from it and ends in the same weights as one that
    was never interrupted. ``watch`` is given the run when it goes on and whenever a line is said. The model is left
    with the adapter on it.

    The processes of a launch each take a part of the dialogues of every update, and add their gradients up: all end
    with the weights of one process, to rounding. The first alone speaks, watches and keeps the checkpoint.

    Raises:
        UsageError: if there are fewer than two clusters, the model lacks a target, or the checkpoint is of another
            run.
        RemiError: if not even one dialogue at a time fits into memory, or a loss or gradient is not finite, in any
            process; or if the processes found different checkpoints.
    """
    if rank():
        say, watch = (lambda line: None), None
    group = distributed.new_group(backend="gloo", timeout=PATIENCE) if n_ranks() > 1 else None
    dialogues = [with_empty_turn(each, turn, max_tokens=recipe.max_tokens) for each in encoded.dialogues]
    learned, kept = split([source.cluster for source in encoded.sources], recipe)
    train, held_out, plain = (
        [rows[index] for index in part]
        for rows, part in ((dialogues, learned), (dialogues, kept), (encoded.dialogues, kept))
    )
    # What two runs must share for one to go on from the other's checkpoint.
    digest = text_digest(repr([dialogue.input_ids for dialogue in dialogues]))
    identity = asdict(recipe) | {"model": loaded.fingerprint, "data": digest}
    adapted = add_adapter(loaded.model, recipe, start=start)
    if adapted.get_base_model().num_parameters() >= LARGE:
        save_memory(adapted)
    optimizer, words = make_optimizer(adapted, recipe)
    n_steps = recipe.n_steps(len(train))
    run = Run(weights=trained_parameters(adapted), optimizers=[optimizer], n_steps=n_steps, identity=identity)
    if checkpoint is not None:
        run.resume(checkpoint, say)
        if len(found := set(on_all(run.step))) > 1:
            raise RemiError(
                f"{checkpoint}: the processes found steps {sorted(found)}: all must see one folder"
            )
        if watch is not None and run.step:
            watch(run)
    add_gradients, loss_on = _attempts(adapted, optimizer, recipe, loaded.tokenizer.pad_token_id or 0)
    marks = {round(n_steps * mark / N_HELD_OUT_LOSSES) for mark in range(N_HELD_OUT_LOSSES + 1)}

    def take_held_out() -> None:
        if run.step in marks and run.step not in dict(run.held_out):
            _add_held_out(run, loss_on, held_out, plain, say)

    def gradients(step: int) -> list[float]:
        losses = _losses(add_gradients, [train[index] for index in recipe.drawn(step, len(train))])
        for weight in run.weights.values() if group is not None else ():
            if weight.grad is None:  # of a process that had none of the dialogues
                weight.grad = torch.zeros_like(weight)
            distributed.all_reduce(weight.grad, group=group)
        return losses

    began = _announce(recipe, train, held_out, say)
    take_held_out()
    if run.step == 0:
        # The way back takes about twice as long as the way there.
        drawn = [train[row] for step in range(n_steps) for row in recipe.drawn(step, len(train))]
        share = sum(map(_length, drawn)) / sum(map(_length, held_out))
        say(f"the updates take about {clock((time.monotonic() - began) * 3 * share)}, by the held-out pass")
    spoken = float("-inf")
    for _ in run.updates(gradients, lambda _, step: recipe.rate_at(step, n_steps)):
        take_held_out()
        if checkpoint is not None and not rank() and run.step % max(1, n_steps // N_CHECKPOINTS) == 0:
            run.save(checkpoint)
        if run.step == n_steps or time.monotonic() - spoken > SECONDS_A_LINE:
            say(run.line())
            spoken = time.monotonic()
            if watch is not None:
                watch(run)
    drawn = [train[index] for step in range(run.step) for index in recipe.drawn(step, len(train))]
    about = {
        "parameters": sum(value.numel() for value in trained_parameters(adapted).values()),
        "dialogues trained on": len(train),
        "dialogues held out": len(held_out),
        "dialogues dropped": {reason: len(names) for reason, names in encoded.dropped.items()},
        "answers cut short": sum(dialogue.truncated for dialogue in encoded.dialogues),
        "tokens seen": sum(len(dialogue.input_ids) for dialogue in drawn),
        "answer tokens seen": sum(dialogue.n_answer for dialogue in drawn),
        "steps": run.step,
        "optimizer": words,
    }
    settings = adapted.peft_config["default"].to_dict()
    config = {name: sorted(value) if isinstance(value, set) else value for name, value in settings.items()}
    return TrainedAdapter(
        weights={
            name: value.detach().cpu().clone() for name, value in get_peft_model_state_dict(adapted).items()
        },
        config=config | {"base_model_name_or_path": loaded.source, "inference_mode": True},
        losses=tuple(run.losses),
        held_out=tuple(run.held_out),
        about=about,
        seconds=run.seconds,
    )


def _length(dialogue: EncodedDialogue) -> int:
    return len(dialogue.input_ids)


def _announce(
    recipe: LoraRecipe, train: Sequence[EncodedDialogue], held_out: Sequence[EncodedDialogue], say: Say
) -> float:
    """The time now, once it is said what the training will do, and what its settings will not reach."""
    count, size = len(train), recipe.batch * recipe.accumulate
    n_steps, tokens = recipe.n_steps(count), sum(map(_length, train))
    say(
        f"{count} dialogues of {tokens:,} tokens to train on, {len(held_out)} held out; "
        f"{n_steps} updates of up to {size} dialogues"
    )
    if n_steps <= recipe.warmup:
        highest = max(recipe.rate_at(step, n_steps) for step in range(n_steps))
        nothing = "; nothing is trained" if highest == 0 else ""
        say(
            f"warning: {n_steps} updates end within the warm-up of {recipe.warmup}: "
            f"the rate reaches {highest:.3g} of {recipe.rate:.3g}{nothing}"
        )
    if n_steps < recipe.steps_per_epoch(count):
        say(
            f"warning: {n_steps} updates see {n_steps * size} of {count} dialogues once, and the others never"
        )
    return time.monotonic()


Attempt = Callable[[Sequence[EncodedDialogue], int], float]
"""Dialogues and a number of answer tokens → the dialogues' part of the mean loss over so many."""


def _attempts(
    adapted: PeftModel, optimizer: torch.optim.Optimizer, recipe: LoraRecipe, pad_id: int
) -> tuple[Attempt, Attempt]:
    """What adds the gradients of a loss, and what gives the loss alone, with as many dialogues at a time as fit."""

    def parts(dialogues: Sequence[EncodedDialogue], size: int) -> list[tuple[Tensor, Tensor]]:
        # Those of similar length together.
        ordered = sorted(dialogues, key=_length)
        return [answer_labels(ordered[at : at + size], pad_id) for at in range(0, len(ordered), size)]

    def add_gradients(size: int, dialogues: Sequence[EncodedDialogue], of: int) -> float:
        optimizer.zero_grad(set_to_none=True)  # what an attempt that did not fit has added
        names, share = [dialogue.identifier for dialogue in dialogues], _n_learned(dialogues) / of
        batch = Batch(parts(dialogues, size), names)
        return backward(batch, lambda ids, labels: answer_loss(adapted, ids, labels) * share)

    @torch.inference_mode()
    def loss_on(size: int, dialogues: Sequence[EncodedDialogue], of: int) -> float:
        total = 0.0
        for ids, labels in parts(dialogues, size):
            total += float(answer_loss(adapted, ids, labels)) * int((labels != IGNORED).sum())
        return total / of

    add_fitting, loss_fitting = (
        find_executable_batch_size(attempt, starting_batch_size=recipe.batch)
        for attempt in (add_gradients, loss_on)
    )
    return add_fitting, loss_fitting


def _n_learned(dialogues: Sequence[EncodedDialogue]) -> int:
    return sum(int((answer_labels([each], 0)[1] != IGNORED).sum()) for each in dialogues)


def _losses(attempt: Attempt, dialogues: Sequence[EncodedDialogue]) -> list[float]:
    """The part of each process in the dialogues' mean loss.

    Raises:
        RemiError: if not even one dialogue fits into memory, or what the attempt raises: in every process, so that none
            waits for another.
    """
    # Of every length as many as any other process has.
    own = sorted(dialogues, key=_length)[rank() :: n_ranks()]
    try:
        found: float | RemiError = attempt(own, _n_learned(dialogues)) if own else 0.0
    except RemiError as error:
        found = error
    except RuntimeError as error:
        if "No executable batch size" not in str(error):
            raise
        found = RemiError("not even one dialogue at a time fits into memory: lower --max-tokens")
    losses = on_all(found)
    for each in losses:
        if isinstance(each, RemiError):
            raise each
    return losses


def _add_held_out(
    run: Run,
    loss_on: Attempt,
    rows: Sequence[EncodedDialogue],
    plain: Sequence[EncodedDialogue],
    say: Say,
) -> None:
    """Take the loss of the dialogues held out, and say what of it is in ``plain``, the same without a turn behind."""
    loss, count, of_reply = sum(_losses(loss_on, rows)), _n_learned(rows), _n_learned(plain)
    run.held_out.append((run.step, loss))
    words = f"held-out loss after step {run.step}: {loss:.4f} nats a token"
    if count > of_reply:
        reply = sum(_losses(loss_on, plain))
        behind = (loss * count - reply * of_reply) / (count - of_reply)
        words += f" (reply {reply:.4f}, empty turn {behind:.4f})"
    say(words)


# The files of a trained adapter: weights and settings as peft reads them, the record, and how long it took.

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"


def write_trained(folder: Path, trained: TrainedAdapter, about: Mapping[str, object], *, device: str) -> None:
    """Write the adapter and its record into the folder, the weights in float32.

    ``run.json`` says how long it took, where, and with which versions; the other files are the same bytes whenever
    the same training is repeated.
    """
    write_adapter(folder, trained.weights, trained.config)
    write_json(folder / "training.json", {**about, **trained.about})
    write_json(folder / "losses.json", {"updates": trained.losses, "held out": trained.held_out})
    write_curve(folder / "losses.csv", trained.losses, trained.held_out)
    run = {
        "seconds": round(trained.seconds, 1),
        "machine": machine(),
        "device": device,
        "processes": n_ranks(),
        "threads": torch.get_num_threads(),
        "versions": library_versions(),
    }
    write_json(folder / "run.json", run)


def adapter_card(about: Mapping[str, object], trained: Mapping[str, object]) -> str:
    """The README of an adapter as the hub reads it: what it was trained on, how, and how to load it."""
    base, local = str(about["instruct"]), local_folder(str(about["instruct"])) is not None
    head = {"library_name": "peft", "tags": ["lora"]} | ({} if local else {"base_model": base})
    data, recipe = about["data"], dict(about["recipe"])
    recipe["targets"] = " ".join(recipe["targets"]) or "all linear maps"
    lines = [
        *(
            "---",
            *(f"{key}: {json.dumps(value)}" for key, value in head.items()),
            "---",
            "# LoRA adapter",
            "",
        ),
        f"A LoRA adapter on `{Path(base).name if local else base}`.",
        "",
        f"- Data: `{data['file']}` (sha256 `{data['sha256']}`), "
        f"{trained['dialogues trained on']} of {data['dialogues']} dialogues trained on, "
        f"{trained['dialogues held out']} held out."
        + (" Behind each stands an empty turn, which is learned too." if data.get("empty turn") else ""),
        f"- {trained['steps']} updates, {trained['tokens seen']:,} tokens; {trained['optimizer']}.",
        f"- Recipe: {', '.join(f'{key} {value}' for key, value in recipe.items())}.",
        "",
        "`training.json` has the record, `run.json` machine and versions, `losses.csv` and `.svg` the loss curve.",
    ]
    return "\n".join(lines) + "\n"


def write_adapter(
    folder: Path,
    weights: Mapping[str, Tensor],
    config: Mapping[str, object],
    *,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write the weights, rounded to ``dtype``, and the settings into the folder."""
    rounded = {name: value.to(dtype).contiguous() for name, value in weights.items()}
    save_file(rounded, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    write_json(folder / CONFIG_FILE, dict(sorted(config.items())))


def write_curve(path: Path, losses: Sequence[float], held_out: Sequence[tuple[int, float]]) -> None:
    """Write the losses as CSV: a row an update, with the held-out loss after it where that was taken."""
    taken = dict(held_out)
    rows = [("update", "loss", "held_out"), (0, "", taken.get(0, ""))]
    rows += [(step, loss, taken.get(step, "")) for step, loss in enumerate(losses, start=1)]
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write the value into the file as JSON, indented, in UTF-8."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
