"""Large arrays go to the archive and come back without being in memory; what a killed process left is removed."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from remi_core import files
from remi_core.files import RowFile, read_npz, scratch, write_npz
from remi_core.forward import run_probes
from remi_core.probes import Activations

ROWS = np.random.default_rng(0).normal(size=(7, 3, 4)).astype(np.float32)


def filled(path: Path, order: list[int]) -> np.memmap:
    """The rows, written in this order."""
    file = RowFile(path, len(ROWS))
    for index in order:
        file.write([index], ROWS[index : index + 1])
    return file.finish()


def test_rows_come_back_in_their_places_whatever_the_order(tmp_path) -> None:
    found = filled(tmp_path / "rows.npy", [6, 0, 3, 1, 2, 5, 4])
    np.testing.assert_array_equal(found, ROWS, strict=False)
    assert not found.flags.writeable
    assert not np.array_equal(filled(tmp_path / "lost.npy", [6, 0, 3]), ROWS), "rows that nobody wrote"


def test_rows_that_cannot_be_written_are_told_of_at_the_next_ones(tmp_path) -> None:
    for told in (lambda file: file.write([1], ROWS[1:2]), RowFile.finish):
        file = RowFile(tmp_path / "missing" / "rows.npy", len(ROWS))
        file.write([0], ROWS[:1])
        with pytest.raises(FileNotFoundError, match=r"rows\.npy"):
            told(file)


def test_an_archive_is_the_one_that_numpy_writes(tmp_path) -> None:
    """From memory, from a file, from a part of a file, by columns: the bytes of ``numpy.savez``."""
    mapped = filled(tmp_path / "rows.npy", list(range(len(ROWS))))
    arrays = {"memory": ROWS, "mapped": mapped, "part": mapped[2:5], "columns": np.asfortranarray(ROWS[0])}
    write_npz(tmp_path / "ours.npz", arrays)
    np.savez(tmp_path / "theirs.npz", **arrays)
    assert (tmp_path / "ours.npz").read_bytes() == (tmp_path / "theirs.npz").read_bytes()


def test_a_large_array_is_read_from_disk_and_equal(tmp_path, monkeypatch) -> None:
    arrays = {"large": ROWS, "columns": np.asfortranarray(ROWS[0])}
    arrays |= {"small": np.arange(2), "text": np.array(["é"])}
    write_npz(tmp_path / "some.npz", arrays)
    monkeypatch.setattr(files, "MAPPED_FROM", 128 + ROWS[0].nbytes)  # the header, and the numbers
    found = read_npz(tmp_path / "some.npz")
    for name, values in arrays.items():
        np.testing.assert_array_equal(found[name], values, strict=True)
        assert not found[name].flags.writeable
    assert [isinstance(found[name].base, np.memmap) for name in arrays] == [True, True, False, False]


def test_a_probe_with_a_file_gives_its_means_from_there(tmp_path, models, encoded) -> None:
    """Nothing of them stays in memory; the arrays are those of a probe without a file."""
    kept = (None, RowFile(tmp_path / "means.npy", len(encoded)))
    probes = [Activations([0, 2], name=str(at), file=file) for at, file in enumerate(kept)]
    memory, mapped = run_probes(models("llama"), encoded, probes, batch_tokens=100).values()
    for name, array in memory.items():
        np.testing.assert_array_equal(mapped[name], array)
    assert isinstance(mapped["mean"], np.memmap) and not isinstance(memory["mean"], np.memmap)


def test_writing_rows_does_not_fill_memory(tmp_path) -> None:
    """A hundred times 2 MB pass through; the process grows by less than a tenth of it."""
    row, file = np.ones((512, 1024), dtype=np.float32), RowFile(tmp_path / "rows.npy", 100)
    file.write([0], row[None])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for index in range(1, 100):
        file.write([index], row[None])
    write_npz(tmp_path / "rows.npz", {"rows": file.finish()})
    found = read_npz(tmp_path / "rows.npz")["rows"]
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < row.nbytes * 10 and found.shape == (100, 512, 1024) and found[99, 0, 0] == 1


def test_a_scratch_folder_is_gone_at_the_end_by_error_too(tmp_path) -> None:
    with pytest.raises(ZeroDivisionError), scratch(tmp_path / "store") as folder:
        (folder / "half").write_text("half")
        raise ZeroDivisionError
    assert list((tmp_path / "store").iterdir()) == []


def test_what_a_killed_process_left_goes_and_what_is_used_stays(tmp_path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from remi_core.files import scratch\n"
        "with scratch(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'half').write_text('half'); print(flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(words, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        with scratch(tmp_path) as own:
            assert len(list(tmp_path.glob("*/half"))) == 1  # its process lives
        child.kill()
    assert len(list(tmp_path.glob("*/half"))) == 1 and not own.exists()
    with scratch(tmp_path):
        assert not list(tmp_path.glob("*/half"))
    assert list(tmp_path.iterdir()) == []
