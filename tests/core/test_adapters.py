"""A LoRA adapter on its base is measured as peft computes it, and one of another model is refused."""

from __future__ import annotations

import json
from contextlib import nullcontext
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
from remi_core.models import open_model
from remi_core.probes import Activations, TokenLogProbs
from remi_core.sources import ModelSpec

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def save_adapter(base: Path, place: Path, *, named: str | None = None, **settings: object) -> Path:
    """A random LoRA on a saved model, in its folder; both matrices differ from zero, so that it changes something."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    chosen = {"r": 4, "lora_alpha": 8, "use_rslora": True, "target_modules": TARGETS} | settings
    tuned = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **chosen))
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            parameter.data = 0.3 * torch.randn_like(parameter)
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
        refused = pytest.raises(UsageError, match=f"belongs to {named}, not to .*base")
        with nullcontext() if right else refused, open_model(spec):
            pass


def test_only_plain_lora_that_fits_and_never_pickles(base, tmp_path) -> None:
    def refuse(place: Path, kind: type[Exception], message: str) -> None:
        with pytest.raises(kind, match=message), open_model(ModelSpec(source=str(base), adapter=str(place))):
            pass

    whole = save_adapter(base, tmp_path / "whole", modules_to_save=["lm_head"])
    refuse(whole, UsageError, "only plain LoRA")
    head = save_adapter(base, tmp_path / "head", target_modules=["q_proj", "embed_tokens"])
    refuse(head, UsageError, "changes the embeddings")
    short = save_adapter(base, tmp_path / "short")
    weights = load_file(short / "adapter_model.safetensors")
    weights.pop(next(iter(weights)))
    save_file(weights, short / "adapter_model.safetensors")
    refuse(short, RemiError, "do not fit")
    torch.save(weights, short / "adapter_model.bin")
    (short / "adapter_model.safetensors").unlink()
    refuse(short, UsageError, "adapter_model.safetensors")
    with pytest.raises(UsageError, match=r"write BASE\+"), open_model(whole):
        pass
