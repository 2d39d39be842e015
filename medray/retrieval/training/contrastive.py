"""Stage 2, contrastive training. In: question-passage pairs. Out: batches for `pair_loss`.

Source: [C-Pack 3.2]: in-batch negatives over all workers, CLS pooling, cosine over a temperature;
title-and-text pairs of the unlabelled corpus beside the labelled ones, here as random spans of a
passage [Contriever 3.1] with their passage; hard negatives beside them (`negatives`), of which
each question meets those of all the others too [DPR 3.2]. Model, pooling, normalisation and
similarity are FlagEmbedding's `BiEncoderOnlyEmbedderModel`.
Differs: the loop is ours, not `EncoderOnlyEmbedderTrainer`. Its data set draws positives and
negatives from the global `random`, so that a killed run does not continue with the same batches;
its gathered negatives carry no gradient to the other workers; and it counts a passage that
answers the question as a negative when it stands elsewhere in the batch.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field, model_validator
from torch import Tensor

from medray.common.config import Config
from medray.retrieval.embed import passage_text
from medray.retrieval.training.negatives import KEPT
from medray.retrieval.training.order import item_at

# Shapes: B pairs of one worker, G passages of the global batch.


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
    hard_negatives: int = Field(default=0, ge=0, le=KEPT)
    """Passages beside each training question's own that the words rank high and that do not answer
    it; with 0 the passages of the other pairs are all its negatives. Source: 1 in [C-Pack 3.2]; 7
    in FlagEmbedding's examples, train_group_size 8."""
    mined_after: int = Field(default=2, ge=0)
    """First ranks that give no hard negative: what stands there often answers too. Source:
    FlagEmbedding's examples, range_for_sampling 2-200."""
    mined_until: int = Field(default=200, ge=1)
    """Last rank that gives one."""
    query_instruction: str = ""
    """Put before every question, in training and in search. Source: [BGE] uses one in Chinese."""
    max_query_tokens: int = Field(default=64, ge=4)
    max_passage_tokens: int = Field(default=256, ge=8)

    @model_validator(mode="after")
    def _fits(self) -> "ContrastiveConfig":
        if self.mined_after >= self.mined_until:
            raise ValueError(f"mined_until must be more than mined_after {self.mined_after}")
        return self


class Pair(NamedTuple):
    """A question and the rows of its passage, of all passages that answer it, and of some that do
    not."""

    query: str
    passage: int
    gold: frozenset[int]
    negatives: tuple[int, ...] = ()


class PairBatches:
    """The global batch of any step, and a worker's share of it; a pure function of the seed."""

    def __init__(
        self,
        config: ContrastiveConfig,
        questions: list[tuple[str, list[int]]],
        passages: pa.Table,
        tokenizer: Any,
        seed: int,
        mined: Sequence[Sequence[int]] = (),
    ) -> None:
        """`mined`: rows of the hard negatives of each question, where there are any."""
        self.config, self.questions, self.passages = config, questions, passages
        self.tokenizer, self.seed, self.mined = tokenizer, seed, mined

    def pairs(self, step: int) -> list[Pair]:
        """Returns the pairs of the global batch at `step`."""
        rng = np.random.default_rng([self.seed, 2, step])
        draw = np.random.default_rng([self.seed, 4, step])  # its own: the pairs stay as without
        size = self.config.batch_size
        num_spans = round(self.config.span_fraction * size) if self.questions else size
        pairs = []
        for i in range(size - num_spans):
            position = step * (size - num_spans) + i
            item = item_at(position, len(self.questions), self.seed + 1)
            query, gold = self.questions[item]
            passage, negatives = gold[rng.integers(len(gold))], self._negatives(item, draw)
            pairs.append(Pair(query, passage, frozenset(gold), negatives))
        for i in range(num_spans):
            row = item_at(step * num_spans + i, self.passages.num_rows, self.seed + 2)
            pairs.append(Pair(random_span(self.text(row), rng), row, frozenset([row])))
        return pairs

    def _negatives(self, item: int, draw: np.random.Generator) -> tuple[int, ...]:
        if not self.mined:
            return ()
        found, most = self.mined[item], self.config.hard_negatives
        return tuple(found[i] for i in draw.permutation(len(found))[:most])

    def text(self, row: int) -> str:
        """Returns the embedded text of a passage."""
        return passage_text(self.passages["title"][row].as_py(), self.passages["text"][row].as_py())

    def batch(self, step: int, rank: int, num_workers: int) -> dict[str, Any]:
        """Returns the arguments of `PairLoss` for worker `rank` at `step`."""
        pairs = self.pairs(step)
        hard = [row for pair in pairs for row in pair.negatives]
        # Workers gather equally many: some encode one again, at the end, that no question meets.
        num_hard = len(hard)
        hard += hard[:1] * (-num_hard % num_workers)
        columns = [(pair.passage, True) for pair in pairs]
        shares = [
            columns[r::num_workers]
            + [(hard[i], i < num_hard) for i in range(r, len(hard), num_workers)]
            for r in range(num_workers)
        ]
        gathered = [column for share in shares for column in share]
        own, offset = pairs[rank::num_workers], rank * len(shares[rank])
        masked_BG = [
            [not met or (row in pair.gold and j != offset + i)
             for j, (row, met) in enumerate(gathered)]
            for i, pair in enumerate(own)
        ]  # fmt: skip
        instruction = self.config.query_instruction
        return {
            "queries": self._encode(
                [instruction + pair.query for pair in own], self.config.max_query_tokens
            ),
            "passages": self._encode(
                [self.text(row) for row, _ in shares[rank]], self.config.max_passage_tokens
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
