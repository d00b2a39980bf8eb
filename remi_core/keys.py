"""Keys: one hexadecimal name for everything that changes a number, and nothing that does not.

A key covers the fields a caller names, the versions of the numerical libraries, the syntax tree of the code
(so a comment or a docstring costs no recomputation) and the data files that lie beside that code."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

PACKAGES = ("remi_core", "remi_lab", "remi_book")
NUMERICAL_LIBRARIES = ("torch", "transformers", "tokenizers", "numpy")
SOURCE_ROOT = Path(__file__).resolve().parent.parent


def make_key(
    fields: Mapping[str, object], code: Sequence[ModuleType | str], *, root: Path = SOURCE_ROOT
) -> str:
    """Sha256, as 64 hexadecimal digits, of the fields, the library versions and the code with its data files.

    ``code`` names modules of the package (module objects or dotted names); every module of the package that they
    import, at any depth and also inside functions, is covered too. ``root`` is the folder that holds the package.

    Raises:
        ValueError: if a field is not plain JSON (numbers that are not finite included), or a module is unknown.
    """
    names = tuple(module if isinstance(module, str) else module.__name__ for module in code)
    code_parts = _parts_of_this_process(names) if root == SOURCE_ROOT else _code_parts(names, root)
    return text_digest(canonical_json({"fields": fields, "versions": library_versions(), **code_parts}))


@lru_cache(maxsize=64)
def _parts_of_this_process(names: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """The same as they were first seen: a process computes with the code that it has imported, whatever is edited."""
    return _code_parts(names, SOURCE_ROOT)


def _code_parts(names: Sequence[str], root: Path) -> dict[str, dict[str, str]]:
    """Digest of the syntax of every module covered, and of every data file."""
    modules = imported_modules(names, root=root)
    code = {name: syntax_digest(module_path(name, root=root)) for name in modules}
    return {"code": code, "data": _data_digests(modules, root)}


def text_digest(text: str) -> str:
    """Sha256 of a text in UTF-8, as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def canonical_json(value: object) -> str:
    """JSON text that is the same for equal values: keys sorted, no spaces, tuples as lists, ASCII only.

    Raises:
        ValueError: if the value holds anything JSON cannot carry exactly (NaN, infinity, sets, arrays).
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"a key needs plain JSON values (numbers, text, lists, tables): {error}") from None


@lru_cache(maxsize=1)
def library_versions() -> dict[str, str]:
    """Installed version of each library that does arithmetic, read without importing it; "absent" if missing."""
    found = {}
    for library in NUMERICAL_LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "absent"
    return found


def module_path(name: str, *, root: Path = SOURCE_ROOT) -> Path:
    """File of a dotted module name under ``root``.

    Raises:
        ValueError: if there is no such module there.
    """
    base = root.joinpath(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    raise ValueError(f"no module {name!r} under {root}")


def imported_modules(names: Iterable[str], *, root: Path = SOURCE_ROOT) -> tuple[str, ...]:
    """The given modules and all modules of the package they import, transitively; sorted names.

    The package's own ``__init__`` is left out: it holds the version, which changes no number.
    """
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found or name in PACKAGES:
            continue
        found.add(name)
        path = module_path(name, root=root)
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        status = path.stat()
        waiting += _imports_of(path, status.st_mtime_ns, status.st_size, package, root)
        waiting.append(name.rpartition(".")[0] or name)
    return tuple(sorted(found))


def direct_imports(tree: ast.AST, *, package: str = PACKAGES[0], root: Path = SOURCE_ROOT) -> tuple[str, ...]:
    """Modules of the package that a syntax tree imports, anywhere in it; sorted names.

    ``package`` is what a relative import is relative to. ``from a import b`` counts ``a``, and ``a.b`` where that
    is a module.
    """
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            members = {f"{base}.{alias.name}" for alias in node.names}
            found |= {base} | {member for member in members if _is_module(member, root)}
    return tuple(sorted(name for name in found if name.split(".")[0] in PACKAGES and name not in PACKAGES))


@lru_cache(maxsize=512)
def _imports_of(path: Path, modified: int, size: int, package: str, root: Path) -> tuple[str, ...]:
    return direct_imports(_parse(path, modified, size), package=package, root=root)


def parse(path: Path) -> ast.Module:
    """Syntax tree of a source file, read once for each version of the file."""
    status = path.stat()
    return _parse(path, status.st_mtime_ns, status.st_size)


def syntax_digest(path: Path) -> str:
    """Sha256 of a file's syntax tree without comments, positions, docstrings and other bare strings."""
    status = path.stat()
    return _syntax_digest(path, status.st_mtime_ns, status.st_size)


def file_digest(path: Path) -> str:
    """Sha256 of a file's bytes, read once for each version of the file."""
    status = path.stat()
    return _file_digest(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=512)
def _parse(path: Path, modified: int, size: int) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@lru_cache(maxsize=512)
def _syntax_digest(path: Path, modified: int, size: int) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _is_bare_string(part)] or [ast.Pass()]
    return text_digest(ast.dump(tree))


def _is_bare_string(node: ast.AST) -> bool:
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
        return False
    return isinstance(node.value.value, str)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if node.level == 0:
        return node.module or ""
    # One dot is the package itself; every further dot is one package up.
    parts = package.split(".")
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, node.module] if node.module else parts)


def _is_module(name: str, root: Path) -> bool:
    base = root.joinpath(*name.split("."))
    return base.with_suffix(".py").is_file() or (base / "__init__.py").is_file()


def _data_digests(modules: Iterable[str], root: Path) -> dict[str, str]:
    """Digest of each data file beside the modules (word lists, shipped weights).

    Those are all files of the sub-package that a module lies in, and the files that carry the name of a module at
    the top of its package: ``claims.yaml`` beside ``claims.py``.
    """
    found: set[Path] = set()
    for name in modules:
        package, *inside = name.split(".")
        folder = root.joinpath(package, *inside[:1])
        if inside and folder.is_dir():
            found.update(folder.rglob("*"))
        found.update((root / package).glob(f"{'.'.join(inside[:1])}.*"))
    digests = {}
    for path in sorted(found):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            digests[path.relative_to(root).as_posix()] = file_digest(path)
    return digests


@lru_cache(maxsize=1 << 14)
def _file_digest(path: Path, modified: int, size: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
