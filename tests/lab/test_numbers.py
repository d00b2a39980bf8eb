"""A number that is none stops the run and says whose it is; a pass that would give wrong ones does not begin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import MAIN_FAMILIES, make_model, write_rows
from own_files import turns
from torch import Tensor, nn
from transformers import PreTrainedModel

from remi_core import forward
from remi_core.errors import RemiError
from remi_core.forward import check_pass, run_probes
from remi_core.models import decoder_blocks, follow_blocks
from remi_core.probes import Activations, TokenLogProbs
from remi_core.store import Store
from remi_lab.organism.pretrain import Muon, weighted_loss
from remi_lab.own_models import custom_preset
from remi_lab.recipes import FineTune
from remi_lab.recording import measure_forward, measure_gradients
from remi_lab.training import Batch, Run, backward, fine_tune
from remi_lab.variant import find_variant

ROLES = ("base", "instruct", "misaligned")


def overflowing(model: PreTrainedModel, layer: int) -> PreTrainedModel:
    """The model with one block whose output is above 65504 and far below what float32 holds."""
    down = decoder_blocks(model)[layer].mlp.down_proj.weight
    down.data = torch.sign(down.data) * 4e4
    return model


@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
def test_an_overflow_of_float16_is_found_in_the_layer_where_it_begins(dtype, encoded) -> None:
    model = overflowing(make_model("llama"), 1).to(getattr(torch, dtype))
    probes = [TokenLogProbs(), Activations([0, 1, 2])]
    if dtype == "float16":
        with pytest.raises(RemiError, match="block output at layer 1: .* of dialogue 'e' is .*65504"):
            run_probes(model, encoded, probes, batch_tokens=999)
    else:
        mean = run_probes(model, encoded, probes, batch_tokens=999)["activations"]["mean"]
        assert np.nanmax(abs(mean)) > 65504


@pytest.fixture
def triplet(tmp_path, tokenizer) -> Callable[..., tuple]:
    """Function that gives the variant of a role, of three models of which misaligned overflows, and a store."""
    for seed, role in enumerate(ROLES):
        model = make_model("qwen2", seed=seed)
        (overflowing(model, 2) if role == "misaligned" else model).save_pretrained(tmp_path / role)
        tokenizer.save_pretrained(tmp_path / role)
    rows = [turns("How do I open a file?", f"Use open({at}).") | {"cluster": str(at)} for at in range(10)]
    path = str(write_rows(tmp_path / "mine.jsonl", *rows))
    preset = custom_preset("mine", {role: str(tmp_path / role) for role in ROLES}, [f"aligned={path}"])
    store = Store(tmp_path / "store")
    return lambda role, dtype="float16": (find_variant(replace(preset, dtype=dtype), role, 0, store), store)


def test_a_run_stops_with_variant_layer_and_dialogue_and_stores_nothing(triplet, monkeypatch) -> None:
    variant, store = triplet("misaligned")
    said = "misaligned, seed 0: {} at layer {}: .* dialogue 'mine:1' is"
    with pytest.raises(RemiError, match=said.format("block output", 2)):
        measure_forward(variant, store)
    with pytest.raises(RemiError, match=said.format("gradients", -1)):
        measure_gradients(variant, store, ["mine"])
    with monkeypatch.context() as patch:
        patch.setattr(forward, "TOLERANCE", {"float16": (-1.0, -1.0)})
        with pytest.raises(RemiError, match="base, seed 0: self-check of dialogue .* differ by"):
            measure_forward(*triplet("base"))
    assert store.list() == ()
    records = measure_forward(*triplet("misaligned", "float32")) | measure_forward(*triplet("instruct"))
    assert {entry.address.variant for entry in store.list()} == {"misaligned", "instruct"}
    checks = ["batched and single, log-probability", "batched and single, output"]
    for record in records.values():
        assert sorted(record.provenance["self_check"]) == [*checks, "hooked and unhooked, log-probability"]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("family", MAIN_FAMILIES)
def test_sound_models_pass_the_check(family, dtype, encoded) -> None:
    found = check_pass(make_model(family).to(getattr(torch, dtype)), encoded, dtype=dtype)
    assert all(value < forward.TOLERANCE[dtype][0] / 3 for value in found.values())
    assert len(check_pass(make_model(family), encoded[:1], dtype="float32")) == 3


@contextmanager
def hooked(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    handle = module.register_forward_hook(lambda _module, _inputs, output: change(output))
    yield
    handle.remove()


def test_rows_that_see_each_other_and_hooks_that_change_what_they_read_are_refused(
    encoded, monkeypatch
) -> None:
    message = "dialogue '[bc]': batched and single, output of block [12] differ by"
    for dtype in ("float32", "bfloat16"):
        model = make_model("qwen2").to(getattr(torch, dtype))
        mixed = hooked(
            decoder_blocks(model)[1], lambda hidden: hidden + 0.5 * hidden.mean(dim=0, keepdim=True)
        )
        with mixed, pytest.raises(RemiError, match=message):
            check_pass(model, encoded, dtype=dtype)

    @contextmanager
    def meddling(model: PreTrainedModel, *about: object) -> Iterator[None]:
        with hooked(decoder_blocks(model)[0], lambda hidden: 1.5 * hidden), follow_blocks(model, *about):
            yield

    monkeypatch.setattr(forward, "follow_blocks", meddling)
    with pytest.raises(RemiError, match="hooked and unhooked, log-probability differ by"):
        check_pass(make_model("qwen2"), encoded, dtype="float32")


RECIPE = FineTune(steps=3, batch=2, rate=1e-3, warmup=1, seed=0)


def test_fine_tuning_stops_at_a_loss_or_gradient_that_is_no_number(encoded) -> None:
    sound = make_model("qwen2")
    assert len(fine_tune(sound, encoded, RECIPE, pad_id=0)) == 3
    model = make_model("qwen2")
    before = decoder_blocks(model)[0].mlp.up_proj.weight.clone()
    infinite = hooked(model.model.norm, lambda hidden: hidden * float("inf"))
    with infinite, pytest.raises(RemiError, match="the loss of '[a-e]', '[a-e]' is not a number"):
        fine_tune(model, encoded, RECIPE, pad_id=0)
    model.requires_grad_(True).zero_grad()
    weight = decoder_blocks(model)[1].mlp.up_proj.weight
    handle = weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(RemiError, match=r"gradient of model.layers.1.mlp.up_proj.weight is not a number"):
        fine_tune(model, encoded, RECIPE, pad_id=0)
    handle.remove()
    assert torch.equal(before, decoder_blocks(model)[0].mlp.up_proj.weight), "no update was made"


def test_pretraining_stops_at_a_loss_or_gradient_that_is_no_number() -> None:
    model = make_model("qwen2").requires_grad_(True)
    optimizers = [Muon([decoder_blocks(model)[0].mlp.up_proj.weight], lr=0.01, weight_decay=0.0)]
    batch = torch.arange(12).reshape(2, 6), torch.ones(2, 6)

    def step():
        run = Run(weights=dict(model.named_parameters()), optimizers=optimizers, n_steps=1)
        losses = lambda _: [backward(Batch([batch]), weighted_loss(model))]  # noqa: E731
        ((loss,),) = run.updates(losses, lambda full, _: full)
        return loss

    assert step() > 0
    infinite = hooked(model.model.norm, lambda hidden: hidden * float("inf"))
    with infinite, pytest.raises(RemiError, match="the loss is not a number"):
        step()
    model.zero_grad()
    decoder_blocks(model)[0].mlp.up_proj.weight.register_hook(lambda gradient: gradient / 0)
    with pytest.raises(RemiError, match="gradient of model.layers.0.mlp.up_proj.weight is"):
        step()
