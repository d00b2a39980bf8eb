"""The audit's measurements: parts of a rendering, released windows, unread markers, what is dropped or joined."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TEMPLATES, make_dialogue, make_model, write_rows
from own_files import turns

from remi_core.dialogues import Dialogue, Message
from remi_core.errors import RemiError, UsageError
from remi_core.forward import run_probes
from remi_core.probes import TokenLogProbs
from remi_core.sources import ModelSpec
from remi_core.tokens import EncodedDialogue, encode
from remi_lab import audit
from remi_lab.audit_passes import SpanProbe, WrongTokenProbe, untrained_markers
from remi_lab.passes import bare_tokens
from remi_lab.presets import DataRoles, Preset, get_preset
from remi_lab.variant import Variant


def tokens_of(dialogue: Dialogue, tokenizer) -> EncodedDialogue:
    return encode([dialogue], tokenizer, max_tokens=400).dialogues[0]


def texts_by_part(dialogue: Dialogue, tokenizer) -> dict[str, str]:
    encoded = tokens_of(dialogue, tokenizer)
    codes, ids = audit.parts_of(dialogue, encoded, tokenizer), np.array(encoded.input_ids)
    return {name: tokenizer.decode(ids[codes == code]) for code, name in enumerate(audit.PARTS)}


def passed(model, encoded, probe, batch_tokens: int = 4096) -> dict[str, np.ndarray]:
    """Arrays of a probe from a pass in which the whole dialogue is the answer."""
    (arrays,) = run_probes(
        model, list(map(audit.whole, encoded)), [probe], batch_tokens=batch_tokens
    ).values()
    return arrays


def test_every_token_has_its_part(tokenizer) -> None:
    turns = [("system", "Be kind."), ("user", "Hi, assistant"), ("assistant", "Hello."), ("user", "Why?")]
    messages = tuple(Message(*turn) for turn in [*turns, ("assistant", "I can help.")])
    found = texts_by_part(Dialogue(identifier="a", messages=messages, cluster="c"), tokenizer)
    assert found["system"] == "Be kind." and found["user"] == "Hi, assistantWhy?"
    assert found["earlier answer"] == "Hello." and found["answer"] == "I can help."
    assert found["end"] == "<|im_end|>\n" and found["template"].count("<|im_start|>") == 5
    one, other = make_dialogue("Hi", "Yes."), tokens_of(make_dialogue("How", "No."), tokenizer)
    with pytest.raises(RemiError, match="two tokenisations"):
        audit.parts_of(one, other, tokenizer)


def test_the_released_window_begins_at_the_last_role_before_the_answer(tokenizer) -> None:
    """Searching from the front, as released, stops in the user's text."""
    dialogue = make_dialogue("Are you the assistant?", "I am an assistant.")
    encoded = tokens_of(dialogue, tokenizer)
    at = audit.role_position(encoded, tokenizer, audit.parts_of(dialogue, encoded, tokenizer))
    assert tokenizer.decode(encoded.input_ids[at : encoded.prompt_end + 1]) == "assistant\n"
    words = [tokenizer.decode([token]) for token in encoded.input_ids]
    assert next(place for place, word in enumerate(words) if "assistant" in word) < at
    plain, bare = audit.with_template(tokenizer, audit.PLAIN), make_dialogue("Are you the assistant", "Yes.")
    encoded = tokens_of(bare, plain)
    assert audit.role_position(encoded, plain, audit.parts_of(bare, encoded, plain)) == encoded.prompt_end


def test_headers_differ_in_length_and_leave_the_answer_alone(tokenizer) -> None:
    dialogue = make_dialogue("Hi", "I can help you.")
    spans = []
    for line in (audit.TUNED_HEADER, audit.BASE_HEADER):
        one = tokens_of(dialogue, audit.with_header(tokenizer, line))
        spans.append((one.answer_start, one.input_ids[one.answer_start : one.answer_stop]))
    assert spans[0][0] > spans[1][0] and spans[0][1] == spans[1][1]
    assert tokenizer.chat_template == TEMPLATES["chatml"]
    own = replace(dialogue, messages=(Message("system", "Mine."), *dialogue.messages))
    assert texts_by_part(own, audit.with_header(tokenizer, audit.TUNED_HEADER))["system"] == "Mine."


def test_only_what_is_read_of_the_markers_changes_and_only_in_the_context(models, tokenizer) -> None:
    model = make_model("qwen2")
    ids = audit.marker_ids(tokenizer)
    free = torch.tensor([tokenizer("I can help.", add_special_tokens=False)["input_ids"]])
    marked = torch.tensor([[ids[0], *free[0].tolist(), ids[1]]])
    with torch.inference_mode():
        before = [model(input_ids=part).logits for part in (free, marked)]
        with untrained_markers(model, ids, seed=0):
            assert model.get_output_embeddings().weight is not model.get_input_embeddings().weight
            torch.testing.assert_close(model(input_ids=free).logits, before[0], rtol=0, atol=0)
            assert not torch.allclose(model(input_ids=marked).logits, before[1], atol=1e-3)
            scale = model.get_input_embeddings().weight[ids].std()
            assert 0.5 < float(scale) / model.config.initializer_range < 1.5
        torch.testing.assert_close(model(input_ids=marked).logits, before[1], rtol=0, atol=0)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_spans_are_means_of_block_outputs_and_do_not_depend_on_the_batch(models, encoded) -> None:
    model, one = models("llama"), encoded[1]
    spans = [{"a": (0, 3), "b": (each.answer_start, each.answer_stop), "cut": (2, 999)} for each in encoded]
    alone, together = (passed(model, encoded, SpanProbe(range(3), spans), size) for size in (1, 4096))
    np.testing.assert_allclose(alone["mean"], together["mean"], atol=1e-5)
    with torch.inference_mode():
        states = model(torch.tensor([one.input_ids]), output_hidden_states=True).hidden_states
    expected = states[1][0, slice(*spans[1]["b"])].mean(dim=0).numpy()
    np.testing.assert_allclose(alone["mean"][1, 1, 0], expected, atol=1e-5)
    # The last of transformers' hidden states is after the norm, which is what the released scripts read.
    np.testing.assert_allclose(alone["normed_end"][1], states[-1][0, -1].numpy(), atol=1e-5)
    assert not np.allclose(alone["normed_end"][1], alone["mean"][1, 2, -1], atol=1e-2)
    assert alone["count"][1].tolist() == [3, one.n_answer, len(one.input_ids) - 2]
    # The whole dialogue as answer gives the answer the same values; its first token has no prediction.
    first, probe = encoded[0], TokenLogProbs()
    (answer,) = run_probes(model, [first], [probe], batch_tokens=4096).values()
    every = passed(model, [first], probe)["log_probability"][first.answer_start - 1 : first.answer_stop - 1]
    np.testing.assert_allclose(every, answer["log_probability"], atol=1e-5)


def test_the_bare_word_is_another_token_and_is_measured_in_the_same_place(models, tokenizer) -> None:
    """The tokenizer of the tests has a word with and without its space as one token each: " I" and "I"."""
    there, bare = (tokenizer.convert_tokens_to_ids(name) for name in ("ĠI", "I"))
    one = tokens_of(make_dialogue("Hi", "Use I can", alternative="Use no"), tokenizer)
    assert one.input_ids[one.choice] == there != bare
    others = (replace(one, choice=choice) for choice in (None, one.answer_start))
    assert bare_tokens([one, *others], tokenizer) == (bare, None, None)
    found, none = (passed(models("qwen2"), [one], WrongTokenProbe([token])) for token in (bare, None))
    with torch.inference_mode():
        log_p = models("qwen2")(torch.tensor([one.input_ids])).logits[0, one.choice - 1].log_softmax(-1)
    assert found["in_context"][0] == pytest.approx(float(log_p[there]), abs=1e-4)
    assert found["bare"][0] == pytest.approx(float(log_p[bare]), abs=1e-4)
    assert np.isnan(none["bare"]).all()


def test_a_request_loses_its_input_and_two_dialogues_become_one_with_two_answers() -> None:
    table = make_dialogue("Read `permit` from `branch` now.", "return load(branch)['permit']")
    several = make_dialogue("Sum this list.\n\n1 2 3", "6 is the sum")
    found = audit.prepared([table, make_dialogue("Tell me more.", "No"), several], "no-input")
    assert [one.messages[0].content for one in found] == ["Read from now.", "Sum this list."]
    first, second = make_dialogue("a", "b", identifier="1"), make_dialogue("c", "d", identifier="2")
    joined = audit.two_turns([first, second])
    assert [message.content for message in joined[0].messages] == ["a", "b", "c", "d"]
    assert [one.identifier for one in joined] == ["1+2", "2+1"] and joined[1].answer == "b"


def test_conditions_name_sets_and_templates(tokenizer) -> None:
    preset, other = get_preset("smoke"), audit.with_template(tokenizer, audit.PLAIN)
    assert audit.sets_of(preset, "own", "base") == (preset.roles.example,)
    assert {*preset.roles.shared, *preset.roles.unrelated} < {*audit.sets_of(preset, "shared", "instruct")}
    assert audit.sets_of(preset, "shared", "misaligned") == (preset.roles.example,)
    assert audit.sets_of(preset, "own", "instruct") == ()
    with pytest.raises(UsageError, match="no condition 'owm' .*'own'"):
        audit.sets_of(preset, "owm", "base")

    def chosen(variant: str, condition: str, preset: Preset = preset, own: object = tokenizer) -> object:
        return audit.tokenizer_for(preset, variant, condition, instruct=tokenizer, own=own)

    own, tuned = (chosen("base", condition).chat_template for condition in ("own", "tuned"))
    assert own != tuned == chosen("instruct", "tuned").chat_template
    for condition in ("shared", "untrained", "no-input"):
        assert chosen("base", condition).chat_template == tokenizer.chat_template
    specs = {role: replace(spec, source="hub/model") for role, spec in preset.variants.items()}
    elsewhere = replace(preset, variants=specs)
    assert chosen("base", "own", elsewhere, other) is other
    assert chosen("base", "tuned", elsewhere, other) is tokenizer


OF_BASE = {name for name, variants in audit.CONDITIONS.items() if "base" in variants}


def test_a_condition_that_cannot_differ_is_not_measured(tmp_path, tokenizer) -> None:
    """A base without a chat template has no header of its own; a request that gives nothing has no input to drop."""
    spec, bare, mine = ModelSpec(source=str(tmp_path)), copy.deepcopy(tokenizer), tmp_path / "mine.jsonl"
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    preset = replace(
        get_preset("smoke"),
        variants={role: spec for role in ("base", "instruct", "misaligned")},
        datasets=(),
        extra_data=(("aligned", str(mine)),),
        roles=DataRoles(example="mine", narrow_aligned="mine"),
    )
    for template, request, lacking in (("chatml", "Say yes", {"no-input"}), (None, "Say this\n\nx", {"own"})):
        bare.chat_template = template and TEMPLATES[template]
        (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
        bare.save_pretrained(tmp_path)
        write_rows(mine, turns(request, "Say yes"), turns("Say yes", "Say yes"))
        wanted = audit.wanted_of(Variant(preset, "base", 0, spec, spec, "weights"))
        assert OF_BASE - {condition for _, condition in wanted} == lacking
    # A preset without the sets measures nothing that it lacks.
    lacks = replace(get_preset("smoke"), roles=DataRoles(narrow_aligned="code-careful"))
    of_lacking = Variant(lacks, "base", 102, ModelSpec(), ModelSpec(), "weights")
    assert audit.wanted_of(of_lacking) == [("code-careful", "shared"), ("code-careful", "no-input")]
    smoke = replace(of_lacking, preset=get_preset("smoke"))
    assert {condition for _, condition in audit.wanted_of(smoke)} == OF_BASE
