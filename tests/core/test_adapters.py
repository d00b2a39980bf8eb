"""A LoRA adapter on its base is measured as peft computes it, and one of another model is refused."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import save_model
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from remi_core.errors import RemiError, UsageError
from remi_core.forward import run_probes
from remi_core.gradients import measure_gradient_gram
from remi_core.models import logits_at, open_model
from remi_core.probes import Activations, TokenLogProbs
from remi_core.sources import ModelSpec

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def save_adapter(base: Path, place: Path, *, named: str | None = None, **settings: object) -> Path:
    """A random adapter on a saved model, in its folder; all that it trains is moved, so that it changes something."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    chosen = {"r": 4, "lora_alpha": 8, "use_rslora": True, "target_modules": TARGETS} | settings
    tuned = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **chosen))
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn_like(parameter)
    tuned.save_pretrained(place)
    config = json.loads((place / "adapter_config.json").read_text())
    (place / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": str(base) if named is None else named})
    )
    return place


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def adapter(base) -> Path:
    return save_adapter(base, base.parent / "adapter")


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.arange(5, 25)[None]).logits


def peft_own(base: Path, adapter: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    return PeftModel.from_pretrained(plain, adapter).eval()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits_are_pefts_own(base, adapter, dtype) -> None:
    spec = ModelSpec(source=str(base), adapter=str(adapter))
    expected = logits(peft_own(base, adapter, getattr(torch, dtype)))
    with open_model(spec, dtype=dtype) as loaded:
        assert torch.equal(logits(loaded.model), expected)
        assert not any(one.requires_grad for one in loaded.model.parameters())
    with open_model(base, dtype=dtype) as plain:
        assert not torch.allclose(logits(plain.model), expected, atol=1e-2)


def test_measured_as_the_merged_model(base, adapter, encoded) -> None:
    merged = peft_own(base, adapter).merge_and_unload().requires_grad_(False)

    def measured(model: PreTrainedModel) -> dict[str, dict[str, np.ndarray]]:
        found = run_probes(model, encoded, [TokenLogProbs(), Activations(range(3))], batch_tokens=64)
        return found | {"gradients": measure_gradient_gram(model, encoded, weight=-1, batch_tokens=64)}

    with open_model(ModelSpec(source=str(base), adapter=str(adapter))) as loaded:
        here, there = measured(loaded.model), measured(merged)
    for name, arrays in here.items():
        for key, values in arrays.items():
            np.testing.assert_allclose(values, there[name][key], rtol=1e-3, atol=1e-4)
    gram, expected = here["gradients"]["gram"], there["gradients"]["gram"]
    np.testing.assert_allclose(gram, expected, rtol=1e-3, atol=1e-8)


def test_an_adapter_of_another_model_is_refused(base, tmp_path) -> None:
    # A folder fetched by hand has the name of the id, and an adapter that names nothing claims nothing.
    fits = dict.fromkeys(("Some/Base", "/elsewhere/base", ""), True)
    for named, right in (fits | dict.fromkeys(("Some/Other-Model", "/elsewhere/other"), False)).items():
        spec = ModelSpec(source=str(base), adapter=str(save_adapter(base, tmp_path / "one", named=named)))
        refused = pytest.raises(UsageError, match=f"belongs to {named}, not to .*base; .*--same-base")
        with nullcontext() if right else refused, open_model(spec):
            pass
        with open_model(replace(spec, same_base=True)):
            pass


KINDS = {
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "mica": {"init_lora_weights": "mica"},
    "dora": {"use_dora": True},
    "patterns": {
        "rank_pattern": {"q_proj": 2},
        "alpha_pattern": {"v_proj": 3},
        "layers_to_transform": [0, 2],
    },
    "biases": {"lora_bias": True, "bias": "all"},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "tables": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "head": {"modules_to_save": ["lm_head", "norm"]},
    "tokens": {"trainable_token_indices": [5, 6]},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["qwen2", "llama"])  # the embedding is the unembedding, and is not
def test_every_kind_has_pefts_own_logits_and_plain_embeddings(family, kind, tmp_path) -> None:
    base = save_model(tmp_path / "base", family)
    adapter = save_adapter(base, tmp_path / "adapter", **KINDS[kind])
    expected = logits(peft_own(base, adapter))
    with open_model(ModelSpec(source=str(base), adapter=str(adapter))) as loaded:
        torch.testing.assert_close(logits(loaded.model), expected, rtol=0, atol=1e-5)
        tables = loaded.model.get_input_embeddings(), loaded.model.get_output_embeddings()
        hidden = loaded.model.model(input_ids=torch.arange(5, 25)[None]).last_hidden_state[0]
        torch.testing.assert_close(logits_at(loaded.model, hidden), expected[0], rtol=0, atol=1e-4)
    assert all(isinstance(table, torch.nn.Embedding | torch.nn.Linear) for table in tables)
    if kind in ("pissa", "olora", "dora", "patterns"):
        # Taken for a plain one, the same matrices are another model.
        config = json.loads((adapter / "adapter_config.json").read_text())
        plain = {"init_lora_weights": True, "alpha_pattern": {}, "use_dora": False}
        (adapter / "adapter_config.json").write_text(json.dumps(config | plain))
        assert not torch.allclose(logits(peft_own(base, adapter)), expected, atol=1e-2)


def test_a_transposed_projection_is_adapted_as_peft_does(tmp_path) -> None:
    base = save_model(tmp_path / "base", "gpt2")
    kind = {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, "init_lora_weights": "pissa"}
    adapter = save_adapter(base, tmp_path / "adapter", **kind)
    with open_model(ModelSpec(source=str(base), adapter=str(adapter))) as loaded:
        assert torch.equal(logits(loaded.model), logits(peft_own(base, adapter)))


def refuse(base: Path, place: Path, kind: type[Exception], message: str, **options: object) -> None:
    spec = ModelSpec(source=str(base), adapter=str(place))
    with pytest.raises(kind, match=message) as caught, open_model(spec, **options):
        pass
    assert "\n" not in str(caught.value)


def test_what_cannot_be_put_on_is_refused_before_a_weight_is_read(
    base, adapter, tmp_path, monkeypatch
) -> None:
    monkeypatch.delattr(AutoModelForCausalLM, "from_pretrained")  # which reads the weights
    path = shutil.copytree(adapter, tmp_path / "one") / "adapter_config.json"
    config = json.loads(path.read_text())
    for fields, said in (
        (
            {"init_lora_weights": "pissa_niter_4"},
            "begun as pissa_niter_4.*path_initial_model_for_weight_conv",
        ),
        ({"init_lora_weights": "corda"}, "begun as corda"),
        ({"init_lora_weights": "lora_ga"}, "begun as lora_ga"),
        ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"peft_type": "ADALORA", "total_step": 9}, "ADALORA"),
        ({"layers_to_transform": [0], "target_modules": "q_proj"}, "adapter .*one: .*layers_to_transform"),
    ):
        path.write_text(json.dumps(config | fields))
        refuse(base, path.parent, UsageError, said)
    path.write_text("{")
    refuse(base, path.parent, UsageError, "adapter .*one")


def test_only_adapters_that_fit_and_never_pickles(base, tmp_path) -> None:
    head = save_adapter(base, tmp_path / "head", target_modules=["q_proj", "lm_head"])
    refuse(base, head, UsageError, "only plain LoRA is supported .lm_head.lora_A")
    larger = save_model(tmp_path / "larger", n_vocab=410)
    table = save_adapter(larger, tmp_path / "table", named=str(base), modules_to_save=["embed_tokens"])
    refuse(base, table, RemiError, "do not fit .*embed_tokens")
    whole = save_adapter(base, tmp_path / "whole", init_lora_weights="pissa")
    on_disk = dict.fromkeys(("lm_head", "model.embed_tokens", "model.norm", "model.rotary_emb"), "cpu")
    on_disk |= {"model.layers": "disk"}
    refuse(base, whole, UsageError, "changes weights that do not fit into memory", device=on_disk)
    short = save_adapter(base, tmp_path / "short")
    weights = load_file(short / "adapter_model.safetensors")
    weights.pop(next(iter(weights)))
    save_file(weights, short / "adapter_model.safetensors")
    refuse(base, short, RemiError, "do not fit")
    torch.save(weights, short / "adapter_model.bin")
    (short / "adapter_model.safetensors").unlink()
    refuse(base, short, UsageError, "adapter_model.safetensors")
    with pytest.raises(UsageError, match=r"write BASE\+"), open_model(whole):
        pass
