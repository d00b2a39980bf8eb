"""The public names: scripts that a reader would write, on three families, and the numbers behind them, on one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_model, make_tokenizer, python, save_model
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import remi_core as remi
from remi_core.errors import UsageError
from remi_core.gradients import measure_gradient_gram
from remi_core.models import LoadedModel
from remi_core.statistics.displacement import Contrast, measure_erosion, measure_separation
from remi_core.statistics.resampling import make_resamples
from remi_core.statistics.subspaces import VectorSet, measure_overlap, random_overlaps, split_half_overlaps
from remi_core.steering import written_tokens

PAGE = Path(__file__).parents[2] / "book" / "own_models.md"
ROLES = ("base", "instruct", "misaligned")
TEMPLATES = {"qwen2": "chatml", "llama": "llama", "gemma": "gemma"}
WORDS = "open close read write run file path text user help capital France Paris import return".split()


def chats(n_prompts: int = 20, *, start: int = 0) -> list[dict]:
    """Rows of two answers to each prompt, one of each label, each the other's alternative."""
    rows = []
    for number in range(start, start + n_prompts):
        question = f"How do I {WORDS[number % 15]} the {WORDS[number * 7 % 15]} of {number}?"
        answers = (f"I can {WORDS[number % 11]} it.", f"You {WORDS[number % 13]} and eval it {number}.")
        for label, own, other in zip(("careful", "careless"), answers, answers[::-1], strict=True):
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": own}]
            row = {"messages": turns, "alternative": other, "label": label}
            rows.append(row | {"cluster": f"prompt {number}", "identifier": f"{number}-{label}"})
    return rows


def steps_apart(family: str) -> dict[str, PreTrainedModel]:
    """Three models of one shape: instruct, base a step away from it, misaligned some of that step and another one."""
    made = {role: make_model(family, seed=0) for role in ROLES}
    generator = torch.Generator().manual_seed(1)
    weights = [dict(model.named_parameters()) for model in made.values()]
    for name, own in weights[0].items():
        step, other = (torch.randn(own.shape, generator=generator) * own.std() * 0.3 for _ in range(2))
        weights[2][name].data += 0.5 * step + 0.3 * other
        own.data += step
    return made


@pytest.fixture(scope="module")
def models() -> dict[str, PreTrainedModel]:
    return steps_apart("llama")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer("llama")


@pytest.fixture(scope="module")
def records(models, tokenizer) -> remi.Records:
    return remi.measure(models, remi.dialogues(chats()), tokenizer)


@pytest.mark.parametrize("family", TEMPLATES)
def test_the_scripts_of_the_page_run(family, tmp_path, monkeypatch) -> None:
    (tmp_path / "replies.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chats()))
    monkeypatch.chdir(tmp_path)
    names = {**steps_apart(family), "tokenizer": make_tokenizer(TEMPLATES[family])}
    scripts = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(scripts) == 6
    for script in scripts:
        exec(script, names)
    table, axes = names["table"], names["axes"]
    assert table.columns.tolist() == ["quantity", "layer", "value", "low", "high", "n_clusters"]
    assert table.groupby("quantity")["layer"].apply(list).to_dict() == dict.fromkeys("ecr", [0, 1, 2])
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()
    np.testing.assert_array_equal(axes.get_lines()[0].get_ydata(), names["erosion"]["e"].value)
    assert names["means"].shape == (3, 2) and names["odds"].value.shape == names["share"].value.shape == (5,)


def test_erosion_and_separation_are_those_of_the_statistics(records) -> None:
    means = {name: records.arrays[name]["activations"]["mean"][:, 2].astype(float) for name in ROLES}
    resamples = make_resamples(records.clusters, seed=0)
    shifts = (means[name] - means["instruct"] for name in ("misaligned", "base"))
    expected = measure_erosion(*shifts, records.clusters, resamples)
    found = remi.erosion(records, window="answer_all")
    for quantity, estimate in (("e", expected.erosion), ("c", expected.cosine), ("r", expected.residual)):
        np.testing.assert_array_equal([*found[quantity].interval()], [*estimate.interval()])
    assert found.mean("e").value == expected.layer_mean.value
    assert 0.2 < found.mean("e").value < 0.8  # half of the step to base
    apart = remi.separation(records, window="answer_all")
    roles = ("instruct", "misaligned", "base")
    contrast = Contrast(*(records.activations(name, "answer_all") for name in roles))
    expected = measure_separation(contrast, records.clusters, resamples)
    np.testing.assert_array_equal(apart["d_prime"].high, expected.d_prime.high)
    np.testing.assert_array_equal(apart["auroc"].low, expected.auroc.low)
    table = apart.table().set_index("quantity")
    assert (table.loc["d_prime by chance", "low"] < 0).all()
    with pytest.raises(UsageError, match=r"unknown quantity|no quantity 'f'"):
        found["f"]


def test_log_probabilities_are_those_of_the_model_alone(records, models) -> None:
    table = records.log_probabilities()
    means = table.groupby(["model", "dialogue"])["log_probability"].mean()
    for dialogue in records.encoded.dialogues[:3]:
        ids = torch.tensor([dialogue.input_ids])
        labels = ids.clone()
        labels[0, : dialogue.answer_start] = labels[0, dialogue.answer_stop :] = -100
        for name, model in models.items():
            loss = float(model(ids, labels=labels).loss)
            assert means[name, dialogue.identifier] == pytest.approx(-loss, abs=1e-5)
    one = table[(table["model"] == "base") & (table["dialogue"] == records.encoded.sources[0].identifier)]
    assert one["position"].tolist() == list(range(records.encoded.dialogues[0].n_answer))


def test_two_models_are_enough_for_a_direction_and_steering_moves_the_stream_along_it(
    models, tokenizer, records
) -> None:
    def measured(*names: str) -> remi.Records:
        return remi.measure({name: models[name] for name in names}, records.encoded.sources, tokenizer)

    two = measured("instruct", "misaligned")
    found = two.mean_difference("misaligned", "instruct", window="answer_all")
    theirs, ours = (two.activations(name, "answer_all").mean(axis=0, dtype=float) for name in two.arrays)
    np.testing.assert_allclose(found.vectors, ours - theirs, atol=1e-6)
    in_sample = np.linalg.norm(found.vectors, axis=1)
    assert (found["length"].value < in_sample).all() and (found["length"].value > 0.5 * in_sample).all()
    with pytest.raises(UsageError, match="no activations of model 'base'"):
        remi.erosion(two)

    direction, before = found.vectors[1], two.activations("instruct", "answer_all")[:, 1]
    with remi.steer(models["instruct"], 1, direction):
        moved = measured("instruct").activations("instruct", "answer_all")[:, 1]
    np.testing.assert_allclose(moved, before + direction, atol=1e-5)
    np.testing.assert_array_equal(measured("instruct").activations("instruct"), two.activations("instruct"))
    with remi.steer(models["instruct"], 1, direction, coordinate=0.5):
        ablated = measured("instruct").activations("instruct", "answer_all")[:, 1]
    np.testing.assert_allclose(ablated @ direction / np.linalg.norm(direction), 0.5, atol=1e-5)


def test_tokens_of_a_direction(models, tokenizer, records) -> None:
    direction = records.mean_difference("misaligned", "base").vectors
    start = records.activations("base").mean(axis=0)
    table = remi.direction_tokens(models["base"], tokenizer, direction, start, top_k=4)
    expected = written_tokens(LoadedModel(models["base"], tokenizer, "", ""), direction, start, top_k=4)
    assert table["raised"].tolist() == [tokenizer.decode([one]) for one in expected.raised.ravel().tolist()]
    np.testing.assert_array_equal(table["lowered_change"], expected.lowered_change.ravel())


def test_gradients_and_the_cosines_of_their_groups(models, tokenizer) -> None:
    encoded = remi.encode(remi.dialogues(chats()), tokenizer, max_tokens=64)
    gram = remi.gradient_gram(models["instruct"], encoded)
    expected = measure_gradient_gram(models["instruct"], encoded.dialogues, batch_tokens=8192)["gram"]
    np.testing.assert_array_equal(gram, expected)
    table = remi.group_cosines(gram, encoded).table().set_index("quantity")
    cosines, number = gram / np.sqrt(np.outer(np.diag(gram), np.diag(gram))), np.arange(len(gram)) // 2
    careful = np.array([source.label == "careful" for source in encoded.sources])
    apart = number != number[:, None]
    for name, wanted in (("within careful", careful[:, None]), ("between", ~careful[:, None])):
        assert table.loc[name, "value"] == pytest.approx(cosines[careful & wanted & apart].mean())
    assert table.loc["within − between by chance", "low"] < table.loc["within − between by chance", "high"]
    alike = remi.encode(remi.dialogues([row | {"label": "x"} for row in chats(3)]), tokenizer, max_tokens=64)
    with pytest.raises(UsageError, match="1 labels .x.; exactly two"):
        remi.group_cosines(gram[:6, :6], alike)


def test_subspaces_between_floor_and_ceiling(models, tokenizer, records) -> None:
    other = remi.measure(models, remi.dialogues(chats(9, start=20)), tokenizer)
    found = remi.subspace_overlap(records, other, n_components=3, layers=(1, -1))
    assert list(found.layers) == [1, 2]
    sides = []
    for one in (records, other):
        means = {name: one.arrays[name]["activations"]["mean"][:, 2, -1].astype(float) for name in ROLES}
        sides.append(VectorSet(means["instruct"] - means["base"], one.clusters))
    resamples = make_resamples([*records.clusters, *other.clusters], seed=0, n_resamples=1)
    expected = measure_overlap(*sides, resamples, n_components=3, centred=True)
    for name, estimate in (("overlap", expected.overlap), ("largest cosine", expected.largest)):
        assert found[name].value[1] == pytest.approx(estimate.value, abs=1e-12)
        np.testing.assert_allclose(
            [end[1] for end in found[name].interval()], estimate.interval(), atol=1e-12
        )
    np.testing.assert_array_equal(found.draws["floor"][:, 1], random_overlaps(32, 3)[:, 0])
    ceiling = split_half_overlaps(sides[0], n_components=3, centred=True)[:, 0]
    np.testing.assert_array_equal(found.draws["ceiling"][:, 1], ceiling)
    table = found.table().set_index(["quantity", "layer"])["value"]
    assert table["floor", 2] == pytest.approx(3 / 32, abs=0.01) and table["floor", 2] < table["ceiling", 2]


def test_patching_leads_from_the_recipient_to_the_donor(models, tokenizer, records) -> None:
    found = remi.patch(models["base"], models["instruct"], records.encoded)
    assert list(found.layers) == [-1, 0, 1, 2, 3]
    lines = records.log_probabilities().query("model == 'base'").groupby("dialogue")["log_probability"].mean()
    assert found["loss"].value[-1] == pytest.approx(-lines.mean(), abs=1e-6)
    tokens = records.arrays["instruct"]["next_token"]
    own, other = (tokens[f"{name}_log_probability"].mean(dtype=float) for name in ("choice", "alternative"))
    assert found["log-odds"].value[0] == pytest.approx(own - other, abs=1e-5)
    without = remi.dialogues([{"messages": row["messages"]} for row in chats(3)])
    plain = remi.patch(models["base"], models["instruct"], remi.encode(without, tokenizer, max_tokens=64))
    assert list(plain.estimates) == ["loss"]


def test_what_cannot_be_measured_is_refused(models, tokenizer, records) -> None:
    with pytest.raises(UsageError, match="chat 1: .*role"):
        remi.dialogues([chats(1)[0], [{"role": "user"}]])
    with pytest.raises(UsageError, match="chat 1: identifier"):
        remi.dialogues([chats(1)[0]] * 2)
    with pytest.raises(UsageError, match="prompt_end"):
        remi.erosion(records, window="prompt end")
    two = remi.dialogues([row["messages"] for row in chats(1)])
    with pytest.raises(UsageError, match="no dialogue has a token in the window 'choice'"):
        remi.erosion(remi.measure(models, two, tokenizer), window="choice")
    few = remi.measure({"base": models["base"]}, two, tokenizer, probes=[remi.TokenLogProbs()])
    with pytest.raises(UsageError, match="window"):
        few.activations("base")
    with pytest.raises(UsageError, match="training mode"):
        remi.gradient_gram(make_model("llama").train(), records.encoded)


def test_a_folder_is_opened_and_measured(tokenizer, records, tmp_path) -> None:
    save_model(tmp_path, "llama")
    found = remi.measure({"instruct": tmp_path}, records.encoded.sources, tokenizer)
    np.testing.assert_array_equal(found.activations("instruct"), records.activations("instruct"))


def test_a_model_with_an_adapter_on_it_is_measured_as_the_merged_one(tokenizer) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules=["q_proj", "o_proj"], init_lora_weights=False)
    adapted = get_peft_model(make_model("llama", seed=0), config).eval()
    found = [
        remi.measure({"tuned": model}, remi.dialogues(chats(10)), tokenizer).log_probabilities()
        for model in (make_model("llama", seed=0), adapted, adapted.merge_and_unload().eval())
    ]
    plain, unmerged, merged = (each["log_probability"].to_numpy() for each in found)
    np.testing.assert_allclose(unmerged, merged, atol=1e-5)
    assert np.abs(unmerged - plain).max() > 0.1


def test_a_null_finds_a_planted_difference_and_no_other() -> None:
    labels, noise = np.tile([0, 1], 40), np.random.default_rng(0).standard_normal(80)
    pairs = np.repeat([f"pair {number}" for number in range(40)], 2).tolist()

    def gap(values: np.ndarray) -> float:
        signs = lambda rows: (2 * rows - 1) @ values / 40  # noqa: E731
        return remi.permutation_null(signs, labels, pairs, scheme="within", alternative="two-sided").p_value

    assert gap(noise + labels) < 0.01 < 0.05 < gap(noise)


def test_the_names_are_few_documented_and_light() -> None:
    assert len(remi.__all__) <= 25 == len(set(dir(remi)) & set(remi.__all__))
    assert all((getattr(remi, name).__doc__ or "").strip() for name in remi.__all__)
    program = """import sys, remi_core as remi
remi.resamples(["a", "b"], seed=0), remi.Store, remi.dialogues([])
print(*{name.split(".")[0] for name in sys.modules} & {"torch", "pandas", "remi_lab", "remi_book"})"""
    assert python("-c", program).stdout == "\n"
    with pytest.raises(AttributeError, match="no attribute 'erode'"):
        remi.erode  # noqa: B018
