"""A toy tokenizer, a small decoder with random weights, a corpus and instructions around them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medray.common.manifest import Artefact
from medray.common.records import Instruction, Message, PreferencePair, Scenario, ScoredResponse
from medray.common.rows import write_rows
from medray.common.storage import Storage, StorageConfig
from medray.corpus.tokenizer import TokenizerConfig, train_tokenizer
from medray.training.language_model import DecoderConfig, build_decoder
from medray.training.packed import PackedBlocks, Tokens
from medray.training.sft import SftConfig

DISEASES = ["肺炎", "哮喘", "胃炎", "肾炎", "贫血", "房颤"]
ORGANS = ["呼吸", "气道", "消化", "泌尿", "血液", "循环"]
TEXTS = [
    f"{disease}患者，{organ}不适{days}天，予以治疗后好转。"
    for disease, organ in zip(DISEASES, ORGANS, strict=True)
    for days in range(1, 9)
]


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Byte-level BPE of 300 tokens with ChatML."""
    return train_tokenizer(TokenizerConfig(vocab_size=300), TEXTS)


@pytest.fixture(scope="session")
def decoder() -> DecoderConfig:
    """2 layers, width 32."""
    return DecoderConfig(
        hidden_size=32, num_layers=2, num_heads=2, head_dim=16, intermediate_size=64, max_tokens=128
    )


@pytest.fixture(scope="session")
def text_blocks(tokenizer) -> PackedBlocks:
    """TEXTS as packed blocks of 64 tokens."""
    texts = [tokenizer(text)["input_ids"] for text in TEXTS]
    sequences = [Tokens(ids, [True] * len(ids)) for ids in texts]
    return PackedBlocks.pack(sequences, 64, tokenizer.pad_token_id)


@pytest.fixture(scope="session")
def model_dir(tokenizer, decoder: DecoderConfig, text_blocks, tmp_path_factory) -> Path:
    """The decoder and its tokenizer as a Hugging Face directory."""
    directory = tmp_path_factory.mktemp("decoder")
    tokenizer.save_pretrained(directory)
    model = build_decoder(decoder, tokenizer, text_blocks, seed=0)
    model.save_pretrained(directory)
    return directory


@pytest.fixture
def model(model_dir: Path) -> Any:
    """The decoder, loaded anew for each test."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model_dir).eval()


@pytest.fixture(scope="session")
def storage(tmp_path_factory, tokenizer) -> Storage:
    """A storage root with the artefacts `corpus/tiny` and `instructions/tiny`."""
    storage = Storage(StorageConfig(root=str(tmp_path_factory.mktemp("root"))))
    corpus = Artefact(storage, "corpus", SftConfig(), key="tiny")
    tokenizer.save_pretrained(corpus.dir / "tokenizer")
    (corpus.dir / "blocks").mkdir()
    stream = [i for text in TEXTS for i in [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]]
    blocks_NT = np.array(stream[: len(stream) // 64 * 64], dtype=np.int32).reshape(-1, 64)
    for name, part_NT in (("train", blocks_NT[2:]), ("heldout", blocks_NT[:2])):
        np.save(corpus.dir / "blocks" / f"{name}.npy", part_NT)
        np.save(corpus.dir / "blocks" / f"{name}_segments.npy", np.ones_like(part_NT))
    corpus.publish()

    made = Artefact(storage, "instructions", SftConfig(), key="tiny")
    splits = [(k, disease, "dev" if k % 3 == 0 else "train") for k, disease in enumerate(DISEASES)]
    chats = [
        Instruction(
            id=f"{k}", task="t" if k < 3 else "u", split=split,
            messages=[Message(role="user", content=f"{ORGANS[k]}不适，是什么病？"),
                      Message(role="assistant", content=f"{disease}。")],
        )
        for k, disease, split in splits
    ]  # fmt: skip
    write_rows(made.dir / "sft", Instruction, chats)
    write_rows(
        made.dir / "scores",
        ScoredResponse,
        [
            ScoredResponse(
                id=f"{k}", scenario=f"{ORGANS[k]}不适", response=disease, score=k / 5, split=split
            )
            for k, disease, split in splits
        ],
    )
    write_rows(
        made.dir / "preferences",
        PreferencePair,
        [
            PreferencePair(
                id=f"{k}", prompt=f"{ORGANS[k]}不适", chosen=f"是{disease}。", rejected="不知道",
                split=split,
            )
            for k, disease, split in splits
        ],
    )  # fmt: skip
    write_rows(
        made.dir / "prompts",
        Scenario,
        [Scenario(id=f"{k}", prompt=f"{ORGANS[k]}不适", split=split) for k, _, split in splits],
    )
    made.publish()
    return storage
