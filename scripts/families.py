"""Which measurements work on which family of language models, tried on a tiny random model of each.

``python scripts/families.py OUT.json [FAMILY …]`` takes every family that the pinned transformers can open as a causal
language model, makes one of four blocks by ``families.yaml``, tries each measurement against an answer of its own,
and writes what works and, where it does not, the line that says why. The page *Model families* shows it.
"""

from __future__ import annotations

import copy
import datetime
import json
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
import yaml
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import BPE
from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    logging,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as FAMILIES
from transformers.pytorch_utils import Conv1D

from remi_core import face
from remi_core.dialogues import Dialogue, Message
from remi_core.errors import RemiError, UsageError
from remi_core.forward import check_pass, run_probes
from remi_core.keys import library_versions
from remi_core.loading import apply_adapter, read_adapter
from remi_core.models import (
    LoadedModel,
    attention_output,
    decoder_blocks,
    final_norm,
    logits_at,
    mlp_output,
    n_layers,
    read_blocks,
)
from remi_core.probes import Activations, NextToken, TokenLogProbs
from remi_core.sources import ModelSpec
from remi_core.steering import steer, written_tokens
from remi_core.tokens import EncodedDialogue, EncodedSet

RULES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
IDS = [[5, 9, 40, 77, 12, 31, 60, 8, 7], [6, 21, 90, 33, 14], [11, 5, 18, 52, 70, 26, 13]]
DIALOGUES = tuple(
    EncodedDialogue(
        identifier=str(at),
        input_ids=tuple(ids),
        answer_start=2,
        answer_stop=len(ids),
        choice=3,
        alternative_token=50,
    )
    for at, ids in enumerate(IDS)
)


def tiny(family: str) -> PreTrainedModel:
    """A random model of the family, in evaluation mode, without gradients.

    Raises:
        RuntimeError: saying why none of the ways of making it small works.
    """
    failed = {}
    for way in RULES["ways"]:
        try:
            config = CONFIG_MAPPING[family]()
            config = type(config)(**_small(config, way) | RULES["families"].get(family, {}))
            with torch.device("meta"):
                empty = AutoModelForCausalLM.from_config(copy.deepcopy(config))
            size = sum(parameter.numel() for parameter in empty.parameters())
            if size > RULES["most_parameters"]:
                raise RuntimeError(f"{size:,} parameters remain")
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
            for parameter in model.parameters():
                # Large enough that what is read wrongly shows; norms and biases start constant.
                parameter.data += 0.1 * torch.randn_like(parameter)
            model.eval().requires_grad_(False)
            if not model(torch.tensor(IDS[:1]), use_cache=False).logits.isfinite().all():
                raise RuntimeError("its logits are not finite")
            return model
        except Exception as error:  # a library's, of any kind: the table says which
            failed.setdefault(f"{type(error).__name__}: {_line(error)}", None)
    raise RuntimeError(next(iter(failed)))


def _small(config: PreTrainedConfig, way: Mapping[str, object]) -> dict[str, object]:
    """The fields of a configuration that are given another value, those of the configurations in it among them."""
    given: dict[str, object] = {"bos_token_id": 3, "eos_token_id": 0, "pad_token_id": 0}
    sizes = [*way.get("set", {}).items(), *RULES["sizes"]]
    for name, value in config.to_dict().items():
        inner = vars(config).get(name)
        if isinstance(inner, PreTrainedConfig):
            given[name] = type(inner)(**_small(inner, way)).to_dict()
            continue
        most = next((most for pattern, most in sizes if re.fullmatch(pattern, name)), None)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if most is not None and (
            whole and (value > most or name in way.get("set", {})) or value is None and way.get("fill")
        ):
            given[name] = most
    return given


def _line(error: Exception) -> str:
    return re.sub(r"/\S*/tmp\w+", "FOLDER", " ".join(str(error).split()))[:200]


# Each measurement, held against an answer worked out in another way. What a family cannot give is a UsageError.


def _close(found: object, expected: object, most: float = 2e-3) -> None:
    found, expected = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    worst = float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))
    if not worst <= most:
        raise RemiError(f"differs by {worst:.2g} from the model's own")


def _own(model: PreTrainedModel, dialogue: EncodedDialogue) -> Tensor:
    return model(torch.tensor([dialogue.input_ids]), use_cache=False).logits[0].double().log_softmax(-1)


def log_probabilities(model: PreTrainedModel) -> None:
    """Of the answer's tokens, all dialogues in one batch: the model's own, one by one."""
    found = run_probes(model, DIALOGUES, [TokenLogProbs()], batch_tokens=1000)["sequence"]["log_probability"]
    own = [_own(model, one)[range(1, len(one.input_ids) - 1), one.input_ids[2:]] for one in DIALOGUES]
    _close(found, torch.cat(own))


def next_token(model: PreTrainedModel) -> None:
    """Log-probabilities at the choice."""
    found = run_probes(model, DIALOGUES, [NextToken(5)], batch_tokens=1000)["next_token"]
    own = torch.stack([_own(model, one)[2] for one in DIALOGUES])
    _close(found["alternative_log_probability"], own[:, 50])
    _close(found["top_log_probabilities"], own.topk(5).values)


def activations(model: PreTrainedModel) -> None:
    """Block outputs: the model's own hidden states, and its logits by norm and unembedding."""
    layers = range(n_layers(model))
    found = run_probes(model, DIALOGUES, [Activations(layers, ("prompt_end",))], batch_tokens=1000)[
        "activations"
    ]
    for at, one in enumerate(DIALOGUES):
        ids = torch.tensor([one.input_ids])
        own = model(ids, output_hidden_states=True, use_cache=False).hidden_states or ()
        if len(own) == len(layers) + 1:
            # The first is the embedding, or where a family keeps outputs alone, the first block's.
            states, ours = torch.stack([hidden[0, 1] for hidden in own[:-1]]), found["mean"][at, 0]
            _close(ours[:-1], states[:-1] if np.allclose(ours[0], states[0], atol=1e-4) else states[1:])
        last = final_norm(model)(torch.from_numpy(found["mean"][at, :, -1])[None])[0]
        _close(logits_at(model, last).log_softmax(-1), _own(model, one)[1:2])


def gradients(model: PreTrainedModel) -> None:
    """Inner products of the gradients at every block's attention output: torch's own."""
    for layer in range(n_layers(model)):
        weight, own = attention_output(model, layer).weight.requires_grad_(True), []
        for one in DIALOGUES:
            with torch.enable_grad():
                loss = -_graph(model, one)[range(1, len(one.input_ids) - 1), one.input_ids[2:]].mean()
                own.append(torch.autograd.grad(loss, weight)[0].double().ravel())
        weight.requires_grad_(False)
        own = torch.stack(own)
        found = face.gradient_gram(model, EncodedSet(DIALOGUES, (), {}), layer=layer)
        scale = float((own @ own.T).abs().max())
        _close(found / scale, own @ own.T / scale)


def _graph(model: PreTrainedModel, one: EncodedDialogue) -> Tensor:
    return model(torch.tensor([one.input_ids]), use_cache=False).logits[0].float().log_softmax(-1)


def patching(model: PreTrainedModel) -> None:
    """From another model: both ends, which the function itself checks, and one block against a stitched model."""
    n_layers(model), decoder_blocks(model)
    donor = copy.deepcopy(model)
    for parameter in donor.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    sources = tuple(
        Dialogue(
            identifier=str(at), messages=(Message("user", "a"), Message("assistant", "b")), cluster=str(at)
        )
        for at in range(3)
    )
    found = face.patch(donor, model, EncodedSet(DIALOGUES, sources, {}))["loss"].value
    own = []
    for one in DIALOGUES:
        ids = torch.tensor([one.input_ids])
        with read_blocks(donor, [1]) as seen:
            donor(ids, use_cache=False)
        # Nothing is skipped here: all blocks run.
        with steer(model, 1, lambda _hidden, seen=seen: seen[1]):
            own.append(-_own(model, one)[range(1, len(one.input_ids) - 1), one.input_ids[2:]].mean())
    _close(found[2], torch.stack(own).mean())


def steering(model: PreTrainedModel) -> None:
    """A vector added to the last block's output: the logits of norm and unembedding move as they must."""
    ids, vector = torch.tensor(IDS[:1]), torch.linspace(-1, 1, decoder_width(model))
    with read_blocks(model, [-1]) as seen:
        model(ids, use_cache=False)
    expected = logits_at(model, final_norm(model)(seen[-1] + vector)[0])
    with steer(model, -1, vector):
        _close(model(ids, use_cache=False).logits[0], expected)
    with steer(model, 0, vector):
        moved = model(ids, use_cache=False).logits[0]
    if torch.allclose(moved, model(ids, use_cache=False).logits[0], atol=1e-4):
        raise RemiError("a vector added to the first block changes nothing")


def decoder_width(model: PreTrainedModel) -> int:
    """Width of the residual stream."""
    decoder_blocks(model)
    return model.get_output_embeddings().weight.shape[1]


def logit_lens(model: PreTrainedModel) -> None:
    """The tokens that a direction writes: the change of the logits by norm and unembedding."""
    start, direction = (
        np.random.default_rng(0).standard_normal((2, 1, decoder_width(model))).astype(np.float32)
    )
    found = written_tokens(
        LoadedModel(model, PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE())), "", ""),
        direction,
        start,
        top_k=3,
    )
    unit = direction / np.linalg.norm(direction)
    rows = [final_norm(model)(torch.from_numpy(part)[None])[0] for part in (start, start + unit)]
    change = (logits_at(model, rows[1]) - logits_at(model, rows[0]))[0]
    _close(found.raised_change[0], change.topk(3).values)


def attention(model: PreTrainedModel) -> None:
    """The map by which each block's attention, or what it has in its place, writes into the stream."""
    for layer in range(n_layers(model)):
        _writes(model, attention_output(model, layer))


def mlp(model: PreTrainedModel) -> None:
    """The same of the MLP."""
    for layer in range(n_layers(model)):
        _writes(model, mlp_output(model, layer))


def _writes(model: PreTrainedModel, part: torch.nn.Module) -> None:
    before = model(torch.tensor(IDS[:1]), use_cache=False).logits
    handle = part.register_forward_hook(lambda _m, _i, output: 0 * output)
    try:
        if torch.allclose(model(torch.tensor(IDS[:1]), use_cache=False).logits, before, atol=1e-5):
            raise RemiError("the map that was found writes nothing")
    finally:
        handle.remove()


def adapters(model: PreTrainedModel) -> None:
    """A LoRA on all linear maps, read beside the weights: the logits of peft's own."""
    head = next(name for name, part in model.named_modules() if part is model.get_output_embeddings())
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        maps = {
            name: part for name, part in model.named_modules() if isinstance(part, torch.nn.Linear | Conv1D)
        }
        # peft refuses this one name in families with state-space blocks, and routers that give more than a tensor.
        maps = {name: part for name, part in maps.items() if not name.endswith("out_proj") and name != head}
        plain = [name for name, part in maps.items() if type(part) in (torch.nn.Linear, Conv1D)]
        targets = plain or list(maps)
        settings = LoraConfig(r=2, lora_alpha=4, target_modules=targets, task_type="CAUSAL_LM")
        peft = get_peft_model(copy.deepcopy(model), settings).eval()
        for name, value in peft.named_parameters():
            if "lora_" in name:
                value.data = 0.1 * torch.randn_like(value)
        expected = peft(torch.tensor([DIALOGUES[0].input_ids]), use_cache=False).logits[0].log_softmax(-1)
        peft.save_pretrained(folder)
        spec = ModelSpec(source="x", adapter=folder)
        own = apply_adapter(copy.deepcopy(model), *read_adapter(spec), spec).eval()
        own.requires_grad_(False)
    found = run_probes(own, DIALOGUES[:1], [TokenLogProbs()], batch_tokens=1000)["sequence"][
        "log_probability"
    ]
    _close(found, expected.detach()[range(1, len(IDS[0]) - 1), IDS[0][2:]])
    if np.allclose(found, _own(model, DIALOGUES[0])[range(1, len(IDS[0]) - 1), IDS[0][2:]], atol=1e-4):
        raise RemiError("the adapter changes nothing")


MEASUREMENTS: dict[str, Callable[[PreTrainedModel], None]] = {
    "log-probabilities": log_probabilities,
    "next token": next_token,
    "activations": activations,
    "gradients": gradients,
    "patching": patching,
    "steering": steering,
    "logit lens": logit_lens,
    "attention output": attention,
    "MLP output": mlp,
    "LoRA": adapters,
}


@torch.no_grad()
def tried(family: str) -> dict[str, object]:
    """What one family gives: measurement → "" where it works, else why not; or why no tiny model could be made."""
    try:
        model = tiny(family)
    except RuntimeError as error:
        return {"not_made": _line(error)}
    try:
        # What the package would say before it measures; nothing it finds is believed without.
        check_pass(model, DIALOGUES, dtype="float32")
    except (UsageError, RemiError) as error:
        return {"model": type(model).__name__, "measurements": dict.fromkeys(MEASUREMENTS, _line(error))}
    found = {}
    for name, measurement in MEASUREMENTS.items():
        try:
            measurement(model)
            found[name] = ""
        except (UsageError, RemiError) as error:
            found[name] = _line(error)
        except Exception as error:  # not foreseen: shown as what it is
            found[name] = f"{type(error).__name__}: {_line(error)}"
    return {"model": type(model).__name__, "measurements": found}


def main(path: Path, families: list[str]) -> None:
    """Write the table."""
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    rows = {family: tried(family) for family in families or FAMILIES}
    about = {"date": datetime.date.today().isoformat(), "versions": library_versions()}
    text = json.dumps(about | {"families": rows}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
