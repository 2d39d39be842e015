"""Tokens a second of the continuous batch with attention sequence by sequence, against
transformers' own with a mask of all, on a CPU.

Both engines have the same 28 M parameters of random weights and answer the same prompts of random
tokens, --streams at a time, in turns; medians. The value is the ratio for prompts of 512 tokens,
about a grounded question's; those of 64 stand beside it. Time counts from the first prompt handed
in to the last token.
"""

import asyncio
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

from frame import argument_parser, print_result
from served_tokens import SHAPE, build_model, question

from medray.corpus.tokenizer import TokenizerConfig, train_tokenizer
from medray.generation import continuous
from medray.generation.batching import BatchingConfig
from medray.generation.continuous import ContinuousEngine
from medray.generation.engine import HFEngine
from medray.generation.sampling import Sampling


async def run(engine: ContinuousEngine, prompts: list[list[int]], num_new: int) -> float:
    """Tokens a second of all answers."""
    sampling = Sampling(max_new_tokens=num_new)

    async def one(prompt: list[int]) -> int:
        return sum([len(tokens) async for tokens in engine.tokens(prompt, sampling, {})])

    began = time.perf_counter()
    counts = await asyncio.gather(*map(one, prompts))
    return sum(counts) / (time.perf_counter() - began)


def main() -> int:
    """Prints the result line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--quick", action="store_true", help="one round of few tokens")
    arguments = parser.parse_args()
    rounds, num_new = (1, 8) if arguments.quick else (3, 32)
    draw = random.Random(0)
    ours: dict[int, list[float]] = {64: [], 512: []}
    other: dict[int, list[float]] = {64: [], 512: []}
    with tempfile.TemporaryDirectory() as scratch:
        texts, tokenizer = map(question, range(100)), Path(scratch) / "tokenizer"
        train_tokenizer(TokenizerConfig(vocab_size=400), texts).save_pretrained(tokenizer)
        build_model(Path(scratch) / "model", tokenizer, SHAPE)
        engine = HFEngine(Path(scratch) / "model")
        known = len(engine.tokenizer)  # pyright: ignore[reportArgumentType]
        batching = BatchingConfig(max_requests=arguments.streams)
        packed = ContinuousEngine(engine, batching)
        with patch.object(continuous, "use_packed_attention"):
            dense = ContinuousEngine(engine, batching)
        for _ in range(rounds):
            for length in ours:
                prompts = [
                    [draw.randrange(10, known - 10) for _ in range(length)]
                    for _ in range(arguments.streams)
                ]
                other[length].append(asyncio.run(run(dense, prompts, num_new)))
                ours[length].append(asyncio.run(run(packed, prompts, num_new)))
        packed.close()
        dense.close()
    print_result(
        "continuous_batch",
        round(statistics.median(ours[512]) / statistics.median(other[512]), 2),
        unit="tokens a second, sequence by sequence / with a mask of all; prompts of 512 tokens",
        goal=">= 1",
        ours={f"prompts_of_{n}": round(statistics.median(x), 1) for n, x in ours.items()},
        other={f"prompts_of_{n}": round(statistics.median(x), 1) for n, x in other.items()},
        n=rounds,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
