"""A GGUF file is unpacked into a folder once, with the weights and words that are in it."""

from __future__ import annotations

import json
import os
import shutil

import gguf
import numpy as np
import pytest
import torch
from conftest import make_model, make_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from remi_core.errors import RemiError, UsageError
from remi_core.files import write_sealed
from remi_core.models import open_model
from remi_core.sources import find_gguf, local_folder
from remi_core.store import Store
from remi_lab.gguf import unpacked
from remi_lab.upkeep import prune, unpacked_files

BLOCK = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"}
BLOCK |= {"self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up"}
BLOCK |= {"mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
WHOLE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
WHOLE |= {"lm_head.weight": "output.weight"}


def write_gguf(path, model, tokenizer) -> None:
    config, writer = model.config, gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([1] * len(words))
    writer.add_token_merges([" ".join(pair) for pair in merges_of(tokenizer)])
    writer.add_eos_token_id(0)
    for name, value in model.state_dict().items():
        if name in WHOLE:
            writer.add_tensor(WHOLE[name], value.numpy())
            continue
        _, _, number, part = name.split(".", 3)
        stem, _, end = part.rpartition(".")
        writer.add_tensor(f"blk.{number}.{BLOCK[stem]}.{end}", value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def merges_of(tokenizer) -> list[tuple[str, str]]:
    return json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]


def test_weights_and_words_of_the_file_are_those_of_the_folder_and_it_is_made_once(tmp_path, capsys) -> None:
    model, tokenizer = make_model("qwen2", seed=3), make_tokenizer("chatml")
    file = tmp_path / "tiny model.gguf"
    write_gguf(file, model, tokenizer)
    store = Store(tmp_path / "store")
    folder = unpacked(str(tmp_path), store)
    assert folder == unpacked(str(file), store) and "-" in folder and "tiny_model" in folder
    assert capsys.readouterr().err.count("unpacking") == 1
    found, wanted = AutoModelForCausalLM.from_pretrained(folder).state_dict(), model.state_dict()
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(found[name].float(), value.to(torch.bfloat16).float()), name
    text = "How do I open a file?"
    assert AutoTokenizer.from_pretrained(folder).encode(text) == tokenizer.encode(
        text, add_special_tokens=False
    )


def test_the_core_opens_the_file_itself_and_unpacks_it_once(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("REMI_STORE", str(tmp_path / "store"))
    model, tokenizer = make_model("qwen2", seed=3), make_tokenizer("chatml")
    write_gguf(tmp_path / "tiny.gguf", model, tokenizer)
    for source in (tmp_path / "tiny.gguf", str(tmp_path)):
        with open_model(source, device="cpu") as loaded:
            found = loaded.model.state_dict()
            assert all(
                torch.equal(found[name], one.bfloat16().float()) for name, one in model.state_dict().items()
            )
            assert loaded.tokenizer.get_vocab() == tokenizer.get_vocab()
            assert loaded.fingerprint
    assert capsys.readouterr().err.count("unpacking") == 1
    store = Store()
    (folder,) = (store.root / ".gguf").iterdir()
    kept = store.root / ".digests" / "0a.json"
    write_sealed(kept, {"files": [[str(tmp_path / "gone"), 1]], "sha256": ""})
    os.utime(kept, (0, 0))
    assert prune(store) == (kept,)
    assert unpacked_files(store) == {folder: str(tmp_path / "tiny.gguf")} and prune(store) == ()
    (tmp_path / "tiny.gguf").rename(tmp_path / "moved")
    assert prune(store) == (), "within the hour nothing goes"
    os.utime(folder, (0, 0))
    assert prune(store, dry_run=True) == (folder,)
    (tmp_path / "moved").rename(tmp_path / "tiny.gguf")
    newer = shutil.copytree(folder, folder.with_name("of-another-version"))
    os.utime(newer)
    assert prune(store) == (folder,), "of one file the last used stays"
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.gguf").write_bytes(bytes(64))
    with pytest.raises(RemiError, match=r"a\.gguf: transformers cannot read this GGUF file"):
        local_folder(tmp_path / "bad")
    assert len(list((tmp_path / "store" / ".gguf").iterdir())) == 1, "nothing half made is left"


def test_what_is_no_such_file_is_left_alone_or_refused(tmp_path) -> None:
    assert unpacked("Qwen/X", Store(tmp_path)) == "Qwen/X" and find_gguf(str(tmp_path)) is None
    (tmp_path / "a.gguf").write_bytes(np.zeros(64).tobytes())
    with pytest.raises(RemiError, match=r"a\.gguf: transformers cannot read this GGUF file"):
        unpacked(str(tmp_path), Store(tmp_path / "store"))
    (tmp_path / "b.gguf").touch()
    with pytest.raises(UsageError, match="2 GGUF files; name one of them, such as .*a.gguf"):
        unpacked(str(tmp_path), Store(tmp_path))
