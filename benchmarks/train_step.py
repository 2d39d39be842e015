"""A training step under DeepSpeed against plain PyTorch, on the same model and packed blocks.

The value is the lower of two ratios, each divided by its goal: ZeRO-0 in one process against a
bare loop (goal 0.95), and ZeRO-2 on two workers against DistributedDataParallel (goal 0.85); 1 and
more reaches both. A worker reads a micro-batch of four blocks; `accumulated` is ZeRO-2 again with
two blocks and two passes, after each of which it reduces gradients, where DistributedDataParallel
does once a step. Both sides clip and step with torch's AdamW in fp32; they take turns within each
process, and a ratio is the median over the turns. `flops_per_s` counts 6 × parameters × tokens.
Source: DESIGN.md 4, row 1.
"""

import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

os.environ["DS_ACCELERATOR"] = "cpu"
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from frame import argument_parser, print_result
from torch.nn.parallel import DistributedDataParallel
from transformers import Qwen3Config
from transformers.models.qwen3 import Qwen3ForCausalLM

from medray.training.language_model import LanguageModelLoss
from medray.training.optimiser import OptimiserConfig, initialise, set_learning_rate
from medray.training.packed import PackedBlocks
from medray.training.sampler import IndexSampler
from medray.training.supervised import chunks

BLOCK_TOKENS, BATCH = 256, 8
GOALS = {"zero0": 0.95, "zero2": 0.85}
LEARNING_RATE = 1e-4


def model(quick: bool) -> Qwen3ForCausalLM:
    """25 M parameters and more, all of them seeded; 2 M for a first answer."""
    torch.manual_seed(0)
    width, layers = (128, 4) if quick else (512, 6)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=8000, hidden_size=width, num_hidden_layers=layers,
            num_attention_heads=width // 64, num_key_value_heads=width // 64, head_dim=64,
            intermediate_size=4 * width, tie_word_embeddings=True,
        )
    )  # fmt: skip


def blocks(num: int) -> PackedBlocks:
    """Blocks of three documents each."""
    tokens_NT = np.random.default_rng(0).integers(3, 8000, (num, BLOCK_TOKENS)).astype(np.int32)
    segments_NT = np.broadcast_to(np.arange(BLOCK_TOKENS) * 3 // BLOCK_TOKENS + 1, tokens_NT.shape)
    return PackedBlocks(tokens_NT, segments_NT, np.ones(tokens_NT.shape, np.float32))


ZeroStage = Literal[0, 1, 2, 3]
Step = Callable[[int], float]


def deepspeed_step(
    quick: bool, stage: ZeroStage, micro: int, data: PackedBlocks, rank: int, world: int
) -> Step:
    """A step as `medray.training.supervised` does it."""
    config = OptimiserConfig(
        learning_rate=LEARNING_RATE, warmup_steps=0, batch_size=BATCH, micro_batch_size=micro,
        zero_stage=stage, total_steps=1000,
    )  # fmt: skip
    engine = initialise(LanguageModelLoss(model(quick)), config, world)
    sampler = IndexSampler(len(data), BATCH, 0)

    def step(number: int) -> float:
        set_learning_rate(engine, config, number)
        engine.train()
        weight = data.weight(sampler.batch(number))
        total = 0.0
        for part in chunks(sampler.share(number, rank, world), micro):
            loss = engine(**data.collate(part))
            engine.backward(loss * world * config.accumulation(world) / weight)
            engine.step()
            total += float(loss.detach())
        return total / weight

    return step


def torch_step(quick: bool, micro: int, data: PackedBlocks, rank: int, world: int) -> Step:
    """The same step in plain PyTorch: one process, or DistributedDataParallel."""
    module: Any = LanguageModelLoss(model(quick)).train()
    if world > 1:
        module = DistributedDataParallel(module)
    optimiser = torch.optim.AdamW(
        module.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.999), weight_decay=0.0
    )
    sampler = IndexSampler(len(data), BATCH, 0)

    def step(number: int) -> float:
        weight = data.weight(sampler.batch(number))
        total = 0.0
        parts = list(chunks(sampler.share(number, rank, world), micro))
        for k, part in enumerate(parts):
            if world > 1:
                module.require_backward_grad_sync = k + 1 == len(parts)
            loss = module(**data.collate(part))
            (loss * world / weight).backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        return total / weight

    return step


def worker(
    rank: int,
    world: int,
    port: int,
    stage: ZeroStage,
    micro: int,
    quick: bool,
    turns: int,
    out: str,
) -> None:
    """Takes turns and writes, on the first worker, seconds and losses of both sides."""
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    dist.init_process_group("gloo", rank=rank, world_size=world)
    data = blocks(64)
    sides = {
        "ours": deepspeed_step(quick, stage, micro, data, rank, world),
        "other": torch_step(quick, micro, data, rank, world),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    losses: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(turns + 1):
        for name in sorted(sides, reverse=bool(turn % 2)):
            dist.barrier()
            started = time.perf_counter()
            losses[name].append(sides[name](turn))
            dist.barrier()
            if turn:  # the first is a warm-up
                seconds[name].append(time.perf_counter() - started)
    if rank == 0:
        torch.save((seconds, losses), out)
    dist.destroy_process_group()


def compare(stage: ZeroStage, world: int, micro: int, quick: bool, turns: int) -> dict[str, Any]:
    """Ratio of speeds, ours by the other's, and what it rests on."""
    with tempfile.TemporaryDirectory() as scratch, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        out = str(Path(scratch) / "seconds")
        mp.spawn(  # pyright: ignore[reportPrivateImportUsage]
            worker, (world, port, stage, micro, quick, turns, out), nprocs=world
        )
        seconds, losses = torch.load(out)
    gap = max(abs(a - b) for a, b in zip(losses["ours"], losses["other"], strict=True))
    ratios = [b / a for a, b in zip(seconds["ours"], seconds["other"], strict=True)]
    return {
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "seconds": {name: round(statistics.median(s), 3) for name, s in seconds.items()},
        "loss_gap": round(gap, 6),
    }


def main() -> int:
    """Prints the result line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="2 M parameters, 5 turns")
    arguments = parser.parse_args()
    turns = 5 if arguments.quick else arguments.turns
    num_parameters = sum(p.numel() for p in model(arguments.quick).parameters())
    found = {
        "zero0": compare(0, 1, 4, arguments.quick, turns),
        "zero2": compare(2, 2, 4, arguments.quick, turns),
        "accumulated": compare(2, 2, 2, arguments.quick, turns),
    }
    flops = 6 * num_parameters * BATCH * BLOCK_TOKENS
    for figures in found.values():
        figures["flops_per_s"] = round(flops / figures["seconds"]["ours"])
    print_result(
        "train_step",
        round(min(found[name]["ratio"] / goal for name, goal in GOALS.items()), 3),
        unit="lowest of the ratios of speed, each by its goal",
        goal=">= 1 (ZeRO-0 by the bare loop 0.95, ZeRO-2 by DDP 0.85)",
        ours=found | {"parameters": num_parameters, "tokens_per_step": BATCH * BLOCK_TOKENS},
        other="PyTorch loop; DistributedDataParallel, two gloo workers",
        n=turns,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
