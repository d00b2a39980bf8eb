"""Families are found by structure: what the stored table says of them is so, and its numbers are the model's own."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_dialogue, make_model, save_model

from remi_core import face
from remi_core import models as models_module
from remi_core.errors import RemiError, UsageError
from remi_core.forward import check_pass, run_probes
from remi_core.models import attention_output, final_norm, find_family, mlp_output, open_model
from remi_core.probes import TokenLogProbs

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "families.py"))
STORED = json.loads((ROOT / "stored" / "families.json").read_text(encoding="utf-8"))["families"]
SOME = (
    "qwen2",
    "llama",
    "gpt2",
    "gpt_neox",
    "phi",
    "gemma3_text",
    "gemma3n_text",
    "qwen3_next",
    "lfm2",
    "falcon_h1",
)
SOME += ("granite", "cohere", "mixtral", "olmoe")
tiny, encoded = SCRIPT["tiny"], SCRIPT["DIALOGUES"]


@pytest.mark.parametrize("family", SOME)
def test_the_stored_table_is_what_is_found_now(family) -> None:
    found, stored = SCRIPT["tried"](family), STORED[family]
    assert found["model"] == stored["model"]
    differing = {
        name for name, reason in found["measurements"].items() if reason != stored["measurements"][name]
    }
    assert not {name: found["measurements"][name] for name in differing}


def test_every_family_of_transformers_is_in_the_table_and_says_why_not() -> None:
    assert STORED.keys() == set(SCRIPT["FAMILIES"])
    for row in STORED.values():
        assert row.get("not_made") or row["measurements"].keys() == SCRIPT["MEASUREMENTS"].keys()


def test_what_is_found_is_believed_only_if_it_gives_the_logits(monkeypatch) -> None:
    """A scale that is not known, and a norm that is another module, are seen: so the table can say no."""
    with monkeypatch.context() as patched:
        patched.setattr(models_module, "_SCALES", {})
        for family in ("granite", "cohere"):
            with pytest.raises(
                RemiError, match="log-probability differ by .* not read as it computes"
            ) as caught:
                check_pass(tiny(family), encoded, dtype="float32")
            assert "dtype" not in str(caught.value)
    model = tiny("llama")
    found = find_family(model)
    wrong = models_module.Family({**found.parts, "norm": "layers.0.input_layernorm"}, found.lacks)
    monkeypatch.setitem(models_module._FOUND, model, wrong)
    with pytest.raises(RemiError, match="last hidden state and final norm of the last block differ"):
        check_pass(model, encoded, dtype="float32")


def test_layers_say_what_they_have() -> None:
    """Linear attention and convolutions count as what mixes tokens; experts and gated outputs are no single map."""
    for family, first, last in (
        ("qwen3_next", "linear_attn.out_proj", "self_attn.o_proj"),
        ("lfm2", "conv.out_proj", "conv.out_proj"),
        ("phi", "self_attn.dense", "self_attn.dense"),
        ("falcon_h1", "self_attn.o_proj", "self_attn.o_proj"),
    ):
        model, parts = tiny(family), find_family(tiny(family)).parts
        assert (parts["attention", 0], parts["attention", 3]) == (first, last)
        assert attention_output(model, -1).weight.shape[0] == 32
    for family, message in (("mixtral", "MixtralSparseMoeBlock"), ("gemma2", "post_feedforward_layernorm")):
        with pytest.raises(UsageError, match=f"in layer 0 of .* no single linear map .*{message}"):
            mlp_output(tiny(family), 0)
    assert isinstance(final_norm(tiny("openai-gpt")), torch.nn.Identity)


@torch.no_grad()
def test_scaled_logits_are_the_models_own(monkeypatch) -> None:
    for family, setting in (
        ("falcon_h1", {"lm_head_multiplier": 0.25}),
        ("granite", {"logits_scaling": 2.0}),
        ("cohere", {"logit_scale": 0.25}),
        ("gemma2", {"final_logit_softcapping": 1.5}),
    ):
        plain = tiny(family)
        monkeypatch.setitem(SCRIPT["RULES"]["families"], family, setting)
        scaled = tiny(family)
        SCRIPT["log_probabilities"](scaled)
        found = [run_probes(one, encoded, [TokenLogProbs()], batch_tokens=99) for one in (plain, scaled)]
        plain_log_p, log_p = (one["sequence"]["log_probability"] for one in found)
        assert not np.allclose(plain_log_p, log_p, atol=1e-3)


def test_an_id_without_an_embedding_is_no_conflict_until_a_dialogue_holds_it(tokenizer) -> None:
    """The tokenizer of Gemma 3 writes one id for images that the model for text has no row for."""
    ids = tokenizer.get_vocab()
    model = make_model("llama", n_vocab=max(ids.values()))
    last = max(ids, key=ids.get)
    rows = [make_dialogue("Hi", "I can help you."), make_dialogue("Hi", "Paris", identifier="two")]
    records = face.measure({"base": model}, rows, tokenizer)
    assert len(records.log_probabilities()) > 2
    found = [*records.encoded.dialogues]
    found[1] = type(found[1])(**vars(found[1]) | {"input_ids": (*found[1].input_ids[:-1], ids[last])})
    for read in (
        lambda: run_probes(model, found, [TokenLogProbs()], batch_tokens=99),
        lambda: face.gradient_gram(model, type(records.encoded)(tuple(found), records.encoded.sources, {})),
    ):
        with pytest.raises(UsageError, match=f"1 of 2 dialogues .* first 'two' with {ids[last]}"):
            read()


def test_blocks_that_are_no_stream_are_refused_before_a_weight_is_read(tmp_path) -> None:
    """Gemma 3n hands on four streams: no activations, patching or steering, but log-probabilities and gradients."""
    folder = save_model(tmp_path / "tiny")
    model = tiny("gemma3n_text")
    model.config.save_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UsageError, match=r"Gemma3nForCausalLM give hidden states of shape \(4, 1, 3, 32\)"):
        with open_model(folder):
            pass
    with pytest.raises(RemiError, match="weights cannot be read"), open_model(folder, blocks=False):
        pass
    model.save_pretrained(folder)
    with open_model(folder, blocks=False) as loaded:
        SCRIPT["log_probabilities"](loaded.model)
