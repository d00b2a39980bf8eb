"""What YAML files may hold: exactly what is declared; anything else is one line with the place and the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from remi_core.errors import UsageError
from remi_lab.presets import Preset
from remi_lab.strict import read_yaml

SHIPPED = Path(__file__).parents[2] / "remi_lab" / "presets.yaml"

WRONG = yaml.safe_load(Path(__file__).with_name("strict.yaml").read_text())


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line_with_its_place(case, tmp_path) -> None:
    before, after, message = WRONG[case]
    text, path = SHIPPED.read_text(), tmp_path / "presets.yaml"
    start = text.index(before, place := text.index("- name: smoke"))
    path.write_text(text[:start] + after + text[start + len(before) :])
    with pytest.raises(UsageError, match=message) as caught:
        read_yaml(path, tuple[Preset, ...])
    said = str(caught.value)
    line = int(said.removeprefix(f"{path}:").partition(":")[0])
    wrong_line, whole = text[:start].count("\n") + 1, text[:place].count("\n") + 1
    assert "\n" not in said and line in (wrong_line, wrong_line + 1, whole)
