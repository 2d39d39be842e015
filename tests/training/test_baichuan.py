"""A tiny Baichuan 2 on disk, converted: the same logits and tokens, computed apart."""

import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from medray.common.errors import CheckpointError
from medray.common.records import Message
from medray.training.baichuan import convert
from medray.training.chats import tokenise_chats


def test_the_converted_model_computes_what_baichuan_does(
    llama: Any, baichuan: Path, tmp_path: Path
) -> None:
    convert(baichuan, tmp_path / "llama")
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "llama", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    tokens = torch.arange(3, 40)[None]
    with torch.no_grad():
        hidden = llama.model(tokens).last_hidden_state
        # Baichuan's head: F.linear(hidden, F.normalize(weight)).
        expected = F.linear(hidden, F.normalize(llama.lm_head.weight))
        torch.testing.assert_close(model(tokens).logits, expected, atol=1e-5, rtol=1e-5)
        assert model.generate(tokens, max_new_tokens=4, do_sample=False).shape[1] <= 41


def test_baichuan_1_keeps_its_plain_head(llama: Any, baichuan: Path, tmp_path: Path) -> None:
    config = json.loads((baichuan / "config.json").read_text(encoding="utf-8"))
    del config["z_loss_weight"]
    (baichuan / "config.json").write_text(json.dumps(config), encoding="utf-8")
    convert(baichuan, tmp_path / "llama")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "llama")
    assert all(torch.equal(model.state_dict()[k], v) for k, v in llama.state_dict().items())


def test_the_tokenizer_is_sentencepiece_s_own(
    baichuan: Path, pieces: bytes, tmp_path: Path
) -> None:
    convert(baichuan, tmp_path / "llama")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "llama")
    theirs = sentencepiece.SentencePieceProcessor(model_proto=pieces)
    for text in (
        "患者男，咳嗽1天，血压90/80mmHg。Take aspirin.",
        "  two  spaces aspirin 90 mg",
        "新字龘🙂 x\n第二行",
        " 头晕",
    ):
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == theirs.encode(text)
        assert tokenizer.decode(theirs.encode(text)) == text
    chat = [Message(role="user", content="咳嗽"), Message(role="assistant", content="休息")]
    (tokens,) = tokenise_chats([chat], tokenizer)
    spoken = [theirs.encode(text) for text in ("咳嗽", "休息")]
    assert list(tokens.ids) == [3, *spoken[0], 4, *spoken[1], tokenizer.eos_token_id]
    asked, answered = len(spoken[0]) + 2, len(spoken[1]) + 1
    assert list(tokens.weights) == [False] * asked + [True] * answered


def test_pickles_are_read_only_when_asked_for(baichuan: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    convert(baichuan, tmp_path / "one")
    for path in sorted(baichuan.glob("*.safetensors")):
        torch.save(load_file(path), baichuan / f"pytorch_{path.stem.replace('-', '_')}.bin")
        path.unlink()
    with pytest.raises(CheckpointError, match="as pickles only"):
        convert(baichuan, tmp_path / "two")
    convert(baichuan, tmp_path / "two", allow_bin=True)
    one, two = (
        AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict()
        for name in ("one", "two")
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_what_cannot_be_converted(baichuan: Path, model_dir: Path, tmp_path: Path) -> None:
    target = tmp_path / "llama"
    with pytest.raises(CheckpointError, match="no Baichuan; nothing to convert"):
        convert(model_dir, target)
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        convert(tmp_path, target)
    (baichuan / "tokenizer.model").rename(baichuan / "other.model")
    (baichuan / "tokenizer.model").write_bytes(b"version https://git-lfs")
    with pytest.raises(CheckpointError, match="is no SentencePiece model"):
        convert(baichuan, target)
    (baichuan / "tokenizer.model").unlink()
    with pytest.raises(CheckpointError, match=r"no tokenizer\.model"):
        convert(baichuan, target)
    (baichuan / "other.model").rename(baichuan / "tokenizer.model")
    config = json.loads((baichuan / "config.json").read_text(encoding="utf-8"))
    alibi = {k: v for k, v in config.items() if k != "max_position_embeddings"}
    (baichuan / "config.json").write_text(json.dumps(alibi), encoding="utf-8")
    with pytest.raises(CheckpointError, match="ALiBi, which Llama lacks"):
        convert(baichuan, target)
    assert not target.exists() and not list(tmp_path.glob(".*"))
    (baichuan / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"config\.json is no JSON"):
        convert(baichuan, target)
    target.mkdir()
    (baichuan / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="is there already"):
        convert(baichuan, target)
