"""A study as a file: what it measured in every seed, with recipe, machine, versions and seconds."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from remi_core.errors import MissingInput, UsageError, nearest
from remi_core.files import written_whole
from remi_core.keys import canonical_json, file_digest, library_versions
from remi_core.progress import Say, clock, machine
from remi_core.store import Address, Record, Store, project_root
from remi_lab.keys import make_key
from remi_lab.presets import PRESETS, Preset
from remi_lab.results import TRAIL, Results
from remi_lab.strict import read_yaml
from remi_lab.variant import MEASURED_CODE, ORGANISM_CODE


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What the YAML file beside this module says of a study, field by field."""

    module: str = ""
    code: tuple[str, ...] = ()
    of_instruments: bool = False
    of_studies: bool = False
    needs: tuple[str, ...] = ("organism",)
    of: str = ""
    """Preset whose study stands for every preset of organisms that has none of its own; "" where none does."""


_READ = read_yaml(Path(__file__).with_suffix(".yaml"), dict[str, Declared])
ROWS_CODE = _READ.pop("rows").code
"""Further modules that the rows of the report are computed with; a package stands for all modules in it."""
STUDIES: Mapping[str, Declared] = _READ
"""Every study. Its function, a ``Measure``, is ``measure_NAME`` of its module, or ``measure`` where there is none."""

CODE = (*MEASURED_CODE, *ORGANISM_CODE, "remi_core.statistics", "remi_lab.statistics")
"""Modules that any study may compute with."""

OWN = ("name", "title", "remark", "seeds")
"""Fields in which presets of the same models differ."""
LATER = ("fresh", "confirm", "later")
"""Presets of bases that were trained after the others had been seen, in order: what was amended is tried on them."""
FURTHER_SEEDS = "-later"
"""What follows the name of a real preset in that of its further seeds, which have some of its variants and sets."""

HEADLINES = "headlines"
"""The study that holds every headline of the report by training."""

Measure = Callable[[Preset, int, Store, Say], Mapping[str, object]]
"""What measures a study of one seed: plain JSON values, numbers by prompt with the prompts' templates beside them."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A stored study: what was measured by seed, and how it was had."""

    seeds: Mapping[int, Mapping[str, object]]
    about: Mapping[str, object]
    """Recipe, machine, versions and seconds."""

    def how(self) -> str:
        """One sentence for a page: that this is a stored result, how it was made, where, and how long it took."""
        seconds = float(self.about["seconds"])
        units = "minutes and seconds" if seconds < 3600 else "hours, minutes and seconds"
        return (
            f"A stored result, made once by `{self.about['recipe']}` on {self.about['machine']} "
            f"in {clock(seconds)} ({units})."
        )


def study_path(preset: str, name: str) -> Path:
    """The file of a study of a preset."""
    return project_root() / "stored" / preset / f"{name}.json"


def measure_of(name: str) -> Measure:
    """The function that measures a study of one seed.

    Raises:
        UsageError: naming the nearest study, if there is none of that name.
    """
    if name not in STUDIES:
        raise UsageError(f"no study {name!r} {nearest(name, STUDIES)}")
    module = importlib.import_module(STUDIES[name].module or f"{__package__}.{name}")
    return getattr(module, f"measure_{name}", None) or module.measure


def study_digests(preset: str, names: Iterable[str] = tuple(STUDIES)) -> dict[str, str]:
    """Study → digest of its file, of those stored for a preset: what is shown of it follows the file.

    The same study of each preset of ``LATER`` is there, too, as ``PRESET/NAME``, since pages may show it beside. A
    name that already has this form is that preset's study, whichever preset is asked for.
    """
    paths = {}
    for name in names:
        of, _, own = name.rpartition("/")
        paths[name] = study_path(of or preset, own)
        if not of:
            paths |= {f"{later}/{name}": study_path(later, name) for later in LATER}
    return {name: file_digest(path) for name, path in paths.items() if path.is_file()}


def further_presets(preset: Preset) -> list[Preset]:
    """Presets of the same models, trained later from other seeds, whose headlines are stored."""
    if preset.name in LATER:
        return []
    others = map(PRESETS.__getitem__, LATER)
    same = [
        other for other in others if replace(other, **{name: getattr(preset, name) for name in OWN}) == preset
    ]
    if preset == PRESETS.get(preset.name) and (later := PRESETS.get(f"{preset.name}{FURTHER_SEEDS}")):
        same.append(later)
    return [other for other in same if study_path(other.name, HEADLINES).is_file()]


def read_study(preset: Preset, name: str) -> Study:
    """The stored study of a preset.

    Raises:
        MissingInput: if there is none; says how to make it.
    """
    path = study_path(preset.name, name)
    if not path.is_file():
        raise MissingInput(f"needs a study that is not stored: remi study {name} --preset {preset.name}")
    raw = json.loads(path.read_text(encoding="utf-8"))
    seeds = {int(seed): values for seed, values in raw.pop("seeds").items()}
    TRAIL.load(f"stored/{preset.name}/{name}.json", raw, stored=True)
    return Study(seeds=seeds, about=raw)


def own_alone(names: Iterable[str]) -> set[str]:
    """Those of the studies that a preset must have itself, since no other preset's stands for it."""
    return {name for name in names if name not in STUDIES or not STUDIES[name].of}


def of_study(results: Results, name: str) -> Results:
    """The results whose study of that name stands for these: their own, or else those of the preset it is ``of``."""
    preset = results.preset
    if own_alone([name]) or study_path(preset.name, name).is_file() or not preset.is_organism:
        return results
    return Results(PRESETS[STUDIES[name].of], results.store)


def write_study(preset: Preset, name: str, store: Store, say: Say) -> Path:
    """The file just written, with the study of every seed, or of the first if it is one of instruments.

    A seed measured before by the same code is read.

    Raises:
        UsageError: if there is no such study.
        MissingInput: if the preset lacks what it measures.
        ValueError: if a value is no plain JSON, or non-finite.
    """
    measure, seeds, seconds = measure_of(name), dict[str, object](), 0.0
    for need in STUDIES[name].needs:
        preset.require(need)
    chosen = preset.seeds[:1] if STUDIES[name].of_instruments else preset.seeds
    for number, seed in enumerate(chosen, start=1):
        say(f"[{number}/{len(chosen)}] study {name} of preset {preset.name}, seed {seed}")
        record = _measured(preset, name, seed, measure, store, say)
        seeds[str(seed)] = record.values
        seconds += float(record.provenance["seconds"])
        say(f"[{number} of {len(chosen)} done] {clock(seconds)} in all")
    about = {
        "study": name,
        "preset": preset.name,
        "fingerprint": preset.fingerprint(),
        "recipe": f"remi study {name} --preset {preset.name}",
        "machine": machine(),
        "versions": library_versions(),
        "seconds": round(seconds),
    }
    target = study_path(preset.name, name)
    with written_whole(target) as part:
        text = json.dumps(
            about | {"seeds": seeds}, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        )
        part.write_text(text + "\n", encoding="utf-8")
    return target


def _measured(preset: Preset, name: str, seed: int, measure: Measure, store: Store, say: Say) -> Record:
    code = (*CODE, *STUDIES[name].code, measure.__module__)
    fields = {"preset": preset.fields(), "seed": seed}
    if STUDIES[name].of_studies:
        fields["studies"] = study_digests(preset.name, sorted(STUDIES.keys() - {name}))
    key = make_key(fields, code)

    def measured() -> tuple[Mapping, ...]:
        started = time.perf_counter()
        values = measure(preset, seed, store, say)
        canonical_json(values)  # raises where a value is no plain JSON, before anything is stored
        # A study that keeps its parts says what each took, whether that was now or in a run before.
        parts = values.get("seconds")
        taken = sum(parts.values()) if isinstance(parts, Mapping) else time.perf_counter() - started
        return {}, {"seconds": round(taken, 1), "kept": 1, "dropped": {}}, values

    return store.obtain(Address(preset.name, seed, "all", "study", name, key), measured)
