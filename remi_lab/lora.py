"""Low-rank adapters: training, checkpoints, and files that peft reads."""

from __future__ import annotations

import importlib
import importlib.util
import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from accelerate.utils import find_executable_batch_size
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from remi_core.errors import RemiError, UsageError
from remi_core.files import is_whole, written_whole
from remi_core.keys import library_versions, text_digest
from remi_core.models import LoadedModel, decoder_blocks, decoder_body, logits_at
from remi_core.progress import Say, clock, machine
from remi_core.tokens import EncodedDialogue, EncodedSet
from remi_lab.recipes import LoraRecipe, split
from remi_lab.training import IGNORED, answer_labels, backward, load_checkpoint, update

# The adapter itself: put on a model, its loss and its optimiser.


def add_adapter(model: PreTrainedModel, recipe: LoraRecipe, *, start: Path | None = None) -> PeftModel:
    """The model with an adapter on every linear map of its blocks, ready to train, all else frozen.

    The adapter is new and changes nothing yet, or is the one in the folder ``start``, whose training goes on.
    """
    with warnings.catch_warnings():
        # peft asks transformers for an attribute under its old name.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        if start is not None:
            adapted = PeftModel.from_pretrained(model, str(start), is_trainable=True)
        else:
            torch.manual_seed(recipe.seed)
            adapted = get_peft_model(model, _config(recipe))
    return adapted.eval()  # no dropout anywhere: the same run gives the same weights


def _config(recipe: LoraRecipe) -> LoraConfig:
    return LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        use_rslora=True,
        lora_dropout=0.0,
        bias="none",
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def save_memory(adapted: PeftModel) -> None:
    """Return with every block told to compute its activations a second time rather than to keep them."""
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


def adapter_weights(adapted: PeftModel) -> dict[str, Tensor]:
    """A copy of the adapter's weights under the names that peft reads, on the processor."""
    return {name: value.detach().cpu().clone() for name, value in get_peft_model_state_dict(adapted).items()}


def adapter_config(adapted: PeftModel, source: str) -> dict[str, object]:
    """The settings that peft reads; ``source`` names the model that the adapter belongs on."""
    config = adapted.peft_config["default"].to_dict()
    plain = {name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}
    return plain | {"base_model_name_or_path": source, "inference_mode": True}


# A training in progress: what it must remember to go on after an interruption as if there had been none.


@dataclass
class Run:
    """Adapter and optimiser with the updates done, the seconds they took and the losses so far."""

    adapted: PeftModel
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    held_out: list[tuple[int, float]] = field(default_factory=list)

    def save(self, path: Path, identity: Mapping[str, object]) -> None:
        """Return once all of it lies at ``path``; ``identity`` says what data, model and recipe it belongs to."""
        state = {
            "identity": dict(identity),
            "weights": {name: value.detach() for name, value in trained_parameters(self.adapted).items()},
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.losses,
            "held_out": self.held_out,
        }
        with written_whole(path) as part:
            torch.save(state, part)

    def load(self, path: Path, identity: Mapping[str, object]) -> None:
        """Return with the state that was saved at ``path``.

        Raises:
            UsageError: if it was saved by a run of other data, another model or another recipe.
            RemiError: if it cannot be read.
        """
        state = load_checkpoint(path)
        for name, value in identity.items():
            before = state["identity"].get(name)
            if before != value:
                raise UsageError(
                    f"{path} was made with {name} {before!r}, not {value!r}: give the same, or delete it"
                )
        with torch.no_grad():
            for name, parameter in trained_parameters(self.adapted).items():
                parameter.copy_(state["weights"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.losses = state["step"], state["seconds"], state["losses"]
        self.held_out = [tuple(pair) for pair in state["held_out"]]


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
    config: Mapping[str, object]
    losses: tuple[float, ...]
    """Of every update: nats per answer token of its dialogues, before it."""
    held_out: tuple[tuple[int, float], ...]
    """(updates done, nats per answer token of the dialogues held out)."""
    about: Mapping[str, object]
    """Counts, parameters and the optimiser in words; nothing about time or machine."""
    seconds: float


@dataclass(frozen=True, eq=False)
class _Work:
    """What a training works on, and where it leaves its checkpoints."""

    train: Sequence[EncodedDialogue]
    held_out: Sequence[EncodedDialogue]
    recipe: LoraRecipe
    pad_id: int
    checkpoint: Path | None
    identity: Mapping[str, object]
    say: Say

    @property
    def n_steps(self) -> int:
        return self.recipe.n_steps(len(self.train))


def train_adapter(
    loaded: LoadedModel,
    encoded: EncodedSet,
    recipe: LoraRecipe,
    *,
    start: Path | None = None,
    checkpoint: Path | None = None,
    say: Say = print,
) -> TrainedAdapter:
    """An adapter on the loaded model, trained on the answers of the dialogues, of which part is held out.

    ``start`` is the folder of an adapter whose training goes on. A run whose ``checkpoint`` is there goes on from
    it and ends in the same weights as one that was never interrupted. The model is left with the adapter on it.

    Raises:
        UsageError: if there are fewer than two clusters, or the checkpoint is of another run.
        RemiError: if not even one dialogue at a time fits into memory, or a loss or gradient is not finite.
    """
    chosen, held = split([source.cluster for source in encoded.sources], recipe)
    train, rest = ([encoded.dialogues[index] for index in part] for part in (chosen, held))
    identity = _identity(loaded, encoded, recipe)
    work = _Work(train, rest, recipe, loaded.tokenizer.pad_token_id or 0, checkpoint, identity, say)
    large = loaded.model.num_parameters() >= LARGE
    adapted = add_adapter(loaded.model, recipe, start=start)
    if large:
        save_memory(adapted)
    optimizer, words = make_optimizer(adapted, recipe)
    run = Run(adapted, optimizer)
    if checkpoint is not None and is_whole(checkpoint, say):
        run.load(checkpoint, identity)
        say(f"resuming after step {run.step} of {work.n_steps}")
    _train(run, work)
    about = _about(run, work, encoded) | {"optimizer": words}
    config = adapter_config(adapted, loaded.source)
    losses, held_out = tuple(run.losses), tuple(run.held_out)
    return TrainedAdapter(adapter_weights(adapted), config, losses, held_out, about, run.seconds)


def _identity(loaded: LoadedModel, encoded: EncodedSet, recipe: LoraRecipe) -> dict[str, object]:
    """What two runs must share for one to go on from the other's checkpoint."""
    rows = text_digest(repr([dialogue.input_ids for dialogue in encoded.dialogues]))
    return asdict(recipe) | {"model": loaded.fingerprint, "data": rows}


def _about(run: Run, work: _Work, encoded: EncodedSet) -> dict[str, object]:
    count = len(work.train)
    drawn = [index for step in range(run.step) for index in work.recipe.drawn(step, count)]
    return {
        "parameters": sum(value.numel() for value in trained_parameters(run.adapted).values()),
        "dialogues trained on": count,
        "dialogues held out": len(work.held_out),
        "dialogues dropped": {reason: len(names) for reason, names in encoded.dropped.items()},
        "answers cut short": sum(dialogue.truncated for dialogue in encoded.dialogues),
        "tokens seen": sum(len(work.train[index].input_ids) for index in drawn),
        "answer tokens seen": sum(work.train[index].n_answer for index in drawn),
        "steps": run.step,
    }


def _train(run: Run, work: _Work) -> None:
    """Return once all updates are done, and the held-out losses taken."""
    n_steps, spoken = work.n_steps, float("-inf")
    marks = {round(n_steps * mark / N_HELD_OUT_LOSSES) for mark in range(N_HELD_OUT_LOSSES + 1)}
    gradient = _gradient(run, work)
    while True:
        if run.step in marks and run.step not in dict(run.held_out):
            run.held_out.append((run.step, held_out_loss(run.adapted, work)))
            work.say(f"held-out loss after step {run.step}: {run.held_out[-1][1]:.4f} nats a token")
        if run.step == n_steps:
            return
        began = time.perf_counter()
        batch = [work.train[index] for index in work.recipe.drawn(run.step, len(work.train))]
        for group in run.optimizer.param_groups:
            group["lr"] = work.recipe.rate_at(run.step, n_steps)
        run.losses.append(gradient(batch))
        update(run.optimizer, run.adapted)
        run.step += 1
        run.seconds += time.perf_counter() - began
        if work.checkpoint is not None and run.step % max(1, n_steps // N_CHECKPOINTS) == 0:
            run.save(work.checkpoint, work.identity)
        if run.step == n_steps or time.monotonic() - spoken > SECONDS_A_LINE:
            work.say(_line(run, n_steps))
            spoken = time.monotonic()


def _gradient(run: Run, work: _Work) -> Callable[[Sequence[EncodedDialogue]], float]:
    """Function that adds the gradients of a batch and gives its loss, fewer dialogues at a time where memory ends."""

    def loss_of(ids: Tensor, labels: Tensor) -> Tensor:
        return answer_loss(run.adapted, ids, labels)

    @find_executable_batch_size(starting_batch_size=work.recipe.batch)
    def attempt(size: int, batch: Sequence[EncodedDialogue]) -> float:
        run.optimizer.zero_grad(set_to_none=True)  # what an attempt that failed has added
        names = [dialogue.identifier for dialogue in batch]
        return backward(_parts(batch, size, work.pad_id), loss_of, names=names)

    return lambda batch: _fitting(attempt, batch)


def _fitting(attempt: Callable[..., float], *arguments: object) -> float:
    """What the attempt gives with as many dialogues at a time as fit into memory.

    Raises:
        RemiError: if not even one does.
    """
    try:
        return attempt(*arguments)
    except RuntimeError as error:
        if "No executable batch size" not in str(error):
            raise
        raise RemiError("not even one dialogue at a time fits into memory: lower --max-tokens") from error


def _parts(batch: Sequence[EncodedDialogue], size: int, pad_id: int) -> list[tuple[Tensor, Tensor]]:
    """Ids and labels of ``size`` dialogues at a time, those of similar length together."""
    ordered = sorted(batch, key=lambda dialogue: len(dialogue.input_ids))
    return [answer_labels(ordered[at : at + size], pad_id) for at in range(0, len(ordered), size)]


@torch.inference_mode()
def held_out_loss(adapted: torch.nn.Module, work: _Work) -> float:
    """Mean loss of the dialogues held out, nats per answer token; fewer at a time where memory ends."""

    @find_executable_batch_size(starting_batch_size=work.recipe.batch)
    def attempt(size: int) -> float:
        total, count = 0.0, 0
        for ids, labels in _parts(work.held_out, size, work.pad_id):
            n_tokens = int((labels != IGNORED).sum())
            total += float(answer_loss(adapted, ids, labels)) * n_tokens
            count += n_tokens
        return total / count

    return _fitting(attempt)


def _line(run: Run, n_steps: int) -> str:
    left = run.seconds / run.step * (n_steps - run.step)
    return (
        f"step {run.step}/{n_steps}  loss {run.losses[-1]:.4f} nats a token  "
        f"{clock(run.seconds)} elapsed, about {clock(left)} left"
    )


# The files of a trained adapter: weights and settings as peft reads them, the record, and how long it took.

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"


def write_trained(folder: Path, trained: TrainedAdapter, about: Mapping[str, object], *, device: str) -> None:
    """Return once the adapter and its record lie in the folder, the weights in float32.

    ``run.json`` says how long it took, where, and with which versions; the other files are the same bytes whenever
    the same training is repeated.
    """
    write_adapter(folder, trained.weights, trained.config)
    write_json(folder / "training.json", {**about, **trained.about})
    write_json(folder / "losses.json", {"updates": trained.losses, "held out": trained.held_out})
    run = {"seconds": round(trained.seconds, 1), "machine": machine(), "device": device}
    write_json(
        folder / "run.json", run | {"threads": torch.get_num_threads(), "versions": library_versions()}
    )


def write_adapter(
    folder: Path,
    weights: Mapping[str, Tensor],
    config: Mapping[str, object],
    *,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Return once the weights, rounded to ``dtype``, and the settings lie in the folder."""
    rounded = {name: value.to(dtype).contiguous() for name, value in weights.items()}
    save_file(rounded, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    write_json(folder / CONFIG_FILE, dict(sorted(config.items())))


def write_json(path: Path, value: object) -> None:
    """Return once the value stands in the file, indented, in UTF-8."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
