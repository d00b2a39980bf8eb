"""Thoughts, developers, tools and templates without a system: rendered, stated, or refused with one line."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from conftest import TEMPLATES, make_tokenizer

from remi_core.dialogues import Dialogue, Message, dialogues
from remi_core.errors import UsageError
from remi_core.tokens import EMPTY, INSIDE, THOUGHT, UNTHOUGHT, EncodedDialogue, encode
from remi_lab import turns, variant
from remi_lab.presets import PRESETS, Preset
from remi_lab.turns import AS_SYSTEM, DATED, FOLDED, encode_for, tried

SMOKE = PRESETS["smoke"]
ASKED, REPLY = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Paris."}
CALLS = [{"type": "function", "function": {"name": "look_up", "arguments": {"word": "Paris"}}}]


def tokenizer_of(name: str, template: str | None = None):  # noqa: ANN201 (of transformers, which is slow to import)
    tokenizer = make_tokenizer(name)
    tokenizer.chat_template = template or TEMPLATES[name]
    return tokenizer


def chat(*messages: dict[str, object]) -> Dialogue:
    return dialogues([list(messages)])[0]


def encoded(template: str, *messages: dict[str, object], preset: Preset = SMOKE) -> EncodedDialogue:
    (one,) = encode_for(preset, [chat(*messages)], tokenizer_of(template)).dialogues
    return one


def shown(one: EncodedDialogue, template: str) -> tuple[str, str, str]:
    ids, decode = list(one.input_ids), tokenizer_of(template).decode
    return tuple(
        map(
            decode, (ids[: one.answer_start], ids[one.answer_start : one.answer_stop], ids[one.answer_stop :])
        )
    )


THINKING = "assistant\n<think>\n"
IN_CONTENT = REPLY | {"content": "<think>\nA  city <|im_end|>.\n</think>\n\nParis."}
BY_KEY = REPLY | {"reasoning_content": "A  city <|im_end|>."}
WITHIN = replace(SMOKE, reasoning="inside")


def test_an_inserted_think_block_is_stated_and_outside_the_answer() -> None:
    one = encoded("thinking", ASKED, REPLY)
    assert shown(one, "thinking")[:2] == (
        f"<|im_start|>user\nHi<|im_end|>\n<|im_start|>{THINKING}\n</think>\n\n",
        "Paris.",
    )
    assert one.notes == (EMPTY,) and one.prompt_end == one.answer_start - 1
    assert encoded("thinking", ASKED, REPLY, preset=WITHIN) == one, "there is nothing to be inside"
    assert encoded("chatml", ASKED, REPLY).notes == (), "the failing twin"


@pytest.mark.parametrize("template", ["thinking", "chatml"])
def test_an_answer_with_reasoning_is_kept_and_begins_where_the_preset_says(template) -> None:
    outside, inside = (encoded(template, ASKED, IN_CONTENT, preset=preset) for preset in (SMOKE, WITHIN))
    assert (outside.notes, inside.notes) == ((THOUGHT,), (INSIDE,))
    assert outside.input_ids == inside.input_ids and outside.answer_stop == inside.answer_stop
    before, answer, _ = shown(outside, template)
    assert before.endswith(f"{THINKING}A  city <|im_end|>.\n</think>\n\n") and answer == "Paris."
    before, answer, _ = shown(inside, template)
    assert before.endswith(THINKING) and answer == "A  city <|im_end|>.\n</think>\n\nParis."
    # Both spellings are one dialogue, and what is spelled as a control token is read as letters.
    assert encoded(template, ASKED, BY_KEY).input_ids == outside.input_ids
    end = tokenizer_of(template).convert_tokens_to_ids("<|im_end|>")
    assert outside.input_ids.count(end) == 2


def test_reasoning_that_a_template_leaves_out_is_stated() -> None:
    strips = TEMPLATES["chatml"].replace("turn.content", "turn.content.split('</think>')[-1].lstrip()")
    (one,) = encode([chat(ASKED, IN_CONTENT)], tokenizer_of("chatml", strips), max_tokens=99).dialogues
    plain = encoded("chatml", ASKED, REPLY)
    assert one.notes == (UNTHOUGHT,) and one.input_ids == plain.input_ids
    earlier = encoded("thinking", ASKED, IN_CONTENT, ASKED, REPLY)
    assert earlier.notes == (EMPTY, UNTHOUGHT) and "city" not in shown(earlier, "thinking")[0]


def test_the_other_answer_parts_from_an_answer_with_reasoning_after_it() -> None:
    row = {"messages": [ASKED, IN_CONTENT], "alternative": IN_CONTENT["content"].replace("Paris", "Par is")}
    (one,) = encode(dialogues([row]), tokenizer_of("thinking"), max_tokens=99).dialogues
    assert one.answer_start <= one.choice < one.answer_stop and one.alternative_token is not None
    assert dialogues([row])[0].answer == "Paris."


SYSTEM, DEVELOPER = ({"role": role, "content": "Be brief."} for role in ("system", "developer"))
FOLD = replace(SMOKE, system="fold")


@pytest.mark.parametrize("opening", [[SYSTEM], [DEVELOPER], [SYSTEM, DEVELOPER]])
def test_a_template_without_a_system_drops_the_turn_or_folds_it_as_the_preset_says(opening) -> None:
    template = TEMPLATES["gemma"].replace("== 'system'", "!= 'user'")
    rows = [chat(*opening, ASKED, REPLY), replace(chat(ASKED, REPLY), identifier="plain")]
    refused = encode_for(SMOKE, rows, tokenizer_of("gemma", template))
    assert [one.identifier for one in refused.dialogues] == ["plain"]
    ((reason, names),) = refused.dropped.items()
    assert names == ("chat:0",) and "no system turn here; --system fold" in reason
    with pytest.raises(UsageError, match="no system turn here.*--system fold"):
        encode_for(SMOKE, rows[:1], tokenizer_of("gemma", template))
    folded, plain = encode_for(FOLD, rows, tokenizer_of("gemma", template)).dialogues
    words = "\n\n".join([turn["content"] for turn in opening])
    assert shown(folded, "gemma")[0] == f"<bos><turn>user\n{words}\n\nHi</turn>\n<turn>model\n"
    assert folded.notes == (FOLDED,) and plain.notes == ()
    assert encoded("chatml", SYSTEM, ASKED, REPLY, preset=FOLD).notes == (), "one that takes it keeps it"


def test_a_developer_is_the_system_of_a_template_that_knows_none() -> None:
    silent = (
        TEMPLATES["chatml"]
        .replace("{{", "{% if turn.role != 'developer' %}{{", 1)
        .replace("{% endfor %}", "{% endif %}{% endfor %}")
    )
    (one,) = encode_for(SMOKE, [chat(DEVELOPER, ASKED, REPLY)], tokenizer_of("chatml", silent)).dialogues
    assert one.notes == (AS_SYSTEM,) and "system\nBe brief." in shown(one, "chatml")[0]
    with pytest.raises(UsageError, match="the developer's turn or leaves it out"):
        encode([chat(DEVELOPER, ASKED, REPLY)], tokenizer_of("chatml", silent), max_tokens=99)


def test_a_date_is_stated() -> None:
    template = "{{ strftime_now('%Y') }}" + TEMPLATES["chatml"]
    (one,) = encode_for(SMOKE, [chat(ASKED, REPLY)], tokenizer_of("chatml", template)).dialogues
    assert one.notes == (DATED,)


CALL = {"role": "assistant", "content": None, "tool_calls": CALLS}
RESULT = {"role": "tool", "name": "look_up", "tool_call_id": "1", "content": 'It is "big".'}
TAKEN = {
    "a call": (ASKED, CALL, RESULT, REPLY),
    "two replies": (ASKED, {"role": "assistant", "content": "Well."}, REPLY),
    "two questions": (ASKED, ASKED | {"name": "Ann", "weight": 1}, REPLY | {"weight": 0}),
    "parts": (ASKED | {"content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]}, REPLY),
}


@pytest.mark.parametrize("case", TAKEN)
def test_turns_that_people_have_are_rendered(case) -> None:
    one = encoded("thinking", *TAKEN[case])
    before, answer, _ = shown(one, "thinking")
    assert answer == "Paris." and before.count("Hi") == len(
        [turn for turn in TAKEN[case] if turn["role"] == "user"]
    )
    assert ('look_up {"word": "Paris"}' in before) == ('"It is \\"big\\"."' in before) == (case == "a call")


def test_a_call_that_the_template_would_leave_out_is_refused() -> None:
    with pytest.raises(UsageError, match="rewrites the assistant's turn or leaves it out: 1"):
        encoded("chatml", *TAKEN["a call"])


BOMBS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "memory": "{{ 'a' * 20000000000 }}",
    "length": "{{ 'b ' * 300000 }}",
    "a system's": "{% if messages[0].role == 'system' %}{{ 'b ' * 300000 }}{% endif %}",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_template_is_tried_within_limits_before_it_is_used(bomb, monkeypatch) -> None:
    monkeypatch.setattr(turns, "SECONDS", 1)
    tokenizer, started = tokenizer_of("chatml", BOMBS[bomb] + TEMPLATES["chatml"]), time.monotonic()
    with pytest.raises(
        UsageError, match="chat template of .* is not used: for a single word it takes more than 1 s"
    ):
        encode_for(SMOKE, [chat(ASKED, REPLY)], tokenizer)
    assert time.monotonic() - started < 30
    # The failing twin takes less; and a template that refuses is no bomb.
    for harmless in ("{{ 'b ' * 300 }}", "{{ raise_exception('no') }}", "{% if %}", {"default": "a"}, None):
        tokenizer.chat_template = harmless
        assert tried(tokenizer) is tokenizer


def test_a_tokenizer_with_too_many_added_tokens_is_not_opened(tmp_path, monkeypatch) -> None:
    tokenizer_of("chatml").save_pretrained(tmp_path)
    monkeypatch.setattr(variant, "weight_fingerprint", lambda _: "")
    assert variant.model_fingerprint(tmp_path)
    monkeypatch.setattr(variant, "MOST_ADDED", 8)
    with pytest.raises(UsageError, match=r"tokenizer\.json: it adds 9 tokens .*at most 8"):
        variant.model_fingerprint(tmp_path)


def test_a_reply_of_thoughts_alone_is_empty() -> None:
    for content in ("<think>a</think>", "<think>a</think> \n"):
        with pytest.raises(UsageError, match=r"the answer \(last assistant message\) is empty"):
            chat(ASKED, REPLY | {"content": content})
    assert Message("user", "<think>a</think>b").parts == (None, "<think>a</think>b")
    assert Message("assistant", "so </think>b").parts == (None, "so </think>b")
