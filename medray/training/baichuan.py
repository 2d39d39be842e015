"""Baichuan's weights as Llama's. In: a directory as published. Out: a Hugging Face directory of
Llama architecture that transformers and vLLM load without the model's own code.

What differs from Llama: query, key and value in one matrix (W_pack), and, in Baichuan 2, a head
whose rows are normalised as it is used (its config names z_loss_weight); here it is stored that
way. The 13 B models place tokens by ALiBi, which Llama lacks, and are refused.
Source: Baichuan 2 (Yang et al. 2023), 2.1, 2.3; modeling_baichuan.py as published with the weights.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from transformers import GenerationConfig, LlamaConfig, LlamaTokenizer

from medray.common.errors import CheckpointError
from medray.training.weights import (
    check_new,
    find_shards,
    new_partial,
    read_shard,
    write_shards,
)

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
    check_new(target)
    tokenizer = convert_tokenizer(source)
    partial = new_partial(target)
    normalised = "z_loss_weight" in config
    write_shards(
        shards, partial, lambda shard: convert_tensors(read_shard(shard), normalised=normalised)
    )
    llama_config(config).save_pretrained(partial)
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    GenerationConfig(**ends).save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(target)


def is_baichuan(source: Path) -> bool:
    """Whether config.json names a Baichuan."""
    config = _config(source)
    return any(str(name).lower().startswith("baichuan") for name in _names(config))


def read_config(source: Path) -> dict[str, Any]:
    """config.json of a Baichuan directory with rotary positions."""
    path = source / "config.json"
    config = _config(source)
    if not is_baichuan(source):
        names = ", ".join(_names(config))
        raise CheckpointError(f"{path} is of {names}, no Baichuan; nothing to convert")
    if "max_position_embeddings" not in config:
        raise CheckpointError(
            f"{path} has no max_position_embeddings: a 13 B model with ALiBi, which Llama lacks; "
            "take a 7 B one"
        )
    return config


def _config(source: Path) -> dict[str, Any]:
    path = source / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{source} has no config.json; give the directory of the weights")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is no JSON ({error}); copy it again") from None


def _names(config: dict[str, Any]) -> list[str]:
    return config.get("architectures") or [config.get("model_type", "")]


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
