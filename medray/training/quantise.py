"""Weights in 8 or 4 bits, for serving. In: a decoder as training exports it. Out: a Hugging Face
directory that transformers and vLLM load as it is, in that much memory.

8 bits: a scale a row, and outlying activations computed apart (Dettmers et al. 2022, LLM.int8).
4 bits: the NF4 code, a scale for every 64 weights (Dettmers et al. 2023, QLoRA), which are not
quantised in turn. Word vectors, head, norms and biases keep their precision.

By bitsandbytes. Tried beside it on a CPU, with transformers 5.23 and torch 2.13: compressed-tensors
0.20 writes directories of the same size, which vLLM reads too, but transformers unpacks them at the
first pass and then needs the memory of the original; torchao 0.18 makes no dense 4 bits on a CPU.
vLLM reads a directory quantised by bitsandbytes on one GPU; it does not split it over several
(tensor parallelism). It has not been tried here.
"""

import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from medray.common.errors import CheckpointError
from medray.common.manifest import sha256_file
from medray.generation.directory import (
    check_model_directory,
    check_quantiser,
    load_options,
    quantisation,
)
from medray.training.export import model_card
from medray.training.reward.likelihood import HEAD
from medray.training.weights import check_new, new_partial

logger = logging.getLogger(__name__)

HOW = {
    8: "LLM.int8, one scale a row",
    4: "NF4, one scale for 64 weights",
}
MADE_ANEW = ("config.json", "README.md")
WEIGHTS = (".safetensors", ".bin", ".index.json")
"""Files of the source that are not copied, by their names and by the ends of them."""


def quantise(source: Path, target: Path, bits: int) -> tuple[int, int]:
    """Writes `target`, whole or not at all, on the CPU; a matrix in full is in memory at a time.

    Args:
        bits: 8 or 4.
    Returns:
        Bytes of the files of weights in `source` and in `target`.
    Raises:
        CheckpointError: no decoder that can be quantised, one that is quantised already, `target`
        is there, or bitsandbytes is not.
    """
    check_quantiser("medray quantise", "here and on every machine that loads what it writes")
    if method := quantisation(check_model_directory(source)):
        raise CheckpointError(
            f"{source} is quantised already ({method}); give the directory that it was made from"
        )
    if (source / HEAD).exists():
        raise CheckpointError(
            f"{source} is a reward model with a likelihood head, which would be lost; give a "
            "language model, of pretrain, sft, ppo or preference"
        )
    check_new(target)
    model = load_quantised(source, bits)
    partial = new_partial(target)
    model.save_pretrained(partial)
    for path in source.iterdir():
        written = path.name in MADE_ANEW or path.name.endswith(WEIGHTS)
        if path.is_file() and not written:
            shutil.copy(path, partial)
    before, after = (weights_size(directory) for directory in (source, partial))
    (partial / "README.md").write_text(
        quantised_card(source, bits, model.dtype, before, after), encoding="utf-8"
    )
    partial.rename(target)
    logger.info("%s: %d bits, %d bytes of weights → %d", target, bits, before, after)
    return before, after


def load_quantised(source: Path, bits: int) -> Any:
    """The model of `source`, quantised matrix by matrix as it is read."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        source,
        dtype="auto",
        device_map={"": "cpu"},
        use_safetensors=True,
        quantization_config=BitsAndBytesConfig(
            load_in_8bit=bits == 8, load_in_4bit=bits == 4, bnb_4bit_quant_type="nf4"
        ),
        output_loading_info=True,
        **load_options(),
    )
    model, info = loaded
    if unlike := sorted({*info["missing_keys"], *info["unexpected_keys"]}):
        raise CheckpointError(
            f"the weights in {source} are not those of a {type(model).__name__} ({unlike[0]} is "
            "missing or too much); give a language model, of pretrain, sft, ppo or preference"
        )
    check_matrices(source, model)
    return model


def check_matrices(source: Path, model: Any) -> None:
    """Raises CheckpointError for experts in one tensor, which stay as they are, and for matrices
    that bitsandbytes cannot multiply by on every CPU in 4 bits: with AVX-512 BF16 it packs 32 rows
    together, and a scale must not reach over the end of a row."""
    from bitsandbytes.nn.modules import Linear4bit

    for name, parameter in model.named_parameters():
        if "experts" in name and parameter.ndim == 3:
            raise CheckpointError(
                f"{name} in {source} holds experts of a mixture, which bitsandbytes does not "
                "quantise; take a model without"
            )
    for name, module in model.named_modules():
        if isinstance(module, Linear4bit):
            rows, columns = module.out_features, module.in_features
            if rows % 32 or columns % 64:
                raise CheckpointError(
                    f"{name} in {source} has {rows} rows of {columns} weights, and 4 bits need "
                    "multiples of 32 and 64; take --bits 8"
                )


def weights_size(directory: Path) -> int:
    """Bytes of the safetensors files."""
    return sum(path.stat().st_size for path in directory.glob("*.safetensors"))


def quantised_card(source: Path, bits: int, kept: torch.dtype, before: int, after: int) -> str:
    """The card of the source, and what was done to it."""
    import bitsandbytes

    path = source / "README.md"
    plain = model_card({"title": source.name})
    card = path.read_text(encoding="utf-8") if path.is_file() else plain
    lines = [card.rstrip("\n"), "", "## Quantised", ""]
    lines += [
        f"- from: {shard.name}, sha256 {sha256_file(shard)}"
        for shard in sorted(source.glob("*.safetensors"))
    ]
    lines += [
        f"- how: {bits} bits, {HOW[bits]}, by bitsandbytes {bitsandbytes.__version__}; word "
        f"vectors, head and norms in {str(kept).removeprefix('torch.')}",
        f"- weights: {before} bytes before, {after} after",
        "- for serving; training needs the model that it was made from",
        "",
    ]
    return "\n".join(lines)
