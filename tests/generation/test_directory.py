"""What a model directory may hold: no pickles, no code, unless the profile says so."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from medray.common.errors import CheckpointError
from medray.generation.directory import TRUST, check_model_directory
from medray.generation.engine import HFEngine
from medray.generation.sampling import Sampling
from medray.training.language_model import check_vocabulary, load_decoder
from medray.training.weights import convert_pickles

CODE = """
from transformers import PreTrainedConfig
from transformers.models.qwen3 import Qwen3Config, Qwen3ForCausalLM

class OddConfig(Qwen3Config):
    model_type = "odd"

class OddForCausalLM(Qwen3ForCausalLM):
    config_class = OddConfig
"""


@pytest.fixture
def copied(model_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_dir, tmp_path / "model"))


@pytest.fixture
def odd(copied: Path) -> Path:
    """A model with code of its own."""
    config = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    maps = {"AutoConfig": "code.OddConfig", "AutoModelForCausalLM": "code.OddForCausalLM"}
    config |= {"model_type": "odd", "auto_map": maps, "architectures": ["OddForCausalLM"]}
    (copied / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (copied / "code.py").write_text(CODE, encoding="utf-8")
    return copied


def test_a_model_with_code_of_its_own_is_refused(odd: Path) -> None:
    with pytest.raises(CheckpointError, match=r"Python code of its own .* trust_remote_code"):
        load_decoder(odd)


def test_trusted_code_runs_with_a_warning(
    odd: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setenv(TRUST, "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    model, _ = load_decoder(odd)
    assert type(model).__name__ == "OddForCausalLM"
    assert "runs Python code of its own" in caplog.text
    greedy = Sampling(max_new_tokens=4)
    ours, plain = (HFEngine(path).generate(["患者"], greedy) for path in (odd, model_dir))
    assert ours == plain


def test_pickles_are_refused_and_converted(copied: Path, tmp_path: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    torch.save(weights, copied / "pytorch_model.bin")
    (copied / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"pickled weights .*`medray convert --bin`"):
        check_model_directory(copied)
    convert_pickles(copied, tmp_path / "safe")
    assert not list((tmp_path / "safe").glob("*.bin"))
    model = AutoModelForCausalLM.from_pretrained(check_model_directory(tmp_path / "safe"))
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())
    with pytest.raises(CheckpointError, match="is there already"):
        convert_pickles(copied, tmp_path / "safe")
    with pytest.raises(CheckpointError, match="nothing to convert"):
        convert_pickles(tmp_path / "safe", tmp_path / "again")


def test_a_damaged_config_is_named(copied: Path) -> None:
    (copied / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"config\.json is no JSON"):
        check_model_directory(copied)


def test_the_tokenizer_of_another_model_is_refused(copied: Path) -> None:
    model, tokenizer = load_decoder(copied)
    model.resize_token_embeddings(len(tokenizer) - 1)
    with pytest.raises(CheckpointError, match=r"has token \d+, the model \d+ rows of word vectors"):
        check_vocabulary(model, tokenizer, copied)
    model.resize_token_embeddings(len(tokenizer) + 5)  # padded to a round number, as is usual
    check_vocabulary(model, tokenizer, copied)
