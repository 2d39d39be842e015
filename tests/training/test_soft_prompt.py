"""Prompt tuning: only the new tokens' vectors learn, and what is exported needs nothing of ours."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from medray.common.errors import ConfigError
from medray.common.records import Instruction, Message
from medray.training.chats import Packer
from medray.training.export import write_model
from medray.training.language_model import LanguageModelLoss
from medray.training.packed import PackedBlocks
from medray.training.soft_prompt import SoftPromptConfig, add_soft_prompt

CONFIG = SoftPromptConfig(num_tokens=3)


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def start(request: pytest.FixtureRequest, model_dir: Path) -> tuple[Any, Any]:
    """A decoder and its tokenizer, anew for each test."""
    model = AutoModelForCausalLM.from_pretrained(model_dir, tie_word_embeddings=request.param)
    return model, AutoTokenizer.from_pretrained(model_dir)


def chats(tokenizer: Any) -> PackedBlocks:
    rows = [
        Instruction(
            id="i", task="t", split="train",
            messages=[Message(role="user", content=f"{organ}不适？"),
                      Message(role="assistant", content="肺炎。")],
        )
        for organ in ("呼吸", "气道")
    ]  # fmt: skip
    return Packer(tokenizer, 64).pack(rows, "train")


def test_only_the_prompt_learns_and_is_exported(start: tuple[Any, Any], tmp_path: Path) -> None:
    model, tokenizer = start
    known = len(tokenizer)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapted = add_soft_prompt(model, tokenizer, CONFIG, seed=0)
    assert len(tokenizer) == known + 3
    num_trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert num_trained == 3 * 32
    blocks = chats(tokenizer)
    for segment in (1, 2):
        at = blocks.segments_NT[0].tolist().index(segment)
        assert blocks.tokens_NT[0, at : at + 3].tolist() == [known, known + 1, known + 2]
    loss = LanguageModelLoss(adapted)
    optimiser = torch.optim.Adam([p for p in adapted.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for _ in range(8):
        optimiser.zero_grad()
        value = loss(**blocks.collate([0]))
        value.backward()
        optimiser.step()
        losses.append(value.item())
    assert losses[-1] < losses[0]

    with torch.no_grad():
        expected = loss(**blocks.collate([0])).item()
    write_model(adapted, tokenizer, tmp_path, {})
    alone, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    read = AutoTokenizer.from_pretrained(tmp_path)
    with torch.no_grad():
        found = LanguageModelLoss(alone)(**chats(read).collate([0])).item()
    assert found == pytest.approx(expected, rel=1e-5)
    after = alone.state_dict()
    for name, value in before.items():
        assert torch.equal(after[name][: len(value)], value), name
    assert after["model.embed_tokens.weight"].shape[0] == known + 3


def test_a_second_prompt_is_refused(start: tuple[Any, Any]) -> None:
    model, tokenizer = start
    add_soft_prompt(model, tokenizer, CONFIG, seed=0)
    with pytest.raises(ConfigError, match="already has a soft prompt"):
        add_soft_prompt(model, tokenizer, CONFIG, seed=0)
