"""Share of the tokens of packed blocks that are text, on the lengths of real texts.

The value is the lowest fill over the block sizes. `ours` is best-fit decreasing as the corpus job
packs; `other` fills blocks in the order of the documents and begins a new one where the next piece
does not fit, and gives every piece a block of its own. Longer texts are cut into full blocks first,
on all sides alike. `block_diagonal` is the share of attention that packing leaves to compute.

--data DIR reads real texts from a data folder laid out as TEXTS of near_duplicates.py says; without
it the texts come from the sample hospital, whose lengths are alike, so that few fit beside another
in a block of 320; the goal is for real lengths.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from frame import argument_parser, print_result
from near_duplicates import choose, real_texts, sample_texts

from medray.common.packing import pack_best_fit
from medray.corpus.blocks import piece_lengths
from medray.corpus.tokenizer import TokenizerConfig, plain_encoder, train_tokenizer

BLOCKS_TOKENS = (320, 1024, 2048, 4096)


def next_fit(lengths: Sequence[int], capacity: int) -> int:
    """Blocks that are begun when pieces are laid down in their order."""
    blocks, free = 0, 0
    for length in lengths:
        if length > free:
            blocks, free = blocks + 1, capacity
        free -= length
    return blocks


def measure(lengths: Sequence[int], capacity: int) -> tuple[dict[str, float], dict[str, float]]:
    """Fills of one block size, ours and the others'."""
    pieces = [piece for length in lengths for piece in piece_lengths(length, capacity)]
    tokens = sum(pieces)
    started = time.perf_counter()
    blocks = pack_best_fit(pieces, capacity)
    seconds = time.perf_counter() - started
    assert sorted(i for block in blocks for i in block) == list(range(len(pieces)))
    assert all(sum(pieces[i] for i in block) <= capacity for block in blocks)
    attended = sum(piece * piece for piece in pieces) / (len(blocks) * capacity**2)
    ours = {
        "fill": round(tokens / (len(blocks) * capacity), 4),
        "blocks": len(blocks),
        "seconds": round(seconds, 2),
        "block_diagonal": round(attended, 3),
    }
    other = {
        "in_order": round(tokens / (next_fit(pieces, capacity) * capacity), 4),
        "one_a_block": round(tokens / (len(pieces) * capacity), 4),
    }
    return ours, other


def main() -> int:
    """Prints the result line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--data", type=Path, help="folder with real texts")
    parser.add_argument("--texts", type=int, default=20_000, help="at most so many")
    parser.add_argument("--quick", action="store_true", help="2 000 texts")
    arguments = parser.parse_args()
    num_texts = 2_000 if arguments.quick else arguments.texts
    stream = real_texts(arguments.data) if arguments.data else sample_texts(num_texts)
    texts = choose(stream, num_texts)
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=8000), texts)
    encodings = plain_encoder(tokenizer).encode_batch(texts)
    lengths = [len(encoding.ids) + 1 for encoding in encodings]  # an end of text each
    ours, other = {}, {}
    for capacity in BLOCKS_TOKENS:
        ours[capacity], other[capacity] = measure(lengths, capacity)
    percentiles = np.percentile(lengths, [5, 50, 95, 100]).astype(int).tolist()
    print_result(
        "packing",
        min(figures["fill"] for figures in ours.values()),
        unit="share of the blocks' tokens that are text, lowest over block sizes",
        goal=">= 0.97",
        ours={"by_block_tokens": ours, "length_p5_p50_p95_max": percentiles},
        other={"by_block_tokens": other},
        n=len(lengths),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
