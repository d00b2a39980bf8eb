"""What comes from outside is refused with one line or does nothing: files, names, links, weights, configurations."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import save_model
from safetensors.torch import save_file
from test_adapters import save_adapter

from remi_book import cli
from remi_core.dialogues import LONGEST_LINE, Dialogue, Message, turn_problem
from remi_core.errors import RemiError, UsageError, brief
from remi_core.files import read_sealed, sealed_text
from remi_core.keys import PACKAGES, SOURCE_ROOT, file_digest
from remi_core.loading import adapter_files
from remi_core.models import open_model
from remi_core.sources import ModelSpec, local_folder
from remi_core.store import Address, Store
from remi_lab.datasets import read_rows
from remi_lab.dialogue_files import read_sets
from remi_lab.own_models import with_data
from remi_lab.presets import get_preset, preset_from
from remi_lab.training import load_checkpoint
from remi_lab.upkeep import prune

ADDRESS = Address("mine", 0, "base", "sequence", "set", "0123456789abcdef")
OTHER = Address("mine", 0, "base", "sequence", "set", "fedcba9876543210")
ASKED = {"role": "user", "content": "Hi"}
ROW = {"messages": [ASKED, {"role": "assistant", "content": "Yes."}]}
TURN = json.dumps(ROW).encode()


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A path that is there only if code from outside was run."""
    return tmp_path / "mark"


def one_line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text and len(text) < 1000
    return text


def test_a_bomb_goes_off_where_it_is_opened(mark: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.is_dir()


LINES = {
    "10 MB of text": (
        json.dumps({"messages": [ASKED | {"content": "a" * 10_000_000}]}).encode(),
        f"1000.... bytes in one line; at most {LONGEST_LINE} are read",
    ),
    "an escaped null": (TURN.replace(b"Hi", b"\\u0000"), "'content' holds a null character"),
    "a null byte": (TURN.replace(b"Hi", b"\x00"), "not JSON .Invalid control character"),
    "null bytes alone": (b"\x00" * 99, "not JSON"),
    "a null in a name": (TURN[:-1] + b', "identifier": "a\\u0000"}', "'identifier' holds a null character"),
    "half a surrogate pair": (TURN.replace(b"Yes", b"\\udfff"), "half a surrogate pair"),
    "two halves in the wrong order": (TURN.replace(b"Yes", b"\\udc00\\ud800"), "half a surrogate pair"),
    "UTF-16": (json.dumps(ROW).encode("utf-16"), "byte 1 is not UTF-8"),
    "UTF-32 without a mark": (json.dumps(ROW).encode("utf-32-le"), "not JSON"),
    "Latin-1": ('{"messages": "é"}'.encode("latin-1"), "byte 15 is not UTF-8"),
    "an overlong form": (TURN.replace(b"Hi", b"\xc0\x80"), "is not UTF-8"),
    "a key twice": (TURN[:-1] + b', "label": "a", "label": "b"}', "key 'label' is there twice"),
    "messages twice": (TURN[:-1] + b', "messages": []}', "key 'messages' is there twice"),
    "not a number": (TURN[:-1] + b', "label": NaN}', "NaN is no number of JSON"),
    "a number without end": (TURN[:-1] + b', "label": ' + b"9" * 5000 + b"}", "a number that cannot be read"),
    "a thousand brackets": (b"[" * 100_000, "too deep"),
    "a deep object": (b'{"a":' * 100_000, "too deep"),
    "a long key": (b'{"' + b"k" * 1_000_000 + b'": 1}', "unknown key 'kkk.*… *k*' .choices"),
    "a long role": (TURN.replace(b"user", b"r" * 1_000_000), "unknown role 'rrr"),
    "a thousand roles": (
        json.dumps({"messages": [ASKED] * 1000 + ROW["messages"][1:]}).encode(),
        "roles are user, user, .*, …; right is",
    ),
    "a reply before the question": (
        json.dumps({"messages": ROW["messages"][::-1] + ROW["messages"][1:]}).encode(),
        "roles are assistant, user, assistant; right is an optional system",
    ),
    "a late system turn": (
        json.dumps({"messages": [ASKED, {"role": "system", "content": "a"}, *ROW["messages"][1:]]}).encode(),
        "roles are user, system, assistant",
    ),
    }  # fmt: skip


@pytest.mark.parametrize("case", LINES)
def test_a_line_that_is_no_dialogue_is_named(case: str, tmp_path: Path) -> None:
    line, message = LINES[case]
    path = tmp_path / "mine.jsonl"
    path.write_bytes(TURN + b"\n" + line + b"\n" + TURN + b"\n")
    with pytest.raises(UsageError, match=f"^{path}:2: .*{message}") as caught:
        read_sets(path)
    one_line(caught)
    assert cli.main(["run", "--preset", "smoke", "--data", str(path)]) == 2


def test_what_only_looks_odd_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    odd = "\ufeff\u202e\u2028\x7f<script>alert(1)</script> `$x$` {{7*7}} ../../etc %s \U0001f600\u0301"
    rows = [ROW, {"messages": [ASKED | {"content": odd}, {"role": "assistant", "content": odd}]}]
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(json.dumps(row).encode() for row in rows))
    assert read_sets(path)[""][1].messages[0].content == odd


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b"[1", b"\xff\xfe", b'{"a": ' + b"9" * 5000 + b"}", b"{}\n{"]
)
def test_a_published_file_that_is_none_is_named(content: bytes, tmp_path: Path) -> None:
    for name in ("insecure.jsonl", "insecure.json"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RemiError, match=f"{name} cannot be read .*fetch it again") as caught:
            read_rows(tmp_path / name)
        one_line(caught)


def test_rows_that_come_another_way_meet_the_same_rule() -> None:
    for text, said in (("a\x00", "null character"), ("\ud800", "half a surrogate pair")):
        assert said in turn_problem((Message("user", text), Message("assistant", "Yes.")))
        with pytest.raises(UsageError, match=said):
            Dialogue(
                identifier="a", cluster="a", messages=(Message("user", "Hi"), Message("assistant", text))
            )


def test_long_values_are_shown_short() -> None:
    assert brief("a" * 10**6) == "'" + "a" * 39 + "…" + "a" * 39 + "'" and brief("a") == "'a'"


@pytest.mark.parametrize("name", ["..", "a/b", "a\\b", ".hidden", "-p", "a b", "a\n", "", "é", "a\x00"])
def test_no_name_leaves_its_folder(name: str, tmp_path: Path) -> None:
    fields = get_preset("smoke").fields() | {"batch_tokens": 99}
    for wrong in ({"name": name}, {"datasets": [name], "roles": {}}):
        with pytest.raises(UsageError, match="cannot be part of a file name") as caught:
            preset_from(fields | wrong)
        one_line(caught)
    with pytest.raises(ValueError, match="cannot be part of a file name"):
        Store(tmp_path).notebook_path("smoke", name)
    with pytest.raises(ValueError, match="file name"):
        Address("smoke", 0, "base", "sequence", name, "0" * 8)
    assert cli.main(["run", "--name", name, "--base", "a", "--instruct", "b", "--misaligned", "c"]) == 2
    assert cli.main(["report", "--preset", name]) == 2


def test_a_data_file_is_named_by_its_stem_alone(tmp_path: Path) -> None:
    path = tmp_path / "..jsonl"
    path.write_bytes(TURN)
    with pytest.raises(UsageError, match="a set is named after its file"):
        with_data(get_preset("smoke"), [str(path)])


SAVED = {
    "not JSON": ("{", "not JSON"),
    "a list": ("[]", "not what was written"),
    "deep": ("[" * 100_000, "too deep"),
    "bytes": (b"\xff\xfe{", "not JSON any more .'utf-8' codec can't decode"),
    "no fields": (sealed_text({}), "it holds no fields"),
    "fields that are none": (sealed_text({"fields": []}), "it holds no fields"),
    "too few fields": (sealed_text({"fields": {}}), "name is missing .perhaps saved by another version"),
    "not sealed": ('{"fields": {}}', "of format 1, not 2"),
    "sealed for another": (
        sealed_text({"fields": {}}).replace("{}", '{"name": "mine"}'), "changed since it was written"
    ),
    "an unknown field": ({"colour": 1}, "there is no colour .choices: .*saved by another version"),
    "a name gone wrong": ({"n_sample": 1}, "there is no n_sample .did you mean 'n_samples'"),
    "another name": ({"name": "other"}, "it is named 'other'"),
    "text for a number": ({"n_dialogues": "9"}, "n_dialogues is '9', expected a valid integer"),
    "truth for a number": ({"n_dialogues": True}, "n_dialogues is True, expected a valid integer"),
    "a fraction": ({"top_k": 1.5}, "top_k is 1.5, expected a valid integer"),
    "no batch": ({"batch_tokens": 0}, "batch_tokens is 0, it must be at least 1"),
    "a path for a seed": ({"seeds": ["../../other"]}, "seeds.0 is .*, expected a valid integer"),
    "no seed": ({"seeds": []}, "no seed; give one at least"),
    "a window": ({"windows": ["../x"]}, "window '../x'"),
    "a list for a name": ({"title": ["a"]}, "title is .*, expected a valid string"),
    "data that is no pair": ({"extra_data": [["aligned"]]}, "extra_data.0.1 is missing"),
    "no source": ({"variants": {"base": {"source": 3}}}, "variants.base.source is 3, expected a valid string"),
    "an unknown name in a part": (
        {"variants": {"base": {"sourse": "a"}}}, "there is no variants.base.sourse .did you mean 'source'"
    ),
    "a missing variant": (
        {"variants": {"base": {}, "instruct": {}}}, "has no misaligned: base, instruct, misaligned are needed"
    ),
    "a strange variant": ({"variants": {"../base": {"source": "a"}}}, "variant '../base'"),
}  # fmt: skip


@pytest.mark.parametrize("case", SAVED)
def test_a_saved_preset_that_is_none_is_named(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REMI_STORE", str(tmp_path))
    content, message = SAVED[case]
    path = tmp_path / "mine" / "preset.json"
    path.parent.mkdir()
    whole = get_preset("smoke").fields() | {"batch_tokens": 99, "name": "mine"}
    if isinstance(content, dict):
        path.write_text(sealed_text({"fields": whole}))
        assert get_preset("mine").name == "mine"
        content = sealed_text({"fields": whole | content})
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=f"^{path} is no preset: .*{message}.*; delete it") as caught:
        get_preset("mine")
    one_line(caught)
    assert cli.main(["report", "--preset", "mine"]) == 2 and str(path) in capsys.readouterr().err


ARRAYS = {"values": np.arange(3.0)}
LINKED = {
    "a record": ("mine/0/base/sequence-set-01234567.npz", lambda store: store.load(ADDRESS)),
    "a provenance": ("mine/0/base/sequence-set-01234567.json", lambda store: store.load(ADDRESS)),
    "a folder of records": ("mine/0/base", lambda store: store.save(ADDRESS, ARRAYS, {})),
    "a preset's folder": ("mine", lambda store: store.save_preset("mine", {})),
    "listed": ("mine/0", lambda store: store.list()),
    "notebooks": ("mine/notebooks", lambda store: store.notebook_path("mine", "05_x")),
    "weights": ("models/0/secure-aaaaaaaa", lambda store: store.model_folder(0, "secure", "aaaaaaaa")),
    "pruned": ("mine/0/base", lambda store: prune(store, keep=0)),
    "presets": ("mine/preset.json", lambda store: store.saved_presets()),
    "a log": ("mine/logs", lambda store: store.log_path("mine", "now")),
    "locks": (".locks", lambda store: store.obtain(OTHER, lambda: (ARRAYS, {}))),
}  # fmt: skip


@pytest.mark.parametrize("case", LINKED)
def test_a_link_out_of_the_store_is_refused(case: str, tmp_path: Path) -> None:
    place, use = LINKED[case]
    outside, store = Store(tmp_path / "outside"), Store(tmp_path / "store")
    outside.save(ADDRESS, ARRAYS, {})
    outside.save_preset("mine", {})
    for folder in ("mine/notebooks", "mine/logs", ".locks", "models/0/secure-aaaaaaaa"):
        (outside.root / folder).mkdir(parents=True)
    (store.root / place).parent.mkdir(parents=True)
    before = sorted(path for path in outside.root.rglob("*"))
    (store.root / place).symlink_to(outside.root / place)
    if place.endswith(".npz"):
        shutil.copy((outside.root / place).with_suffix(".json"), (store.root / place).parent)
    elif place.startswith("mine/0/base/"):
        shutil.copy((outside.root / place).with_suffix(".npz"), (store.root / place).parent)
    with pytest.raises(RemiError, match=f"leads out of the store, to {outside.root}") as caught:
        use(store)
    one_line(caught)
    assert sorted(outside.root.rglob("*")) == before
    (store.root / place).unlink()
    shutil.copytree(outside.root, store.root, dirs_exist_ok=True)
    use(store)


def test_a_store_that_is_a_link_itself_works(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    store = Store(tmp_path / "store")
    store.save(ADDRESS, ARRAYS, {})
    assert store.load(ADDRESS) is not None and len(store.list()) == 1


def test_a_record_that_holds_objects_or_is_a_bomb_is_refused(mark: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    path = store.save(ADDRESS, ARRAYS, {})
    np.savez(path, values=np.array([Bomb(mark)], dtype=object))
    refused(store, path, "ValueError: Object arrays cannot be loaded")
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("values.npy", "w") as member,
    ):
        np.lib.format.write_array(member, np.zeros(10_000_000), allow_pickle=False)
    refused(store, path, "values.npy is compressed")
    np.savez(path, values=np.arange(4.0))
    refused(store, path, "not those that were stored")
    with zipfile.ZipFile(path, "w") as archive:
        header = {"descr": "|O", "fortran_order": False, "shape": (1 << 21,)}
        with archive.open("values.npy", "w") as member:
            np.lib.format.write_array_header_1_0(member, header)
            member.write(b"\x01" * (1 << 24))
    refused(store, path, "ValueError")
    assert not mark.exists()


def refused(store: Store, path: Path, said: str) -> None:
    """Return if the record is not given back, whether its digest is that of what lies there or not."""
    about = path.with_suffix(".json")
    kept = about.read_text()
    for digest, reason in ((None, "changed or cut short"), (file_digest(path), said)):
        if digest is not None:
            about.write_text(sealed_text(read_sealed(about) | {"sha256": digest}))
        assert store.load(ADDRESS) is None
        with pytest.raises(RemiError, match=f"{reason}.*; refused with --frozen"):
            Store(store.root, frozen=True).load(ADDRESS)
    about.write_text(kept)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "copy"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "weights.pkl", "last.ckpt"])
def test_pickled_weights_are_never_opened(name: str, copy: Path, mark: Path) -> None:
    (copy / name).write_bytes(pickle.dumps(Bomb(mark)))
    with open_model(copy, device="cpu") as loaded:  # beside weights of the right kind they do not count
        assert loaded.model is not None
    (copy / "model.safetensors").unlink()
    with pytest.raises(
        UsageError, match=f"needs config.json and .*safetensors .{name} is a pickle, which could run"
    ):
        local_folder(copy)
    (copy / "model.safetensors").write_bytes((copy / name).read_bytes())
    with (
        pytest.raises(RemiError, match="the weights cannot be read") as caught,
        open_model(copy, device="cpu"),
    ):
        pass
    one_line(caught)
    assert not mark.exists()


def test_a_pickled_adapter_or_checkpoint_is_never_opened(copy: Path, mark: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    save_adapter(copy, adapter)
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
    spec = ModelSpec(source=str(copy), adapter=str(adapter))
    with open_model(spec, device="cpu"):
        pass
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"adapter_model.safetensors .adapter_model.bin is a pickle"):
        adapter_files(spec)
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(
        RemiError, match="checkpoint.pt: no checkpoint that can be read .*; delete it"
    ) as caught:
        load_checkpoint(checkpoint)
    one_line(caught)
    assert not mark.exists()


CODE = "from pathlib import Path\nPath({!r}).mkdir()\nfrom transformers import Qwen2Config\n"
CODE += "class Evil(Qwen2Config):\n    pass\n"


def change(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_in_a_model_folder_is_never_run(file: str, copy: Path, mark: Path) -> None:
    (copy / "evil.py").write_text(CODE.format(str(mark)))
    names = {
        "AutoConfig": "evil.Evil",
        "AutoModelForCausalLM": "evil.Evil",
        "AutoTokenizer": ["evil.Evil"] * 2,
    }
    change(copy / file, auto_map=names)
    with open_model(copy, device="cpu") as loaded:  # a known architecture is read by the code of transformers
        assert type(loaded.model).__module__.startswith("transformers.")
        assert type(loaded.tokenizer).__module__.startswith("transformers.")
    change(copy / "config.json", model_type="evil", auto_map=names)
    with pytest.raises(UsageError, match="names code of its own .auto_map., which is never run") as caught:
        with open_model(copy, device="cpu"):
            pass
    one_line(caught)
    assert not mark.exists()


def test_the_code_would_run_if_it_were_let(copy: Path, mark: Path, tmp_path: Path) -> None:
    # The failing twin: what trust_remote_code=False keeps out; in a process of its own, which it changes.
    (copy / "evil.py").write_text(CODE.format(str(mark)))
    change(copy / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.Evil"})
    code = (
        f"import transformers; transformers.AutoConfig.from_pretrained({str(copy)!r}, trust_remote_code=True)"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"HF_HOME": str(tmp_path)},
        check=True,
        capture_output=True,
    )
    assert mark.is_dir()


def moved(folder: Path) -> None:
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "../other/model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "a kernel of the hub": (
        lambda folder: change(folder / "config.json", attn_implementation="evil/kernel"),
        "config.json names code of the hub .'evil/kernel'., which is never run",
    ),
    "weights elsewhere": (moved, "index.json names '../other/model.safetensors', not a .safetensors file beside it"),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{") and None, "no model that can be opened"),
    "a deep configuration": (
        lambda folder: (folder / "config.json").write_text("[" * 100_000) and None, "no model that can be opened"
    ),
    "text for a size": (
        lambda folder: change(folder / "config.json", hidden_size="a"), "no model that can be opened"
    ),
    "a tokenizer that is none": (
        lambda folder: (folder / "tokenizer.json").write_text("{}") and None, "no model that can be opened"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_or_hostile_configuration_is_named(case: str, copy: Path) -> None:
    spoil, message = BROKEN[case]
    spoil(copy)
    with pytest.raises(UsageError, match=f"^{copy}: .*{message}") as caught, open_model(copy, device="cpu"):
        pass
    one_line(caught)


def test_weights_that_fill_nothing_are_refused(copy: Path) -> None:
    import torch

    save_file({"other": torch.zeros(2)}, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RemiError, match="the weights do not fill the model"), open_model(copy, device="cpu"):
        pass


def test_no_reader_of_the_package_lets_code_in() -> None:
    """Ruff refuses pickles, ``eval``, shells and unsafe YAML; switches of other readers are looked for here."""
    let_in = re.compile(
        r"\b(allow_pickle|trust_remote_code)=(?!False)|weights_only=(?!True)|torch\.load\((?!.*weights_only)"
    )
    modules = [path for place in (*PACKAGES, "book/_ext") for path in (SOURCE_ROOT / place).rglob("*.py")]
    assert modules and [path for path in modules if let_in.search(path.read_text(encoding="utf-8"))] == []
    assert let_in.search("torch.load(a)") and let_in.search("np.load(a, allow_pickle=True)")


def test_a_yaml_bomb_is_no_bomb_where_only_plain_values_are_read() -> None:
    import yaml

    text = "a0: &a0 [x, x]\n" + "".join(f"a{at}: &a{at} [*a{at - 1}, *a{at - 1}]\n" for at in range(1, 60))
    found = yaml.safe_load(text)
    assert found["a59"][0] is found["a59"][1] is found["a58"], (
        "aliases are one object, not two to the sixtieth"
    )
    with pytest.raises(yaml.constructor.ConstructorError):
        yaml.safe_load("!!python/object/apply:os.mkdir [/tmp/never]")
