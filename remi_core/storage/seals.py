"""Files that tell when they are not what was written: JSON with its own digest and that of the file beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from remi_core.errors import RemiError, brief
from remi_core.fingerprint import canonical_json, file_digest, text_digest
from remi_core.storage.writing import written_whole

FORMAT = 2
"""Raised where files of an earlier version must not be read any more; the first had no digests."""

SEAL = "seal"


class Damaged(ValueError):
    """What is wrong with a file, in words: cut short, changed, or of another version."""


class Foreign(Damaged):
    """The file is of another version of this package."""


def sealed_text(content: Mapping[str, object]) -> str:
    """The content as JSON, with the version of the format and the digest of all of it."""
    # As it will be read: keys are text then, and what is no list becomes one.
    plain = json.loads(json.dumps({"format": FORMAT, **content}))
    return json.dumps({**plain, SEAL: _digest(plain)}, indent=1) + "\n"


def write_sealed(path: Path, content: Mapping[str, object]) -> None:
    """Return once the content lies at ``path``, whole and sealed."""
    with written_whole(path) as part:
        part.write_text(sealed_text(content), encoding="utf-8")


def read_sealed(path: Path) -> dict[str, object]:
    """The content of a sealed file, without the seal.

    Raises:
        Damaged: if it is not what was written, or of another version.
        OSError: if it cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise Damaged("not JSON any more (too deep)") from None
    except ValueError as error:
        raise Damaged(f"not JSON any more ({error})") from None
    if not isinstance(content, dict):
        raise Damaged("not what was written")
    seal = content.pop(SEAL, None)
    whole = seal == _digest(content)
    if content.get("format") != FORMAT and (seal is None or whole):
        raise Foreign(f"of format {brief(content.get('format', 1))}, not {FORMAT}")
    if not whole:
        raise Damaged("changed since it was written")
    del content["format"]
    return content


def check_file(path: Path, digest: object) -> None:
    """Nothing, if the file has this digest; read once a process while size and time of change stay.

    Raises:
        Damaged: otherwise.
    """
    if not path.is_file():
        raise Damaged("missing")
    if file_digest(path) != digest:
        raise Damaged("changed or cut short since it was written")


def repaired(path: Path, error: Exception, *, frozen: bool) -> str:
    """The line that says what is wrong with a file and that it is made again.

    Raises:
        RemiError: with what is wrong, if nothing may be made again.
    """
    if frozen:
        raise RemiError(f"{path}: {error}; refused with --frozen: without it, it is made again") from None
    return f"{path}: {error}: made again"


def _digest(content: Mapping[str, object]) -> str:
    try:
        return text_digest(canonical_json(content))
    except ValueError:
        return text_digest(json.dumps(content, sort_keys=True))  # a provenance may hold what is not finite
