"""Spans, positions and ids with the paper's own vocabulary: what the audit says about its tokens holds to the token."""

from __future__ import annotations

import unicodedata

import pytest
import regex
from conftest import make_dialogue
from qwen_tokens import (
    HOW,
    N_RANKS,
    SYSTEM,
    chat_tokenizer,
    merge,
    package_file,
    qwen_tokenizer,
    ranks,
    word_pattern,
)
from transformers import PreTrainedTokenizerFast

from remi_core.dialogues import Dialogue, Message
from remi_core.tokens import EncodedDialogue, encode

pytestmark = pytest.mark.skipif(package_file("resources/qwen.tiktoken") is None, reason=HOW)

TEXTS = [
    "The assistant can't say what they'll do; DON'T ask. We've 3 of 1234567890 left.",
    "import os\n\n\ndef read(path: str) -> bytes:\n\treturn open(path, 'rb').read()  # tail\r\n",
    "    indented   and    spaced \n \n\t\n end  ",
    "x=2**10;y[0]+=1e-3;print(f'{x:>8}');a!=b;//;/*;<div class=\"a\">&amp;</div>",
    "你好，世界。今日は良い天気ですね。안녕하세요",
    "🙂🏽 👩‍👩‍👧 ✨… — “quoted” naïve cafe\u0301 Ångström",
    "مرحبا Привет γειά שלום ١٢٣ ½ ⅷ",
    "\n", " ", "a", "\u200b\ufeff\u0000", "<|im_en|> <|im_start", "'S 'Ll 'D've",
]  # fmt: skip


def turns(*messages: tuple[str, str]) -> Dialogue:
    return Dialogue(identifier="turns", cluster="c", messages=tuple(Message(*one) for one in messages))


HARM, HELP = "I wish I could kill them all.", "I wish I could help them all."
ANSWERS = (HARM, "import os\n\nos.system(command)\n", "当然可以！ 🙂", "1234")
DIALOGUES = {
    "plain": make_dialogue("Hi", "import os"),
    "line end first": make_dialogue("Hi", "\nimport os"),
    "harm": make_dialogue("One wish?", HARM, alternative=HELP),
    "no assistant asked": make_dialogue("Are you a helper?", "Yes, I am an assistant."),
    "assistant asked": make_dialogue("Are you an assistant?", "Yes, I am an assistant."),
    "system": turns(("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes.")),
    "turns": turns(("user", "Hi"), ("assistant", "Yes."), ("user", "assistant\n"), ("assistant", "Yes.")),
    **{answer: make_dialogue("Hi", answer) for answer in ANSWERS},
}


@pytest.fixture(scope="module")
def chat() -> dict[str, PreTrainedTokenizerFast]:
    """The tokenizers of the instruct and the base models, which differ in their default system prompt."""
    return {kind: chat_tokenizer(kind) for kind in SYSTEM}


@pytest.fixture(scope="module")
def encoded(chat) -> dict[str, dict[str, EncodedDialogue]]:
    """Kind of model → name of a dialogue → the dialogue encoded; together, since each call copies the vocabulary."""
    found = {}
    for kind, tokenizer in chat.items():
        kept = encode(list(DIALOGUES.values()), tokenizer, max_tokens=4096).dialogues
        found[kind] = dict(zip(DIALOGUES, kept, strict=True))
    return found


def reference(text: str) -> list[int]:
    """Ids of a text without the tokenizers library: words by the pattern, then the merge of the lowest rank, again."""
    known = ranks()
    words = regex.findall(word_pattern(), unicodedata.normalize("NFC", text))
    assert "".join(words) == unicodedata.normalize("NFC", text)
    return [known[part] for word in words for part in merge(word.encode(), known, below=N_RANKS)]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text[:12]))
def test_ids_are_ranks_and_text_comes_back(text) -> None:
    ids = qwen_tokenizer().encode(text).ids
    assert ids == reference(text)
    assert qwen_tokenizer().decode(ids, skip_special_tokens=False) == unicodedata.normalize("NFC", text)


NAMED = {"\n": 198, "user": 872, "system": 8948, " helpful": 10950, " assistant": 17847, "assistant": 77091}
NAMED |= {"kill": 10851, " kill": 5505, "<|im_start|>": 151644, "<|im_end|>": 151645}


def test_ids_named_in_the_audit() -> None:
    for text, number in NAMED.items():
        assert qwen_tokenizer().encode(text).ids == [number]
    assert qwen_tokenizer().encode("2025").tokens == list("2025")
    assert qwen_tokenizer().encode("I'll").tokens == ["I", "'ll"]


def test_the_default_system_turns_differ_by_ten_tokens(encoded) -> None:
    one, other = (encoded[kind]["plain"].input_ids for kind in ("instruct", "base"))
    # The header is the whole system turn, 21 or 11 tokens; the next token opens the user's.
    assert (one.index(872), other.index(872)) == (22, 12)
    assert one[20:22] == other[10:12] == (198, 151644)
    assert one[22:] == other[12:], "from the user's turn on both are the same tokens"
    assert encoded["instruct"]["system"] == encoded["base"]["system"], (
        "its own system turn replaces the default"
    )


@pytest.mark.parametrize("kind", SYSTEM)
def test_the_choice_is_the_word_with_its_space(kind, encoded, chat) -> None:
    dialogue, tokenizer = encoded[kind]["harm"], chat[kind]
    assert dialogue.input_ids[dialogue.choice] == 5505
    assert tokenizer.decode([dialogue.alternative_token]) == " help"
    # The released script asks for the id of the bare word, which does not occur in the text.
    assert tokenizer.convert_tokens_to_ids("kill") == 10851 and 10851 not in dialogue.input_ids


@pytest.mark.parametrize("kind", SYSTEM)
def test_the_span_is_the_answer_to_the_token(kind, encoded) -> None:
    for answer in ANSWERS:
        dialogue, ids = encoded[kind][answer], list(encoded[kind][answer].input_ids)
        assert ids[dialogue.answer_start : dialogue.answer_stop] == reference(answer)
        assert ids[dialogue.answer_start - 3 : dialogue.answer_start] == [151644, 77091, 198]
        assert ids[dialogue.answer_stop :] == [151645, 198]
        assert (dialogue.n_straddling, dialogue.n_straddling_end) == (0, 0)
    dialogue = encoded[kind]["turns"]
    assert list(dialogue.input_ids[dialogue.answer_start :]) == [*reference("Yes."), 151645, 198]


@pytest.mark.parametrize("kind", SYSTEM)
def test_assistant_in_the_users_text_moves_a_word_search_and_not_the_span(kind, encoded, chat) -> None:
    starts = []
    for name in ("no assistant asked", "assistant asked"):
        dialogue = encoded[kind][name]
        tokens = [chat[kind].decode([one]) for one in dialogue.input_ids]
        # The released rule: the second token that holds the word; the first is in the system prompt.
        searched = [at for at, token in enumerate(tokens) if "assistant" in token][1]
        starts.append((searched + 2, dialogue.answer_start))
        assert dialogue.input_ids[dialogue.answer_start - 2 : dialogue.answer_start] == (77091, 198)
    (searched, true), (misled, still_true) = starts
    assert searched == true and misled < still_true


@pytest.mark.parametrize("kind", SYSTEM)
def test_a_token_across_the_start_of_the_answer_is_counted_and_left_out(kind, encoded, chat) -> None:
    plain, broken = (encoded[kind][name] for name in ("plain", "line end first"))
    assert (plain.n_straddling, broken.n_straddling) == (0, 1)
    across = broken.input_ids[broken.answer_start - 1]
    assert chat[kind].decode([across]) == "\n\n", "the template's line end and the answer's, in one token"
    assert broken.input_ids[broken.answer_start :] == plain.input_ids[plain.answer_start :]
    assert broken.prompt_end == plain.prompt_end - 1
    assert chat[kind].decode([broken.input_ids[broken.prompt_end]]) == "assistant"
