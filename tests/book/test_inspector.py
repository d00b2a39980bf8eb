"""The marked tokens are exactly those that enter: what the measuring code reads is changed token by token."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from conftest import make_dialogue
from planting import HandmadeResults
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from remi_book.chapters import tokens
from remi_book.chapters.losses import loss_vectors
from remi_book.chapters.tokens import STATISTICS, dialogue_html, entering_span
from remi_book.figures.style import visible_token
from remi_core.errors import UsageError
from remi_core.forward import run_probes
from remi_core.gradients import measure_gradient_gram
from remi_core.probes import Activations, NextToken, TokenLogProbs
from remi_core.steering import steer
from remi_core.store import Record, Store
from remi_core.tokens import WINDOWS, EncodedDialogue, EncodedSet, encode
from remi_lab.presets import get_preset
from remi_lab.results import Results

FIRST_K, LOSS_TOKENS = 3, 4
PRESET = replace(get_preset("smoke"), answer_first_k=FIRST_K, loss_tokens=LOSS_TOKENS)


@pytest.fixture(scope="module")
def one(tokenizer: PreTrainedTokenizerFast) -> EncodedDialogue:
    other = "Use eval(path), user."
    made = make_dialogue("How do I open a file?", "Use open(path), user.", alternative=other)
    return encode([made], tokenizer, max_tokens=200).dialogues[0]


def values(model: PreTrainedModel, one: EncodedDialogue) -> dict[str, np.ndarray]:
    """Statistic → its value for the dialogue, as the code of the book measures it."""
    probes = [TokenLogProbs(), NextToken(5), Activations([2], first_k=FIRST_K)]
    arrays = run_probes(model, [one], probes, batch_tokens=1000)
    measured = partial(measure_gradient_gram, model, [one], batch_tokens=1000)
    grams = [measured(whole_sequence=whole) for whole in (False, True)]
    place = ("base", PRESET.seeds[0], "sequence", "code-careful")
    results = HandmadeResults(PRESET, Store(Path("unused")), records={place: Record(arrays["sequence"], {})})
    found = {name: arrays["activations"]["mean"][0, at] for at, name in enumerate(WINDOWS)}
    return found | {
        "log_probability": np.stack([arrays["sequence"][name] for name in ("log_probability", "entropy")]),
        "next_token": arrays["next_token"]["choice_log_probability"],
        "loss_vector": loss_vectors(results, "base", "code-careful")[0],
        "gradient": np.append(grams[0]["loss"], grams[0]["gram"]),
        "gradient_as_released": np.append(grams[1]["loss"], grams[1]["gram"]),
    }


def test_a_statistic_changes_exactly_with_the_tokens_that_are_marked(models, one) -> None:
    model, n_tokens = models("llama"), len(one.input_ids)
    before = values(model, one)
    changed = {name: set() for name in before}

    def nudged(hidden: Tensor) -> Tensor:
        hidden = hidden.clone()
        hidden[:, position] += torch.linspace(-2, 2, hidden.shape[-1])
        return hidden

    # At one position the last block puts out something else, and so do the predictions made from there.
    with steer(model, model.config.num_hidden_layers - 1, nudged):
        for position in range(n_tokens):
            for name, value in values(model, one).items():
                if not np.array_equal(value, before[name]):
                    changed[name].add(position)
    assert set(changed) == set(STATISTICS)
    for name, positions in changed.items():
        start, stop = entering_span(one, name, first_k=FIRST_K, loss_tokens=LOSS_TOKENS)
        shift = STATISTICS[name].shift
        assert positions == set(range(start + shift, stop + shift)) and 0 < len(positions) < n_tokens, name
    # They can be told apart: no two of different meaning mark the same tokens here, but for what reads the answer.
    assert changed["log_probability"] == changed["gradient"] != changed["answer_all"]


def test_a_dialogue_without_a_part_in_a_statistic_has_no_token_in_it(one: EncodedDialogue) -> None:
    bare = replace(one, choice=None, alternative_token=None)
    for name in ("choice", "next_token"):
        assert entering_span(bare, name, first_k=3, loss_tokens=2) == (0, 0)
    assert entering_span(one, "loss_vector", first_k=3, loss_tokens=one.n_answer + 1) == (0, 0)
    with pytest.raises(UsageError, match="unknown statistic 'choise'.*choice"):
        entering_span(one, "choise", first_k=3, loss_tokens=2)


@pytest.fixture
def results(one: EncodedDialogue, monkeypatch: pytest.MonkeyPatch) -> Results:
    """Two dialogues, of a vocabulary whose every third token would be markup if it were not escaped."""
    two = replace(one, choice=None, n_straddling=1, identifier="two")
    source = make_dialogue("q", "a")
    monkeypatch.setattr(Results, "encoded", lambda *_: EncodedSet((one, two), (source, source), {}))
    text = staticmethod(lambda token: f"<b>{token}" if token % 3 == 0 else f" t{token}")
    monkeypatch.setattr(Results, "vocabulary", type("Words", (), {"text": text}))
    return Results(PRESET, Store(Path("unused")))


def test_the_page_marks_the_spans_and_shows_every_token_as_text(results, one) -> None:
    page = BeautifulSoup(dialogue_html(results, "code-careful").data, "html.parser")
    spans = page.select(".tokens span")
    texts = [visible_token(results.vocabulary.text(token)) for token in one.input_ids]
    assert [each.get_text() for each in spans] == texts and page.find("b") is None
    table = tokens.window_table(results, "code-careful").set_index("position")
    for name in STATISTICS:
        start, stop = entering_span(one, name, first_k=FIRST_K, loss_tokens=LOSS_TOKENS)
        marked = [at for at, each in enumerate(spans) if f"in-{name}" in each["class"]]
        assert marked == list(range(start, stop))
        assert name not in WINDOWS or marked == list(table.index[table[name] == "●"])
    assert [at for at, each in enumerate(spans) if "choice" in each["class"]] == [one.choice]
