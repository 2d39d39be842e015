"""Empty splits, and prompts without room for an answer: refused with what is missing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medray.common.errors import DataError
from medray.common.manifest import Artefact
from medray.common.records import Instruction, Message, Scenario
from medray.common.rows import write_rows
from medray.common.storage import Storage, StorageConfig
from medray.corpus.blocks import write_blocks
from medray.generation.engine import HFEngine
from medray.training.chats import Packer
from medray.training.ppo.config import PpoConfig
from medray.training.ppo.prompts import fitting_prompts
from medray.training.pretrain import read_splits
from medray.training.sft import SftConfig, read_texts
from medray.training.trainer import Inputs
from medray.training.workers import WorkersConfig

TEXT = [np.array([5, 6, 7], np.int32)]


def write_corpus(blocks: Path, train: int, heldout: int, general: int) -> Path:
    """Blocks as the corpus job writes them, of so many documents."""
    write_blocks(blocks, "train", TEXT * train, 4, 0)
    write_blocks(blocks, "heldout", TEXT * heldout, 4, 0, groups=["emr"] * heldout)
    if general:
        write_blocks(blocks, "heldout_general", TEXT * general, 4, 0)
    return blocks


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 2, 0), "found 0 train and 2 held-out blocks"),
        ((2, 0, 0), "found 2 train and 0 held-out blocks"),
        ((2, 0, 3), "found 2 train and 0 held-out blocks"),  # general text alone
    ],
)
def test_pretraining_needs_both_splits(
    tmp_path: Path, sizes: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_splits(write_corpus(tmp_path, *sizes))


def test_a_corpus_with_both_splits(tmp_path: Path) -> None:
    train, heldout = read_splits(write_corpus(tmp_path, 3, 2, 1))
    assert len(train) == 3
    assert {source: len(blocks) for source, blocks in heldout.items()} == {
        "emr": 2, "general text": 1
    }  # fmt: skip


def chat(split: Any, answer: str = "肺炎") -> Instruction:
    messages = [Message(role="user", content="一"), Message(role="assistant", content=answer)]
    return Instruction(id="i", task="t", messages=messages, split=split)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "both splits, found 0 train and 0 dev"),
        ([chat("dev")], "both splits, found 0 train and 1 dev"),
        ([chat("train")] * 2, "both splits, found 2 train and 0 dev"),
        ([chat("train"), chat("dev", "肺" * 99)], "no held-out instruction fits into 48 tokens"),
        ([chat("train", "肺" * 99), chat("dev")], "no train instruction fits into 48 tokens"),
    ],
)
def test_fine_tuning_needs_both_splits(
    tmp_path: Path, tokenizer: Any, rows: list[Instruction], message: str
) -> None:
    storage = StorageConfig(root=str(tmp_path))
    made = Artefact(Storage(storage), "instructions", SftConfig(), key="k")
    write_rows(made.dir / "sft", Instruction, rows)
    made.publish()
    parents = {"instructions": ("instructions", "k")}
    inputs = Inputs(SftConfig(block_tokens=48), WorkersConfig(), storage, parents)
    with pytest.raises(DataError, match=message):
        read_texts(inputs, Packer(tokenizer, 48), lambda blocks: blocks)


def test_prompts_need_room_for_an_answer_in_both_splits(model: Any, tokenizer: Any) -> None:
    """The context is 128 tokens; the chat around a prompt takes some of what 28 new ones leave."""
    engine = HFEngine.wrap(model, tokenizer, 4)
    config = PpoConfig(max_new_tokens=28, num_heldout=1)

    def prompt(split: Any, text: str = "咳嗽") -> Scenario:
        return Scenario(id="i", prompt=text, split=split)

    long = "qxz" * 50  # letters that no merge joins
    rows = [prompt("train"), prompt("train", long), prompt("dev"), prompt("dev", "发热")]
    assert fitting_prompts(rows, engine, config) == ([rows[0]], [rows[2]])
    with pytest.raises(DataError) as raised:
        fitting_prompts([prompt("train", long), prompt("dev")], engine, config)
    assert str(raised.value).startswith(
        "PPO needs prompts in both splits, found 0 train and 1 dev; 1 are longer than the 100 "
        "tokens that a context of 128 and ppo.max_new_tokens 28 leave"
    )
    with pytest.raises(DataError, match="found 1 train and 0 dev; 0 are longer"):
        fitting_prompts([prompt("train")], engine, config)
