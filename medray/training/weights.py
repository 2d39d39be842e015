"""Files of weights as they are published. In: safetensors or pickles. Out: safetensors shards."""

import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from medray.common.errors import CheckpointError

logger = logging.getLogger(__name__)


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


def write_shards(
    shards: list[Path], directory: Path, convert: Callable[[Path], Iterable[tuple[str, Tensor]]]
) -> None:
    """Writes what `convert` makes of each shard, one in memory at a time, and the index of all."""
    index: dict[str, str] = {}
    size = 0
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = dict(convert(shard))
        save_file(tensors, directory / name, metadata={"format": "pt"})
        index |= dict.fromkeys(tensors, name)
        size += sum(tensor.nbytes for tensor in tensors.values())
        logger.info("%s: %d tensors", shard.name, len(tensors))
    text = json.dumps({"metadata": {"total_size": size}, "weight_map": index}, indent=1)
    (directory / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def check_new(target: Path) -> None:
    """Raises CheckpointError if `target` is there."""
    if target.exists():
        raise CheckpointError(f"{target} is there already; give another directory or remove it")


def new_partial(target: Path) -> Path:
    """An empty directory beside `target`, to be renamed to it when it is whole."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def convert_pickles(source: Path, target: Path) -> None:
    """Copies a model directory with its pickled weights (pytorch_model*.bin) as safetensors; the
    other files stay as they are.

    Raises:
        CheckpointError: if there is nothing to convert, or `target` is there.
    """
    shards = find_shards(source, allow_bin=True)
    if shards[0].suffix != ".bin":
        raise CheckpointError(f"{source} has safetensors already; nothing to convert")
    check_new(target)
    partial = new_partial(target)
    write_shards(shards, partial, _own_memory)
    for path in source.iterdir():
        if path.is_file() and path.suffix != ".bin" and path.name != "pytorch_model.bin.index.json":
            shutil.copy(path, partial)
    partial.rename(target)


def _own_memory(shard: Path) -> Iterator[tuple[str, Tensor]]:
    """Tied weights are one piece of memory in a pickle; safetensors keeps each tensor apart."""
    for name, tensor in read_shard(shard):
        yield name, tensor.contiguous().clone()
