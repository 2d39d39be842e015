from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

from medray.common.errors import DataError
from medray.retrieval.training.mlm import (
    MaskedLanguageLoss,
    MlmBatches,
    MlmConfig,
    mask_blocks,
    write_blocks,
)
from medray.retrieval.training.order import item_at


def test_every_item_once_an_epoch_in_a_new_order() -> None:
    drawn = [item_at(position, 7, seed=3) for position in range(14)]
    assert sorted(drawn[:7]) == sorted(drawn[7:]) == list(range(7))
    assert drawn[:7] != drawn[7:]


def test_blocks_are_the_stream_of_texts(encoder_dir: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(encoder_dir)
    # 3 + 1 and 5 + 1 tokens with [SEP] = 10 = one body of 6 and 4 left over.
    blocks = write_blocks([["肺炎症"], ["如何处理0"]], tokenizer, 8, tmp_path / "blocks.bin")
    tokens = [tokenizer.convert_ids_to_tokens(row.tolist()) for row in blocks]
    assert tokens == [["[CLS]", "肺", "炎", "症", "[SEP]", "如", "何", "[SEP]"]]


def test_too_little_text_is_an_error(encoder_dir: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(encoder_dir)
    with pytest.raises(DataError, match="not one block"):
        write_blocks([["肺"]], tokenizer, 8, tmp_path / "blocks.bin")


def test_masking_follows_80_10_10(encoder_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(encoder_dir)
    blocks_BT = np.full((400, 102), 7)
    blocks_BT[:, 0], blocks_BT[:, -1] = tokenizer.cls_token_id, tokenizer.sep_token_id
    batch = mask_blocks(blocks_BT, tokenizer, 0.15, np.random.default_rng(0))
    assert batch["positions"].shape == (400, 15)  # 15 % of 100
    assert ((batch["positions"] > 0) & (batch["positions"] < 101)).all()
    assert (batch["labels"] == 7).all()
    hidden = batch["input_ids"].gather(1, batch["positions"])
    assert (hidden == tokenizer.mask_token_id).float().mean() == pytest.approx(0.8, abs=0.02)
    # left as it was: 10 % and the random draws that hit 7 again
    assert (hidden == 7).float().mean() == pytest.approx(0.1, abs=0.02)
    untouched = torch.ones_like(batch["input_ids"], dtype=torch.bool)
    untouched.scatter_(1, batch["positions"], False)
    assert torch.equal(batch["input_ids"][untouched], torch.from_numpy(blocks_BT)[untouched])


def test_workers_share_the_global_batch(encoder_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(encoder_dir)
    blocks_NT = np.random.default_rng(0).integers(5, 20, (9, 12)).astype(np.uint32)
    batches = MlmBatches(MlmConfig(batch_size=4, block_tokens=12), blocks_NT, tokenizer, seed=0)
    whole = batches.batch(3, 0, 1)["input_ids"]
    shares = [batches.batch(3, rank, 2)["input_ids"] for rank in range(2)]
    assert torch.equal(whole[0::2], shares[0]) and torch.equal(whole[1::2], shares[1])


def test_loss_equals_the_models_own_and_ln_v_at_zero_logits() -> None:
    torch.manual_seed(0)
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=16,
        )
    ).eval()  # fmt: skip
    input_ids = torch.randint(5, 50, (2, 8))
    positions, labels = torch.tensor([[1, 4], [2, 6]]), torch.tensor([[9, 10], [11, 12]])
    full = torch.full_like(input_ids, -100).scatter_(1, positions, labels)
    ours = MaskedLanguageLoss(model, 0.0)(input_ids, positions, labels)
    assert ours.item() == pytest.approx(model(input_ids, labels=full).loss.item(), abs=1e-6)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    zero = MaskedLanguageLoss(model, 0.0)(input_ids, positions, labels)
    assert zero.item() == pytest.approx(np.log(50), abs=1e-6)
