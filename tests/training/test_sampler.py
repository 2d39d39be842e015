"""Which samples make a step: nothing but the seed and the step decides."""

import hashlib

import pytest

from medray.common.errors import DataError
from medray.training.sampler import IndexSampler, seed_of
from medray.training.supervised import shares


@pytest.mark.parametrize(("num_samples", "batch_size"), [(10, 4), (3, 8), (7, 7), (1, 2)])
def test_every_epoch_is_a_permutation(num_samples: int, batch_size: int) -> None:
    sampler = IndexSampler(num_samples, batch_size, seed=1)
    stream = [i for step in range(3 * num_samples) for i in sampler.batch(step)]
    for start in range(0, len(stream) - num_samples + 1, num_samples):
        assert sorted(stream[start : start + num_samples]) == list(range(num_samples))


def test_epochs_and_seeds_differ() -> None:
    sampler = IndexSampler(100, 100, seed=1)
    assert sampler.batch(0) != sampler.batch(1)
    assert sampler.batch(0) != IndexSampler(100, 100, seed=2).batch(0)


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_shares_make_the_batch_for_any_number_of_workers(world_size: int) -> None:
    expected = IndexSampler(37, 8, seed=3)
    for step in (0, 4, 5, 11):
        shares = [IndexSampler(37, 8, 3).share(step, r, world_size) for r in range(world_size)]
        assert {len(share) for share in shares} == {8 // world_size}
        together = [i for row in zip(*shares, strict=True) for i in row]
        assert together == expected.batch(step)


def test_any_step_can_be_asked_for_first() -> None:
    straight = IndexSampler(10, 4, seed=5)
    batches = [straight.batch(step) for step in range(8)]
    assert IndexSampler(10, 4, seed=5).batch(6) == batches[6]
    assert straight.batch(1) == batches[1]


def test_empty_training_set() -> None:
    with pytest.raises(DataError, match="the training split is empty"):
        IndexSampler(0, 4, seed=0)


def test_seed_is_a_function_of_its_parts() -> None:
    expected = int(hashlib.sha256(b"(0, 3, 'roll out', 1)").hexdigest()[:8], 16)
    assert seed_of(0, 3, "roll out", 1) == expected
    seeds = {seed_of(0, step, name, r) for step in range(20) for name in "ab" for r in range(2)}
    assert len(seeds) == 80


@pytest.mark.parametrize(
    ("num", "size", "expected"),
    [
        (5, 1, [[[0], [2], [4]], [[1], [3], []]]),
        (5, 2, [[[0, 2], [4]], [[1, 3], []]]),
        (1, 4, [[[0]], [[]]]),
    ],
)
def test_every_worker_gets_as_many_pieces(num: int, size: int, expected: list) -> None:
    assert [[list(part) for part in shares(num, rank, 2, size)] for rank in (0, 1)] == expected
