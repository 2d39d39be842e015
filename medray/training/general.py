"""General text in training: replayed beside what is learnt, and watched, against forgetting.

In: blocks of the corpus. Out: training blocks with general ones among them; held-out blocks.
Source: Ibrahim et al. 2024 (replay in continued pretraining); in fine-tuning: Scialom et al. 2022
(rehearsal of about one percent keeps what was known).
"""

import math
from pathlib import Path

import numpy as np

from medray.common.errors import DataError
from medray.common.packing import read_segments
from medray.training.packed import PackedBlocks, Tokens

GENERAL = "general text"
"""What is kept aside against forgetting: its held-out loss is shown, and no part of `loss`."""


def read_heldout(blocks: Path) -> dict[str, PackedBlocks]:
    """Held-out blocks of each source, and of general text as GENERAL."""
    return PackedBlocks.open_groups(blocks, "heldout") | read_heldout_general(blocks)


def read_heldout_general(blocks: Path) -> dict[str, PackedBlocks]:
    """Held-out blocks of general text as GENERAL; empty if the corpus has none."""
    if not (blocks / "heldout_general.npy").exists():
        return {}
    general = PackedBlocks.open(blocks, "heldout_general")
    return {GENERAL: general} if len(general) else {}


def read_general(blocks: Path, block_tokens: int, pad: int) -> PackedBlocks:
    """Training blocks of general text, packed anew if they are not of `block_tokens`.

    Raises:
        DataError: if the corpus has none.
    """
    found = (blocks / "general.npy").exists()
    general = PackedBlocks.open(blocks, "general") if found else None
    if general is None or not len(general):
        raise DataError(
            "sft.general_fraction is above 0, but the corpus holds no general text for training; "
            "mark a source with general: true and prepare the corpus again, or set it to 0"
        )
    if general.block_tokens == block_tokens:
        return general
    pieces = [
        Tokens(piece, np.ones(len(piece), bool))
        for document in read_segments(general.tokens_NT, general.segments_NT)
        for piece in np.split(document, range(block_tokens, len(document), block_tokens))
    ]
    return PackedBlocks.pack(pieces, block_tokens, pad)


def with_general(
    train: PackedBlocks, general: PackedBlocks, fraction: float, seed: int
) -> PackedBlocks:
    """`train` and so many general blocks, read again where they are too few, that these are
    `fraction` of the blocks and, by their tokens' weight, of the loss."""
    num = round(len(train) * fraction / (1 - fraction))
    if not num:
        return train
    rng = np.random.default_rng((seed, len(train)))
    passes = math.ceil(num / len(general))
    order = np.concatenate([rng.permutation(len(general)) for _ in range(passes)])[:num]
    added = general.take(order.tolist())
    mine, its = (blocks.weight(range(len(blocks))) for blocks in (train, added))
    return train.join(added.reweighted(mine / its * fraction / (1 - fraction)))
