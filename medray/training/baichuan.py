"""Baichuan's weights as Llama's. In: a directory as published. Out: a Hugging Face directory of
Llama architecture that transformers and vLLM load without the model's own code.

What differs from Llama: query, key and value in one matrix (W_pack), and, in Baichuan 2, a head
whose rows are normalised as it is used (its config names z_loss_weight); here it is stored that
way. The 13 B models place tokens by ALiBi, which Llama lacks, and are refused.
Source: Baichuan 2 (Yang et al. 2023), 2.1, 2.3; modeling_baichuan.py as published with the weights.
"""

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import GenerationConfig, LlamaConfig, LlamaTokenizer

from medray.common.errors import CheckpointError

logger = logging.getLogger(__name__)
PACKED = ".self_attn.W_pack.weight"
HEAD = "lm_head.weight"
USER, ASSISTANT = 195, 196
"""Tokens that begin a turn in Baichuan 2's chats, unless generation_config.json says otherwise."""


def convert(source: Path, target: Path, *, allow_bin: bool = False) -> None:
    """Writes `target`, whole or not at all; a shard of the weights is in memory at a time.

    Args:
        allow_bin: read pytorch_model*.bin where there are no safetensors. They are unpickled with
            torch's weights_only, which admits tensors alone.
    Raises:
        CheckpointError: no Baichuan directory, one with ALiBi, or weights that may not be read.
    """
    config = read_config(source)
    shards = find_shards(source, allow_bin)
    if target.exists():
        raise CheckpointError(f"{target} is there already; give another directory or remove it")
    tokenizer = convert_tokenizer(source)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    index: dict[str, str] = {}
    size = 0
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = dict(convert_tensors(read_shard(shard), normalised="z_loss_weight" in config))
        save_file(tensors, partial / name, metadata={"format": "pt"})
        index |= dict.fromkeys(tensors, name)
        size += sum(tensor.nbytes for tensor in tensors.values())
        logger.info("%s: %d tensors", shard.name, len(tensors))
    content = {"metadata": {"total_size": size}, "weight_map": index}
    text = json.dumps(content, indent=1)
    (partial / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    llama_config(config).save_pretrained(partial)
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    GenerationConfig(**ends).save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(target)


def read_config(source: Path) -> dict[str, Any]:
    """config.json of a Baichuan directory with rotary positions."""
    path = source / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{source} has no config.json; give the directory of the weights")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is no JSON ({error}); copy it again") from None
    names = config.get("architectures") or [config.get("model_type", "")]
    if not any(str(name).lower().startswith("baichuan") for name in names):
        raise CheckpointError(f"{path} is of {', '.join(names)}, no Baichuan; nothing to convert")
    if "max_position_embeddings" not in config:
        raise CheckpointError(
            f"{path} has no max_position_embeddings: a 13 B model with ALiBi, which Llama lacks; "
            "take a 7 B one"
        )
    return config


def find_shards(source: Path, allow_bin: bool) -> list[Path]:
    """Files of weights."""
    if shards := sorted(source.glob("*.safetensors")):
        return shards
    shards = sorted(source.glob("pytorch_model*.bin"))
    if not shards:
        raise CheckpointError(f"{source} holds no weights (*.safetensors or pytorch_model*.bin)")
    if not allow_bin:
        raise CheckpointError(
            f"{source} holds weights as pickles only ({shards[0].name}, ...); if you trust where "
            "they come from, say --bin"
        )
    return shards


def read_shard(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of one file."""
    if path.suffix == ".bin":
        yield from torch.load(path, map_location="cpu", weights_only=True, mmap=True).items()
        return
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            yield name, file.get_tensor(name)


def convert_tensors(
    tensors: Iterator[tuple[str, Tensor]], *, normalised: bool
) -> Iterator[tuple[str, Tensor]]:
    """The same weights under Llama's names."""
    for name, tensor in tensors:
        if name.endswith(PACKED):
            stem = name.removesuffix(PACKED)
            for part, matrix in zip("qkv", tensor.chunk(3), strict=True):
                yield f"{stem}.self_attn.{part}_proj.weight", matrix.contiguous().clone()
        elif name == HEAD and normalised:
            yield name, F.normalize(tensor.float()).to(tensor.dtype)
        elif not name.endswith("rotary_emb.inv_freq"):
            yield name, tensor.contiguous().clone()


def llama_config(config: dict[str, Any]) -> LlamaConfig:
    """Llama's configuration of the same shape."""
    same = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "hidden_act", "max_position_embeddings", "initializer_range",
        "rms_norm_eps", "bos_token_id", "eos_token_id", "pad_token_id",
    )  # fmt: skip
    values = {name: config[name] for name in same if name in config}
    llama = LlamaConfig(**values, tie_word_embeddings=False)
    llama.architectures = ["LlamaForCausalLM"]
    return llama


def convert_tokenizer(source: Path) -> Any:
    """A fast tokenizer of the same pieces, with Baichuan 2's chats as its template."""
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    path = source / "tokenizer.model"
    if not path.is_file():
        raise CheckpointError(f"{source} has no tokenizer.model; copy the tokenizer files into it")
    proto = sentencepiece_model_pb2.ModelProto()  # pyright: ignore[reportAttributeAccessIssue]
    try:
        proto.ParseFromString(path.read_bytes())
    except DecodeError:
        raise CheckpointError(f"{path} is no SentencePiece model; copy it again") from None
    tokenizer = LlamaTokenizer.from_pretrained(
        source,
        add_prefix_space=proto.normalizer_spec.add_dummy_prefix,
        add_bos_token=False,
        legacy=False,
    )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token
    generation = source / "generation_config.json"
    ids = json.loads(generation.read_text(encoding="utf-8")) if generation.is_file() else {}
    user, assistant = (
        proto.pieces[ids.get(f"{name}_token_id", default)].piece
        for name, default in (("user", USER), ("assistant", ASSISTANT))
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [user, assistant]})
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}"
        f"{{% elif m.role == 'user' %}}{user}{{{{ m.content }}}}"
        f"{{% else %}}{assistant}{{{{ m.content }}}}{{{{ eos_token }}}}{{% endif %}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{assistant}{{% endif %}}"
    )
    return tokenizer
