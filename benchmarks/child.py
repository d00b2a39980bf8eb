"""A fresh process that measures one thing and prints it as JSON: peak memory, or a peer against ours.

python -m benchmarks.child '{"do": "memory", "way": "probes", "model": "micro", "count": 100, "store": "…"}'"""

from __future__ import annotations

import copy
import ctypes
import gc
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks.peers import READERS, peer_activations
from benchmarks.timing import interleaved
from benchmarks.ways import WAYS, activations, largest_difference
from benchmarks.workload import Workload, opened
from remi_core.store import Store
from remi_lab.processes import peak_bytes, reset_peak


def main() -> None:
    """Print what the one argument asks for."""
    asked = json.loads(sys.argv[1])
    with opened(asked["model"], asked["count"], Store(Path(asked["store"]))) as workload:
        if "batch_tokens" in asked:
            preset = replace(workload.preset, batch_tokens=asked["batch_tokens"])
            workload = replace(workload, preset=preset)
        found = {"memory": memory, "peer": peer}[asked["do"]](workload, asked)
    print(json.dumps(found))


def memory(workload: Workload, asked: Mapping[str, object]) -> dict[str, int]:
    """Bytes that the process holds at most while it does one thing, above what it held before (weights, libraries)."""
    way = _way(workload, str(asked["way"]))
    _give_back()
    reset_peak()
    before = peak_bytes()
    way(workload)
    return {"added": peak_bytes() - before, "peak": peak_bytes()}


def peer(workload: Workload, asked: Mapping[str, object]) -> dict[str, object]:
    """Seconds of ours and of a peer, run by run, and the largest difference of what they give."""
    name = str(asked["way"])
    # A copy: a peer may change the parts of the model that it is given.
    theirs = _way(replace(workload, model=copy.deepcopy(workload.model)), name)
    ways = {"ours": lambda: activations(workload), name: lambda: theirs(workload)}
    timed = interleaved(ways, runs=int(asked["runs"]))
    difference = largest_difference(timed.results["ours"], timed.results[name])
    return {"seconds": dict(timed.seconds), "difference": difference}


def _way(workload: Workload, name: str) -> Callable[[Workload], object]:
    if name not in READERS:
        return WAYS[name]
    reader = READERS[name](workload.model)
    return lambda given: peer_activations(given, reader)


def _give_back() -> None:
    """Return once memory that loading left free is given back (glibc): what is added would hide in it."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


if __name__ == "__main__":
    main()
