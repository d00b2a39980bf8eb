"""Keys: one hexadecimal name for everything that changes a number, and nothing that does not.

A key covers the fields a caller names, the versions of the numerical libraries, the syntax tree of the modules that
compute the number, which the caller names too (so a comment or a docstring costs no recomputation), and the data files
that lie beside those modules."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from remi_core.keys import canonical_json, file_digest, library_versions, once_a_version, text_digest

PACKAGES = ("remi_core", "remi_lab", "remi_book")
SOURCE_ROOT = Path(__file__).resolve().parent.parent


def make_key(fields: Mapping[str, object], code: Iterable[str], *, root: Path = SOURCE_ROOT) -> str:
    """Sha256, as 64 hexadecimal digits, of the fields, the library versions and the code with its data files.

    ``code`` names the modules that compute what is keyed, a package for all modules in it. What these import is not
    covered unless it is named as well. ``root`` is the folder that holds the packages.

    Raises:
        ValueError: if a field is not plain JSON (non-finite numbers included), or a module is unknown.
    """
    names = tuple(code)
    parts = _parts_of_this_process(names) if root == SOURCE_ROOT else _code_parts(names, root)
    return text_digest(canonical_json({"fields": fields, "versions": library_versions(), **parts}))


@lru_cache(maxsize=64)
def _parts_of_this_process(names: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """The same as they were first seen: a process computes with the code that it has imported, whatever is edited."""
    return _code_parts(names, SOURCE_ROOT)


def _code_parts(names: Iterable[str], root: Path) -> dict[str, dict[str, str]]:
    """Digest of the syntax of every module, and of every data file beside one.

    Data files are those of the sub-package that a module lies in, and those that carry the name of a module at the
    top of its package: ``claims.yaml`` beside ``claims.py``.
    """
    modules: set[Path] = set()
    data: set[Path] = set()
    for name in names:
        path = module_path(name, root=root)
        modules.update(path.parent.rglob("*.py") if path.name == "__init__.py" else [path])
        package, top = name.split(".")[:2]
        data.update((root / package / top).rglob("*"))
        data.update((root / package).glob(f"{top}.*"))
    files = [path for path in data if path.is_file() and path.suffix not in (".py", ".pyc")]
    return {
        "code": {path.relative_to(root).as_posix(): syntax_digest(path) for path in sorted(modules)},
        "data": {path.relative_to(root).as_posix(): file_digest(path) for path in sorted(files)},
    }


def module_path(name: str, *, root: Path = SOURCE_ROOT) -> Path:
    """File of a dotted module name under ``root``; of a package its ``__init__.py``.

    Raises:
        ValueError: if there is no such module there.
    """
    base = root.joinpath(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    raise ValueError(f"no module {name!r} under {root}")


@once_a_version
def syntax_digest(path: Path) -> str:
    """Sha256 of a file's syntax tree without comments, positions, docstrings and other bare strings."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _is_bare_string(part)] or [ast.Pass()]
    return text_digest(ast.dump(tree))


def _is_bare_string(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str)
