"""Stage 2, contrastive training. In: question-passage pairs. Out: batches for `pair_loss`.

Source: [C-Pack 3.2]: in-batch negatives over all workers, CLS pooling, cosine over a temperature;
title-and-text pairs of the unlabelled corpus beside the labelled ones, here as random spans of a
passage [Contriever 3.1] with their passage. Model, pooling, normalisation and similarity are
FlagEmbedding's `BiEncoderOnlyEmbedderModel`.
Differs: the loop is ours, not `EncoderOnlyEmbedderTrainer`. Its data set draws positives and
negatives from the global `random`, so that a killed run does not continue with the same batches;
its gathered negatives carry no gradient to the other workers; and it counts a passage that
answers the question as a negative when it stands elsewhere in the batch.
"""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from torch import Tensor

from medray.common.config import Config
from medray.retrieval.embed import passage_text
from medray.retrieval.training.order import item_at

# Shapes: B pairs of one worker, G pairs of the global batch.


class ContrastiveConfig(Config):
    """Contrastive training on question-passage pairs."""

    steps: int = Field(default=260, ge=0)
    """0 leaves the encoder as masked-language training made it. Source: measured on the sample
    hospital with batches of 64."""
    batch_size: int = Field(default=64, ge=2)
    """Pairs in the global batch; each question meets the passages of all the others."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak. Source: not given; measured for 1-2 M parameters. [C-Pack] uses 1e-5 for base size."""
    warmup_steps: int = Field(default=20, ge=0)
    temperature: float = Field(default=0.05, gt=0)
    """Source: [C-Pack] 0.01-0.02 for large models; the small one learned at 0.05."""
    span_fraction: float = Field(default=0.25, ge=0, le=1)
    """Share of the batch that pairs a random span of a passage with its passage. All of it where
    there is no training question."""
    query_instruction: str = ""
    """Put before every question, in training and in search. Source: [BGE] uses one in Chinese."""
    max_query_tokens: int = Field(default=64, ge=4)
    max_passage_tokens: int = Field(default=256, ge=8)


class Pair(NamedTuple):
    """A question and the rows of its passage and of all passages that answer it."""

    query: str
    passage: int
    gold: frozenset[int]


class PairBatches:
    """The global batch of any step, and a worker's share of it; a pure function of the seed."""

    def __init__(
        self,
        config: ContrastiveConfig,
        questions: list[tuple[str, list[int]]],
        passages: pa.Table,
        tokenizer: Any,
        seed: int,
    ) -> None:
        self.config, self.questions, self.passages = config, questions, passages
        self.tokenizer, self.seed = tokenizer, seed

    def pairs(self, step: int) -> list[Pair]:
        """Returns the pairs of the global batch at `step`."""
        rng = np.random.default_rng([self.seed, 2, step])
        size = self.config.batch_size
        num_spans = round(self.config.span_fraction * size) if self.questions else size
        pairs = []
        for i in range(size - num_spans):
            position = step * (size - num_spans) + i
            query, gold = self.questions[item_at(position, len(self.questions), self.seed + 1)]
            pairs.append(Pair(query, gold[rng.integers(len(gold))], frozenset(gold)))
        for i in range(num_spans):
            row = item_at(step * num_spans + i, self.passages.num_rows, self.seed + 2)
            pairs.append(Pair(random_span(self.text(row), rng), row, frozenset([row])))
        return pairs

    def text(self, row: int) -> str:
        """Returns the embedded text of a passage."""
        return passage_text(self.passages["title"][row].as_py(), self.passages["text"][row].as_py())

    def batch(self, step: int, rank: int, num_workers: int) -> dict[str, Any]:
        """Returns the arguments of `PairLoss` for worker `rank` at `step`."""
        shares = [self.pairs(step)[r::num_workers] for r in range(num_workers)]
        gathered = [pair.passage for share in shares for pair in share]
        own, offset = shares[rank], rank * len(shares[rank])
        masked_BG = [
            [row in pair.gold and j != offset + i for j, row in enumerate(gathered)]
            for i, pair in enumerate(own)
        ]
        instruction = self.config.query_instruction
        return {
            "queries": self._encode(
                [instruction + pair.query for pair in own], self.config.max_query_tokens
            ),
            "passages": self._encode(
                [self.text(pair.passage) for pair in own], self.config.max_passage_tokens
            ),
            "masked": torch.tensor(masked_BG),
            "target": torch.arange(offset, offset + len(own)),
        }

    def _encode(self, texts: list[str], max_tokens: int) -> dict[str, Tensor]:
        encoded = self.tokenizer(
            texts, padding=True, truncation=True, max_length=max_tokens, return_tensors="pt"
        )
        return dict(encoded)


def random_span(text: str, rng: np.random.Generator) -> str:
    """Returns 6 to 40 characters from anywhere in `text`, all of a shorter one."""
    length = min(len(text), int(rng.integers(6, 41)))
    start = int(rng.integers(len(text) - length + 1))
    return text[start : start + length]
