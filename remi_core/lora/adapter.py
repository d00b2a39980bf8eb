"""The adapter itself: put on a model, its loss and its optimiser."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from torch import Tensor, nn
from transformers import PreTrainedModel

from remi_core.finetune import IGNORED
from remi_core.lora.recipe import LoraRecipe
from remi_core.models.opening import decoder_blocks, decoder_body, logits_at


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
