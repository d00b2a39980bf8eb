"""The cases of the benchmark on models that every machine can run: each gives rows and points of curves."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.explicit import explicit_gram
from benchmarks.processes import Setting, added_peak, ask, interpreter_with
from benchmarks.released import Protocol, departures, released
from benchmarks.rows import PEERS, TARGETS, Outcome, Point, Row, judged, not_measured
from benchmarks.timing import interleaved, seconds_of
from benchmarks.ways import bare, bare_full, gram, largest_difference, probes
from benchmarks.workload import Workload, opened
from remi_core.errors import RemiError
from remi_core.gradients import Factors, gradient_factors, gram_of_factors

COUNTS = {
    "probes": {"micro": 400, "smollm2": 24},
    "released": {"micro": 200, "smollm2": 16},
    "peers": {"micro": 400, "smollm2": 24},
    "gram": {"micro": 800, "smollm2": 24},
}
"""Dialogues of each case: what fits a quarter of an hour on two cores."""

CHECKED = 8
"""Dialogues on which the answers of a pass are compared with those of the model's own logits."""

TOLERANCE = 1e-4
"""Largest difference between two ways to the same, relative to the largest value, in float32."""


def probes_case(setting: Setting, model: str) -> Outcome:
    """All forward measurements against the bare forward pass."""
    name, count = f"probes.{model}", COUNTS["probes"][model]
    with opened(model, count, setting.store) as workload:
        ways = {"probes": probes, "bare": bare, "full logits": bare_full}
        timed = interleaved(
            {way: lambda run=run: run(workload) for way, run in ways.items()}, runs=setting.runs
        )
        few = workload.front(CHECKED)
        difference = _equal(name, probes(few), released(few, Protocol()))
        points = [Point("time", model, way, workload.n_tokens, timed.median(way)) for way in ways]
    ratios = timed.ratios("probes", "bare")
    note = (
        f"{count} dialogues, {workload.n_tokens} tokens; against full logits "
        f"{timed.median('probes') / timed.median('full logits'):.2f}; answers of {CHECKED} dialogues "
        f"equal to those of the model's own full logits to {difference:.0e} (allowed {TOLERANCE:.0e})"
    )
    return Outcome([judged(name, TARGETS[name], timed.median("probes"), ratios, note=note)], points)


def released_case(setting: Setting, model: str) -> Outcome:
    """All forward measurements against the released protocol, and what each departure from it saves."""
    name, count = f"released.{model}", COUNTS["released"][model]
    with opened(model, count, setting.store) as workload:
        ways = {
            cause: lambda protocol=protocol: released(workload, protocol) for cause, protocol in departures()
        }
        ways["our measurements"] = lambda: probes(workload)
        timed = interleaved(ways, runs=setting.runs)
    ours = timed.results["our measurements"]
    difference = max(_equal(name, ours, timed.results[way]) for way in ways)
    points = [Point("released", model, way, at, timed.median(way)) for at, way in enumerate(ways)]
    ratios = timed.ratios("released protocol", "our measurements")
    note = f"{count} dialogues; answers equal to {difference:.0e} (allowed {TOLERANCE:.0e})"
    return Outcome([judged(name, TARGETS[name], timed.median("our measurements"), ratios, note=note)], points)


def peers_case(setting: Setting, model: str) -> Outcome:
    """Mean activations of every layer against each peer: time, and added peak memory."""
    found, count = Outcome(), COUNTS["peers"][model]
    floor = added_peak(setting, "body", model, count=count)
    ours = max(0, added_peak(setting, "activations", model, count=count) - floor)
    held = "ours holds the answer's tokens of one layer at a time, and the means of a batch"
    for peer in PEERS:
        time_row, memory_row = (f"peers.{kind}.{peer}.{model}" for kind in ("time", "memory"))
        python = interpreter_with(peer)
        if python is None:
            why = "not installed: make peers"
            found.rows += [not_measured(row, TARGETS[row], why) for row in (time_row, memory_row)]
            continue
        asked = {"do": "peer", "way": peer, "model": model, "count": count}
        answer = ask(setting, asked, python=python)
        if answer["difference"] > TOLERANCE:
            raise RemiError(f"{time_row}: the means differ by {answer['difference']:.1e}")
        own, other = answer["seconds"]["ours"], answer["seconds"][peer]
        note = f"{count} dialogues; means equal to {answer['difference']:.0e} (allowed {TOLERANCE:.0e})"
        ratios = [a / b for a, b in zip(own, other, strict=True)]
        seconds = sorted(own)[len(own) // 2]
        found.rows.append(judged(time_row, TARGETS[time_row], seconds, ratios, note=note))
        theirs = max(1, added_peak(setting, peer, model, count=count, python=python) - floor)
        note = f"{count} dialogues, bytes beyond the decoder alone: {ours} against {theirs}; {held}"
        found.rows.append(
            judged(memory_row, TARGETS[memory_row], ours, [ours / theirs], note=note, timed=False)
        )
        found.points.append(Point("activation memory", model, peer, count, theirs))
    found.points.append(Point("activation memory", model, "ours", count, ours))
    return found


def gram_case(setting: Setting, model: str) -> Outcome:
    """The gradient Gram matrix of the last layer against the forward pass and explicit gradients."""
    count, found = COUNTS["gram"][model], Outcome()
    rows = {kind: f"gram.{kind}.{model}" for kind in ("forward", "explicit", "exact")}
    with opened(model, count, setting.store) as workload:
        ways = {"gram": gram, "full logits": bare_full, "explicit": explicit_gram}
        timed = interleaved(
            {way: lambda run=run: run(workload) for way, run in ways.items()}, runs=setting.runs
        )
        least = seconds_of(lambda: explicit_gram(workload, whole_model=False))
        parts = _gram_parts(workload)
        stack = 4 * count * workload.model.config.hidden_size**2
    difference = _equal(rows["exact"], timed.results["gram"], timed.results["explicit"])
    said = f"{count} dialogues; equal to {difference:.0e} (allowed {TOLERANCE:.0e})"
    shares = (part / timed.median("full logits") for part in parts)
    said += (
        "; of the forward pass, the pass with its backward part takes {:.2f} and the matrix {:.2f}".format(
            *shares
        )
    )
    for kind, ratios in (
        ("forward", timed.ratios("gram", "full logits")),
        ("explicit", timed.ratios("explicit", "gram")),
    ):
        found.rows.append(judged(rows[kind], TARGETS[rows[kind]], timed.median("gram"), ratios, note=said))
    found.rows.append(_gram_memory(setting, model, count, stack))
    found.rows.append(
        judged(rows["exact"], TARGETS[rows["exact"]], difference, [difference], note=said, timed=False)
    )
    found.points += [Point("gradient time", model, way, count, timed.median(way)) for way in ways]
    found.points.append(Point("gradient time", model, "explicit, one weight", count, least))
    return found


def _gram_memory(setting: Setting, model: str, count: int, stack: int) -> Row:
    """What the Gram pass adds at its peak to the forward pass, but for the matrix, against the explicit stack."""
    floor, name = added_peak(setting, "bare_full", model, count=count), f"gram.memory.{model}"
    peak, matrix = added_peak(setting, "gram", model, count=count), 8 * count * count
    own = max(0, peak - floor - matrix)
    note = (
        f"{count} dialogues: {peak} bytes, of which the n × n matrix takes {matrix}, against {floor} of the bare "
        f"forward pass; the stack is {stack}. "
        "Factors lie on disk. What follows the last attention is done for the answer's tokens alone, a few at a time"
    )
    return judged(name, TARGETS[name], own, [own / stack], note=note, timed=False)


def _gram_parts(workload: Workload) -> tuple[float, float]:
    """Seconds of the passes that give the factors, and of the matrix made from them."""
    kept: list[Sequence[Factors]] = []
    tokens = workload.preset.batch_tokens
    first = seconds_of(
        lambda: kept.append(gradient_factors(workload.model, workload.dialogues, batch_tokens=tokens)[0])
    )
    return first, seconds_of(lambda: gram_of_factors(kept[0]))


def _equal(row: str, one: dict, other: dict) -> float:
    """Largest relative difference of two answers.

    Raises:
        RemiError: if it is larger than allowed: a time of two different things means nothing.
    """
    difference = largest_difference(one, other)
    if difference > TOLERANCE:
        raise RemiError(f"{row}: the answers differ by {difference:.1e}, more than {TOLERANCE:.0e}")
    return difference
