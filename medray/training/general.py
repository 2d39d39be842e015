"""Text of the corpus in training: replayed beside what is learnt, against forgetting; general text
is watched too.

In: blocks of the corpus. Out: training blocks with some of its text among them; held-out blocks.
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
    """Held-out blocks of each source, and of general text as GENERAL, if the corpus has any."""
    general = _open(blocks, "heldout_general")
    found = PackedBlocks.open_groups(blocks, "heldout")
    return found if general is None else found | {GENERAL: general}


def read_general(blocks: Path, block_tokens: int, pad: int) -> tuple[PackedBlocks, PackedBlocks]:
    """Training and held-out blocks of general text, packed anew if they are not of `block_tokens`.

    Raises:
        DataError: if the corpus has none.
    """
    train, heldout = (_open(blocks, name) for name in ("general", "heldout_general"))
    if train is None or heldout is None:
        raise DataError(
            "sft.general_fraction is above 0, but the corpus holds no general text in both splits; "
            "mark a source with general: true and prepare the corpus, or set it to 0; a corpus of "
            "an older medray is to be removed and prepared again"
        )
    return _repack(train, block_tokens, pad), _repack(heldout, block_tokens, pad)


def read_text(blocks: Path, block_tokens: int, pad: int) -> PackedBlocks:
    """Training blocks of what was pretrained on, packed anew if they are not of `block_tokens`.

    Raises:
        DataError: if the corpus has none.
    """
    train = _open(blocks, "train")
    if train is None:
        raise DataError(
            f"sft.text_fraction is above 0, but the corpus holds no training text in {blocks}; set "
            "it to 0, or look at the counts of the corpus artefact"
        )
    return _repack(train, block_tokens, pad)


def _open(blocks: Path, name: str) -> PackedBlocks | None:
    if not (blocks / f"{name}.npy").exists():
        return None
    found = PackedBlocks.open(blocks, name)
    return found if len(found) else None


def _repack(text: PackedBlocks, block_tokens: int, pad: int) -> PackedBlocks:
    if text.block_tokens == block_tokens:
        return text
    pieces = [
        Tokens(piece, np.ones(len(piece), bool))
        for document in read_segments(text.tokens_NT, text.segments_NT)
        for piece in np.split(document, range(block_tokens, len(document), block_tokens))
    ]
    return PackedBlocks.pack(pieces, block_tokens, pad)


def with_text(train: PackedBlocks, text: PackedBlocks, fraction: float, seed: int) -> PackedBlocks:
    """`train` and so many blocks of text, read again where they are too few, that these are
    `fraction` of the blocks and, by their tokens' weight, of the loss."""
    num = round(len(train) * fraction / (1 - fraction))
    if not num:
        return train
    rng = np.random.default_rng((seed, len(train)))
    passes = math.ceil(num / len(text))
    order = np.concatenate([rng.permutation(len(text)) for _ in range(passes)])[:num]
    added = text.take(order.tolist())
    mine, its = (blocks.weight(range(len(blocks))) for blocks in (train, added))
    return train.join(added.reweighted(mine / its * fraction / (1 - fraction)))
