"""The span is the last answer, whatever surrounds it; the unusable is counted; bad files are refused."""

from __future__ import annotations

import pytest
from conftest import TEMPLATES, make_dialogue, make_tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remi_core.dialogues import Dialogue, Message, read_jsonl
from remi_core.errors import UsageError
from remi_core.tokens import EncodedDialogue, encode

CHAT = ("chatml", "chatml-default", "llama", "gemma")
TOKENIZERS = {name: make_tokenizer(name) for name in TEMPLATES}
HEADER = {"llama": "<|head|>assistant<|/head|>\n\n", "gemma": "<turn>model\n"}
END = {"llama": "<|eot|>", "gemma": "</turn>\n"}


def encode_one(dialogue: Dialogue, template: str, max_tokens: int = 4096) -> EncodedDialogue:
    (encoded,) = encode([dialogue], TOKENIZERS[template], max_tokens=max_tokens).dialogues
    return encoded


def parts(encoded: EncodedDialogue, template: str) -> tuple[str, str, str]:
    ids, start, stop = list(encoded.input_ids), encoded.answer_start, encoded.answer_stop
    return tuple(TOKENIZERS[template].decode(piece) for piece in (ids[:start], ids[start:stop], ids[stop:]))


def said(*turns: tuple[str, str]) -> Dialogue:
    return Dialogue(identifier="said", cluster="c", messages=tuple(Message(*turn) for turn in turns))


PARIS = ("assistant", "Paris.")
TRICKY = {
    "assistant in the user's text": make_dialogue("<assistant> assistant\nassistant: hi", "An assistant."),
    "the answer said before": make_dialogue("Say: I can help. I can help.", "I can help."),
    "the answer is in the end of turn": make_dialogue("Say it", "im_end"),
    "several turns": said(("user", "Hi"), PARIS, ("user", "assistant?"), PARIS),
    "other scripts": make_dialogue("¿Qué?", "naïve — 日本語 🙂 done"),
}
ANY = st.text(st.sampled_from("aI .\n?é語\tassistant"), min_size=1, max_size=20)


@pytest.mark.parametrize("template", CHAT)
@pytest.mark.parametrize("case", TRICKY)
def test_the_span_is_the_last_answer(case, template) -> None:
    encoded = encode_one(TRICKY[case], template)
    before, answer, after = parts(encoded, template)
    assert answer == TRICKY[case].answer
    assert before.endswith(HEADER.get(template, "<|im_start|>assistant\n"))
    assert after == END.get(template, "<|im_end|>\n")
    assert encoded.n_straddling == 0 and encoded.prompt_end == encoded.answer_start - 1


def test_a_beginning_token_is_not_doubled() -> None:
    ids, tokenizer = encode_one(make_dialogue("Hi", "Paris."), "llama").input_ids, TOKENIZERS["llama"]
    assert ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer(tokenizer.decode(ids))["input_ids"].count(tokenizer.bos_token_id) == 2


def test_a_straddling_token_is_counted_and_excluded() -> None:
    # "A: I can" holds the token " I", half template and half answer; trimmed offsets would hide it.
    encoded = encode_one(make_dialogue("Hi", "I can help you."), "plain")
    before, answer, _ = parts(encoded, "plain")
    assert (encoded.n_straddling, answer) == (1, " can help you.")
    assert before.endswith("A: I")
    assert TOKENIZERS["plain"].decode([encoded.input_ids[encoded.prompt_end]]) == ":"
    trimmed = TOKENIZERS["plain"]("A: I can", return_offsets_mapping=True, add_special_tokens=False)
    assert (3, 4) in trimmed["offset_mapping"]


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(ANY, ANY.filter(str.strip))
def test_span_of_any_text(user, answer) -> None:
    try:
        encoded = encode_one(make_dialogue(user + answer, answer), "chatml")
    except UsageError as error:
        assert "no token lies wholly inside" in str(error)
        return
    span = parts(encoded, "chatml")[1]
    assert answer.endswith(span) and (span == answer) == (encoded.n_straddling == 0)
    assert encoded.n_straddling <= 1 and encoded.n_straddling_end == 0


def test_truncation_cuts_the_answer_and_says_so() -> None:
    dialogue = make_dialogue("Hi", "I can help you. I can help you.")
    whole = encode_one(dialogue, "chatml")
    cut = encode_one(dialogue, "chatml", max_tokens=whole.answer_start + 2)
    only_end = encode_one(dialogue, "chatml", max_tokens=whole.answer_stop)
    assert not whole.truncated and not only_end.truncated and cut.truncated
    assert cut.n_answer == 2 and len(cut.input_ids) == cut.answer_stop
    assert cut.input_ids == whole.input_ids[: cut.answer_stop]


def test_what_cannot_be_used_is_counted_by_reason() -> None:
    long = make_dialogue("the user " * 50, "Paris.", identifier="long")
    system = said(("system", "Be brief."), ("user", "Hi"), PARIS)
    done = encode([long, system, make_dialogue("Hi", "Paris.")], TOKENIZERS["gemma"], max_tokens=40)
    assert [one.identifier for one in done.dialogues] == [one.identifier for one in done.sources] == ["one"]
    reasons = {identifiers: reason for reason, identifiers in done.dropped.items()}
    assert "max_tokens=40" in reasons[("long",)] and "no system turn here" in reasons[("said",)]
    assert len(done.dropped) == 2
    with pytest.raises(UsageError, match="none of 1 dialogues can be used .*no system turn here: 1"):
        encode([system], TOKENIZERS["gemma"], max_tokens=40)
    with pytest.raises(UsageError, match="no dialogue given"):
        encode([], TOKENIZERS["gemma"], max_tokens=40)


def test_a_template_that_rewrites_the_answer_is_noticed() -> None:
    tokenizer = make_tokenizer("chatml")
    rewriting = "turn.content | replace('can', 'could')"
    tokenizer.chat_template = TEMPLATES["chatml"].replace("turn.content", rewriting)
    with pytest.raises(UsageError, match="rewrites the answer"):
        encode([make_dialogue("Hi", "I can help.")], tokenizer, max_tokens=99)
    encode([make_dialogue("Hi", "I help.")], tokenizer, max_tokens=99)
    tokenizer.chat_template = None
    with pytest.raises(UsageError, match="no chat template"):
        encode([make_dialogue("Hi", "I help.")], tokenizer, max_tokens=99)


@pytest.mark.parametrize("template", CHAT)
def test_choice_is_the_first_differing_answer_token(template) -> None:
    answers = make_dialogue("Hi", "I can help you.", alternative="I can open it.")
    encoded = encode_one(answers, template)
    other = encode_one(make_dialogue("Hi", "I can open it."), template)
    at = encoded.choice
    assert encoded.input_ids[:at] == other.input_ids[:at] and encoded.input_ids[at] != other.input_ids[at]
    assert encoded.alternative_token == other.input_ids[at]
    assert encoded.answer_start < at < encoded.answer_stop
    assert encode_one(answers, template, max_tokens=at).choice is None


def test_there_is_no_choice_where_the_answers_do_not_part() -> None:
    for alternative in (None, "I can", "I can help you"):
        encoded = encode_one(make_dialogue("Hi", "I can", alternative=alternative), "chatml")
        assert encoded.choice is None and encoded.alternative_token is None


GOOD = '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes\\u2028no"}]}'


def test_read_jsonl_reads_what_is_a_dialogue_and_names_what_is_none(tmp_path) -> None:
    path = tmp_path / "set.jsonl"
    more = ', "cluster": "t1", "label": "careful", "identifier": "x", "alternative": "No", "pair": "p"}'
    # A raw U+2028 inside a string is legal JSON and no line end.
    path.write_text(GOOD.replace("\\u2028", "\u2028") + "\r\n" + GOOD[:-1] + more + "\n", encoding="utf-8")
    plain, complete = read_jsonl(path)
    assert (plain.identifier, plain.cluster, plain.answer) == ("set:1", "set:1", "Yes\u2028no")
    found = (complete.cluster, complete.label, complete.alternative, complete.pair)
    assert found == ("t1", "careful", "No", "p")
    with pytest.raises(UsageError, match="nowhere.jsonl: no such file"):
        read_jsonl(tmp_path / "nowhere.jsonl")
    for text, message in (("", "the file is empty"), ("1\n2\n", ".*1 more bad lines")):
        path.write_text(text)
        with pytest.raises(UsageError, match=rf"set.jsonl:1: {message}"):
            read_jsonl(path)
