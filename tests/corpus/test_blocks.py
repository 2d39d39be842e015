import itertools
import math

import numpy as np
import pytest

from medray.common.packing import read_segments
from medray.corpus.blocks import piece_lengths, unigram_nats, write_blocks

T = 16


def pack(tmp_path, documents):
    arrays = [np.array(tokens, np.int32) for tokens in documents]
    blocks, tokens = write_blocks(tmp_path, "train", arrays, T, pad=0)
    return blocks, tokens, np.load(tmp_path / "train.npy"), np.load(tmp_path / "train_segments.npy")


def test_nothing_is_lost_and_no_segment_crosses_documents(tmp_path):
    rng = np.random.default_rng(0)
    documents = [
        [1000 * k + i + 1 for i in range(n)] for k, n in enumerate(rng.integers(1, 60, size=50))
    ]
    blocks, num_tokens, tokens_NT, segments_NT = pack(tmp_path, documents)
    assert tokens_NT.dtype == segments_NT.dtype == np.int32
    assert tokens_NT.shape == segments_NT.shape == (blocks, T)
    assert num_tokens == sum(map(len, documents)) == (segments_NT > 0).sum()
    pieces = [list(map(int, piece)) for piece in read_segments(tokens_NT, segments_NT)]
    # Token 1000 k + i is the i-th of document k: every piece runs on within one document.
    assert all(b - a == 1 for piece in pieces for a, b in itertools.pairwise(piece))
    assert sorted(t for piece in pieces for t in piece) == sorted(itertools.chain(*documents))
    assert (tokens_NT[segments_NT == 0] == 0).all()
    assert not list(tmp_path.glob(".*"))


def test_short_documents_share_a_block(tmp_path):
    # 10 + 6 fill one block of 16, 9 takes another.
    blocks, _, _, segments_NT = pack(tmp_path, [[1] * 6, [2] * 9, [3] * 10])
    assert blocks == 2
    assert segments_NT[0].tolist() == [1] * 10 + [2] * 6
    assert segments_NT[1].tolist() == [1] * 9 + [0] * 7


def test_no_document_gives_no_block(tmp_path):
    blocks, num_tokens, tokens_NT, segments_NT = pack(tmp_path, [])
    assert (blocks, num_tokens) == (0, 0)
    assert tokens_NT.shape == segments_NT.shape == (0, T)


def test_pieces():
    assert piece_lengths(10, 4) == [4, 4, 2]
    assert piece_lengths(8, 4) == [4, 4]
    assert piece_lengths(0, 4) == []


def test_unigram_entropy_by_hand():
    # Train counts 2, 1, 0 of 3 tokens, plus one each: p = 3/6, 2/6, 1/6.
    # Held out: token 0 twice and token 2 once: (2 ln 2 + ln 6) / 3.
    train_V, heldout_V = np.array([2, 1, 0]), np.array([2, 0, 1])
    expected = (2 * math.log(2) + math.log(6)) / 3
    assert unigram_nats(train_V, heldout_V) == pytest.approx(expected)
    # No training text: all tokens alike, ln V.
    assert unigram_nats(np.zeros(8, int), np.ones(8, int)) == pytest.approx(math.log(8))
    assert unigram_nats(train_V, np.zeros(3, int)) is None
