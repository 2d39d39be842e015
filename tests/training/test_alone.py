"""Models that cannot read packed blocks get one sequence a row, and the same loss."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    PreTrainedConfig,
    Qwen3Config,
)

from medray.training.alone import SingleSequences, leaks_across_documents, reader_of
from medray.training.language_model import LanguageModelLoss, LoraConfig, add_lora
from medray.training.packed import IGNORE, PackedBlocks, Tokens

LLAMA: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2,
}  # fmt: skip
BLOOM = BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=2)
# A shared part of two tokens with two branches, then two sequences in another block.
SEQUENCES = [
    Tokens([3, 4, 5, 6, 7, 8, 9], [1, 1, 1, 1, 0, 1, 1], np.array([0, 0, 1, 1, 2, 2, 2], np.int32)),
    Tokens([10, 11, 12, 13], [0, 0, 1, 1]),
    Tokens([20, 21, 22], [1, 1, 1]),
]


def build(config: PreTrainedConfig) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize(
    ("config", "leaks"),
    [
        (LlamaConfig(**LLAMA), False),
        (Qwen3Config(**LLAMA, head_dim=16), False),
        (GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2), False),
        (BLOOM, True),
        (MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2), True),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_the_probe_tells_who_sees_across_documents(config: PreTrainedConfig, leaks: bool) -> None:
    model = build(config)
    assert leaks_across_documents(model) == leaks
    assert not model.training


def test_the_probe_leaves_the_mode_and_sees_through_adapters() -> None:
    model = add_lora(build(LlamaConfig(**LLAMA)), LoraConfig(rank=2), 0).train()
    assert not leaks_across_documents(model)
    assert model.training
    blocks = PackedBlocks.pack(SEQUENCES, 8, pad=0)
    assert reader_of(model)(blocks) is blocks


def test_want_of_memory_is_no_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(LlamaConfig(**LLAMA))
    monkeypatch.setattr(model.model.layers[1], "forward", lambda *_, **__: torch.empty(2**60))
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        leaks_across_documents(model)


def test_each_sequence_stands_alone_and_a_shared_part_counts_once() -> None:
    single = SingleSequences(PackedBlocks.pack(SEQUENCES, 8, pad=0))
    assert len(single) == 4 and single.block_tokens == 8
    batch = single.collate(range(4))
    x = IGNORE
    assert batch["input_ids"].tolist() == [
        [3, 4, 5, 6, 0],
        [3, 4, 7, 8, 9],
        [10, 11, 12, 13, 0],
        [20, 21, 22, 0, 0],
    ]
    assert batch["labels"].tolist() == [
        [4, 5, 6, x, x],
        [x, x, 8, 9, x],
        [x, 12, 13, x, x],
        [21, 22, x, x, x],
    ]
    assert batch["attention_mask"].sum(-1).tolist() == [4, 5, 4, 3]
    assert [single.weight([i]) for i in range(4)] == [3, 2, 2, 2]
    assert single.num_labels(range(4)) == 9


def test_a_model_that_may_pack_has_the_same_loss_either_way() -> None:
    """On Llama, where both work: packed = one by one."""
    loss = LanguageModelLoss(build(LlamaConfig(**LLAMA)))
    blocks = PackedBlocks.pack(SEQUENCES, 8, pad=0)
    single = SingleSequences(blocks)
    with torch.no_grad():
        packed = loss(**blocks.collate(range(len(blocks)))).item()
        alone = loss(**single.collate(range(len(single)))).item()
    assert packed == pytest.approx(alone, rel=1e-5)
    assert blocks.weight(range(len(blocks))) == single.weight(range(len(single))) == 9


def test_bloom_reads_what_it_would_read_without_padding(caplog: pytest.LogCaptureFixture) -> None:
    model = build(BLOOM)
    read = reader_of(model)
    assert "BloomForCausalLM sees across the documents" in caplog.text
    single = read(PackedBlocks.pack(SEQUENCES, 8, pad=0))
    loss = LanguageModelLoss(model)
    with torch.no_grad():
        together = loss(**single.collate([2, 3])).item()
        ids = torch.tensor([[20, 21, 22]])
        theirs = model(input_ids=ids, labels=ids).loss.item() * 2
        other = loss(**single.collate([2])).item()
    assert together == pytest.approx(theirs + other, rel=1e-5)
