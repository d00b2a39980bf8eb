"""Models measured on the same dialogues: what differs between them, in which layer, and with which interval."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import import_module

from remi_core.dialogues import Dialogue, Unique, messages_row, read_jsonl
from remi_core.errors import UsageError

# Libraries read these when they are imported, which is after this: none tells its makers what is run here.
for _name in ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    os.environ.setdefault(_name, "1")

__version__ = "0.1.0"

_PLACES = {
    "encode": "tokens.encode",
    "open_model": "models.open_model",
    "measure": "face.measure",
    "Records": "face.Records",
    "Store": "store.Store",
    "TokenLogProbs": "probes.SequenceProbe",
    "NextToken": "probes.NextTokenProbe",
    "Activations": "probes.ActivationProbe",
    "gradient_gram": "face.gradient_gram",
    "patch": "face.patch",
    "steer": "steering.steer",
    "direction_tokens": "lens.direction_tokens",
    "Estimate": "statistics.resampling.Estimate",
    "resamples": "statistics.resampling.make_resamples",
    "difference": "statistics.resampling.difference",
    "ratio": "statistics.resampling.ratio",
    "permutation_null": "statistics.nulls.permutation_null",
    "holm": "statistics.nulls.holm",
    "erosion": "face.erosion",
    "separation": "face.separation",
    "subspace_overlap": "face.subspace_overlap",
    "group_cosines": "face.group_cosines",
}
"""Public name → where it is defined. Imported at its first use: most of these bring torch."""

__all__ = ["Dialogue", "dialogues", "read_jsonl", *_PLACES]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PLACES[name].rpartition(".")
    return getattr(import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# Named as the module it draws on: ``from remi_core.dialogues import …`` goes on to give what is in that module.
def dialogues(chats: Sequence[Sequence[Mapping[str, str]] | Mapping[str, object]]) -> list[Dialogue]:
    """Chats in memory as dialogues, in their order.

    A chat is the list of messages that a chat template takes and ends with the reply to measure, or a whole row as
    ``read_jsonl`` reads it: ``{"messages": […], "cluster": "greetings", "label": "careful"}``. Without a cluster,
    which is what intervals resample, every chat is a prompt of its own.
    Example: ``dialogues([[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]])``

    Raises:
        UsageError: naming the chat by its number from 0, and what is wrong with it.
    """
    unique, found = Unique(), []
    for number, chat in enumerate(chats):
        row = chat if isinstance(chat, Mapping) else {"messages": chat}
        try:
            found.append(messages_row(row, default=f"chat:{number}"))
            unique.add(found[-1].identifier, number)
        except UsageError as error:
            raise UsageError(f"chat {number}: {error}") from None
    return found
