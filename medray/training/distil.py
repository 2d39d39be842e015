"""Distillation: on answers, the student also learns what a larger teacher would say.

    loss = Σ_t  (1 − α) · −log p(x_t)  +  α · τ² · KL(q_τ ‖ p_τ)        q teacher, p student

The teacher reads the same tokens, so it must have the student's vocabulary; answers of a teacher of
another kind can be sampled instead (`instructions.growth`). Held-out losses are the student's own.
Source: Hinton et al. 2015, 2; on tokens: DistilBERT (Sanh et al. 2019). α and τ: not given there.
"""

from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from medray.common.config import Config
from medray.common.errors import ConfigError
from medray.training.language_model import LanguageModelLoss, load_decoder, logits_of
from medray.training.losses import distillation_sum, token_nll_sum
from medray.training.packed import IGNORE


class DistilConfig(Config):
    """Who teaches, and how much of the loss that is."""

    path: str
    """A Hugging Face directory."""
    weight: float = Field(default=0.5, ge=0, le=1)
    """α."""
    temperature: float = Field(default=2.0, gt=0)
    """τ: above 1 the teacher's less likely tokens count for more."""


class DistillationLoss(LanguageModelLoss):
    """A student with its loss under a teacher, which is no part of what is trained or saved."""

    def __init__(self, model: Any, teacher: Any, num_tokens: int, config: DistilConfig) -> None:
        """`num_tokens` is the size of the vocabulary that both know."""
        super().__init__(model)
        # In a list, or the engine would shard it and the checkpoints hold it.
        self._teacher = [teacher.eval().requires_grad_(False)]
        self._num_tokens, self._config = num_tokens, config

    def forward(self, labels: Tensor, weights: Tensor, **inputs: Tensor) -> Tensor:
        """Sum over the tokens with a label, each times its weight, in nats; the student's own
        negative log-likelihood when it is not in training."""
        if not self.training:
            return super().forward(labels, weights, **inputs)
        chosen_BT = labels != IGNORE
        labels_N, weights_N = labels[chosen_BT], weights[chosen_BT]
        logits_NV = logits_of(self.model, chosen_BT, inputs)
        # It comes in fp32, and is moved and cast once.
        teacher = self._teacher[0].to(labels.device, logits_NV.dtype)
        with torch.no_grad():
            taught_NV = logits_of(teacher, chosen_BT, inputs)
        known = self._num_tokens  # either may have more rows than there are tokens
        taught = distillation_sum(
            logits_NV[:, :known], taught_NV[:, :known], weights_N, self._config.temperature
        )
        alpha = self._config.weight
        return (1 - alpha) * token_nll_sum(logits_NV, labels_N, weights_N) + alpha * taught


def load_teacher(config: DistilConfig, tokenizer: PreTrainedTokenizerBase) -> Any:
    """The teacher in fp32, which must have `tokenizer`'s vocabulary.

    Raises:
        CheckpointError: if there is no such model.
        ConfigError: if it reads other tokens.
    """
    directory = Path(config.path).expanduser()
    teacher, its_tokenizer = load_decoder(directory)
    if its_tokenizer.get_vocab() != tokenizer.get_vocab():
        raise ConfigError(
            f"sft.distil.path: the tokenizer in {directory} has another vocabulary than the model "
            "that learns; take a teacher of the same family, or let it write answers and fine-tune "
            "on these (instructions.growth)"
        )
    return teacher
