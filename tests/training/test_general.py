"""Replay of general text: the share of blocks and of the loss, and blocks of another length."""

from pathlib import Path

import numpy as np
import pytest

from medray.common.errors import DataError
from medray.common.packing import read_segments
from medray.corpus.blocks import write_blocks
from medray.training.general import GENERAL, read_general, read_heldout, read_text, with_text
from medray.training.packed import PackedBlocks, Tokens

# Three blocks of 8 tokens with 2, 3 and 4 answer tokens; general documents of 5, 12 and 3 tokens.
CHATS = PackedBlocks.pack(
    [Tokens(range(10, 18), [False] * (8 - n) + [True] * n) for n in (2, 3, 4)], 8, pad=0
)
DOCUMENTS = [
    np.arange(start, start + n, dtype=np.int32) for start, n in ((40, 5), (60, 12), (80, 3))
]


@pytest.fixture
def blocks(tmp_path: Path) -> Path:
    for name in ("general", "heldout_general"):
        write_blocks(tmp_path, name, DOCUMENTS, 8, pad=0)
    return tmp_path


def test_general_text_has_its_share_of_blocks_and_loss(blocks: Path) -> None:
    general, _ = read_general(blocks, 8, pad=0)
    both = with_text(CHATS, general, 0.5, seed=0)
    assert len(both) == 6 and both.tokens_NT[:3].tolist() == CHATS.tokens_NT.tolist()
    # 9 answer tokens; the general blocks weigh as much, and alike token by token.
    assert both.weight(range(3)) == 9
    assert both.weight(range(3, 6)) == pytest.approx(9)
    fifth = with_text(CHATS, general, 0.25, seed=0)
    assert len(fifth) == 4 and fifth.weight([3]) == pytest.approx(3)  # 9 · 0.25 / 0.75
    few = with_text(CHATS, general, 0.9, seed=0)  # 27 blocks of 3: each nine times
    assert len(few) == 30 and few.weight(range(3, 30)) == pytest.approx(81)
    rows = sorted(map(tuple, few.tokens_NT[3:].tolist()))
    assert rows == sorted(list(map(tuple, general.tokens_NT.tolist())) * 9)
    assert with_text(CHATS, general, 0.01, seed=0) is CHATS


def test_blocks_of_another_length_hold_the_same_text(blocks: Path) -> None:
    short, heldout = read_general(blocks, 4, pad=0)
    assert short.block_tokens == 4 == heldout.block_tokens
    found = sorted(
        map(tuple, (p.tolist() for p in read_segments(short.tokens_NT, short.segments_NT)))
    )
    pieces = [[40, 41, 42, 43], [44], [60, 61, 62, 63], [64, 65, 66, 67], [68, 69, 70, 71],
              [80, 81, 82]]  # fmt: skip
    assert found == sorted(map(tuple, pieces))


def test_text_that_was_pretrained_on_is_read_again(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"sft\.text_fraction is above 0, but the corpus holds no"):
        read_text(tmp_path, 8, pad=0)
    write_blocks(tmp_path, "train", DOCUMENTS, 8, pad=0)
    text = read_text(tmp_path, 8, pad=0)
    assert sum((text.segments_NT > 0).sum(1)) == 20
    assert read_text(tmp_path, 4, pad=0).block_tokens == 4


def test_two_kinds_of_text_have_their_shares_of_the_whole(blocks: Path) -> None:
    general, _ = read_general(blocks, 8, pad=0)
    chats = CHATS.take([0, 1, 2] * 20)
    # A fifth of one and two fifths of the other: a third of what is not the latter, then those.
    one = with_text(chats, general, 0.2 / 0.6, seed=0)
    both = with_text(one, general, 0.4, seed=1)
    weights = [both.weight(range(60)), both.weight(range(60, 90)), both.weight(range(90, 150))]
    assert len(both) == 150
    assert [weight / sum(weights) for weight in weights] == pytest.approx([0.4, 0.2, 0.4])


def test_a_corpus_without_general_text_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="general: true"):
        read_general(tmp_path, 8, pad=0)
    write_blocks(tmp_path, "heldout", DOCUMENTS, 8, pad=0)
    assert set(read_heldout(tmp_path)) == {"heldout"}
    write_blocks(tmp_path, "heldout_general", DOCUMENTS, 8, pad=0)
    assert len(read_heldout(tmp_path)[GENERAL]) == 3
