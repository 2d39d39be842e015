"""Fine-tuning examples replayed while PPO runs, so that what PPO does not reward is not forgotten.

    L = L_ppo + γ · L_sft                PPO-ptx, with fine-tuning's answers in place of pretraining

PPO sees one kind of prompt, and may forget what others need. On the sample hospital (20 rounds, one
seed, 67 questions) right quotations after PPO were 0.84 without replay and 0.90 with it, as before
PPO; the KL was 2.9 and 1.5.
Source: InstructGPT (Ouyang et al. 2022, 3.5), γ; [EMR-LLM] and [ClinicalGPT] replay nothing.
"""

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from medray.common.config import Config
from medray.common.records import Instruction
from medray.common.rows import read_rows
from medray.training.alone import Blocks
from medray.training.chats import Packer
from medray.training.language_model import LanguageModelLoss, check_length
from medray.training.packed import PackedBlocks
from medray.training.sampler import IndexSampler
from medray.training.supervised import to_device


class ReplayConfig(Config):
    """What is replayed."""

    coefficient: float = Field(default=0.0, ge=0)
    """γ; 0 replays nothing, as published."""
    batch_size: int = Field(default=4, ge=1)
    """Packed blocks of one update, over all workers."""
    block_tokens: int = Field(default=1024, ge=8)
    """Longest example; also the size of a block."""
    max_rows: int = Field(default=20_000, ge=1)
    """Examples to draw from, the first of the shuffled artefact."""
    leave_out: list[str] = Field(default_factory=list)
    """Tasks that are not replayed: those whose answers PPO is to change, since their own answers in
    fine-tuning pull it back."""


class Replay:
    """Packed training instructions and their loss under the policy."""

    def __init__(
        self,
        config: ReplayConfig,
        instructions: Path,
        policy: Any,
        tokenizer: Any,
        read: Callable[[PackedBlocks], Blocks],
        seed: int,
    ) -> None:
        """Args:
        instructions: the instructions artefact, fetched.
        read: how the policy reads packed blocks; found out in fp32.

        Raises:
            ConfigError: if a block is longer than the policy reads.
            DataError: if no training example that is not left out fits into one.
        """
        check_length(policy, config.block_tokens, "ppo.replay.block_tokens")
        rows = (
            row
            for row in read_rows(instructions / "sft", Instruction)
            if row.split == "train" and row.task not in config.leave_out
        )
        chosen = islice(rows, config.max_rows)
        packed = Packer(tokenizer, config.block_tokens).pack(chosen, "replayed")
        self._blocks = read(packed)
        self._config = config
        self._loss = LanguageModelLoss(policy)
        self._sampler = IndexSampler(len(self._blocks), config.batch_size, seed)

    def loss(self, update: int, rank: int, world_size: int, engine: Any) -> Tensor:
        """γ × the mean over the answer tokens of the global batch of `update`, this worker's share
        of it: the shares of all workers sum to the whole."""
        weight = self._blocks.weight(self._sampler.batch(update))
        mine = self._sampler.share(update, rank, world_size)
        if not mine or not weight:
            return torch.zeros((), device=engine.device)
        loss_sum = self._loss(**to_device(self._blocks.collate(mine), engine))
        return self._config.coefficient * loss_sum / weight
