"""What the reward model reads, and what it says."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from medray.common.errors import CheckpointError
from medray.retrieval.tokenizer import train_tokenizer
from medray.training.reward.model import RewardModel, encode, encode_pairs
from medray.training.reward.stage import RewardConfig, load_scorer


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("bert")
    train_tokenizer(["咳嗽发热三天肺炎哮喘休息"], 200, 32, directory)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(AutoTokenizer.from_pretrained(directory)), hidden_size=32,
        num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, num_labels=1, initializer_range=0.5,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(directory)
    return directory


def test_pairs_stand_in_one_sequence(bert: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bert)
    pairs = encode_pairs(tokenizer, ["咳嗽", "发热"], ["肺炎", "休"], 32)
    ids = pairs["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids[0]) == [
        "[CLS]", "咳", "嗽", "[SEP]", "肺", "炎", "[SEP]",
    ]  # fmt: skip
    assert pairs["token_type_ids"][0].tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert pairs["attention_mask"][1].tolist() == [1, 1, 1, 1, 1, 1, 0]


def test_the_longer_side_is_cut(bert: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bert)
    ids = encode_pairs(tokenizer, ["咳" * 20], ["肺炎"], 10)["input_ids"][0]
    assert tokenizer.convert_ids_to_tokens(ids) == [
        "[CLS]", *["咳"] * 5, "[SEP]", "肺", "炎", "[SEP]",
    ]  # fmt: skip


def test_scores_do_not_depend_on_the_batch(bert: Path) -> None:
    scenarios, responses = ["咳嗽", "发热三天咳嗽", "哮喘"], ["肺炎", "休息", ""]
    together = RewardModel(bert, max_tokens=16).score(scenarios, responses)
    alone = RewardModel(bert, max_tokens=16, batch_size=1).score(scenarios, responses)
    assert together == pytest.approx(alone, abs=1e-5)
    assert len(set(together)) == 3
    assert RewardModel(bert).score([], []) == []


def test_a_decoder_reads_a_chat_and_is_scored_at_its_end(model_dir: Path) -> None:
    config = RewardConfig(objective="ranking", max_tokens=40)
    scorer, tokenizer = load_scorer(model_dir, config)
    inputs = encode(tokenizer, ["呼吸不适", "咳"], ["是肺炎。", "好"], 40)
    assert tokenizer.decode(inputs["input_ids"][0]).endswith("是肺炎。<|im_end|>")
    assert inputs["attention_mask"][1, -1] == 0  # padded on the right
    scorer.eval()
    with torch.no_grad():
        together = scorer(**inputs).logits[:, 0]
        alone = [
            scorer(**encode(tokenizer, [s], [r], 40)).logits[0, 0].item()
            for s, r in [("呼吸不适", "是肺炎。"), ("咳", "好")]
        ]
    assert together.tolist() == pytest.approx(alone, abs=1e-5)
    # Too long: the scenario's beginning goes, the response stays whole.
    (ids,) = encode(tokenizer, ["咳" * 99], ["是肺炎。"], 40)["input_ids"]
    assert len(ids) == 40 and tokenizer.decode(ids).endswith("是肺炎。<|im_end|>")


def test_a_directory_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        RewardModel(tmp_path)
