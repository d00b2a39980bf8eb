"""Layer numbers checked before any weights are loaded: how many blocks the models of a preset have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from remi_core.errors import UsageError
from remi_core.models.spec import PROVIDED
from remi_core.presets.known import Preset
from remi_core.sizes import config_of

WEIGHTS = {source: Path(__file__).resolve().parent / source / "weights" for source in PROVIDED}
"""Where the package keeps weights, or adapters on them, by source."""


def check_layers(preset: Preset, parameters: Mapping[str, object]) -> None:
    """Return if the preset's layer and every parameter that names layers (``layer``, ``…_layers``) exist.

    Where nothing on this machine says how many blocks the models have, loading them will.

    Raises:
        UsageError: naming the value and the valid range.
    """
    count = n_blocks(preset)
    if count is None:
        return
    named = {"gradient_layer of the preset": preset.gradient_layer}
    named |= {name: value for name, value in parameters.items() if re.fullmatch(r"(.*_)?layers?", name)}
    for name, value in named.items():
        for layer in value if isinstance(value, list | tuple) else [value]:
            if isinstance(layer, int) and not -count <= layer < count:
                raise UsageError(
                    f"{name}: no layer {layer} in preset {preset.name!r} (choices: {-count} … {count - 1})"
                )


def n_blocks(preset: Preset) -> int | None:
    """Decoder blocks of the preset's base, read from files of this machine; None where no file says so."""
    source = preset.variants["base"].source
    if source in WEIGHTS:
        weights = sorted(WEIGHTS[source].rglob("*.safetensors"))  # every shipped base has as many
        return _blocks_in(weights[0]) if weights else None
    config = config_of(preset.variants["base"])
    if config is None:
        return None
    settings = config.get("text_config", config)
    return settings.get("num_hidden_layers", settings.get("n_layer"))


def _blocks_in(weights: Path) -> int | None:
    """One more than the highest block number among the tensor names of a safetensors file."""
    from safetensors import safe_open

    with safe_open(weights, framework="numpy") as stored:
        found = [re.search(r"\blayers\.(\d+)\.", name) for name in stored.keys()]
    numbers = [int(match.group(1)) for match in found if match]
    return max(numbers) + 1 if numbers else None
