"""Everything in a store held against its digests: which files are not what was written."""

from __future__ import annotations

from pathlib import Path

from remi_core.storage.model_folders import FILES, check_folder
from remi_core.storage.seals import Damaged, check_file, read_sealed
from remi_core.storage.store import MODELS
from remi_core.storage.writing import PART


def damages(root: Path) -> list[tuple[Path, str]]:
    """Each file or folder of weights under ``root`` that is damaged, and what is wrong with it; sorted by path.

    Of what one file says and another holds, the one that says it is named. What a killed run left unfinished is not
    damaged: it stands under no name that is read.
    """
    found = []
    for path in sorted(root.rglob("*.json")):
        inside = path.relative_to(root).parts
        if (
            inside[0] == MODELS
            or (path.parent / FILES).is_file()
            or any(one.startswith(".") for one in inside)
        ):
            continue
        try:
            about = read_sealed(path)
            if "file" in about:
                check_file(path.with_name(str(about["file"])), about.get("sha256"))
        except (OSError, ValueError) as error:
            found.append((path, str(error)))
    listed = {path.parent for path in root.rglob(FILES) if PART not in str(path.relative_to(root))}
    for folder in sorted({*root.glob(f"{MODELS}/*/[!.]*"), *listed}):
        try:
            check_folder(folder)
        except (OSError, Damaged) as error:
            found.append((folder, str(error)))
    return found
