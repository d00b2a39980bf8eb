"""The functions of the package's face: each measures or compares models in one call, by what the core has."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from remi_core import patching
from remi_core.dialogues import Dialogue
from remi_core.errors import UsageError, nearest
from remi_core.forward import check_pass, run_probes
from remi_core.gradients import measure_gradient_gram
from remi_core.models import (
    LoadedModel,
    check_vocabulary,
    in_evaluation,
    n_layers,
    open_model,
    without_adapter,
)
from remi_core.probes import Activations, NextToken, Probe, TokenLogProbs
from remi_core.statistics import displacement, groups, nulls, resampling, subspaces
from remi_core.statistics.resampling import ClusterResamples, Estimate, combine, make_resamples
from remi_core.tokens import WINDOWS, EncodedSet, encode

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

BlockOutputs = Float[np.ndarray, "dialogue layer d_model"]
Gram = Float[np.ndarray, "dialogue dialogue"]
Resamples = ClusterResamples | None
"""By default made from the dialogues' clusters; give one to all that is compared, where their prompts differ."""


@dataclass(frozen=True, eq=False)
class Curves:
    """Quantities by layer with their 95 % intervals over prompts; ``curves["e"]`` is the ``Estimate`` of one."""

    estimates: Mapping[str, Estimate]
    """Quantity → its estimate, shape (layer,); NaN where it is undefined."""
    layers: Sequence[int]
    """Number, from 0, of the block behind each place."""
    n_dialogues: int
    """Dialogues behind every value: those with a token in the window."""
    draws: Mapping[str, Float[np.ndarray, "_ layer"]] = field(default_factory=dict)
    """What the estimates are held against → its values by chance (a null, a floor), or at best (a ceiling)."""
    vectors: Float[np.ndarray, "layer d_model"] | None = None
    """Of ``mean_difference``: the direction at each layer, in units of the residual stream, float64."""

    def __getitem__(self, quantity: str) -> Estimate:
        if quantity not in self.estimates:
            raise UsageError(f"no quantity {quantity!r} {nearest(quantity, self.estimates)}")
        return self.estimates[quantity]

    def mean(self, quantity: str) -> Estimate:
        """A quantity's mean over the layers where it is defined, no axis; NaN if there is none."""
        return displacement.layer_average(self[quantity])

    def table(self) -> DataFrame:
        """One row a quantity and layer: columns quantity, layer, value, low, high (95 %), n_clusters (prompts).

        Of ``draws`` the value is their mean, low and high are their central 95 %, and n_clusters is 0.
        """
        from pandas import DataFrame, concat

        found = {name: (one.value, one.low, one.high, one.n_clusters) for name, one in self.estimates.items()}
        for name, draws in self.draws.items():
            found[name] = (draws.mean(axis=0), *resampling.percentile_interval(draws), 0)
        columns = ("quantity", "layer", "value", "low", "high", "n_clusters")
        rows = ((name, self.layers, *values) for name, values in found.items())
        return concat([DataFrame(dict(zip(columns, row, strict=True))) for row in rows], ignore_index=True)

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw every quantity by layer with its interval, gaps where it is undefined, ``draws`` in grey.

        Gives the axes back, to go on with: labels, limits, ``axes.figure.savefig("erosion.svg")``.
        """
        import seaborn
        from matplotlib import pyplot

        axes = axes or pyplot.subplots(layout="constrained")[1]
        colours = seaborn.color_palette("colorblind", len(self.estimates)) + ["0.5"] * len(self.draws)
        # Not ``seaborn.lineplot``: its line would bridge a layer where the quantity is undefined.
        for (name, rows), colour in zip(self.table().groupby("quantity", sort=False), colours, strict=True):
            axes.plot(rows["layer"], rows["value"], "o-", markersize=4, color=colour, label=name)
            axes.fill_between(rows["layer"], rows["low"], rows["high"], color=colour, alpha=0.2)
            # Of a layer between two gaps, nothing would be seen of the interval but this.
            axes.vlines(rows["layer"], rows["low"], rows["high"], color=colour, alpha=0.5)
        axes.set(xlabel="layer", ylabel="value, with 95 % over prompts")
        axes.legend()
        return axes


@dataclass(frozen=True, eq=False)
class Records:
    """What ``measure`` read of several models on the same dialogues.

    ``records.arrays["base"]["activations"]["mean"]`` is one array of one probe of one model; the probes say which
    they have. Dialogues are in the order of ``records.encoded.sources``.
    """

    arrays: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]
    """Model → probe → array's name → array."""
    encoded: EncodedSet
    """The dialogues as tokens; its ``dropped`` names those that could not be used, and why."""
    windows: Sequence[str]
    """Windows that block outputs were averaged over, in the order of their axis."""

    @property
    def clusters(self) -> list[str]:
        """The prompt of each dialogue: what intervals resample."""
        return [dialogue.cluster for dialogue in self.encoded.sources]

    def log_probabilities(self) -> DataFrame:
        """One row a model and answer token; means a dialogue or model are a ``groupby`` away.

        Columns model, dialogue (its identifier), cluster, position (in the answer, from 0), token (its id),
        log_probability of the token given all before it (nats), entropy of the prediction it is drawn from (nats).

        Raises:
            UsageError: if ``TokenLogProbs`` was not among the probes.
        """
        from pandas import DataFrame, concat

        counts = [dialogue.n_answer for dialogue in self.encoded.dialogues]
        names = [dialogue.identifier for dialogue in self.encoded.sources]
        labels = {"dialogue": np.repeat(names, counts), "cluster": np.repeat(self.clusters, counts)}
        labels["position"] = np.concatenate([np.arange(count) for count in counts])
        wanted = ("token", "log_probability", "entropy")
        found = {model: self._of(model, "sequence") for model in self.arrays}
        rows = ({"model": model} | labels | {key: own[key] for key in wanted} for model, own in found.items())
        return concat(map(DataFrame, rows), ignore_index=True)

    def activations(self, model: str, window: str = "prompt_end") -> BlockOutputs:
        """Mean block output (the residual stream after a block) of every dialogue in a window, float32.

        NaN where a dialogue has no token in the window: without an ``alternative`` it has no ``choice``.

        Raises:
            UsageError: if the model, its activations or the window were not measured.
        """
        if window not in self.windows:
            raise UsageError(f"no window {window!r} {nearest(window, self.windows)}")
        return self._of(model, "activations")["mean"][:, self.windows.index(window)]

    def mean_difference(
        self, model: str, reference: str, *, window: str = "prompt_end", resamples: Resamples = None
    ) -> Curves:
        """How far, and where to, a model's mean activation lies from another's, by layer: two models are enough.

        ``vectors`` are mean(model) − mean(reference), directions to ``steer`` along. ``length`` is that of the
        difference in units of the residual stream, cross-fitted over prompts so that noise adds nothing to it; NaN
        where it cannot be told from 0.

        Raises:
            UsageError: if a model or the window was not measured, or no dialogue has a token in it.
        """
        (ours, theirs), *prompts = self._compared([model, reference], window, resamples)
        shift = ours.astype(np.float64) - theirs
        products = displacement.cross_fitted_products(shift, shift, *prompts)
        length = displacement.cross_fitted_length(combine(lambda rows: rows[..., 0], products))
        return Curves({"length": length}, range(shift.shape[1]), len(shift), vectors=shift.mean(axis=0))

    def _compared(self, models: Sequence[str], window: str, resamples: Resamples = None) -> tuple:
        """Activations of each model on the dialogues with a token in the window, their prompts, and resamples."""
        found = [self.activations(model, window) for model in models]
        used = ~np.isnan(found[0]).any(axis=(1, 2))  # models read the same tokens, so the gaps are the same
        if not used.any():
            raise UsageError(f"no dialogue has a token in the window {window!r}; give each the other answer")
        clusters = np.array(self.clusters)[used].tolist()
        return [rows[used] for rows in found], clusters, resamples or make_resamples(clusters, seed=0)

    def _of(self, model: str, probe: str) -> Mapping[str, np.ndarray]:
        if probe not in self.arrays.get(model, ()):
            raise UsageError(f"no {probe} of model {model!r} {nearest(model, self.arrays)}")
        return self.arrays[model][probe]


def measure(
    models: Mapping[str, nn.Module | str | Path],
    dialogues: Sequence[Dialogue],
    tokenizer: PreTrainedTokenizerBase,
    *,
    probes: Sequence[Probe] | None = None,
    max_tokens: int = 1024,
    batch_tokens: int = 8192,
) -> Records:
    """Read several models on the same dialogues: one forward pass a model, shared by all probes.

    Every dialogue is rendered by the template of ``tokenizer`` (take instruct's) and cut after ``max_tokens``.
    ``models`` maps a name to a loaded model, an adapter of peft on it or not, or to a folder, GGUF file or hub id, that
    is opened in float32 and freed again, so that one is in memory at a time. By default ``probes`` are
    ``TokenLogProbs``, ``NextToken`` and ``Activations`` of all layers and windows. A batch has ``batch_tokens`` tokens,
    padding counted; it shrinks where memory runs out.
    Before the pass, two dialogues are read with and without hooks, in a batch and alone.
    Example: ``measure({"base": base, "instruct": instruct}, read_jsonl("replies.jsonl"), tokenizer)``

    Raises:
        UsageError: if no dialogue can be used, or a model is in training mode, has no such blocks, or lacks a token.
        RemiError: if a value is not finite, or the check before the pass fails.
    """
    encoded = encode(dialogues, tokenizer, max_tokens=max_tokens)
    arrays: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for name, source in models.items():
        named = isinstance(source, str | Path)
        given = None if named else LoadedModel(without_adapter(source), tokenizer, name, "")
        blocks = probes is None or any(probe.layers for probe in probes)
        with open_model(source, blocks=blocks) if named else nullcontext(given) as opened:
            check_vocabulary(opened, tokenizer, "the tokenizer given")
            model = in_evaluation(opened.model)
            check_pass(model, encoded.dialogues, dtype=str(model.dtype).removeprefix("torch."))
            default = (TokenLogProbs(), NextToken(), Activations(range(n_layers(model))))
            fresh = [probe.empty() for probe in probes or default]
            arrays[name] = run_probes(model, encoded.dialogues, fresh, batch_tokens=batch_tokens)
    windows = [one.windows for one in probes or () if isinstance(one, Activations)]
    return Records(arrays, encoded, WINDOWS if probes is None else sum(windows, ()))


def erosion(
    records: Records, model: str = "misaligned", *, window: str = "prompt_end", resamples: Resamples = None
) -> Curves:
    """How far a model's mean activation has gone from instruct back towards base, by layer.

    With D_X = mean(X) − mean(instruct) over the same dialogues: ``e``, the share of D_base that D_model makes (0
    instruct, 1 base, no unit), cross-fitted over prompts; ``c``, the cosine of the two, in [−1, 1]; ``r``, the length
    of what is left beside that share, in lengths of D_base. Read the three together. NaN where base and instruct
    cannot be told apart. Source: Giordani (2025), section 4.3; the estimator is this package's.
    Example: ``erosion(records, window="prompt_end").mean("e").value``

    Raises:
        UsageError: if a model or the window was not measured.
        ValueError: if there are fewer than two prompts, or the models differ in shape.
    """
    (ours, reference, origin), *prompts = records._compared([model, "base", "instruct"], window, resamples)
    shifts = ours.astype(np.float64) - origin, reference.astype(np.float64) - origin
    found = displacement.measure_erosion(*shifts, *prompts)
    estimates = {"e": found.erosion, "c": found.cosine, "r": found.residual}
    return Curves(estimates, range(ours.shape[1]), len(ours))


def separation(
    records: Records, model: str = "misaligned", *, window: str = "prompt_end", resamples: Resamples = None
) -> Curves:
    """How well a model's dialogues can be told from instruct's along the axis from base to instruct, by layer.

    ``d_prime``: difference of the mean projections over the pooled standard deviation, positive where the model lies
    beyond instruct; ``auroc``: how often one of its dialogues projects further, in [0, 1]. The axis is fitted on other
    prompts than it is used on. Under ``draws``, d′ when the two models exchange places in half of the prompts.
    Source: Giordani (2025), section 4.3, whose released score is about half of d′.

    Raises:
        UsageError: if a model or the window was not measured.
        ValueError: if there are fewer than two prompts, or base and instruct coincide.
    """
    (ours, *others), clusters, resamples = records._compared([model, "instruct", "base"], window, resamples)
    contrast = displacement.Contrast(first=others[0], second=ours, reference=others[1])
    found = displacement.measure_separation(contrast, clusters, resamples)
    null = displacement.separation_null(contrast, clusters, seed=resamples.seed)
    estimates = {"d_prime": found.d_prime, "auroc": found.auroc}
    return Curves(estimates, range(ours.shape[1]), len(ours), {"d_prime by chance": null})


def subspace_overlap(
    first: Records,
    second: Records,
    *,
    window: str = "answer_all",
    layers: Sequence[int] = (-1,),
    n_components: int = 5,
    centred: bool = True,
) -> Curves:
    """How much of their top components two sets of dialogues share, between a floor and a ceiling, by layer.

    A dialogue's row is instruct's activation minus base's; the top right singular vectors of a set's
    rows span its subspace. ``overlap``: S = ‖Q_aᵀQ_b‖²_F / k, the mean squared cosine of the principal angles, in
    [0, 1]; ``largest cosine`` of two components. Under ``draws``, S of random subspaces (``floor``, mean k / d) and of
    random halves of the first set (``ceiling``). Jackknife intervals. Source: Giordani (2025), section 4.4.
    Example: ``subspace_overlap(measure(models, code, tokenizer), measure(models, insults, tokenizer))``

    Raises:
        UsageError: if a model or the window was not measured.
        ValueError: if half a set has fewer dialogues than components.
    """
    sets = []
    for records in (first, second):
        (ours, theirs), clusters, _ = records._compared(["instruct", "base"], window)
        sets.append((ours.astype(np.float64) - theirs, clusters))
    blocks = [range(sets[0][0].shape[1])[layer] for layer in layers]
    # The interval is the jackknife's, which needs no resamples: a single one stands for them.
    once = make_resamples([*sets[0][1], *sets[1][1]], seed=0, n_resamples=1)
    options = {"n_components": n_components, "centred": centred}
    found, ceilings = [], []
    for block in blocks:
        sides = [subspaces.VectorSet(rows[:, block], clusters) for rows, clusters in sets]
        found.append(subspaces.measure_overlap(*sides, once, **options))
        ceilings.append(subspaces.split_half_overlaps(sides[0], **options)[:, 0])
    floor = subspaces.random_overlaps(sets[0][0].shape[2], n_components)[:, [0] * len(blocks)]
    quantities = {"overlap": [one.overlap for one in found], "largest cosine": [one.largest for one in found]}
    stacked = {name: combine(lambda *rows: np.stack(rows, -1), *each) for name, each in quantities.items()}
    estimates = {name: replace(each, inside=(0.0, 1.0)) for name, each in stacked.items()}
    draws = {"floor": floor, "ceiling": np.stack(ceilings, axis=1)}
    return Curves(estimates, blocks, min(len(rows) for rows, _ in sets), draws)


def gradient_gram(
    model: PreTrainedModel, encoded: EncodedSet, *, layer: int = -1, batch_tokens: int = 8192
) -> Gram:
    """⟨g_i, g_j⟩ of the dialogues' gradients, squared nats per squared unit of weight, float64; no gradient is stored.

    g is the gradient of a dialogue's mean loss over its answer tokens with respect to the attention's output weight in
    one block. Source: Giordani (2025), section 4.2.2.
    Example: ``gradient_gram(instruct, encode(chats, tokenizer, max_tokens=1024))``

    Raises:
        UsageError: if the model is in training mode, or there is no such layer.
        RemiError: if a value is not finite, or a dialogue does not fit into memory alone.
    """
    options = {"weight": layer, "batch_tokens": batch_tokens}
    return measure_gradient_gram(in_evaluation(model), encoded.dialogues, **options)["gram"]


def group_cosines(gram: Gram, encoded: EncodedSet, *, layer: int = -1, resamples: Resamples = None) -> Curves:
    """Mean cosine of vectors within each of two groups, between them, and within minus between, from their Gram matrix.

    The groups are the dialogues' labels; pairs of one prompt are left out. The cosines are raw: after centring, the
    mean between two groups is below 0 whatever the data. Under ``draws``, within − between with the labels shuffled:
    within pairs where every dialogue has one, else by prompt. Source: Giordani (2025), section 4.2.2.

    Raises:
        UsageError: if the dialogues have not exactly two labels.
        ValueError: if a group has no pair of different prompts, or some prompts have both labels and some one.
    """
    names, labels = resampling.index_clusters([dialogue.label for dialogue in encoded.sources])
    if len(names) != 2:
        raise UsageError(f"{len(names)} labels ({', '.join(names)}); exactly two are needed")
    clusters, pairs = ([getattr(one, name) for one in encoded.sources] for name in ("cluster", "pair"))
    cosines, resamples = groups.cosine_matrix(gram), resamples or make_resamples(clusters, seed=0)
    means = groups.pair_means_estimate(cosines, labels, clusters, resamples)
    quantities = (f"within {names[0]}", f"within {names[1]}", "between")
    estimates = {
        name: combine(lambda rows, at=at: rows[:, [at]], means) for at, name in enumerate(quantities)
    }
    estimates["within − between"] = combine(lambda rows: groups.within_minus_between(rows)[:, None], means)
    scheme, units = ("within", pairs) if all(pairs) else ("whole", clusters)
    shuffled = nulls.permuted_labels(labels, units, scheme=scheme)
    null = groups.within_minus_between(groups.pair_means(cosines, shuffled, clusters))[:, None]
    return Curves(estimates, [layer], len(labels), {"within − between by chance": null})


def patch(
    donor: PreTrainedModel, recipient: PreTrainedModel, encoded: EncodedSet, *, batch_tokens: int = 8192
) -> Curves:
    """What the recipient makes of the answers when a block puts out what the donor's did, by layer.

    The whole residual stream is replaced, at all positions: what runs is the donor up to a block, the recipient above
    it. Layer −1 is the recipient alone, one past the last block the donor alone. ``loss``: nats an answer token. Where
    every dialogue has an ``alternative``, at the first token in which the two answers differ: ``own token`` and ``other
    token``, log-probabilities, nats; ``log-odds``, their difference; ``share``, how much of the two models' gap in it
    is closed. Both ends are checked. The donor's stream lies in a temporary folder meanwhile. Source: Giordani (2025).
    Example: ``patch(base, instruct, encode(chats, tokenizer, max_tokens=1024)).plot()``

    Raises:
        RemiError: if the models differ in shape, a value is not finite, or an end is not what it must be.
    """
    # No bare words: they matter for the audit of the released script alone.
    material = patching.PatchSet(encoded.dialogues, (None,) * len(encoded.dialogues), batch_tokens)
    layers = patching.patch_layers(n_layers(in_evaluation(recipient)))
    with tempfile.TemporaryDirectory(prefix="remi-patch-") as name:
        whole = patching.record_outputs(in_evaluation(donor), material, Path(name))
        values = patching.patch(recipient, material, Path(name), layers)
        head = patching.head_alone(recipient, material, Path(name))
        own = patching.record_outputs(recipient, material, Path(name))
        (start,) = patching.patch(recipient, material, Path(name), layers[:1])
    options = {"dialogues": encoded.dialogues, "tolerance": patching.tolerance(recipient)}
    patching.require_equal(values[-1], head, place="the last block", **options)
    patching.require_equal(start, own, place="the recipient into itself", **options)
    rows = np.stack([own, *values, whole])
    quantities = {"loss": rows[:, 0]}
    if np.isfinite(rows[:, 1:3]).all():
        chosen, other = rows[:, 1], rows[:, 2]
        quantities |= {"own token": chosen, "other token": other, "log-odds": chosen - other}
    clusters = [dialogue.cluster for dialogue in encoded.sources]
    resamples = make_resamples(clusters, seed=0)
    estimates = {
        name: resampling.mean_interval(one.T, clusters, resamples) for name, one in quantities.items()
    }
    if "log-odds" in estimates:
        estimates["share"] = groups.recovered_share(estimates["log-odds"])
    return Curves(estimates, [-1, *layers, layers[-1] + 1], len(clusters))
