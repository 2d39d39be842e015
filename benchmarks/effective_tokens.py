"""Text tokens a second in training: packed blocks against the Trainer that pads each batch.

The value is the ratio. Both sides train the same model on the same sequences; only tokens of text
count. `other` is Hugging Face's Trainer with its collator for language models, which pads to the
longest sequence of a batch; its batch holds, on average, as many tokens of text as ours. Both sides
take turns in stretches of some steps; the ratio is the median over the stretches.
Source: DESIGN.md 4, row 2.

--data DIR takes the lengths of real texts (TEXTS of near_duplicates.py); without it those of the
sample hospital, which differ less.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "2"

import numpy as np
import torch
from frame import argument_parser, print_result
from near_duplicates import choose, real_texts, sample_texts
from torch.utils.data import SequentialSampler
from transformers import (
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.models.qwen3 import Qwen3ForCausalLM

from medray.corpus.tokenizer import TokenizerConfig, plain_encoder, train_tokenizer
from medray.training.language_model import LanguageModelLoss
from medray.training.packed import PackedBlocks, Tokens
from medray.training.sampler import IndexSampler

BLOCK_TOKENS, MICRO, STRETCH = 1024, 2, 3


def model() -> Qwen3ForCausalLM:
    """5 M parameters."""
    torch.manual_seed(0)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=8000, hidden_size=192, num_hidden_layers=4, num_attention_heads=3,
            num_key_value_heads=3, head_dim=64, intermediate_size=768, tie_word_embeddings=True,
        )
    )  # fmt: skip


class Packed:
    """Our side: a step is `MICRO` packed blocks."""

    def __init__(self, sequences: list[np.ndarray]) -> None:
        rows = [Tokens(ids, np.ones(len(ids), bool)) for ids in sequences]
        self.blocks = PackedBlocks.pack(rows, BLOCK_TOKENS, pad=0)
        self.loss = LanguageModelLoss(model()).train()
        self.optimiser = torch.optim.AdamW(self.loss.parameters(), lr=1e-4)
        self.sampler = IndexSampler(len(self.blocks), MICRO, 0)
        self.step = 0

    def run(self, steps: int) -> float:
        """Tokens of text a second."""
        tokens, started = 0, time.perf_counter()
        for _ in range(steps):
            batch = self.sampler.batch(self.step)
            self.step += 1
            tokens += int((self.blocks.segments_NT[batch] > 0).sum())
            (self.loss(**self.blocks.collate(batch)) / self.blocks.weight(batch)).backward()
            torch.nn.utils.clip_grad_norm_(self.loss.parameters(), 1.0)
            self.optimiser.step()
            self.optimiser.zero_grad()
        return tokens / (time.perf_counter() - started)


class _InOrder(Trainer):
    """The Trainer on sequences that were shuffled before, so that their tokens can be counted."""

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]


class _Clock(TrainerCallback):
    """Alternates with our side after each stretch of the Trainer's steps."""

    def __init__(self, lengths: list[int], batch: int, ours: Packed) -> None:
        self.lengths, self.batch, self.ours = lengths, batch, ours
        self.speeds: list[tuple[float, float]] = []
        self.started = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The clock starts with the first step of a stretch."""
        if state.global_step % STRETCH == 0:
            self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """`global_step` counts the step that has just ended."""
        if state.global_step % STRETCH == 0:
            seconds = time.perf_counter() - self.started
            first = (state.global_step - STRETCH) * self.batch
            tokens = sum(self.lengths[first : first + STRETCH * self.batch])
            self.speeds.append((self.ours.run(STRETCH), tokens / seconds))


def sequences_of(texts: list[str]) -> tuple[list[np.ndarray], Any]:
    """Token ids with an end of text, cut to a block, shuffled; and the tokenizer."""
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=8000), texts)
    end: Any = tokenizer.eos_token_id
    encodings = plain_encoder(tokenizer).encode_batch(texts)
    ids = [np.array([*e.ids[: BLOCK_TOKENS - 1], end], np.int32) for e in encodings]
    return [ids[i] for i in np.random.default_rng(0).permutation(len(ids))], tokenizer


def main() -> int:
    """Prints the result line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--data", type=Path, help="folder with real texts")
    parser.add_argument("--stretches", type=int, default=12)
    parser.add_argument("--quick", action="store_true", help="3 stretches")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    stretches = 3 if arguments.quick else arguments.stretches
    texts = choose(real_texts(arguments.data) if arguments.data else sample_texts(4000), 4000)
    sequences, tokenizer = sequences_of(texts)
    lengths = [len(ids) for ids in sequences]
    batch = max(1, round(MICRO * BLOCK_TOKENS / statistics.mean(lengths)))
    speeds = trainer_turns(sequences, tokenizer, batch, stretches, Packed(sequences))[1:]
    ratios = [ours / other for ours, other in speeds]
    percentiles = np.percentile(lengths, [5, 50, 95, 100]).astype(int).tolist()
    print_result(
        "effective_tokens",
        round(statistics.median(ratios), 3),
        unit="ratio of text tokens a second",
        goal=">= 2",
        ours={
            "tokens_per_s": round(statistics.median(ours for ours, _ in speeds)),
            "ratios": [round(ratio, 2) for ratio in ratios],
            "length_p5_p50_p95_max": percentiles,
            "lengths": "real" if arguments.data else "sample hospital",
        },
        other={
            "tokens_per_s": round(statistics.median(other for _, other in speeds)),
            "batch": batch,
        },
        n=len(ratios),
    )
    return 0


def trainer_turns(
    sequences: list[np.ndarray],
    tokenizer: PreTrainedTokenizerFast,
    batch: int,
    stretches: int,
    ours: Packed,
) -> list[tuple[float, float]]:
    """(ours, other) text tokens a second of each stretch; the first is a warm-up."""
    clock = _Clock([len(ids) for ids in sequences], batch, ours)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = _InOrder(
            model=model(),
            args=TrainingArguments(
                output_dir=scratch, per_device_train_batch_size=batch, use_cpu=True,
                max_steps=STRETCH * (stretches + 1), learning_rate=1e-4, save_strategy="no",
                logging_strategy="no", report_to=[], disable_tqdm=True,
            ),
            train_dataset=[{"input_ids": ids.tolist()} for ids in sequences],  # type: ignore
            data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
            callbacks=[clock],
        )  # fmt: skip
        trainer.train()
    return clock.speeds


if __name__ == "__main__":
    sys.exit(main())
