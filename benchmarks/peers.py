"""Other libraries that read block outputs, each doing the least it can to give ours: no logits where it can stop early.

Each is fed the model that we loaded, so that no hub is asked; what it reads goes through the same averages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel

from benchmarks.workload import Arrays, Workload
from remi_core.batches import Batch, make_batches
from remi_core.probes import Activations, PassState, positions_of

Reader = Callable[[Batch], Sequence[Tensor]]
"""Block outputs (dialogue, token, d_model) of a batch, first layer to last."""


def peer_activations(workload: Workload, reader: Reader) -> Arrays:
    """Window means of every layer, from block outputs that a peer read."""
    preset = workload.preset
    whole = Activations(workload.layers, preset.windows, first_k=preset.answer_first_k)
    for batch in make_batches(workload.dialogues, batch_tokens=preset.batch_tokens, pad_id=0):
        with torch.inference_mode():
            outputs = reader(batch)
            own = tuple(workload.dialogues[index] for index in batch.indices.tolist())
            rows, positions = positions_of([(one.prompt_end, one.answer_stop) for one in own], device="cpu")
            probe = whole.empty()
            for layer, output in enumerate(outputs):
                probe.read_block(layer, output[rows, positions], batch, own)
            probe.accumulate(batch, PassState(workload.model, own, outputs[-1]))
            whole.join(probe)
    return {"mean": whole.finish()["mean"]}


def transformer_lens(model: PreTrainedModel) -> Reader:
    """``run_with_cache`` of TransformerLens, of block outputs alone."""
    from transformer_lens.model_bridge import TransformerBridge

    folder = model.config._name_or_path
    bridge = TransformerBridge.boot_transformers(
        folder, hf_model=model, tokenizer=AutoTokenizer.from_pretrained(folder), dtype=torch.float32
    )
    names = [f"blocks.{layer}.hook_out" for layer in range(len(bridge.blocks))]

    def read(batch: Batch) -> list[Tensor]:
        _, cache = bridge.run_with_cache(
            batch.input_ids, attention_mask=batch.attention_mask, names_filter=names, return_type=None
        )
        return [cache[name] for name in names]

    return read


def nnsight(model: PreTrainedModel) -> Reader:
    """``trace`` of nnsight, left after the last block."""
    import nnsight as library

    traced = library.LanguageModel(model, tokenizer=AutoTokenizer.from_pretrained(model.config._name_or_path))

    def read(batch: Batch) -> list[Tensor]:
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        with traced.trace(inputs) as tracer:
            outputs = library.save([])
            for layer in traced.model.layers:
                outputs.append(layer.output)
            tracer.stop()
        return [output[0] if isinstance(output, tuple) else output for output in outputs]

    return read


def nnterp(model: PreTrainedModel) -> Reader:
    """``trace`` of nnterp's StandardizedTransformer, left after the last block."""
    import nnsight as library
    from nnterp import StandardizedTransformer

    traced = StandardizedTransformer(
        model, tokenizer=AutoTokenizer.from_pretrained(model.config._name_or_path)
    )

    def read(batch: Batch) -> list[Tensor]:
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        with traced.trace(inputs) as tracer:
            outputs = library.save([])
            for layer in range(traced.num_layers):
                outputs.append(traced.layers_output[layer])
            tracer.stop()
        return list(outputs)

    return read


READERS: Mapping[str, Callable[[PreTrainedModel], Reader]] = {
    "transformer_lens": transformer_lens,
    "nnsight": nnsight,
    "nnterp": nnterp,
}
