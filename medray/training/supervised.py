"""Pretraining and fine-tuning as stages of the one loop: packed blocks, next-token loss.

    L = −Σ log P(x_t | x_<t)          over all tokens (pretraining) or the answer's (fine-tuning)

A step's loss is divided by the loss-carrying tokens of the global batch (the sum of their weights),
so that it does not depend on how the batch is spread over workers and micro-batches.
Source: [EMR-LLM 1.2, 1.3]. Differs from [ClinicalGPT 3.1], whose mean is per example.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray.train
import torch
import torch.distributed as dist
from transformers import PreTrainedTokenizerBase

from medray.training.alone import Blocks
from medray.training.estimate import count_flops
from medray.training.export import export_model
from medray.training.forgetting import BY
from medray.training.language_model import LanguageModelLoss
from medray.training.optimiser import OptimiserConfig, initialise, set_learning_rate
from medray.training.packed import PackedBlocks
from medray.training.sampler import IndexSampler, seed_of
from medray.training.stage import Stage
from medray.training.trainer import Inputs


@dataclass(frozen=True)
class Texts:
    """What a language model learns from, and is measured on."""

    train: Blocks
    heldout: Mapping[str, Blocks]
    """By what they are of (source, task); `loss` is over all of them but those named `aside`."""
    aside: str = ""
    sampler: IndexSampler | None = None
    """Orders the training blocks; None shuffles all of them in each epoch."""
    milestones: Mapping[int, str] = field(default_factory=dict)
    """Steps after which held-out losses are also measured, and their names."""


def train_language_model(
    name: str,
    inputs: Inputs[Any],
    config: OptimiserConfig,
    loss: LanguageModelLoss,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    card: dict[str, str],
) -> None:
    """The body of a worker: builds the stage and runs it.

    Args:
        config: the optimiser's settings; those of `inputs`, but for a number of steps known late.
        loss: of a model that may wear LoRA.
    """
    model, train, seed = loss.model, texts.train, config.seed
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    is_lora = hasattr(model, "merge_and_unload")
    step_flops = count_flops(model)
    engine = initialise(loss, config, world_size)
    sampler = texts.sampler or IndexSampler(len(train), config.batch_size, seed)

    def train_step(step: int) -> dict[str, float]:
        set_learning_rate(engine, config, step)
        torch.manual_seed(seed_of(seed, step, rank))  # dropout, where there is any
        engine.train()
        batch = sampler.batch(step)
        weight = train.weight(batch)
        loss_sum = torch.zeros(())
        mine = sampler.share(step, rank, world_size)
        for micro in chunks(mine, config.micro_batch_size):
            loss = engine(**to_device(train.collate(micro), engine))
            # DeepSpeed averages over workers and micro-batches; undo that, divide by tokens.
            scale = world_size * config.accumulation(world_size) / weight
            engine.backward(loss * scale)
            engine.step()
            loss_sum += loss.detach().float().cpu()
        mean = all_reduce_sum(loss_sum, engine) / weight
        labels = train.num_labels(batch)
        figures = {"train/loss": float(mean), "train/tokens": float(labels)}
        if isinstance(train, PackedBlocks):  # other rows are as long as their longest
            figures["train/flops"] = step_flops(config.batch_size, train.block_tokens, labels)
        return figures

    def evaluate() -> dict[str, float]:
        engine.eval()
        sums = {name: held_out_sums(blocks) for name, blocks in texts.heldout.items()}
        counted = [values for name, values in sums.items() if name != texts.aside]
        loss_sum, num_tokens = (sum(values) for values in zip(*counted, strict=True))
        figures = {"loss": loss_sum / max(1.0, num_tokens), "tokens": num_tokens}
        if len(sums) > 1:
            figures |= {f"{BY}{name}": loss / max(1.0, n) for name, (loss, n) in sums.items()}
        return figures

    @torch.no_grad()
    def held_out_sums(blocks: Blocks) -> tuple[float, float]:
        """(loss, weight of its tokens), each summed over `blocks`."""
        total = torch.zeros(2)
        for micro in shares(len(blocks), rank, world_size, config.micro_batch_size):
            loss = engine.module(**to_device(blocks.collate(micro or [0]), engine))
            if micro:
                total += torch.tensor([float(loss), blocks.weight(micro)])
        loss_sum, weight = all_reduce_sum(total, engine).tolist()
        return loss_sum, weight

    def export(directory: Path) -> None:
        export_model(engine, model, tokenizer, directory, card)

    stage = Stage(
        name,
        engine,
        config.total_steps,
        train_step,
        evaluate,
        export,
        partial_state=is_lora,
        milestones=texts.milestones,
        takes_memory=(f"{name}.micro_batch_size", "the tokens of a block"),
    )
    inputs.run(stage)


def chunks(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Cuts `items` into pieces of `size`; the last may be shorter."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def shares(num: int, rank: int, world_size: int, size: int) -> Iterator[Sequence[int]]:
    """A worker's part of `num` items in pieces of `size`: as many pieces on every worker, the last
    ones empty where there are too few, for sharded weights (ZeRO-3) are read by all together."""
    mine = range(rank, num, world_size)
    most = -(-num // world_size)
    for start in range(0, most, size):
        yield mine[start : start + size]


def to_device(batch: dict[str, torch.Tensor], engine: Any) -> dict[str, torch.Tensor]:
    """Moves a batch to where the engine computes."""
    return {name: tensor.to(engine.device) for name, tensor in batch.items()}


def all_reduce_sum(values: torch.Tensor, engine: Any) -> torch.Tensor:
    """The sum over workers, on the CPU."""
    values = values.to(engine.device)
    dist.all_reduce(values)
    return values.cpu()


def headline(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Manifest figures of a language-model stage, from its metrics rows."""
    before = next(row for row in rows if "before/loss" in row)
    after = next(row for row in reversed(rows) if "after/loss" in row)
    steps = [row for row in rows if "train/loss" in row]
    return {
        "loss_before": before["before/loss"],
        "loss_after": after["after/loss"],
        "heldout_tokens": after["after/tokens"],
        "steps": len(steps),
        "tokens": sum(row["train/tokens"] for row in steps),
        "seconds": round(sum(row["time/step_s"] for row in steps), 1),
    }
