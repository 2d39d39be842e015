"""Choosing the tokens of one answer: guided, drawn with a seed of its own, and told.

In: the logits of an answer's next token. Out: logits that leave what may be chosen. An answer then
depends on its own seed, not on what else is generated beside it.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from medray.generation.drawing import drawing
from medray.generation.prompts import Numbered
from medray.generation.quoting import GuidedQuotes
from medray.generation.sampling import Sampling, Token


class TokenChoice(LogitsProcessor):
    """The choices of one answer. `told` grows by a Token a step if log-probabilities are asked: as
    the engine's thread fills it while others read, it is the same list from beginning to end."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        num_prompt_tokens: int,
        sampling: Sampling,
        citable: Mapping[int, Numbered],
        device: torch.device,
        num_done: int = 0,
    ) -> None:
        """Args:
        citable: what the answer may quote, see `GuidedQuotes`.
        num_done: tokens of the answer that were drawn before, one random number each.
        """
        self.told: list[Token] = []
        self._num_logprobs = sampling.num_logprobs
        self._steps: list[Any] = []
        if citable:
            self._steps.append(GuidedQuotes(tokenizer, [citable], num_prompt_tokens))
        if sampling.temperature > 0:
            generator = torch.Generator(device).manual_seed(sampling.seed)
            for _ in range(num_done):
                torch.rand((1, 1), generator=generator, device=device)
            self._steps += drawing(sampling.temperature, sampling.top_p, generator)

    @property
    def active(self) -> bool:
        """False where the likeliest token is taken and nothing told: there is nothing to do."""
        return bool(self._steps) or self._num_logprobs is not None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        """Logits [1, V] after the tokens [1, T] → those that leave what may be chosen."""
        raw_1V = scores.clone() if self._num_logprobs is not None and self._steps else scores
        for step in self._steps:
            scores = step(input_ids, scores)
        if self._num_logprobs is not None:
            self.told.append(told(raw_1V[0], int(scores[0].argmax()), self._num_logprobs))
        return scores


def told(logits_V: Tensor, token: int, num_top: int) -> Token:
    """A token with its log-probability and those of the `num_top` likeliest."""
    logprobs_V = logits_V.float().log_softmax(-1)
    top = logprobs_V.topk(min(num_top, len(logprobs_V)))
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return Token(token, float(logprobs_V[token]), tuple(pairs))
