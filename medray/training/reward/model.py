"""A reward model at work: scenarios and responses in, scores out.

A directory whose tokenizer has a chat template is a decoder's, which reads a chat and scores its
last token, with a likelihood head the answer's tokens too; any other is BERT's, which reads
`[CLS] scenario [SEP] response [SEP]` and scores the first. So the reward model need not share the
policy's tokenizer.
Source: [EMR-LLM 1.4], [ClinicalGPT 2.3].
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

from medray.common.records import Message
from medray.generation.directory import check_model_directory, load_options
from medray.training.chats import tokenise_chats
from medray.training.language_model import check_vocabulary, max_positions
from medray.training.reward.likelihood import HEAD, LikelihoodScorer
from medray.training.supervised import chunks


class RewardModel:
    """Scores responses to scenarios; of what scale depends on how it was trained."""

    def __init__(self, directory: Path | str, batch_size: int = 0) -> None:
        """
        Raises:
            CheckpointError: if the directory lacks a part, or its tokenizer is of another model.
        """
        check_model_directory(Path(directory))
        self.reads_likelihood = (Path(directory) / HEAD).is_file()
        self.model: Any
        if self.reads_likelihood:
            self.model = LikelihoodScorer.from_pretrained(directory).eval()
        else:
            self.model = AutoModelForSequenceClassification.from_pretrained(
                directory, use_safetensors=True, **load_options()
            ).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(directory, **load_options())
        transformer = self.model.decoder if self.reads_likelihood else self.model
        check_vocabulary(transformer, self.tokenizer, Path(directory))
        self.max_tokens = trained_length(transformer, self.tokenizer)
        # On a CPU, what a batch computes should stay in the cache.
        self.batch_size = batch_size or (64 if torch.cuda.is_available() else 16)

    @torch.no_grad()
    def score(self, scenarios: Sequence[str], responses: Sequence[str]) -> list[float]:
        """One score per pair, in order. Batches are of like lengths, so that little is padding."""
        scores = [0.0] * len(scenarios)
        lengths = [len(a) + len(b) for a, b in zip(scenarios, responses, strict=True)]
        order = sorted(range(len(scores)), key=lengths.__getitem__)
        for batch in chunks(order, self.batch_size):
            inputs = encode(
                self.tokenizer,
                [scenarios[i] for i in batch],
                [responses[i] for i in batch],
                self.max_tokens,
                answers=self.reads_likelihood,
            )
            inputs = {name: tensor.to(self.model.device) for name, tensor in inputs.items()}
            found = self.model(**inputs).logits[:, 0].float().tolist()
            for i, score in zip(batch, found, strict=True):
                scores[i] = score
        return scores


LONGEST = 512
"""Tokens that a model reads whose directory names no length. Source: BERT's positions."""


def trained_length(model: Any, tokenizer: Any) -> int:
    """Tokens that a reward model reads, which training keeps as the tokenizer's `model_max_length`.
    Of a directory made elsewhere that is the model's own length, or, where nobody set it, a number
    without meaning."""
    named = tokenizer.model_max_length
    limit = max_positions(model)
    return min(named if named < VERY_LARGE_INTEGER else LONGEST, limit or named)


def encode(
    tokenizer: Any,
    scenarios: Sequence[str],
    responses: Sequence[str],
    max_tokens: int,
    *,
    answers: bool = False,
) -> dict[str, Tensor]:
    """What the model reads of each pair, padded on the right to the longest.

    Args:
        answers: add `answer_mask` [B, T], True on a chat's answer, its end token included.
    """
    if not tokenizer.chat_template:
        return encode_pairs(tokenizer, scenarios, responses, max_tokens)
    chats = tokenise_chats(
        [
            [Message(role="user", content=scenario), Message(role="assistant", content=response)]
            for scenario, response in zip(scenarios, responses, strict=True)
        ],
        tokenizer,
    )
    # The scenario's beginning is cut: the score is read where the response ends.
    ids = [np.asarray(chat.ids)[-max_tokens:].tolist() for chat in chats]
    inputs = dict(tokenizer.pad({"input_ids": ids}, padding_side="right", return_tensors="pt"))
    if answers:
        masks = [torch.from_numpy(np.asarray(chat.weights)[-max_tokens:]) for chat in chats]
        inputs["answer_mask"] = pad_sequence(masks, batch_first=True)
    return inputs


def encode_pairs(
    tokenizer: Any, scenarios: Sequence[str], responses: Sequence[str], max_tokens: int
) -> dict[str, Tensor]:
    """`[CLS] scenario [SEP] response [SEP]`, the longer of the two cut where both are too long."""
    return dict(
        tokenizer(
            list(scenarios),
            list(responses),
            truncation="longest_first",
            max_length=max_tokens,
            padding=True,
            return_tensors="pt",
        )
    )
