"""Our own measurements and the bare forward passes that are their limit, each as a function of a workload."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks.explicit import explicit_gram
from benchmarks.released import Protocol, released
from benchmarks.workload import Arrays, Workload
from remi_core.batches import make_batches
from remi_core.files import RowFile
from remi_core.forward import run_probes
from remi_core.gradients import measure_gradient_gram
from remi_core.models import decoder_body, unembedding
from remi_core.placement import input_device
from remi_core.probes import Activations, NextToken, TokenLogProbs, positions_of


def probes(workload: Workload) -> Arrays:
    """All forward measurements from one pass: log-probability, entropy, next tokens, windows of every layer."""
    sequence, next_token = TokenLogProbs(), NextToken(workload.preset.top_k)
    with TemporaryDirectory() as folder:
        found = run_probes(
            workload.model,
            workload.dialogues,
            [sequence, next_token, _windows(workload, folder)],
            batch_tokens=workload.preset.batch_tokens,
        )
    own = found["sequence"]
    return {
        "log_probability": own["log_probability"],
        "entropy": own["entropy"],
        "loss": -own["log_probability"],
        "mean": found["activations"]["mean"],
    }


def activations(workload: Workload) -> Arrays:
    """Mean activations of every layer at the windows alone."""
    tokens = workload.preset.batch_tokens
    with TemporaryDirectory() as folder:
        probe = _windows(workload, folder)
        found = run_probes(workload.model, workload.dialogues, [probe], batch_tokens=tokens)
    return {"mean": found["activations"]["mean"]}


def bare(workload: Workload) -> Arrays:
    """The model on the same batches, logits at answer positions only; what they say is not looked at.

    The first logit of each token stays, so that the results can be told to be right.
    """
    kept: dict[int, np.ndarray] = {}
    model = workload.model
    for batch in _batches(workload):
        spans = [
            (workload.dialogues[index].answer_start, workload.dialogues[index].answer_stop)
            for index in batch.indices.tolist()
        ]
        rows, positions = positions_of(spans, device=batch.input_ids.device)
        with torch.inference_mode():
            hidden = decoder_body(model)(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            )
            logits = unembedding(model)(hidden.last_hidden_state[rows, positions - 1])
        for index, part in zip(
            batch.indices.tolist(), logits[:, 0].split([b - a for a, b in spans]), strict=True
        ):
            kept[index] = part.float().cpu().numpy()
    return {"first_logit": np.concatenate([kept[index] for index in sorted(kept)])}


def body(workload: Workload) -> Arrays:
    """The decoder without its head on the same batches."""
    for batch in _batches(workload):
        with torch.inference_mode():
            decoder_body(workload.model)(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            )
    return {"dialogues": np.array(len(workload.dialogues))}


def bare_full(workload: Workload) -> Arrays:
    """``model(**batch)`` in inference mode on the same batches, with the logits of all tokens."""
    total = 0
    for batch in _batches(workload):
        with torch.inference_mode():
            logits = workload.model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            ).logits
        total += logits.shape[0]
    return {"dialogues": np.array(total)}


def gram(workload: Workload) -> Arrays:
    """The gradient Gram matrix of the last attention output."""
    return measure_gradient_gram(
        workload.model, workload.dialogues, batch_tokens=workload.preset.batch_tokens
    )


def _windows(workload: Workload, folder: str) -> Activations:
    """The probe as the package uses it: means go to a file, which stays readable after the folder is gone."""
    preset, file = workload.preset, RowFile(Path(folder) / "means.npy", len(workload.dialogues))
    return Activations(workload.layers, preset.windows, first_k=preset.answer_first_k, file=file)


def _batches(workload: Workload) -> list:
    device = input_device(workload.model)
    made = make_batches(workload.dialogues, batch_tokens=workload.preset.batch_tokens, pad_id=0)
    return [batch.to(device) for batch in made]


WAYS: Mapping[str, Callable[[Workload], Arrays]] = {
    "probes": probes,
    "activations": activations,
    "body": body,
    "bare": bare,
    "bare_full": bare_full,
    "gram": gram,
    "explicit": explicit_gram,
    "released": lambda workload: released(workload, Protocol()),
}
"""Name → what it does; a child process that measures memory is told the name."""


def largest_difference(one: Arrays, other: Arrays) -> float:
    """Largest difference of the arrays that both have, relative to the largest value of each.

    Raises:
        AssertionError: if they share no array, differ in shape, or lack values at other places.
    """
    shared = sorted(one.keys() & other.keys())
    assert shared, (sorted(one), sorted(other))
    worst = 0.0
    for name in shared:
        left, right = one[name], other[name]
        assert left.shape == right.shape and np.array_equal(np.isnan(left), np.isnan(right)), name
        scale = np.nanmax(np.abs(right)) or 1.0
        worst = max(worst, float(np.nanmax(np.abs(left - right)) / scale))
    return worst
