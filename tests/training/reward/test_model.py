"""What the reward model reads, and what it says."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest
import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

from medray.common.errors import CheckpointError, ConfigError, DataError
from medray.common.records import PreferencePair, ScoredResponse
from medray.common.rows import write_rows
from medray.retrieval.training.tokenizer import train_tokenizer
from medray.training.language_model import load_decoder, max_positions
from medray.training.reward.config import RewardConfig
from medray.training.reward.model import RewardModel, encode, encode_pairs, trained_length
from medray.training.reward.scorer import load_scorer
from medray.training.reward.stage import _read


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
    together = RewardModel(bert).score(scenarios, responses)
    alone = RewardModel(bert, batch_size=1).score(scenarios, responses)
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


def saved(base: Path, target: Path, config: RewardConfig, **tokenizer_settings: int) -> RewardModel:
    """The reward model as a stage exports it before its first step."""
    scorer, tokenizer = load_scorer(base, config)
    scorer.save_pretrained(target)
    for name, value in tokenizer_settings.items():
        setattr(tokenizer, name, value)
    tokenizer.save_pretrained(target)
    return RewardModel(target)


def test_a_model_reads_as_many_tokens_as_it_was_trained_on(
    bert: Path, model_dir: Path, tmp_path: Path
) -> None:
    assert RewardModel(bert).max_tokens == 32  # its tokenizer's, from the encoder
    short = saved(bert, tmp_path / "short", RewardConfig(max_tokens=10))
    assert short.max_tokens == 10
    # [CLS] 咳 × 5 [SEP] 肺炎 [SEP] is all that is left of either.
    one, two = short.score(["咳" * 5, "咳" * 20], ["肺炎", "肺炎"])
    assert one == pytest.approx(two, abs=1e-6)
    other = saved(model_dir, tmp_path / "d", RewardConfig(objective="ranking", max_tokens=40))
    assert other.max_tokens == 40
    # A directory of another maker: no length, or one beyond the model's 128 positions.
    config = RewardConfig(objective="ranking", max_tokens=40)
    for number, named in enumerate((VERY_LARGE_INTEGER, 4096)):
        made = saved(model_dir, tmp_path / f"{number}", config, model_max_length=named)
        assert made.max_tokens == 128
    # BLOOM, which has no positions.
    bloom = SimpleNamespace(config=SimpleNamespace())
    lengths = [
        trained_length(bloom, SimpleNamespace(model_max_length=named))
        for named in (VERY_LARGE_INTEGER, 4096)
    ]
    assert lengths == [512, 4096]


def test_more_tokens_than_the_model_reads_are_refused(
    bert: Path, model_dir: Path, tmp_path: Path
) -> None:
    message = "reward.max_tokens gives sequences of {} tokens, but the model reads {} at most"
    with pytest.raises(ConfigError, match=message.format(33, 32)):
        load_scorer(bert, RewardConfig(max_tokens=33))
    with pytest.raises(ConfigError, match=message.format(129, 128)):
        load_scorer(model_dir, RewardConfig(objective="ranking", max_tokens=129))
    # RoBERTa has no use for the positions up to its padding token's, here 0 and 1.
    shape = RobertaConfig(
        vocab_size=200, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=34, pad_token_id=1,
    )  # fmt: skip
    model = RobertaForSequenceClassification(shape)
    assert max_positions(model) == 32
    assert model(torch.full((1, 32), 5)).logits.shape == (1, 2)
    with pytest.raises((IndexError, RuntimeError), match="out of "):
        model(torch.full((1, 33), 5))


def test_the_tokenizer_of_another_model_is_refused(
    bert: Path, model_dir: Path, tmp_path: Path
) -> None:
    for number, (base, config) in enumerate(
        ((bert, RewardConfig(max_tokens=32)), (model_dir, RewardConfig(objective="ranking")))
    ):
        directory = tmp_path / f"{number}"
        shutil.copytree(base, directory)
        tokenizer = AutoTokenizer.from_pretrained(directory)
        tokenizer.add_tokens(["甲" * 9])
        tokenizer.save_pretrained(directory)
        with pytest.raises(CheckpointError, match=r"has token \d+, the model \d+ rows of word"):
            load_scorer(directory, config)
    with pytest.raises(CheckpointError, match=f"the tokenizer in {tmp_path}/0 has token"):
        RewardModel(tmp_path / "0")
    with pytest.raises(CheckpointError, match=f"the tokenizer in {tmp_path}/1 has token"):
        load_decoder(tmp_path / "1")


def scores(values: list[float], split: Literal["train", "dev"]) -> list[ScoredResponse]:
    return [
        ScoredResponse(id=f"{k}", scenario="咳", response="休息", score=value, split=split)
        for k, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("train", "dev", "message"),
    [
        ([], [0.2], "scored responses in both splits, found 0 train and 1 dev"),
        ([0.2, 0.4], [], "scored responses in both splits, found 2 train and 0 dev"),
        ([0.4, 0.4], [0.2], r"all 2 scores in the train split are 0\.4"),
    ],
)
def test_scores_that_teach_nothing_are_refused(
    tmp_path: Path, train: list[float], dev: list[float], message: str
) -> None:
    write_rows(tmp_path / "scores", ScoredResponse, [*scores(train, "train"), *scores(dev, "dev")])
    with pytest.raises(DataError, match=message):
        _read(tmp_path, RewardConfig())


def test_pairs_that_teach_nothing_are_refused(tmp_path: Path) -> None:
    config = RewardConfig(objective="ranking")

    def pair(chosen: str, split: Literal["train", "dev"]) -> PreferencePair:
        return PreferencePair(id="i", prompt="咳", chosen=chosen, rejected="休息", split=split)

    equal = [pair("休息", "train"), pair("休息", "train"), pair("肺炎", "dev")]
    write_rows(tmp_path / "preferences", PreferencePair, equal)
    with pytest.raises(DataError, match="in all 2 pairs of the train split the chosen response is"):
        _read(tmp_path, config)
    write_rows(tmp_path / "preferences", PreferencePair, [*equal, pair("肺炎", "train")])
    train, heldout = _read(tmp_path, config)
    assert (len(train), len(heldout)) == (3, 1)
    write_rows(tmp_path / "preferences", PreferencePair, equal[2:])
    with pytest.raises(DataError, match="pairs in both splits, found 0 train and 1 dev"):
        _read(tmp_path, config)
