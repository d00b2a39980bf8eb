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

from remi_core import patching
from remi_core.errors import RemiError, UsageError
from remi_core.models import (
    LoadedModel,
    decoder_blocks,
    decoder_body,
    final_norm,
    find_family,
    mlp_output,
    n_layers,
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
    asked = [
        make_dialogue("How do I open a file?", "Use open(path).", identifier="a", alternative="I can help"),
        make_dialogue("Hi", "Paris I can", identifier="b", alternative="Paris can"),
        make_dialogue("You are the assistant. " * 3, "Yes, and you are the user.", identifier="c"),
    ]
    encoded = encode(asked, tokenizer, max_tokens=200).dialogues
    bare = bare_tokens(encoded, tokenizer)
    return PatchSet(encoded, bare, batch_tokens=2 * len(encoded[0].input_ids))


def assembled(donor: PreTrainedModel, recipient: PreTrainedModel, layer: int) -> PreTrainedModel:
    """A whole model of the donor's embedding and blocks 0 to ``layer`` and the recipient's rest."""
    whole, rest = copy.deepcopy(donor), copy.deepcopy(recipient)
    family, body = find_family(whole), decoder_body(whole)
    blocks = [*decoder_blocks(whole)[: layer + 1], *decoder_blocks(rest)[layer + 1 :]]
    setattr(body, family.blocks, nn.ModuleList(blocks))
    setattr(body, family.norm, final_norm(rest))
    whole.set_output_embeddings(unembedding(rest))
    return whole


def own_values(model: PreTrainedModel, material: PatchSet) -> np.ndarray:
    """Values read from a model's own logits, one dialogue at a time: an answer independent of the measurement."""
    values = np.full((len(QUANTITIES), len(material.dialogues)), np.nan)
    for at, (one, bare) in enumerate(zip(material.dialogues, material.bare, strict=True)):
        log_p = model(torch.tensor([one.input_ids])).logits[0].log_softmax(dim=-1).double()
        answer = range(one.answer_start, one.answer_stop)
        values[0, at] = -np.mean([float(log_p[place - 1, one.input_ids[place]]) for place in answer])
        if one.choice is not None:
            for row, token in enumerate((one.input_ids[one.choice], one.alternative_token, bare), start=1):
                if token is not None:
                    values[row, at] = float(log_p[one.choice - 1, token])
    return values


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_stitching_is_the_assembled_model(family, material, tmp_path) -> None:
    donor, recipient = make_model(family, seed=1), make_model(family, seed=2)
    own = record_outputs(donor, material, tmp_path)
    np.testing.assert_allclose(own, own_values(donor, material), atol=1e-4)
    found = patch(recipient, material, tmp_path, LAYERS)
    for layer in LAYERS:
        whole = own_values(assembled(donor, recipient, layer), material)
        np.testing.assert_allclose(found[layer], whole, atol=1e-4)
    # The failing twins: the layers differ, and so does the model that is put together the other way round.
    assert not np.allclose(found[0], found[1], atol=1e-2, equal_nan=True)
    turned = own_values(assembled(recipient, donor, 1), material)
    assert not np.allclose(found[1], turned, atol=1e-2, equal_nan=True)


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_a_model_stitched_into_itself_is_itself(family, material, tmp_path) -> None:
    model = make_model(family, seed=1)
    own = record_outputs(model, material, tmp_path)
    for values in (*patch(model, material, tmp_path, LAYERS), head_alone(model, material, tmp_path)):
        assert require_equal(values, own, material.dialogues, place="itself", tolerance=1e-5) <= 1e-5


def test_the_end_points_are_the_two_models(material, tmp_path) -> None:
    def check(values: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
        require_equal(
            values, expected, material.dialogues, place="layer 2, one into other", tolerance=tolerance
        )

    donor, recipient = make_model("llama", seed=1), make_model("llama", seed=2)
    own = record_outputs(donor, material, tmp_path)
    (last,) = patch(recipient, material, tmp_path, [2])
    check(last, head_alone(recipient, material, tmp_path))
    # Where norm and unembedding are not shared, the last point is not the donor itself.
    message = r"layer 2, one into other: \w+ of dialogue '[abc]' is .*within 0\.001 nats"
    with pytest.raises(RemiError, match=message):
        check(last, own, 1e-3)
    shared = copy.deepcopy(recipient)
    shared.model.norm.load_state_dict(final_norm(donor).state_dict())
    shared.lm_head.load_state_dict(unembedding(donor).state_dict())
    (last,) = patch(shared, material, tmp_path, [2])
    check(last, own)
    gap = own.copy()
    gap[0, 0] = np.nan
    check(gap, gap)
    with pytest.raises(RemiError, match="dialogue 'a'"):
        check(own, gap, 1.0)


@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_the_bare_word_is_another_token_with_another_probability(family, material, tmp_path) -> None:
    names = [one.identifier for one in material.dialogues]
    b, c = (names.index(name) for name in "bc")
    one = material.dialogues[b]
    assert material.bare[b] not in (None, one.input_ids[one.choice])
    values = record_outputs(make_model(family, seed=1), material, tmp_path)
    right, wrong = (values[QUANTITIES.index(f"{name}_log_probability"), b] for name in ("choice", "bare"))
    assert abs(right - wrong) > 0.01
    # A choice that starts without a blank has no other spelling, and a dialogue without a choice a loss only.
    assert np.isnan(values[3]).sum() == 2 and np.isnan(values[1]).sum() == 1
    assert np.isfinite(values[0]).all() and np.isnan(values[1:, c]).all()
    assert patch_layers(64) == (*range(0, 64, 5), 63) and patch_layers(8) == tuple(range(8))
    assert patch_layers(8, thinned=True) == (1, 3, 5, 7)


def test_a_recording_of_other_dialogues_or_another_shape_is_refused(material, tmp_path) -> None:
    donor = make_model("qwen2", seed=1)
    record_outputs(donor, material, tmp_path)
    shorter = replace(material, dialogues=material.dialogues[1:], bare=material.bare[1:])
    with pytest.raises(RemiError, match="layer 1 has shape"):
        patch(donor, shorter, tmp_path, [1])
    with pytest.raises(RemiError, match="no output of layer 7 on record"):
        patching._recorded(tmp_path, 0, 7, next(material.batches(donor))[1], donor)


@pytest.mark.parametrize("kind", [tuple, Tensor])
def test_a_replaced_output_keeps_what_stands_beside_it(kind, models) -> None:
    model = models("qwen2")

    class Block(nn.Module):
        def forward(self, hidden: Tensor) -> Tensor | tuple:
            return (hidden + 1, "kept") if kind is tuple else hidden + 1

    stand_in = copy.deepcopy(model)
    decoder_body(stand_in).layers = nn.ModuleList([Block()])
    with steer(stand_in, 0, lambda own: 2 * own):
        output = decoder_blocks(stand_in)[0](torch.ones(1, 2, 3))
    found = output[0] if kind is tuple else output
    assert torch.equal(found, torch.full((1, 2, 3), 4.0))
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


def test_skipped_blocks_pass_on_and_come_back(models) -> None:
    model = models("llama")
    block = decoder_blocks(model)[0]
    plain = model(IDS).logits
    calls: list[int] = []
    own_forward = block.forward
    block.forward = lambda *inputs, **options: calls.append(1) or own_forward(*inputs, **options)
    with skip_blocks(model, 3):
        assert torch.equal(
            decoder_body(model)(IDS).last_hidden_state, final_norm(model)(model.model.embed_tokens(IDS))
        )
    assert calls == []  # a forward put on the instance, as libraries do, is left out and comes back
    assert torch.equal(model(IDS).logits, plain) and calls == [1]
    del block.forward
    with pytest.raises(UsageError, match="cannot skip 4 blocks"), skip_blocks(model, 4):
        pass


TWO_ROWS = torch.tensor([[5, 9, 11, 7, 3, 8], [4, 6, 2, 9, 1, 12]])
FAMILIES = ("qwen2", "llama", "gpt2", "gpt_neox")
LAYER, LAST = 1, 2


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=TWO_ROWS).logits


def directions(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("family", FAMILIES)
def test_adding_a_vector_by_hook_equals_a_bias(family) -> None:
    hooked, folded, vector = make_model(family), make_model(family), directions(1)[0]
    plain, last = logits(hooked), mlp_output(folded, LAYER)
    last.bias = nn.Parameter((0 if last.bias is None else last.bias) + vector)
    with steer(hooked, LAYER, add_vector(vector)):
        torch.testing.assert_close(logits(hooked), logits(folded), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(plain, logits(folded), atol=1e-3)
    torch.testing.assert_close(logits(hooked), plain)


def test_a_norm_behind_the_mlp_is_refused() -> None:
    with pytest.raises(UsageError, match="post_feedforward_layernorm"):
        mlp_output(make_model("gemma2"), LAYER)


@pytest.fixture
def planted() -> tuple[PreTrainedModel, torch.Tensor]:
    """A model in which one known direction alone decides between two tokens, and that direction."""
    model = make_model("llama")
    direction = directions(1, seed=3)[0]
    direction /= direction.norm()
    head = unembedding(model).weight
    with torch.no_grad():
        final_norm(model).weight.fill_(1.0)  # or the norm would turn what the head reads
        for token, sign in ((20, 4.0), (21, -4.0)):
            head[token] = sign * direction
    return model, direction


def odds(model: PreTrainedModel) -> float:
    found = logits(model)[:, -1]
    return float((found[:, 20] - found[:, 21]).mean())


def test_the_planted_direction_flips_the_token_and_random_ones_do_not(planted) -> None:
    model, direction = planted
    with read_blocks(model, [LAST]) as read:
        plain = odds(model)
    length = 2 * float(read[LAST].norm(dim=-1).mean())
    states = read[LAST].flatten(0, 1).double().numpy()

    def moved(one: torch.Tensor) -> float:
        with steer(model, LAST, add_vector(length * one)):
            return odds(model) - plain

    drawn = random_directions(states[None], count=40, seed=0)[:, 0]
    random = [moved(torch.tensor(one, dtype=torch.float32)) for one in drawn]
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


FIVE_TOKENS = torch.tensor([[5, 9, 40, 17, 33]])


@pytest.fixture
def step() -> np.ndarray:
    return np.random.default_rng(0).normal(size=32)


def moved_logits(model: PreTrainedModel, step: np.ndarray) -> Tensor:
    """Logits at the last position with the last block's output moved there by ``step``."""
    move = torch.zeros(FIVE_TOKENS.shape[1], len(step))
    move[-1] = torch.from_numpy(step)

    def moved(_module: nn.Module, _inputs: tuple, output: Tensor | tuple) -> Tensor | tuple:
        return (output[0] + move, *output[1:]) if isinstance(output, tuple) else output + move

    handle = decoder_blocks(model)[-1].register_forward_hook(moved)
    try:
        return model(FIVE_TOKENS).logits[0, -1]
    finally:
        handle.remove()


def activations(model: PreTrainedModel) -> np.ndarray:
    with read_blocks(model, range(n_layers(model))) as blocks:
        model(FIVE_TOKENS)
    return np.stack([blocks[layer][0, -1].numpy() for layer in range(n_layers(model))])


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_equal_to_moving_the_last_block(family, step, models, tokenizer) -> None:
    model = models(family)
    start, loaded = activations(model), LoadedModel(model, tokenizer, "", "")
    found = written_tokens(loaded, np.tile(step, (len(start), 1)), start, top_k=7)
    unit = step / np.linalg.norm(step)
    change = (moved_logits(model, unit) - model(FIVE_TOKENS).logits[0, -1]).numpy()
    order = np.argsort(-change)
    np.testing.assert_allclose(found.raised_change[-1], change[order[:7]], atol=2e-5)
    np.testing.assert_allclose(change[found.raised[-1]], change[order[:7]], atol=2e-5)
    np.testing.assert_allclose(found.lowered_change[-1], np.sort(change)[:7], atol=2e-5)
    assert np.abs(found.raised_change[0] - found.raised_change[-1]).max() > 1e-4, "layers differ"


def test_length_does_not_matter_the_sign_swaps_the_ends_and_no_length_is_refused(
    step, models, tokenizer
) -> None:
    loaded = LoadedModel(models("qwen2"), tokenizer, "", "")
    start, rows = activations(loaded.model), np.tile(step, (3, 1))
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
