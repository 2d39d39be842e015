"""Prompt tuning: a few new tokens before every chat whose vectors alone learn.

The tokens stand in the vocabulary and at the head of the chat template, so that packing, roll-outs
and export need to know nothing of them: what comes out is a plain Hugging Face directory.
Source: Lester et al. 2021 (The Power of Scale for Parameter-Efficient Prompt Tuning).
"""

from typing import Any

import torch
from pydantic import Field
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase

from medray.common.config import Config
from medray.common.errors import ConfigError


class SoftPromptConfig(Config):
    """How long the prompt is."""

    num_tokens: int = Field(default=20, ge=1)
    """Lester et al. 2021, 3.2: beyond 20 tokens gains are small."""


def add_soft_prompt(
    model: Any, tokenizer: PreTrainedTokenizerBase, config: SoftPromptConfig, seed: int
) -> Any:
    """Returns `model` with everything frozen but the vectors of new tokens, which begin as those of
    tokens drawn at random; the tokenizer gets the tokens and puts them before every chat.

    Raises:
        ConfigError: if the tokenizer has such tokens already.
    """
    import peft

    names = [f"<|soft_prompt_{k}|>" for k in range(config.num_tokens)]
    if names[0] in tokenizer.get_vocab():
        raise ConfigError(
            "this model already has a soft prompt; set sft.soft_prompt to null, or start from a "
            "model without one"
        )
    known = len(tokenizer)
    tokens: list[Any] = [AddedToken(name, special=True, normalized=False) for name in names]
    tokenizer.add_tokens(tokens)
    tokenizer.chat_template = "".join(names) + str(tokenizer.chat_template)
    vocabulary = tokenizer.get_vocab()
    ids = [vocabulary[name] for name in names]
    if max(ids) >= model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
    drawn = torch.randperm(known, generator=torch.Generator().manual_seed(seed))
    parts = model.get_input_embeddings(), model.get_output_embeddings()
    read, written = (part.weight for part in parts)
    with torch.no_grad():
        read[ids] = read[drawn[torch.arange(len(ids)) % known]].clone()
        if written is not read:
            written[ids] = written[:known].mean(0)  # never a likely answer
    return peft.get_peft_model(model, peft.TrainableTokensConfig(token_indices=ids))
