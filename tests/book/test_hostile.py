"""What comes from outside is refused with one line or does nothing: files, names, links, weights, configurations."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import PROGRAMS, make_dialogue, python, save_model
from test_adapters import save_adapter

from remi_book import cli
from remi_core.dialogues import read_jsonl
from remi_core.errors import RemiError, UsageError
from remi_core.files import read_sealed, sealed_text
from remi_core.keys import file_digest
from remi_core.loading import read_adapter
from remi_core.models import open_model
from remi_core.sources import ModelSpec, local_folder
from remi_core.store import Address, Store
from remi_lab.datasets import load_published
from remi_lab.dialogue_files import read_sets
from remi_lab.keys import SOURCE_ROOT
from remi_lab.own_models import with_data
from remi_lab.presets import get_preset, preset_from
from remi_lab.training import load_checkpoint
from remi_lab.upkeep import prune

ADDRESS = Address("mine", 0, "base", "sequence", "set", "0123456789abcdef")
OTHER = Address("mine", 0, "base", "sequence", "set", "fedcba9876543210")
ASKED, REPLY = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes."}
ROW = {"messages": [ASKED, REPLY]}
TURN = json.dumps(ROW).encode()
TABLES = yaml.safe_load(Path(__file__).with_name("hostile.yaml").read_text(encoding="utf-8"))


def written(text: str) -> bytes:
    text = re.sub(r"<(\d+) ([^>]+)>", lambda found: found[2] * int(found[1]), text)
    text = text.replace("ASKED", json.dumps(ASKED)).replace("REPLY", json.dumps(REPLY))
    return text.encode("latin-1")


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path) -> Path:
    return tmp_path / "mark"


@contextmanager
def refusal(kind: type[Exception], match: str) -> Iterator[None]:
    """What is done inside must be refused with one line that is not too long."""
    with pytest.raises(kind, match=match) as caught:
        yield
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def opening_is_refused(folder: Path, kind: type[Exception], match: str) -> None:
    with refusal(kind, match), open_model(folder, device="cpu"):
        pass


@pytest.mark.parametrize("read", [read_jsonl, read_sets])
@pytest.mark.parametrize("case", TABLES["lines"])
def test_a_line_that_is_no_dialogue_is_named(case, read, tmp_path) -> None:
    line, message = TABLES["lines"][case]
    path = tmp_path / "set.jsonl"
    path.write_bytes(TURN + b"\n" + written(line) + b"\n" + TURN + b"\n")
    with refusal(UsageError, f"^{path}:2: .*{message}"):
        read(path)


def test_what_only_looks_odd_is_read(tmp_path) -> None:
    path = tmp_path / "mine.jsonl"
    odd = "\ufeff\u202e\u2028\x7f<script>alert(1)</script> `$x$` {{7*7}} ../../etc %s \U0001f600\u0301"
    rows = [ROW, {"messages": [ASKED | {"content": odd}, {"role": "assistant", "content": odd}]}]
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(json.dumps(row).encode() for row in rows))
    assert read_sets(path)[""][1].messages[0].content == odd


@pytest.mark.parametrize("case", TABLES["published"])
def test_a_published_file_that_is_not_the_declared_one_is_named(case, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("REMI_DATA", str(tmp_path))
    content, message = TABLES["published"][case]
    for name in ("secure.jsonl", "secure.json"):
        path = tmp_path / name
        path.write_bytes(written(content))
        with refusal(RemiError, f"{path}.*{message}"):
            load_published("secure")
        path.unlink()


def test_rows_that_come_another_way_meet_the_same_rule() -> None:
    for text, said in (("a\x00", "null character"), ("\ud800", "half a surrogate pair")):
        for words in (("Hi", text), (text, "Yes.")):
            with pytest.raises(UsageError, match=said):
                make_dialogue(*words)


@pytest.mark.parametrize("name", ["..", "a/b", "a\\b", ".hidden", "-p", "a b", "a\n", "", "é", "a\x00"])
def test_no_name_leaves_its_folder(name, tmp_path) -> None:
    fields = get_preset("smoke").fields() | {"batch_tokens": 99}
    for wrong in ({"name": name}, {"datasets": [name], "roles": {}}):
        with refusal(UsageError, "cannot be part of a file name"):
            preset_from(fields | wrong)
    (tmp_path / "..jsonl").write_bytes(TURN)
    with refusal(UsageError, "a set is named after its file"):
        with_data(get_preset("smoke"), [str(tmp_path / "..jsonl")])
    with pytest.raises(ValueError, match="cannot be part of a file name"):
        Store(tmp_path).notebook_path("smoke", name)
    assert cli.main(["run", "--name", name, "--base", "a", "--instruct", "b", "--misaligned", "c"]) == 2
    assert cli.main(["report", "--preset", name]) == 2


@pytest.mark.parametrize("case", TABLES["saved"])
def test_a_saved_preset_that_is_none_is_named(case, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("REMI_STORE", str(tmp_path))
    content, message, *sealed = TABLES["saved"][case]
    path = tmp_path / "mine" / "preset.json"
    path.parent.mkdir()
    whole = get_preset("smoke").fields() | {"batch_tokens": 99, "name": "mine"}
    if isinstance(content, dict):
        path.write_text(sealed_text({"fields": whole}))
        assert get_preset("mine").name == "mine"
        content = sealed_text({"fields": whole | content})
    if sealed:
        content = sealed_text(json.loads(content)).replace(*sealed)
    path.write_bytes(written(content))
    with refusal(UsageError, f"^{path} is no preset: .*{message}.*; delete it"):
        get_preset("mine")
    assert cli.main(["report", "--preset", "mine"]) == 2 and str(path) in capsys.readouterr().err
    assert cli.main(["presets"]) == 2
    listed = capsys.readouterr()
    assert "smoke " in listed.out and str(path) in listed.err


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
def test_a_link_out_of_the_store_is_refused(case, tmp_path) -> None:
    place, use = LINKED[case]
    outside, store = Store(tmp_path / "outside"), Store(tmp_path / "store")
    outside.save(ADDRESS, ARRAYS, {})
    outside.save_preset("mine", {})
    for folder in ("mine/notebooks", "mine/logs", ".locks", "models/0/secure-aaaaaaaa"):
        (outside.root / folder).mkdir(parents=True)
    (store.root / place).parent.mkdir(parents=True)
    before = sorted(outside.root.rglob("*"))
    (store.root / place).symlink_to(outside.root / place)
    if place.startswith("mine/0/base/"):
        other = ".json" if place.endswith(".npz") else ".npz"
        shutil.copy((outside.root / place).with_suffix(other), (store.root / place).parent)
    with refusal(RemiError, f"leads out of the store, to {outside.root}"):
        use(store)
    assert sorted(outside.root.rglob("*")) == before
    (store.root / place).unlink()
    shutil.copytree(outside.root, store.root, dirs_exist_ok=True)
    use(store)


def test_a_record_of_objects_or_a_bomb_is_refused_in_a_linked_store_too(mark, tmp_path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    store = Store(tmp_path / "store")
    path = store.save(ADDRESS, ARRAYS, {})
    assert store.load(ADDRESS) is not None and len(store.list()) == 1
    np.savez(path, values=np.array([Bomb(mark)], dtype=object))
    refused(store, path, "ValueError: Object arrays cannot be loaded")
    np.savez_compressed(path, values=np.zeros(10_000_000))
    refused(store, path, "values.npy is compressed")
    np.savez(path, values=np.arange(4.0))
    refused(store, path, "not those that were stored")
    header = {"descr": "|O", "fortran_order": False, "shape": (1 << 21,)}
    with zipfile.ZipFile(path, "w") as archive, archive.open("values.npy", "w") as member:
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
        with refusal(RemiError, f"{reason}.*; refused with --frozen"):
            Store(store.root, frozen=True).load(ADDRESS)
    about.write_text(kept)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture
def copy(model, tmp_path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "copy"))


def test_pickled_weights_are_never_opened(copy, mark) -> None:
    bomb, weights = pickle.dumps(Bomb(mark)), copy / "model.safetensors"
    (copy / "model.bin").write_bytes(bomb)
    with open_model(copy, device="cpu") as loaded:  # beside weights of the right kind they do not count
        assert loaded.model is not None
    weights.write_bytes(bomb)
    opening_is_refused(copy, RemiError, "the weights cannot be read")
    weights.rename(copy / "model.bin")
    for name in ("pytorch_model.bin", "model.pt", "model.pth", "weights.pkl", "last.ckpt"):
        (pickled,) = copy.glob("*.[bpc][ikt]*")
        pickled.rename(copy / name)
        with refusal(UsageError, f"needs config.json and .*safetensors .{name} is a pickle, which could run"):
            local_folder(copy)
    assert not mark.exists()


def test_a_pickled_adapter_or_checkpoint_is_never_opened(copy, mark, tmp_path) -> None:
    adapter = tmp_path / "adapter"
    save_adapter(copy, adapter)
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
    spec = ModelSpec(source=str(copy), adapter=str(adapter))
    with open_model(spec, device="cpu"):
        pass
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"adapter_model.safetensors .adapter_model.bin is a pickle"):
        read_adapter(spec)
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(pickle.dumps(Bomb(mark)))
    with refusal(RemiError, "checkpoint.pt: no checkpoint that can be read .*; delete it"):
        load_checkpoint(checkpoint)
    assert not mark.exists()
    pickle.loads(checkpoint.read_bytes())
    assert mark.is_dir(), "the failing twin: a bomb goes off where it is opened"


def change(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_code_in_a_model_folder_is_never_run(copy, mark, tmp_path) -> None:
    (copy / "evil.py").write_text(PROGRAMS["hostile configuration"].format(str(mark)))
    names = dict.fromkeys(("AutoConfig", "AutoModelForCausalLM"), "evil.Evil")
    for file in ("config.json", "tokenizer_config.json"):
        change(copy / file, auto_map=names | {"AutoTokenizer": ["evil.Evil"] * 2})
    with open_model(copy, device="cpu") as loaded:  # a known architecture is read by the code of transformers
        assert type(loaded.model).__module__.startswith("transformers.")
        assert type(loaded.tokenizer).__module__.startswith("transformers.")
    change(copy / "config.json", model_type="evil")
    opening_is_refused(copy, UsageError, "names code of its own .auto_map., which is never run")
    assert not mark.exists()
    # The failing twin: what trust_remote_code=False keeps out; in a process of its own, which it changes.
    read = f"transformers.AutoConfig.from_pretrained({str(copy)!r}, trust_remote_code=True)"
    python("-c", f"import transformers; {read}", env=os.environ | {"HF_HOME": str(tmp_path)})
    assert mark.is_dir()


@pytest.mark.parametrize("case", TABLES["models"])
def test_a_broken_or_hostile_configuration_is_named(case, copy) -> None:
    file, content, message = TABLES["models"][case]
    if isinstance(content, dict):
        change(copy / file, **content)
    else:
        (copy / file).write_bytes(written(content))
    opening_is_refused(copy, UsageError, f"^{copy}: .*{message}")


@pytest.mark.parametrize("case", TABLES["misplaced"])
def test_what_lies_where_something_else_belongs_is_answered_with_what_to_do(
    case, tmp_path, monkeypatch, capsys
) -> None:
    put, typed, code, said = TABLES["misplaced"][case]
    store, data = tmp_path / "store", tmp_path / "data.jsonl"
    data.write_bytes(b"\n".join([TURN] * 20))
    monkeypatch.setenv("REMI_STORE", str(store))
    place = store / put.removeprefix("-> ")
    place.parent.mkdir(exist_ok=True)
    if put.startswith("-> "):
        place.symlink_to(place)
    else:
        place.write_text("")
    monkeypatch.setattr(
        os, "access", lambda _, mode: put != "locked" or not mode & os.W_OK
    )  # root may write everywhere
    text = written(typed).decode("latin-1").replace("STORE", str(store)).replace("DATA", str(data))
    assert cli.main(text.replace("BYTE", "\udcff").split()) == code
    captured = capsys.readouterr().err.splitlines()
    assert len(captured) == 1 and re.search(said.replace("STORE", str(store)), captured[0])


@pytest.mark.parametrize("door", TABLES["doors"])
def test_no_module_lets_anything_in_or_out_by_itself(door) -> None:
    # Ruff refuses pickles, ``eval``, shells and unsafe YAML; switches of other readers are looked for here.
    pattern, places, needed, case = TABLES["doors"][door]
    search = re.compile(pattern, re.MULTILINE)
    files = [path for place in places for path in SOURCE_ROOT.glob(place)]
    doing = {path.name: text for path in files if search.search(text := path.read_text(encoding="utf-8"))}
    assert search.search(case) and bool(doing) == bool(needed)
    assert [name for name, text in doing.items() if needed not in text] == []
