"""The forward and backward passes that records are made of."""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from remi_core import patching
from remi_core.batches import BatchBudget, make_batches
from remi_core.errors import UsageError
from remi_core.files import FinishedBatches, RowFile
from remi_core.forward import run_probes
from remi_core.gradients import gradient_factors, gram_of_factors, measure_gradient_gram
from remi_core.models import LoadedModel, check_vocabulary, decoder_body, final_norm, n_layers, read_blocks
from remi_core.parallel import rank
from remi_core.placement import computing_device, input_device
from remi_core.probes import Activations, ColumnProbe, NextToken, TokenLogProbs
from remi_core.progress import progress_sink
from remi_core.tokens import ChatTokenizer, EncodedDialogue, EncodedSet
from remi_lab.datasets import LoadedSet
from remi_lab.presets import in_order
from remi_lab.processes import Meter
from remi_lab.turns import encode_for
from remi_lab.variant import MAIN_PAIRS, Measured, Pair, Variant, row_labels

# What passes take of a batch, as arrays and back: so that a finished batch can lie on disk.

GradientParts = list[tuple[tuple[Tensor, Tensor], float]]
"""Of each dialogue of a batch: the factors of its gradient, and its loss."""


def finished_forward(folder: Path, probes: Sequence[ColumnProbe]) -> FinishedBatches[list[ColumnProbe]]:
    """The finished batches of a pass that these probes share."""

    def spell(parts: Sequence[ColumnProbe]) -> dict[str, np.ndarray]:
        return {f"{part.name}.{name}": array for part in parts for name, array in part.state().items()}

    def read(arrays: Mapping[str, np.ndarray]) -> list[ColumnProbe]:
        parts, states = [probe.empty() for probe in probes], defaultdict(dict)
        for name, array in arrays.items():
            probe, _, part = name.partition(".")
            states[probe][part] = array
        for part in parts:
            part.restore(states[part.name])
        return parts

    return FinishedBatches(folder, spell=spell, read=read)


def finished_gradients(folder: Path) -> FinishedBatches[GradientParts]:
    """The finished batches of a backward pass: factors, as float32, and losses."""

    def spell(parts: GradientParts) -> dict[str, np.ndarray]:
        factors = {
            f"{row}.{side}": factor.detach().cpu().numpy()
            for row, (pair, _) in enumerate(parts)
            for side, factor in enumerate(pair)
        }
        return factors | {"loss": np.array([loss for _, loss in parts])}

    def read(arrays: Mapping[str, np.ndarray]) -> GradientParts:
        pairs = [
            tuple(torch.from_numpy(np.array(arrays[f"{row}.{side}"])) for side in (0, 1))
            for row in range(len(arrays["loss"]))
        ]
        return list(zip(pairs, arrays["loss"].tolist(), strict=True))

    return FinishedBatches(folder, spell=spell, read=read)


def _seconds(started: float, budget: BatchBudget) -> float:
    """Time since then, and of the runs before that were killed."""
    before = 0.0 if budget.finished is None else budget.finished.seconds
    return before + time.perf_counter() - started


# Dialogues as every pass reads them: encoded by instruct's tokenizer.


def checked_tokenizer(variant: Variant, loaded: LoadedModel) -> ChatTokenizer:
    """The tokenizer for every variant, whose ids this model is known to have.

    Raises:
        RemiError: if it has ids that the model has not.
    """
    tokenizer = variant.tokenizer()
    check_vocabulary(loaded, tokenizer, variant.text.source)
    return tokenizer


def encoded_rows(variant: Variant, tokenizer: ChatTokenizer, source: LoadedSet) -> EncodedSet:
    """The encoded dialogues; rows that were dropped in loading are counted among those dropped here."""
    encoded = encode_for(variant.preset, source.dialogues, tokenizer)
    return replace(encoded, dropped={**source.dropped, **encoded.dropped})


def joined_sets(encoded: Mapping[str, EncodedSet]) -> tuple[EncodedSet, np.ndarray]:
    """Sets one after another, each reason of a drop with its set's name; and the set of each row."""
    parts = encoded.values()
    joined = EncodedSet(
        tuple(dialogue for part in parts for dialogue in part.dialogues),
        tuple(source for part in parts for source in part.sources),
        {
            f"{name}: {reason}": names
            for name, part in encoded.items()
            for reason, names in part.dropped.items()
        },
    )
    return joined, np.repeat(list(encoded), [len(part.dialogues) for part in parts])


# Passes of encoded dialogues through one open model, or several in turn: arrays of records, and their provenance.


def forward_passes(
    variant: Variant,
    loaded: LoadedModel,
    encoded: EncodedSet,
    *,
    folder: Path,
    finished: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Measured]:
    """Measurement → its arrays and provenance, of every forward measurement of a set, from one pass.

    Block outputs are read from ``folder``, as long as it is there. Of several processes only the first has any.
    Batches that are done lie in ``finished``, so that a pass that is killed goes on behind them.
    """
    preset, started, budget = variant.preset, time.perf_counter(), BatchBudget(variant.preset.batch_tokens)
    layers, n_dialogues = range(n_layers(loaded.model)), len(encoded.dialogues)
    file = RowFile(folder / f"{n_dialogues}-means.npy", n_dialogues)
    probes = [
        TokenLogProbs(),
        NextToken(preset.top_k),
        Activations(layers, preset.windows, first_k=preset.answer_first_k, file=file),
    ]
    if finished is not None and not rank():
        budget.finished = finished_forward(finished, probes)
    arrays = run_probes(loaded.model, encoded.dialogues, probes, batch_tokens=budget, progress=progress)
    about = variant.provenance(encoded, _seconds(started, budget), loaded=loaded, **budget.about())
    return {name: (own | row_labels(encoded.sources), about) for name, own in arrays.items()}


def gradient_passes(
    variant: Variant, sources: Mapping[str, LoadedSet], *, finished: Path | None = None
) -> Measured | None:
    """Arrays and provenance of the gradient Gram matrix of several sets together.

    Of several processes only the first has them. Batches that are done lie in ``finished`` meanwhile.
    """
    started, budget = time.perf_counter(), BatchBudget(variant.preset.batch_tokens)
    if finished is not None and not rank():
        budget.finished = finished_gradients(finished)
    with variant.open() as loaded:
        tokenizer = checked_tokenizer(variant, loaded)
        joined, datasets = joined_sets(
            {name: encoded_rows(variant, tokenizer, source) for name, source in sources.items()}
        )
        n_tokens = sum(len(one.input_ids) for one in joined.dialogues)
        budget.progress = Meter(f"{variant.name}, seed {variant.seed}: gradients", n_tokens, progress_sink())
        arrays = measure_gradient_gram(
            loaded.model, joined.dialogues, weight=variant.preset.gradient_layer, batch_tokens=budget
        )
        if not arrays:
            return None
        about = variant.provenance(
            joined,
            _seconds(started, budget),
            loaded=loaded,
            **budget.about(),
            data={name: dict(source.about) for name, source in sources.items()},
        )
    return arrays | {"dataset": datasets} | row_labels(joined.sources), about


def gradient_passes_across(sides: Mapping[str, Variant], sources: Mapping[str, LoadedSet]) -> Measured:
    """The same with each set through a model of its own: the models are in memory one after the other, and between
    them only the factors of the gradients are kept."""
    first = next(iter(sides.values()))
    started, budget = time.perf_counter(), BatchBudget(first.preset.batch_tokens)
    factors, losses, encoded = [], [], {}
    for name, variants in sides.items():
        with variants.open() as loaded:
            encoded[name] = encoded_rows(variants, checked_tokenizer(variants, loaded), sources[name])
            own, loss = gradient_factors(
                loaded.model,
                encoded[name].dialogues,
                weight=variants.preset.gradient_layer,
                batch_tokens=budget,
            )
            factors += own
            losses.append(loss)
    joined, datasets = joined_sets(encoded)
    arrays = {"gram": gram_of_factors(factors), "loss": np.concatenate(losses), "dataset": datasets}
    about = first.provenance(
        joined,
        time.perf_counter() - started,
        **budget.about(),
        weights=[variants.weights for variants in sides.values()],
        data={name: dict(source.about) for name, source in sources.items()},
    )
    return arrays | row_labels(joined.sources, ("cluster", "pair")), about


# One seed's patching: every model's own recordings in a folder, and the records that come of them.


def patching_passes(
    variants: Mapping[str, Variant],
    sources: Mapping[str, LoadedSet],
    missing: Sequence[tuple[Pair, str]],
    folder: Path,
) -> Iterator[tuple[tuple[Pair, str], Measured]]:
    """Pair and set of each missing record, with its arrays and provenance; recordings lie in ``folder`` meanwhile."""
    instruct, tokenizer = variants["instruct"], variants["instruct"].tokenizer()
    alone: dict[tuple[str, str], np.ndarray] = {}
    """What (variant, set) gives without patching."""
    fingerprints: dict[str, str] = {}
    """Of each model that was recorded."""
    sets = {}
    for name in dict.fromkeys(name for _, name in missing):
        encoded = encoded_rows(instruct, tokenizer, sources[name])
        bare = bare_tokens(encoded.dialogues, tokenizer)
        sets[name] = encoded, patching.PatchSet(encoded.dialogues, bare, instruct.preset.batch_tokens)

    def place(variant: str, name: str) -> Path:
        path = folder / variant / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def patched(loaded: LoadedModel, recipient: str) -> Iterator[tuple[tuple[Pair, str], Measured]]:
        model, most = loaded.model, patching.tolerance(loaded.model)
        for name in dict.fromkeys(name for _, name in into[recipient]):
            encoded, material = sets[name]
            # A recipient that is given its own stream back must not change.
            first = patching.patch_layers(n_layers(model))[0]
            (values,) = patching.patch(model, material, place(recipient, name), [first])
            start = patching.require_equal(
                values,
                alone[recipient, name],
                material.dialogues,
                place=f"layer {first}, {recipient} into itself",
                tolerance=most,
            )
            for pair in [pair for pair, other in into[recipient] if other == name]:
                started, recorded = time.perf_counter(), place(pair[0], name)
                layers = patching.patch_layers(n_layers(model), thinned=pair not in MAIN_PAIRS)
                values = patching.patch(model, material, recorded, layers)
                end = patching.require_equal(
                    values[-1],
                    patching.head_alone(model, material, recorded),
                    material.dialogues,
                    place=f"layer {layers[-1]}, {pair[0]} into {recipient}",
                    tolerance=most,
                )
                rows = np.stack([alone[recipient, name], *values, alone[pair[0], name]])
                arrays = {quantity: rows[:, at] for at, quantity in enumerate(patching.QUANTITIES)}
                arrays |= {"layers": np.array(layers), "start": np.array(start), "end": np.array(end)}
                about = variants[recipient].provenance(
                    encoded,
                    time.perf_counter() - started,
                    loaded=loaded,
                    donor=fingerprints[pair[0]],
                    batch_tokens=material.batch_tokens,
                    data=dict(sources[name].about),
                )
                yield (pair, name), (arrays | row_labels(encoded.sources, ("identifier", "cluster")), about)

    # Recipients last: the one with most donors is patched while it is open for its own recording.
    models = in_order(list({variant for pair, _ in missing for variant in pair}))
    into = {model: [key for key in missing if key[0][1] == model] for model in models}
    waiting = sorted(into, key=lambda model: len(into[model]))
    for variant in [*waiting, *(model for model in waiting[:-1] if into[model])]:
        with variants[variant].open() as loaded:
            check_vocabulary(loaded, tokenizer, instruct.source)
            if variant not in fingerprints:
                fingerprints[variant] = loaded.fingerprint
                for name in dict.fromkeys(name for pair, name in missing if variant in pair):
                    alone[variant, name] = patching.record_outputs(
                        loaded.model, sets[name][1], place(variant, name)
                    )
            if len(fingerprints) == len(waiting):
                yield from patched(loaded, variant)


# The residual stream at the first position and elsewhere (section 4.4), and behind the final norm.


def measure_position_norms(
    loaded: LoadedModel, encoded: Sequence[EncodedDialogue], *, batch_tokens: int
) -> dict[str, np.ndarray]:
    """Lengths of raw block outputs by position, each array (dialogue, layer), float32.

    ``first``: length at position 0, in units of the residual stream; ``others``: median length at the other
    positions of the dialogue; ``largest_share``: the median, over those positions, of the share of the squared
    length that the largest coordinate holds, in [0, 1].

    Raises:
        UsageError: if there is no dialogue.
    """
    if not encoded:
        raise UsageError("no dialogue to measure; at least one is needed")
    model = loaded.model
    layers = range(n_layers(model))
    found = {
        name: np.empty((len(encoded), len(layers)), np.float32)
        for name in ("first", "others", "largest_share")
    }
    for batch in make_batches(encoded, batch_tokens=batch_tokens, pad_id=0):
        batch = batch.to(input_device(model))
        with torch.inference_mode(), read_blocks(model, layers) as blocks:
            decoder_body(model)(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            )
        for row, index in enumerate(batch.indices.tolist()):
            n_tokens = int(batch.attention_mask[row].sum())
            for layer in layers:
                squared = blocks[layer][row, :n_tokens].float().square()
                length = squared.sum(dim=-1)
                share = squared[1:].amax(dim=-1) / length[1:]
                found["first"][index, layer] = float(length[0].sqrt())
                found["others"][index, layer] = float(length[1:].sqrt().median())
                found["largest_share"][index, layer] = float(share.median())
    return found


def after_final_norm(
    loaded: LoadedModel, values: Float[np.ndarray, "dialogue d_model"]
) -> Float[np.ndarray, "dialogue d_model"]:
    """Outputs of the last block as the model's own final norm gives them on, float64, worked out in float32."""
    norm = copy.deepcopy(final_norm(loaded.model)).float()
    raised = torch.tensor(values, dtype=torch.float32, device=computing_device(norm))
    with torch.inference_mode():
        return norm(raised).cpu().numpy().astype(np.float64)


def bare_tokens(
    dialogues: Sequence[EncodedDialogue], tokenizer: PreTrainedTokenizerBase
) -> tuple[int | None, ...]:
    """Id of each choice token's text without its leading blank; None where that is no other token.

    Source: the released patching script looks up the bare word.
    """
    vocabulary = tokenizer.get_vocab()
    bare: list[int | None] = []
    for dialogue in dialogues:
        token = "" if dialogue.choice is None else tokenizer.decode([dialogue.input_ids[dialogue.choice]])
        word = token.removeprefix(" ")
        bare.append(vocabulary.get(word) if word and word != token else None)
    return tuple(bare)
