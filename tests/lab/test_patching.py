"""A stitched, steered or read model is the one put together by hand, and whole again afterwards."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ALL_FAMILIES, make_dialogue, make_model, make_tokenizer
from test_models import hook_count
from torch import Tensor, nn
from transformers import PreTrainedModel

from remi_core.errors import RemiError, UsageError
from remi_core.models import (
    LoadedModel,
    decoder_blocks,
    decoder_body,
    final_norm,
    find_family,
    mlp_output,
    read_blocks,
    unembedding,
)
from remi_core.patching import (
    QUANTITIES,
    PatchSet,
    head_alone,
    patch,
    patch_layers,
    record_outputs,
    require_equal,
)
from remi_core.steering import add_vector, skip_blocks, steer, written_tokens
from remi_core.tokens import encode
from remi_lab.passes import bare_tokens, measure_position_norms
from remi_lab.studies.causes import random_directions

IDS = torch.arange(1, 9)[None]
LAYERS = (0, 1, 2)


@pytest.fixture(scope="module")
def material() -> PatchSet:
    """Dialogues of different lengths in two batches; two have a choice, one whose bare word is another token."""
    tokenizer = make_tokenizer("chatml")
    rows = {
        "a": ("How do I open a file?", "Use open(path).", "I can help"),
        "b": ("Hi", "Paris I can", "Paris can"),
        "c": ("You are the assistant. " * 3, "Yes, and you are the user.", None),
    }
    asked = [make_dialogue(*row[:2], identifier=name, alternative=row[2]) for name, row in rows.items()]
    encoded = encode(asked, tokenizer, max_tokens=200).dialogues
    return PatchSet(encoded, bare_tokens(encoded, tokenizer), batch_tokens=2 * len(encoded[0].input_ids))


def assembled(donor: PreTrainedModel, recipient: PreTrainedModel, layer: int) -> PreTrainedModel:
    """A whole model of the donor's embedding and blocks 0 to ``layer`` and the recipient's rest."""
    whole, rest = copy.deepcopy(donor), copy.deepcopy(recipient)
    family, body = find_family(whole), decoder_body(whole)
    blocks = [*decoder_blocks(whole)[: layer + 1], *decoder_blocks(rest)[layer + 1 :]]
    setattr(body, family.need("blocks"), nn.ModuleList(blocks))
    setattr(body, family.need("norm"), final_norm(rest))
    whole.set_output_embeddings(unembedding(rest))
    return whole


def own_values(model: PreTrainedModel, material: PatchSet) -> np.ndarray:
    """Values read from a model's own logits, one dialogue at a time: an answer independent of the measurement."""
    values = np.full((len(QUANTITIES), len(material.dialogues)), np.nan)
    for at, (one, bare) in enumerate(zip(material.dialogues, material.bare, strict=True)):
        log_p = model(torch.tensor([one.input_ids])).logits[0].log_softmax(dim=-1).double().numpy()
        answer = np.arange(one.answer_start, one.answer_stop)
        values[0, at] = -log_p[answer - 1, np.array(one.input_ids)[answer]].mean()
        if one.choice is not None:
            for row, token in enumerate((one.input_ids[one.choice], one.alternative_token, bare), start=1):
                values[row, at] = np.nan if token is None else log_p[one.choice - 1, token]
    return values


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_stitching_is_the_assembled_model_and_itself_into_itself(family, material, tmp_path) -> None:
    donor, recipient = make_model(family, seed=1), make_model(family, seed=2)
    own = record_outputs(donor, material, tmp_path)
    np.testing.assert_allclose(own, own_values(donor, material), atol=1e-4)
    found = patch(recipient, material, tmp_path, LAYERS)
    for layer in LAYERS:
        whole = own_values(assembled(donor, recipient, layer), material)
        np.testing.assert_allclose(found[layer], whole, atol=1e-4)
    # The failing twins: the layers differ, and so does the model that is put together the other way round.
    turned = own_values(assembled(recipient, donor, 1), material)
    for other in (found[0], turned):
        assert not np.allclose(found[1], other, atol=1e-2, equal_nan=True)
    for values in (*patch(donor, material, tmp_path, LAYERS), head_alone(donor, material, tmp_path)):
        assert require_equal(values, own, material.dialogues, place="itself", tolerance=1e-5) <= 1e-5


def test_the_end_points_are_the_two_models(material, tmp_path) -> None:
    def check(values: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
        require_equal(values, expected, material.dialogues, place="one into other", tolerance=tolerance)

    donor, recipient = make_model("llama", seed=1), make_model("llama", seed=2)
    own = record_outputs(donor, material, tmp_path)
    (last,) = patch(recipient, material, tmp_path, [2])
    check(last, head_alone(recipient, material, tmp_path))
    # Where norm and unembedding are not shared, the last point is not the donor itself.
    with pytest.raises(RemiError, match=r"one into other: \w+ of dialogue '[abc]' is .*within 0\.001 nats"):
        check(last, own, 1e-3)
    recipient.model.norm, recipient.lm_head = donor.model.norm, donor.lm_head
    (last,) = patch(recipient, material, tmp_path, [2])
    check(last, own)
    gap = own.copy()
    gap[0, 0] = np.nan
    check(gap, gap)
    with pytest.raises(RemiError, match="dialogue 'a'"):
        check(own, gap, 1.0)


def test_the_bare_word_is_another_token_with_another_probability(material, tmp_path) -> None:
    b = [one.identifier for one in material.dialogues].index("b")
    assert material.bare[b] not in (None, material.dialogues[b].input_ids[material.dialogues[b].choice])
    values = dict(
        zip(QUANTITIES, record_outputs(make_model("gpt2", seed=1), material, tmp_path), strict=True)
    )
    assert abs(values["choice_log_probability"][b] - values["bare_log_probability"][b]) > 0.01
    assert patch_layers(64) == (*range(0, 64, 5), 63) and patch_layers(8) == tuple(range(8))
    assert patch_layers(8, thinned=True) == (1, 3, 5, 7)


def test_a_recording_of_other_dialogues_or_another_shape_is_refused(material, tmp_path) -> None:
    donor = make_model("qwen2", seed=1)
    record_outputs(donor, material, tmp_path)
    shorter = replace(material, dialogues=material.dialogues[1:], bare=material.bare[1:])
    with pytest.raises(RemiError, match="layer 1 has shape"):
        patch(donor, shorter, tmp_path, [1])
    decoder_body(donor).layers.append(decoder_blocks(donor)[0])
    with pytest.raises(RemiError, match="no output of layer 3 on record"):
        patch(donor, material, tmp_path, [3])


@pytest.mark.parametrize("kind", [tuple, Tensor])
def test_a_replaced_output_keeps_what_stands_beside_it(kind) -> None:
    class Block(nn.Module):
        def forward(self, hidden: Tensor) -> Tensor | tuple:
            return (hidden + 1, "kept") if kind is tuple else hidden + 1

    stand_in = make_model("qwen2")
    decoder_body(stand_in).layers = nn.ModuleList([Block()])
    with steer(stand_in, 0, lambda own: 2 * own):
        output = decoder_blocks(stand_in)[0](torch.ones(1, 2, 3))
    assert torch.equal(output[0] if kind is tuple else output, torch.full((1, 2, 3), 4.0))
    assert kind is Tensor or output[1] == "kept"


def test_edits_are_read_and_gone_afterwards_by_exception_too(models) -> None:
    model = models("qwen2")
    before, plain = hook_count(model), model(IDS).logits
    with read_blocks(model, [1]) as blocks, steer(model, 1, lambda own: torch.zeros_like(own)):
        changed = model(IDS).logits
    assert not torch.allclose(changed, plain) and not blocks[1].any()
    shorter = steer(model, 1, lambda own: own[:, 1:])
    with pytest.raises(UsageError, match="layer 1: the new output has shape"), shorter, skip_blocks(model, 3):
        model(IDS)
    with pytest.raises(RuntimeError, match="on purpose"), steer(model, 0, add_vector(torch.ones(32))):
        raise RuntimeError("on purpose")
    assert hook_count(model) == before
    assert torch.equal(model(IDS).logits, plain)


def test_skipped_blocks_pass_on_and_come_back() -> None:
    model, calls = make_model("llama"), list[int]()
    block, plain = decoder_blocks(model)[0], model(IDS).logits
    own_forward = block.forward
    block.forward = lambda *inputs, **options: calls.append(1) or own_forward(*inputs, **options)
    with skip_blocks(model, 3):
        embedded = final_norm(model)(model.model.embed_tokens(IDS))
        assert torch.equal(decoder_body(model)(IDS).last_hidden_state, embedded)
    assert calls == []  # a forward put on the instance, as libraries do, is left out and comes back
    assert torch.equal(model(IDS).logits, plain) and calls == [1]
    with pytest.raises(UsageError, match="cannot skip 4 blocks"), skip_blocks(model, 4):
        pass


TWO_ROWS = torch.tensor([[5, 9, 11, 7, 3, 8], [4, 6, 2, 9, 1, 12]])
LAYER, LAST = 1, 2


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=TWO_ROWS).logits


def direction_of(seed: int) -> torch.Tensor:
    return torch.randn(32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("family", ["qwen2", "llama", "gpt2", "gpt_neox"])
def test_adding_a_vector_by_hook_equals_a_bias(family) -> None:
    hooked, folded, vector = make_model(family), make_model(family), direction_of(0)
    plain, last = logits(hooked), mlp_output(folded, LAYER)
    last.bias = nn.Parameter((0 if last.bias is None else last.bias) + vector)
    with steer(hooked, LAYER, add_vector(vector)):
        torch.testing.assert_close(logits(hooked), logits(folded), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(plain, logits(folded), atol=1e-3)
    torch.testing.assert_close(logits(hooked), plain)


def test_a_norm_behind_the_mlp_is_refused(models) -> None:
    with pytest.raises(UsageError, match="post_feedforward_layernorm"):
        mlp_output(models("gemma2"), LAYER)


def odds(model: PreTrainedModel) -> float:
    found = logits(model)[:, -1]
    return float((found[:, 20] - found[:, 21]).mean())


def test_the_planted_direction_flips_the_token_and_random_ones_do_not() -> None:
    """A model in which one known direction alone decides between two tokens."""
    model, direction = make_model("llama"), direction_of(3) / direction_of(3).norm()
    final_norm(model).weight.data.fill_(1.0)  # or the norm would turn what the head reads
    unembedding(model).weight.data[20:22] = torch.stack([4 * direction, -4 * direction])
    with read_blocks(model, [LAST]) as read:
        plain = odds(model)
    length = 2 * float(read[LAST].norm(dim=-1).mean())

    def moved(one: torch.Tensor) -> float:
        with steer(model, LAST, add_vector(length * one)):
            return odds(model) - plain

    drawn = random_directions(read[LAST].flatten(0, 1).double().numpy()[None], count=40, seed=0)[:, 0]
    random = [moved(one) for one in torch.from_numpy(drawn).float()]
    assert moved(direction) > np.quantile(random, 0.975) > 0
    assert moved(-direction) < np.quantile(random, 0.025) < 0
    with steer(model, LAST, lambda hidden: hidden - (hidden @ direction)[..., None] * direction):
        assert abs(odds(model)) < 1e-3 < abs(plain)


def test_random_directions_have_the_covariance_of_the_states() -> None:
    generator = np.random.default_rng(0)
    states = generator.standard_normal((1, 500, 3)) * [5.0, 1.0, 0.0] + 100.0
    drawn = random_directions(states, count=4000, seed=1)[:, 0]
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1)
    assert np.abs(drawn[:, 2]).max() < 1e-9
    assert np.square(drawn[:, 0]).mean() > 5 * np.square(drawn[:, 1]).mean()
    sphere = generator.standard_normal((4000, 3))  # the failing twin knows nothing of the states
    assert np.square(sphere[:, 0]).mean() < 2 * np.square(sphere[:, 1]).mean()


STEP = np.random.default_rng(0).normal(size=32)


def moved_logits(model: PreTrainedModel, step: np.ndarray) -> np.ndarray:
    """Logits at the last position with the last block's output moved there by ``step``."""
    move = torch.zeros(IDS.shape[1], len(step))
    move[-1] = torch.from_numpy(step)
    with steer(model, LAST, lambda hidden: hidden + move):
        return model(IDS).logits[0, -1].numpy()


def activations(model: PreTrainedModel) -> np.ndarray:
    with read_blocks(model, LAYERS) as blocks:
        model(IDS)
    return np.stack([blocks[layer][0, -1].numpy() for layer in LAYERS])


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_written_tokens_are_those_of_moving_the_last_block(family, models, tokenizer) -> None:
    model = models(family)
    start, loaded = activations(model), LoadedModel(model, tokenizer, "", "")
    found = written_tokens(loaded, np.tile(STEP, (3, 1)), start, top_k=7)
    change = moved_logits(model, STEP / np.linalg.norm(STEP)) - moved_logits(model, 0 * STEP)
    for raised in (found.raised_change[-1], change[found.raised[-1]]):
        np.testing.assert_allclose(raised, np.sort(change)[:-8:-1], atol=2e-5)
    np.testing.assert_allclose(found.lowered_change[-1], np.sort(change)[:7], atol=2e-5)
    assert np.abs(found.raised_change[0] - found.raised_change[-1]).max() > 1e-4, "layers differ"


def test_length_does_not_matter_the_sign_does_and_no_length_is_refused(models, tokenizer) -> None:
    loaded, rows = LoadedModel(models("qwen2"), tokenizer, "", ""), np.tile(STEP, (3, 1))
    start = activations(loaded.model)
    one, longer, back = (written_tokens(loaded, factor * rows, start, top_k=5) for factor in (1, 30, -1))
    np.testing.assert_array_equal(one.raised, longer.raised)
    np.testing.assert_allclose(one.raised_change, longer.raised_change, atol=1e-6)
    assert (one.raised != back.raised).any() and (back.raised_change > 0).all()
    with pytest.raises(UsageError, match="valid are 1 to 400"):
        written_tokens(loaded, rows, start, top_k=401)
    rows[1] = 0
    with pytest.raises(UsageError, match="layer 1: zero or not finite"):
        written_tokens(loaded, rows, start)


def test_position_lengths_are_those_of_single_dialogues(encoded, models, tokenizer) -> None:
    model = models("llama")
    found = measure_position_norms(LoadedModel(model, tokenizer, "", ""), encoded, batch_tokens=120)
    for index, one in enumerate(encoded):
        states = model(torch.tensor([one.input_ids]), output_hidden_states=True).hidden_states[1:-1]
        for layer, state in enumerate(states):
            lengths = state[0].norm(dim=-1)
            np.testing.assert_allclose(found["first"][index, layer], lengths[0], rtol=1e-5)
            np.testing.assert_allclose(found["others"][index, layer], lengths[1:].median(), rtol=1e-5)
    assert ((found["largest_share"] >= 1 / 32) & (found["largest_share"] <= 1)).all()
