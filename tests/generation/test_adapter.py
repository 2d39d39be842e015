"""An engine given a LoRA adapter's directory, against PEFT's own forward pass."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from medray.common.errors import CheckpointError
from medray.generation.engine import HFEngine

TOKENS = torch.tensor([[3, 4, 5, 6, 7]])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(TOKENS).logits


@pytest.fixture
def adapter(model_dir: Path, tmp_path: Path) -> tuple[Path, torch.Tensor]:
    """A directory as PEFT saves it, and the logits of the adapted model."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(model_dir)
    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    model: Any = get_peft_model(base, config)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", logits(model.eval())


def set_config(directory: Path, **fields: Any) -> None:
    file = directory / "adapter_config.json"
    found = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(found | fields), encoding="utf-8")


def test_the_engine_is_the_base_with_the_adapter(engine: HFEngine, adapter) -> None:
    directory, expected = adapter
    adapted = HFEngine(directory)
    torch.testing.assert_close(logits(adapted.model), expected, atol=1e-5, rtol=1e-5)
    assert (logits(engine.model) - expected).abs().max() > 1e-2
    assert adapted.encode("肺炎") == engine.encode("肺炎")


def test_what_is_wrong_with_an_adapter_is_said(adapter, model_dir: Path, tmp_path: Path) -> None:
    directory, _ = adapter
    set_config(directory, base_model_name_or_path="some/model")
    with pytest.raises(CheckpointError, match="some/model, which is no directory here"):
        HFEngine(directory)
    set_config(directory, base_model_name_or_path=None)
    with pytest.raises(CheckpointError, match="names no base"):
        HFEngine(directory)
    quantised = tmp_path / "quantised"
    quantised.mkdir()
    for file in model_dir.iterdir():
        (quantised / file.name).write_bytes(file.read_bytes())
    config = json.loads((quantised / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "gptq"}
    (quantised / "config.json").write_text(json.dumps(config), encoding="utf-8")
    set_config(directory, base_model_name_or_path=str(quantised))
    with pytest.raises(CheckpointError, match="whose weights are quantised"):
        HFEngine(directory)
    (directory / "adapter_model.safetensors").rename(directory / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="has no adapter_model"):
        HFEngine(directory)
