"""Replay: the share is exact, and the order of the documents does not matter."""

import numpy as np
import pytest

from medray.corpus.replay import replay, replayed_tokens


@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.25, 0.5, 0.9])
def test_the_share_is_exact_to_the_token(fraction):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 90, size=50).tolist()
    taken = replayed_tokens([f"d{k}" for k in range(50)], lengths, 1000, fraction)
    # g / (1000 + g) = f, so g = 1000 f / (1 − f), rounded: half a token of error at most.
    general = int(taken.sum())
    assert abs(general * (1 - fraction) - 1000 * fraction) <= 0.5
    texts = [np.full(n, k) for k, n in enumerate(lengths)]
    pieces = list(replay(texts, taken))
    assert sum(map(len, pieces)) == general
    assert [sum(len(p) for p in pieces if p[0] == k) for k in range(50)] == taken.tolist()


def test_whole_documents_but_for_one():
    taken = replayed_tokens(list("abcdefgh"), [10] * 8, 95, 0.25)  # 95 / 3 = 31.67: 32 tokens
    assert sorted(taken.tolist()) == [0, 0, 0, 0, 2, 10, 10, 10]


def test_the_order_of_the_documents_does_not_matter():
    doc_ids, lengths = [f"d{k}" for k in range(20)], list(range(5, 25))
    taken = dict(zip(doc_ids, replayed_tokens(doc_ids, lengths, 300, 0.3).tolist(), strict=True))
    back = replayed_tokens(doc_ids[::-1], lengths[::-1], 300, 0.3).tolist()
    assert dict(zip(doc_ids[::-1], back, strict=True)) == taken


def test_too_little_general_text_is_read_again(caplog):
    # 200 tokens wanted of 30: six times all, and 20 more.
    taken = replayed_tokens(["a", "b"], [10, 20], 200, 0.5)
    assert taken.sum() == 200 and taken.min() >= 60
    assert "the general text is read 7 times" in caplog.text
    assert replayed_tokens([], [], 200, 0.5).tolist() == []
