"""Best-fit packing by hand, and nothing lost."""

import random

import pytest

from medray.common.packing import pack_best_fit


def test_by_hand() -> None:
    # Longest first into blocks of 10: 7 opens A (3 free), 6 opens B (4 free), 4 fits B alone,
    # 3 fits A alone, 2 fits nowhere and opens C.
    assert pack_best_fit([2, 3, 6, 7, 4], 10) == [[3, 1], [2, 4], [0]]


def test_the_fullest_block_is_taken() -> None:
    # 6 opens A (4 free), 5 opens B (5 free); 4 fits both and goes to A, where nothing is left.
    assert pack_best_fit([6, 5, 4], 10) == [[0, 2], [1]]


def test_equal_lengths_keep_their_order() -> None:
    assert pack_best_fit([5, 5, 5], 10) == [[0, 1], [2]]


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_lost_and_nothing_overflows(seed: int) -> None:
    rng = random.Random(seed)
    lengths = [rng.randint(1, 64) for _ in range(300)]
    blocks = pack_best_fit(lengths, 64)
    assert sorted(i for block in blocks for i in block) == list(range(300))
    assert all(sum(lengths[i] for i in block) <= 64 for block in blocks)
    # Best-fit decreasing needs at most 11/9 of the optimum plus one; the sum is a lower bound.
    assert len(blocks) <= 11 / 9 * -(-sum(lengths) // 64) + 4


def test_nothing_to_pack() -> None:
    assert pack_best_fit([], 8) == []


@pytest.mark.parametrize("length", [0, 9])
def test_a_length_that_no_block_takes(length: int) -> None:
    with pytest.raises(ValueError, match=f"sequence 1 has {length} tokens; blocks hold 1 to 8"):
        pack_best_fit([3, length], 8)
