"""Shapes of directories: as published, converted, missing, broken; no code of theirs runs."""

import json
from pathlib import Path

import pytest

from medray.common.errors import CheckpointError
from medray.training.shapes import SHAPES, shape_of

BAICHUAN2_7B = {
    "architectures": ["BaichuanForCausalLM"],
    "auto_map": {
        "AutoConfig": "configuration_baichuan.BaichuanConfig",
        "AutoModelForCausalLM": "modeling_baichuan.BaichuanForCausalLM",
    },
    "tokenizer_class": "BaichuanTokenizer", "_from_model_config": True, "bos_token_id": 1,
    "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
    "intermediate_size": 11008, "max_position_embeddings": 4096, "model_max_length": 4096,
    "model_type": "baichuan", "num_attention_heads": 32, "num_hidden_layers": 32,
    "pad_token_id": 0, "rms_norm_eps": 1e-06, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "transformers_version": "4.29.2", "use_cache": True,
    "vocab_size": 125696, "z_loss_weight": 0,
}  # fmt: skip
"""config.json of Baichuan2-7B-Base as it is published."""


def write_config(directory: Path, values: object) -> str:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(values), encoding="utf-8")
    return str(directory)


def test_a_directory_or_its_name_tells_the_shape(model_dir: Path) -> None:
    assert shape_of(str(model_dir)).hidden_size == 32
    assert shape_of("/mnt/models/Baichuan2-7B-Base") is SHAPES["baichuan2-7b"]
    assert shape_of("/mnt/models/bloom-7b1") is SHAPES["bloom-7b"]


def test_baichuan_as_published_is_read_without_its_code(tmp_path: Path) -> None:
    path = write_config(tmp_path / "base", BAICHUAN2_7B)
    for name in ("configuration_baichuan.py", "modeling_baichuan.py"):
        (tmp_path / "base" / name).write_text("raise SystemExit('run')", encoding="utf-8")
    found = shape_of(path)
    assert found.model_type == "llama"
    for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                 "num_attention_heads", "max_position_embeddings"):  # fmt: skip
        assert getattr(found, name) == getattr(SHAPES["baichuan2-7b"], name) == BAICHUAN2_7B[name]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "unheard"}, "model_type 'unheard', which is none that the installed"),
        ({"model_type": "own", "auto_map": {"AutoConfig": "x.Y"}}, "'own', which needs Python"),
        ({}, "model_type None"),
        ({"model_type": "llama", "hidden_size": "wide"}, ": .*hidden_size.*copy it again"),
        ({"model_type": "baichuan", "model_max_length": 4096}, "a 13 B model with ALiBi"),
    ],
)  # fmt: skip
def test_what_is_no_known_architecture_is_refused(tmp_path: Path, values, message: str) -> None:
    path = write_config(tmp_path / "model", values)
    with pytest.raises(CheckpointError, match=f"(?s){path}/config.json.*{message}"):
        shape_of(path)


def test_a_directory_that_is_missing_empty_or_broken(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no model directory at /nowhere.*check the path"):
        shape_of("/nowhere")
    with pytest.raises(CheckpointError, match=f"{tmp_path} has no config.json"):
        shape_of(str(tmp_path))
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match="is no JSON"):
        shape_of(str(tmp_path))
