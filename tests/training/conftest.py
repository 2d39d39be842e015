"""A toy tokenizer, a small decoder with random weights, a corpus and instructions around them, and
a tiny Baichuan 2 as it is published."""

import io
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import sentencepiece
import torch
from safetensors.torch import save_file
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
)

from medray.common.manifest import Artefact
from medray.common.records import Instruction, Message, PreferencePair, Scenario, ScoredResponse
from medray.common.rows import write_rows
from medray.common.storage import Storage, StorageConfig
from medray.corpus.tokenizer import TokenizerConfig, train_tokenizer
from medray.retrieval.training.tokenizer import train_tokenizer as train_bert_tokenizer
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


SENTENCES = [
    f"患者{who}，{what}{days}天，血压{high}/80mmHg。Take aspirin."
    for who in "男女老幼" for what in ("咳嗽", "发热", "胸痛") for days in range(1, 9)
    for high in (90, 120)
]  # fmt: skip
BAICHUAN = {
    "architectures": ["BaichuanForCausalLM"], "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6, "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2,
    "pad_token_id": 0, "z_loss_weight": 0,
}  # fmt: skip


@pytest.fixture(scope="session")
def pieces() -> bytes:
    """A SentencePiece model as Baichuan 2's: byte fallback, nothing normalised, no dummy prefix."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=model, model_type="bpe", vocab_size=340,
        byte_fallback=True, add_dummy_prefix=False, remove_extra_whitespaces=False,
        normalization_rule_name="identity", minloglevel=2,
        user_defined_symbols=["<reserved_106>", "<reserved_107>"],
    )  # fmt: skip
    return model.getvalue()


@pytest.fixture
def llama(pieces: bytes) -> Any:
    """The model that the Baichuan is made of, its head not normalised."""
    torch.manual_seed(0)
    shape = {name: value for name, value in BAICHUAN.items() if name not in ("architectures",)}
    return LlamaForCausalLM(LlamaConfig(**shape, vocab_size=340, tie_word_embeddings=False)).eval()


@pytest.fixture
def baichuan(llama: Any, pieces: bytes, tmp_path: Path) -> Path:
    """Its directory: packed matrices, in two files."""
    source = tmp_path / "baichuan"
    source.mkdir()
    (source / "config.json").write_text(
        json.dumps(BAICHUAN | {"vocab_size": 340}), encoding="utf-8"
    )
    (source / "tokenizer.model").write_bytes(pieces)
    turns = {"user_token_id": 3, "assistant_token_id": 4}  # 195 and 196 in the published ones
    (source / "generation_config.json").write_text(json.dumps(turns), encoding="utf-8")
    state = llama.state_dict()
    packed = {}
    for name, tensor in state.items():
        if "q_proj" in name:
            stem = name.replace("q_proj.weight", "")
            parts = [state[f"{stem}{part}_proj.weight"] for part in "qkv"]
            packed[f"{stem}W_pack.weight"] = torch.cat(parts)
        elif "k_proj" not in name and "v_proj" not in name:
            packed[name] = tensor
    names = sorted(packed)
    for k in (0, 1):
        part = {name: packed[name].clone() for name in names[k::2]}
        save_file(part, source / f"model-{k}.safetensors")
    return source


@pytest.fixture(scope="session")
def untaught_reward(storage: Storage, tmp_path_factory) -> tuple[str, str]:
    """A reward model of random weights, with a tokenizer of its own: (step, key)."""
    artefact = Artefact(storage, "reward", SftConfig(), key="untaught")
    model = artefact.dir / "model"
    train_bert_tokenizer(["".join(DISEASES + ORGANS) + "不适"], 200, 64, model)
    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=len(AutoTokenizer.from_pretrained(model)), hidden_size=32, num_labels=1,
        num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=512,
    )  # fmt: skip
    BertForSequenceClassification(shape).save_pretrained(model)
    artefact.publish()
    return "reward", "untaught"


@pytest.fixture
def one_worker_killed() -> Callable[[Path], AbstractContextManager[None]]:
    """A context that kills a worker of the run inside it."""
    return kill_one_worker


def kill_a_worker(train: Path, before: set[int], killed: list[bool], over: threading.Event) -> None:
    """Waits for the first whole checkpoint, then kills one worker as a lost machine would; notes
    whether the run was still under way, since only the last checkpoint holds a model."""
    workers: list[int] = []
    while not over.wait(0.01):
        if not workers:
            workers = [pid for pid in find_workers() if pid not in before]
        elif any(train.glob("*/checkpoint_manager_snapshot.json")):
            os.kill(workers[0], signal.SIGKILL)
            killed.append(not list(train.rglob("model.safetensors")))
            return


@contextmanager
def kill_one_worker(train: Path) -> Iterator[None]:
    """Kills a worker of the run in the block; those of an earlier one may still be ending."""
    killed: list[bool] = []
    over = threading.Event()
    killer = threading.Thread(
        target=kill_a_worker, args=(train, set(find_workers()), killed, over), daemon=True
    )
    killer.start()
    try:
        yield
    finally:
        over.set()
        killer.join()
    assert killed == [True], "no worker was killed in the middle of the run"


def find_workers() -> list[int]:
    """Process ids of the training workers of this session's cluster, not of another one."""
    pids = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "RayTrainWorker" in "".join(process.cmdline()):
                pids.append(process.pid)
        except psutil.Error:
            continue
    return pids
