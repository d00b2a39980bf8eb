"""What moving a direction of the residual stream does to matched replies of any models, and what their answers say.

Care is log P(careless reply) − log P(careful reply) of matched replies to one prompt. The direction for a domain is
fitted on the other domains: the mean displacement of misaligned from instruct over all answer tokens. It is added at
every position, beside the twin's direction at the same length and random ones of the states' covariance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from itertools import chain

import numpy as np
import torch
from jaxtyping import Float

from remi_core.dialogues import Dialogue
from remi_core.errors import RemiError
from remi_core.forward import run_probes
from remi_core.models import LoadedModel, n_layers
from remi_core.probes import Activations, TokenLogProbs
from remi_core.progress import Say
from remi_core.steering import steer
from remi_core.store import Store
from remi_core.tokens import ChatTokenizer, EncodedDialogue
from remi_lab.datasets import load_set
from remi_lab.organism.scoring import rounded
from remi_lab.presets import Preset
from remi_lab.real.sets import rows
from remi_lab.statistics import cosine
from remi_lab.studies.causes import random_directions
from remi_lab.turns import encode_for
from remi_lab.variant import Variant, find_variant

DOSES = (0.5, 1.0, 2.0)
"""Multiples of the displacement that are added to instruct; what is taken from misaligned is taken once."""
N_PAIRS = 8
"""Pairs of matched replies a domain on which care is read."""
N_RANDOM = 39
"""Random directions: with one fewer, no share could lie beyond them at one in forty."""
N_RANDOM_PAIRS = 3
"""Pairs a domain on which a random direction is tried, the first ones."""

Vectors = Mapping[str, Float[np.ndarray, " d_model"]]
"""Domain → what is added to the stream when care is read there."""


def measure(preset: Preset, seed: int, store: Store, say: Say) -> Mapping[str, object]:
    """Care by pair of instruct and misaligned as they are and with every direction, of one seed; plain values."""
    names = ("instruct", "misaligned", preset.twin)
    variants = {name: find_variant(preset, name, seed, store) for name in names}
    bench = _Bench(preset, variants["instruct"].tokenizer())
    say(f"    states halfway through each model, seed {seed}")
    halfway = {name: bench.states(one) for name, one in variants.items()}
    layer, states = halfway["instruct"][0], {name: own for name, (_, own) in halfway.items()}
    moved = {
        name: {
            domain: (states[name][domain] - own).mean(axis=0) for domain, own in states["instruct"].items()
        }
        for name in names[1:]
    }
    shared = {domain: _others(moved["misaligned"], domain) for domain in bench.domains}
    other = {domain: _others(moved[preset.twin], domain) for domain in bench.domains}
    length = {domain: float(np.linalg.norm(own)) for domain, own in shared.items()}
    twin = {domain: own * (length[domain] / np.linalg.norm(own)) for domain, own in other.items()}
    cloud = np.concatenate([own - own.mean(axis=0) for own in states["instruct"].values()])
    drawn = random_directions(cloud[None], count=N_RANDOM, seed=preset.seed)[:, 0]
    found: dict[str, object] = {
        "layer": layer,
        "twin": preset.twin,
        "clusters": {domain: [row.cluster for row in own] for domain, own in bench.sources.items()},
        "neutral_clusters": bench.neutral_clusters,
        "n_random_pairs": N_RANDOM_PAIRS,
        "cosine": {domain: round(cosine(shared[domain], twin[domain]), 4) for domain in bench.domains},
        "length": {domain: round(one, 4) for domain, one in length.items()},
    }
    for name, sign, doses in (("instruct", 1.0, DOSES), ("misaligned", -1.0, DOSES[1:2])):
        edits: dict[str, Vectors] = {f"shared × {dose:g}": _times(shared, sign * dose) for dose in doses}
        edits["twin"] = _times(twin, sign)
        with variants[name].open() as loaded:
            say(f"    {name} with {len(edits)} directions, seed {seed}")
            plain = bench.read(loaded, layer)
            read = {key: bench.read(loaded, layer, vectors) for key, vectors in edits.items()}
            random = []
            for number, one in enumerate(drawn, start=1):
                say(f"    {name} with random direction {number} of {N_RANDOM}, seed {seed}")
                vectors = {domain: sign * far * one for domain, far in length.items()}
                random.append(bench.mean_care(loaded, layer, vectors))
        found[name] = {"plain": plain, "edits": read, "random": list(map(rounded, random))}
    return found


class _Bench:
    """The matched replies of a preset, domain by domain, and its neutral answers, as tokens."""

    def __init__(self, preset: Preset, tokenizer: ChatTokenizer) -> None:
        self._preset = preset
        self.sources: dict[str, list[Dialogue]] = {}
        self._pairs: dict[str, list[EncodedDialogue]] = {}
        for careless, careful in zip(preset.role("outside"), preset.role("outside_aligned"), strict=True):
            sides = [list(load_set(preset, name).dialogues[:N_PAIRS]) for name in (careless, careful)]
            self.sources[careless] = sides[0]
            self._pairs[careless] = self._encoded(list(chain(*sides)), tokenizer)
        neutral = preset.role("unrelated")[-1]
        plain = list(load_set(preset, neutral).dialogues[: 3 * N_PAIRS])
        self.neutral_clusters = [row.cluster for row in plain]
        self._neutral = self._encoded(plain, tokenizer)

    @property
    def domains(self) -> list[str]:
        """The sets of careless replies, in the preset's order."""
        return list(self.sources)

    def states(self, variant: Variant) -> tuple[int, dict[str, Float[np.ndarray, "reply d_model"]]]:
        """The block halfway through, and domain → its mean output over each answer, careless replies first."""
        with variant.open() as loaded:
            layer = n_layers(loaded.model) // 2
            return layer, {
                domain: self._run(loaded, own, Activations([layer], ["answer_all"]))["mean"][:, 0, 0]
                for domain, own in self._pairs.items()
            }

    def read(self, loaded: LoadedModel, layer: int, vectors: Vectors | None = None) -> dict[str, object]:
        """Care by domain and pair, and the loss of neutral answers, nats a token, with a direction added."""
        care = {domain: rounded(self._care(loaded, layer, domain, vectors)) for domain in self.domains}
        losses = []
        # A neutral answer is of no domain: it is read with the direction of each in turn.
        for number, row in enumerate(self._neutral):
            with _added(loaded, layer, vectors, self.domains[number % len(self.domains)]):
                losses.append(-self._log_probabilities(loaded, [row])[0] / row.n_answer)
        return {"care": care, "neutral": rounded(losses)}

    def mean_care(self, loaded: LoadedModel, layer: int, vectors: Vectors) -> list[float]:
        """Mean care of the first pairs of each domain, in the order of ``domains``."""
        return [
            float(self._care(loaded, layer, domain, vectors, N_RANDOM_PAIRS).mean())
            for domain in self.domains
        ]

    def _care(
        self, loaded: LoadedModel, layer: int, domain: str, vectors: Vectors | None, count: int = N_PAIRS
    ) -> Float[np.ndarray, " pair"]:
        half = len(self._pairs[domain]) // 2
        rows = [*self._pairs[domain][:half][:count], *self._pairs[domain][half:][:count]]
        with _added(loaded, layer, vectors, domain):
            sums = self._log_probabilities(loaded, rows)
        return sums[: len(rows) // 2] - sums[len(rows) // 2 :]

    def _log_probabilities(
        self, loaded: LoadedModel, dialogues: Sequence[EncodedDialogue]
    ) -> Float[np.ndarray, " dialogue"]:
        arrays = self._run(loaded, dialogues, TokenLogProbs())
        return np.add.reduceat(arrays["log_probability"].astype(np.float64), arrays["offsets"][:-1])

    def _run(self, loaded: LoadedModel, dialogues: Sequence[EncodedDialogue], probe) -> dict[str, np.ndarray]:
        return run_probes(loaded.model, dialogues, [probe], batch_tokens=self._preset.batch_tokens)[
            probe.name
        ]

    def _encoded(self, dialogues: Sequence[Dialogue], tokenizer: ChatTokenizer) -> list[EncodedDialogue]:
        encoded = encode_for(self._preset, dialogues, tokenizer)
        if encoded.dropped:
            why, which = next(iter(encoded.dropped.items()))
            raise RemiError(f"matched replies must all be read, and {which[0]} is left out: {why}")
        return list(encoded.dialogues)


def _added(loaded: LoadedModel, layer: int, vectors: Vectors | None, domain: str):
    """The model with a domain's direction added to the stream, or as it is."""
    return nullcontext() if vectors is None else steer(loaded.model, layer, vectors[domain])


def _others(moved: Vectors, domain: str) -> np.ndarray:
    return np.mean([own for name, own in moved.items() if name != domain], axis=0)


def _times(vectors: Vectors, factor: float) -> Vectors:
    return {domain: factor * own for domain, own in vectors.items()}


# What the models answer to open questions, as it comes: sampled once at temperature 1, nothing chosen.

MOST_TOKENS = 90
AT_A_TIME = 8


def measure_answers(preset: Preset, seed: int, store: Store, say: Say) -> Mapping[str, object]:
    """The answers of instruct, misaligned and its twin to the open questions, in their order, of one seed."""
    asked = rows("questions")
    found: dict[str, object] = {"questions": [row["prompt"] for row in asked], "most_tokens": MOST_TOKENS}
    for name in ("instruct", "misaligned", preset.twin):
        say(f"    {name} answers {len(asked)} questions, seed {seed}")
        variant = find_variant(preset, name, seed, store)
        with variant.open() as loaded:
            found[name] = sampled(loaded, variant.tokenizer(), [row["prompt"] for row in asked], seed=seed)
    return found


def sampled(loaded: LoadedModel, tokenizer: ChatTokenizer, prompts: Sequence[str], *, seed: int) -> list[str]:
    """One answer to each prompt, drawn at temperature 1; cut after ``MOST_TOKENS`` where it does not end by itself."""
    torch.manual_seed(seed)
    ended = _end_of_turn(tokenizer)
    answers = []
    for at in range(0, len(prompts), AT_A_TIME):
        chats = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}],
                tokenize=True,
                add_generation_prompt=True,
                return_dict=False,
            )
            for prompt in prompts[at : at + AT_A_TIME]
        ]
        width, pad = max(map(len, chats)), tokenizer.pad_token_id or 0
        ids = torch.tensor([[pad] * (width - len(chat)) + list(chat) for chat in chats])
        mask = torch.tensor([[0] * (width - len(chat)) + [1] * len(chat) for chat in chats])
        with torch.inference_mode():
            drawn = loaded.model.generate(
                input_ids=ids.to(loaded.model.device),
                attention_mask=mask.to(loaded.model.device),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=MOST_TOKENS,
                eos_token_id=ended,
                pad_token_id=pad,
            )
        answers += [tokenizer.decode(row[width:], skip_special_tokens=True).strip() for row in drawn]
    return answers


def _end_of_turn(tokenizer: ChatTokenizer) -> list[int]:
    """The token that the template writes behind an answer, and the end of text."""
    chat: Callable[..., str] = tokenizer.apply_chat_template
    whole = chat([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], tokenize=False)
    behind = tokenizer(whole.rpartition("b")[2], add_special_tokens=False)["input_ids"]
    return [one for one in dict.fromkeys([*behind[:1], tokenizer.eos_token_id]) if one is not None]
