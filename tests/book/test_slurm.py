"""The Slurm script makes a task of each variant and seed that the pipeline plans; no cluster is asked."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import PROGRAMS

from remi_book.running import plan
from remi_core.store import Store
from remi_lab.keys import SOURCE_ROOT
from remi_lab.presets import get_preset

SCRIPT = SOURCE_ROOT / "scripts" / "slurm.sh"
PRESETS = ("smoke", "micro")


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """Stand-ins for ``remi``, which only lists, and ``sbatch``; both write down how they were called."""
    for name in ("remi", "sbatch"):
        path = tmp_path / name
        path.write_text(PROGRAMS[name].format(log=tmp_path / "log", python=sys.executable))
        path.chmod(0o755)
    own = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(SOURCE_ROOT)}
    return os.environ | own | {"REMI_STORE": str(tmp_path / "store"), "REMI_SBATCH": "--gres=gpu:1 --mem=96G"}


def run_script(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(SCRIPT), *words]
    return subprocess.run(command, env=environment, cwd=SOURCE_ROOT, capture_output=True, text=True)


def test_the_planned_tasks_are_an_array_and_what_needs_them_follows(tmp_path, environment) -> None:
    tasks, log = [], tmp_path / "log"
    for preset in map(get_preset, PRESETS):
        steps = plan(preset, Store(tmp_path / "store"), only=["00"])
        tasks += [f"{preset.name} {step.variant} {seed}" for step in steps for seed in preset.seeds]
    assert run_script(environment, "--list", *PRESETS).stdout.splitlines() == tasks
    assert "sbatch" not in log.read_text()
    assert run_script(environment, *PRESETS).returncode == 0
    submitted = [line for line in log.read_text().splitlines() if line.startswith("sbatch")]
    assert f" --array=0-{len(tasks) - 1} --gres=gpu:1 --mem=96G " in submitted[0]
    assert submitted[0].endswith("slurm.sh smoke micro")
    for name, line in zip(PRESETS, submitted[1:], strict=True):
        assert "--dependency=afterok:77" in line
        assert line.endswith(f"--wrap=remi run --preset {name} && remi book --preset {name}")
    done = run_script(environment | {"SLURM_ARRAY_TASK_ID": str(len(tasks) - 1)}, *PRESETS)
    assert done.returncode == 0, done.stderr
    preset, variant, seed = tasks[-1].split()
    last = log.read_text().splitlines()[-1]
    assert last == f"remi measure --preset {preset} --variant {variant} --seed {seed}"


def test_wrong_use_submits_nothing(tmp_path, environment) -> None:
    assert run_script(environment).returncode == 2
    wrong = run_script(environment, "smok")
    assert wrong.returncode != 0 and "no preset 'smok'" in wrong.stderr
    assert "sbatch" not in (tmp_path / "log").read_text()
