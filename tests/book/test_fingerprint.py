"""A key changes with what changes a number, and with nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from remi_book.running import imported_modules
from remi_core.keys import canonical_json, make_key

FILES = {
    "__init__.py": '__version__ = "1"\n',
    "a.py": '"""Say."""\nfrom remi_core.b import twice\n\ndef f(x):\n    """Say."""\n    return twice(x)  # why\n',
    "b.py": "def twice(x):\n    from . import c\n    return 2 * x + c.ZERO\n",
    "c.py": "ZERO = 0\n",
    "unrelated.py": "VALUE = 1\n",
    "part/__init__.py": "",
    "part/words.py": "from ..c import ZERO\n",
    "part/words.yaml": "- one\n",
}


@pytest.fixture
def root(tmp_path) -> Path:
    """A package ``remi_core`` in which a imports b, b imports c inside a function, and part has a data file."""
    for name, text in FILES.items():
        path = tmp_path / "remi_core" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def change(root: Path, name: str, old: str, new: str) -> None:
    path = root / "remi_core" / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_imports_are_followed_at_any_depth(root) -> None:
    assert imported_modules(["remi_core.a"], root=root) == ("remi_core.a", "remi_core.b", "remi_core.c")
    assert imported_modules(["remi_core.part.words"], root=root) == (
        "remi_core.c",
        "remi_core.part",
        "remi_core.part.words",
    )


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("a.py", '"""Say."""\nfrom', '"""Something else."""\nfrom'),
        ("a.py", '    """Say."""\n', ""),
        ("a.py", "  # why", "\n\n"),
        ("unrelated.py", "1", "2"),
        ("b.py", "2 * x", "3 * x"),
        ("part/words.yaml", "one", "two"),
        ("__init__.py", '"1"', '"2"'),
    ],
)
def test_key_ignores_what_changes_no_number(root, name, old, new) -> None:
    before = make_key({"n": 1}, ["remi_core.a"], root=root)
    change(root, name, old, new)
    assert make_key({"n": 1}, ["remi_core.a"], root=root) == before


@pytest.mark.parametrize(
    ("module", "name", "old", "new"),
    [
        ("remi_core.a", "a.py", "twice(x)", "twice(x + 1)"),
        ("remi_core.part", "part/words.py", "ZERO", "ZERO as nothing"),
        ("remi_core.part.words", "part/words.yaml", "one", "two"),
    ],
)
def test_key_follows_code_and_data(root, module, name, old, new) -> None:
    before = make_key({"n": 1}, [module], root=root)
    change(root, name, old, new)
    assert make_key({"n": 1}, [module], root=root) != before


def test_key_follows_fields_and_versions(root, monkeypatch) -> None:
    key = make_key({"a": 1, "b": (1, 2)}, ["remi_core.a"], root=root)
    assert key == make_key({"b": [1, 2], "a": 1}, ["remi_core.a"], root=root)
    assert key != make_key({"a": 2, "b": (1, 2)}, ["remi_core.a"], root=root)
    monkeypatch.setattr("remi_core.keys.library_versions", lambda: {"torch": "0"})
    assert key != make_key({"a": 1, "b": (1, 2)}, ["remi_core.a"], root=root)


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, object(), Path("x")])
def test_what_json_cannot_carry_is_refused(value) -> None:
    with pytest.raises(ValueError, match="plain JSON"):
        canonical_json({"field": value})


def test_unknown_module_is_refused(root) -> None:
    with pytest.raises(ValueError, match=r"no module 'remi_core\.d'"):
        make_key({}, ["remi_core.d"], root=root)
