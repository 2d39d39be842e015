"""What a reward model starts from. In: a directory, settings. Out: the model with a new head."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from medray.common.errors import ConfigError
from medray.generation.directory import check_trainable, load_options
from medray.training.language_model import add_lora, check_length, check_vocabulary
from medray.training.reward.config import RewardConfig
from medray.training.reward.likelihood import LikelihoodScorer


def load_scorer(base: Path, config: RewardConfig, mean: float = 0.0) -> tuple[Any, Any]:
    """A model with a new head of one output, and its tokenizer, which carries `max_tokens`.

    Args:
        mean: of the scores to learn; what a likelihood head says of all answers at the start.
    Raises:
        CheckpointError: if the directory lacks a part, or its tokenizer is of another model.
        ConfigError: if `max_tokens` is more than the model reads, or a likelihood head is asked of
        an encoder.
    """
    check_trainable(base)
    torch.manual_seed(config.seed)
    tokenizer = AutoTokenizer.from_pretrained(base, **load_options())
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if config.head == "likelihood":
        return _likelihood_scorer(base, config, mean, tokenizer), tokenizer
    model: Any = AutoModelForSequenceClassification.from_pretrained(
        base,
        num_labels=1,
        problem_type="regression",
        dtype=torch.float32,
        pad_token_id=tokenizer.pad_token_id,
        use_safetensors=True,
        **load_options(),
    )
    _check_reading(model, tokenizer, base, config)
    if config.lora is not None:
        model = add_lora(model, config.lora, config.seed, task="SEQ_CLS")
    return model, tokenizer


def _likelihood_scorer(base: Path, config: RewardConfig, mean: float, tokenizer: Any) -> Any:
    if not tokenizer.chat_template:
        raise ConfigError(
            f"reward.head likelihood needs a decoder, and {base} has no chat template; set "
            "reward.base to a fine-tuned decoder, or reward.head to state"
        )
    decoder: Any = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, use_safetensors=True, **load_options()
    )
    _check_reading(decoder, tokenizer, base, config)
    if config.lora is not None:
        decoder = add_lora(decoder, config.lora, config.seed)
    return LikelihoodScorer(decoder, mean)


def _check_reading(model: Any, tokenizer: Any, base: Path, config: RewardConfig) -> None:
    check_vocabulary(model, tokenizer, base)
    check_length(model, config.max_tokens, "reward.max_tokens")
    tokenizer.model_max_length = config.max_tokens  # exported, for those who use the model
