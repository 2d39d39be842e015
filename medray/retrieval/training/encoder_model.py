"""The encoder and its settings. In: a profile's `encoder` section. Out: the model that training
starts from, and what stands beside it in its directory.

The small BERT of the laptop profile replaces a BGE checkpoint, which takes its place with `base`.
"""

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator
from transformers import AutoModelForMaskedLM, BertConfig, BertForMaskedLM

from medray.generation.directory import check_trainable, load_options
from medray.retrieval.embed import copy_heads, save_instruction
from medray.retrieval.training.contrastive import ContrastiveConfig
from medray.retrieval.training.mlm import MlmConfig
from medray.retrieval.training.trainer import RetrievalTraining


class EncoderConfig(RetrievalTraining):
    """The encoder, its two training stages, and the workers."""

    base: str = ""
    """A Hugging Face directory (BGE, BERT, RoBERTa) to start from; empty builds a small BERT. The
    heads of a BGE-M3 come along as they are: neither stage trains them."""
    num_layers: int = Field(default=3, ge=1)
    """Of the small BERT. Source: not given; the largest that trains in 100 s on two cores."""
    hidden_size: int = Field(default=128, ge=8)
    num_heads: int = Field(default=4, ge=1)
    vocab_size: int = Field(default=6000, ge=100)
    max_positions: int = Field(default=512, ge=16)
    """Source: [BERT]."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Of the small BERT. Differs from [BERT A.2]'s 0.1: a run of minutes fits too little, not too
    much (sample hospital, same steps: recall@5 0.89 with 0.1, 1.00 with 0), and it is faster."""
    mlm: MlmConfig = MlmConfig()
    contrastive: ContrastiveConfig = ContrastiveConfig()

    @model_validator(mode="after")
    def _fits(self) -> "EncoderConfig":
        for name, size in (
            ("mlm", self.mlm.batch_size),
            ("contrastive", self.contrastive.batch_size),
        ):
            if size % self.num_workers:
                raise ValueError(
                    f"{name}.batch_size must be a multiple of num_workers "
                    f"{self.num_workers}, got {size}"
                )
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size must be a multiple of num_heads {self.num_heads}, "
                f"got {self.hidden_size}"
            )
        longest = max(
            self.mlm.block_tokens,
            self.contrastive.max_passage_tokens,
            self.contrastive.max_query_tokens,
        )
        if not self.base and longest > self.max_positions:
            raise ValueError(f"{longest} tokens exceed max_positions {self.max_positions}")
        return self


def add_to_model(config: EncoderConfig, directory: Path) -> None:
    """Writes what a model directory holds beside the model: how questions begin, M3's heads."""
    save_instruction(directory, config.contrastive.query_instruction)
    if config.base:
        copy_heads(Path(config.base), directory)


def build_masked_model(config: EncoderConfig, tokenizer: Any) -> Any:
    """Returns the model that masked-language training starts from."""
    if config.base:
        base = check_trainable(Path(config.base))
        return AutoModelForMaskedLM.from_pretrained(base, use_safetensors=True, **load_options())
    return BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            intermediate_size=4 * config.hidden_size,
            max_position_embeddings=config.max_positions,
            hidden_dropout_prob=config.dropout,
            attention_probs_dropout_prob=config.dropout,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
