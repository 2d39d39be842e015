"""Decoders: build a small one, load any Hugging Face one, put LoRA on it, and its loss."""

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase, Qwen3Config
from transformers.models.qwen3 import Qwen3ForCausalLM

from medray.common.config import Config
from medray.common.errors import CheckpointError, ConfigError
from medray.generation.chat import with_chat_template
from medray.generation.directory import check_model_directory, check_trainable, load_options
from medray.training.induction import set_induction_heads
from medray.training.losses import token_nll_sum
from medray.training.packed import IGNORE, PackedBlocks
from medray.training.word_vectors import set_word_vectors


class DecoderConfig(Config):
    """Where the decoder comes from."""

    path: str = ""
    """A Hugging Face directory (Baichuan2, Qwen, BLOOM, Llama, …). Empty: a new small decoder
    of the Qwen3 architecture with the tokenizer that prepare_corpus trained."""
    hidden_size: int = 192
    num_layers: int = Field(default=4, ge=2)
    num_heads: int = 3
    head_dim: int = 64
    intermediate_size: int = 512
    max_tokens: int = 1024
    """Longest context."""


class LoraConfig(Config):
    """Low-rank adapters. Source of r, α and dropout: [ClinicalGPT 3.1], [EMR-LLM 1.3]."""

    rank: int = 8
    alpha: int = 32
    dropout: float = 0.0
    target_modules: list[str] | str = "all-linear"
    dora: bool = False
    """Learn each column's length apart from its direction (DoRA, Liu et al. 2024)."""


def load_tokenizer(config: DecoderConfig, trained: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of the decoder to pretrain: that of `path`, or the one in `trained`."""
    if config.path:
        trained = check_model_directory(Path(config.path).expanduser())
    return with_chat_template(AutoTokenizer.from_pretrained(trained, **load_options()))


def build_decoder(
    config: DecoderConfig, tokenizer: PreTrainedTokenizerBase, blocks: PackedBlocks, seed: int
) -> Any:
    """Returns a decoder to pretrain: loaded from `path`, or newly made.

    Args:
        blocks: training text that a new decoder's word vectors are counted on.
    """
    if config.path:
        return load_decoder(Path(config.path).expanduser())[0]
    torch.manual_seed(seed)
    eos: Any = tokenizer.eos_token_id
    pad: Any = tokenizer.pad_token_id
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_heads,
            head_dim=config.head_dim,
            intermediate_size=config.intermediate_size,
            max_position_embeddings=config.max_tokens,
            tie_word_embeddings=True,
            attention_bias=True,
            eos_token_id=eos,
            pad_token_id=pad,
        )
    )
    set_word_vectors(model, blocks, seed)
    set_induction_heads(model, seed)
    return model


def load_decoder(directory: Path) -> tuple[Any, PreTrainedTokenizerBase]:
    """Loads a Hugging Face directory in fp32 (DeepSpeed casts it where asked to).

    Raises:
        CheckpointError: if the directory lacks a config, weights or a tokenizer, the tokenizer
        is of another model, or the weights are quantised.
    """
    check_trainable(directory)
    model = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, use_safetensors=True, **load_options()
    )
    tokenizer = AutoTokenizer.from_pretrained(directory, **load_options())
    check_vocabulary(model, tokenizer, directory)
    return model, with_chat_template(tokenizer)


def check_vocabulary(model: Any, tokenizer: Any, directory: Path) -> None:
    """Raises CheckpointError if the tokenizer has tokens that the model has no vector for."""
    num_rows = model.get_input_embeddings().num_embeddings
    highest = max(tokenizer.get_vocab().values())
    if highest >= num_rows:
        raise CheckpointError(
            f"the tokenizer in {directory} has token {highest}, the model {num_rows} rows of word "
            "vectors; copy the tokenizer files of the same model into it"
        )


def check_length(model: Any, num_tokens: int, setting: str) -> None:
    """Raises ConfigError if sequences of `num_tokens` are longer than the model has positions for.
    Models without such a limit (ALiBi) take any.

    Args:
        setting: what gave the length, for the message.
    """
    limit = max_positions(model)
    if limit is not None and num_tokens > limit:
        raise ConfigError(
            f"{setting} gives sequences of {num_tokens} tokens, but the model reads {limit} at "
            f"most; lower {setting} or take a model with a longer context"
        )


def max_positions(model: Any) -> int | None:
    """Tokens of the longest sequence that a model reads, None for any length (ALiBi)."""
    limit = getattr(model.config, "max_position_embeddings", None)
    embeddings = getattr(getattr(base_of(model), "base_model", None), "embeddings", None)
    first = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
    # RoBERTa numbers positions from behind its padding token.
    return limit if limit is None or first is None else limit - first - 1


def add_lora(
    model: Any, config: LoraConfig, seed: int, task: Literal["CAUSAL_LM", "SEQ_CLS"] = "CAUSAL_LM"
) -> Any:
    """Returns `model` with new adapters, everything else frozen but the head of SEQ_CLS.

    Raises:
        ConfigError: for DoRA on a matrix with a row of zeros, whose direction is not defined.
    """
    import peft

    torch.manual_seed(seed)
    adapted = peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            target_modules=config.target_modules,
            use_dora=config.dora,
            task_type=task,
        ),
    )
    for name, parameter in adapted.named_parameters():
        if "lora_magnitude_vector" in name and not parameter.all():
            layer = name.partition(".lora_magnitude_vector")[0].removeprefix("base_model.model.")
            raise ConfigError(
                f"lora.dora cannot adapt {layer}, which has rows of zeros; set lora.dora to false "
                "or leave the layer out of lora.target_modules"
            )
    return adapted


def base_of(model: Any) -> Any:
    """The transformers model inside a LoRA model, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def logits_of(model: Any, chosen_BT: Tensor, inputs: dict[str, Tensor]) -> Tensor:
    """Logits [N, V] of the N chosen places. The projection to the vocabulary runs on these only:
    for fine-tuning, where answers are short, that saves most of it."""
    base = base_of(model)
    hidden_BTD = base.base_model(**inputs, use_cache=False).last_hidden_state
    return base.get_output_embeddings()(hidden_BTD[chosen_BT])


class LanguageModelLoss(nn.Module):
    """A decoder with its loss, so that DeepSpeed's engine wraps both."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, labels: Tensor, weights: Tensor, **inputs: Tensor) -> Tensor:
        """Sum of the negative log-likelihood of `labels` [B, T], each times its weight, in nats."""
        chosen_BT = labels != IGNORE
        logits_NV = logits_of(self.model, chosen_BT, inputs)
        return token_nll_sum(logits_NV, labels[chosen_BT], weights[chosen_BT])
