"""Activations after a model's final norm, which is what the last entry of ``hidden_states`` holds."""

from __future__ import annotations

import copy

import numpy as np
import torch
from jaxtyping import Float

from remi_core.models.opening import LoadedModel, final_norm


def after_final_norm(
    loaded: LoadedModel, values: Float[np.ndarray, "dialogue d_model"]
) -> Float[np.ndarray, "dialogue d_model"]:
    """Outputs of the last block as the model's own final norm gives them on, float64, worked out in float32."""
    norm = copy.deepcopy(final_norm(loaded.model)).float()
    raised = torch.tensor(values, dtype=torch.float32, device=norm.weight.device)
    with torch.inference_mode():
        return norm(raised).cpu().numpy().astype(np.float64)
