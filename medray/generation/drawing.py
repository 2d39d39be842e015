"""Drawing the next token of each answer. In: logits. Out: logits that leave one token."""

import math

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)


def drawing(
    temperature: float, top_p: float, generator: torch.Generator | None = None
) -> LogitsProcessorList:
    """What makes greedy search a draw: temperature, nucleus, then one token. Empty for greedy.

    Args:
        generator: where the random numbers come from; None takes torch's own state.
    """
    if temperature == 0:
        return LogitsProcessorList()
    steps: list[LogitsProcessor] = []
    if temperature != 1:
        steps.append(TemperatureLogitsWarper(temperature))
    if top_p < 1:
        steps.append(TopPLogitsWarper(top_p))
    return LogitsProcessorList([*steps, DrawToken(generator)])


class DrawToken(LogitsProcessor):
    """Draws a token by inverting the distribution function, with one random number a row.

    torch.multinomial, which `generate(do_sample=True)` calls, draws one for each entry of the
    vocabulary: of 64 answers by a small model on a CPU that took a quarter of the time.
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self._generator = generator

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        cdf_BV = scores.float().softmax(-1).cumsum(-1)
        total_B1 = cdf_BV[:, -1:].contiguous()
        number_B1 = torch.rand(total_B1.shape, generator=self._generator, device=total_B1.device)
        drawn_B1 = torch.searchsorted(cdf_BV, number_B1 * total_B1, right=True)
        # Rounding may lift the product to the total: then the last token that can be, not beyond.
        token_B1 = drawn_B1.minimum(torch.searchsorted(cdf_BV, total_B1))
        left_BV = torch.full_like(scores, -math.inf).scatter_(-1, token_B1, 0.0)
        return left_BV  # pyright: ignore[reportReturnType]
