"""What a key may ask, counted by hand with a clock that the test moves."""

import threading
from concurrent.futures import ThreadPoolExecutor

from medray.serving.budget import DAY_S, Budget


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_requests_of_the_last_minute() -> None:
    clock = Clock()
    budget = Budget(clock)
    assert budget.take("a", 2, None) == 0
    clock.now += 20
    assert budget.take("a", 2, None) == 0
    clock.now += 10
    assert budget.take("a", 2, None) == 30  # the first was 30 s ago
    assert budget.take("b", 2, None) == 0  # another key's minute is its own
    clock.now += 30
    assert budget.take("a", 2, None) == 0  # what was refused was not counted
    assert budget.take("a", 2, None) == 20


def test_tokens_of_the_last_day() -> None:
    clock = Clock()
    budget = Budget(clock)
    assert budget.take("a", None, 100) == 0
    budget.spend("a", 60)
    clock.now += 30  # within a minute: one entry of 90
    budget.spend("a", 30)
    clock.now += 1000
    assert budget.take("a", None, 100) == 0
    budget.spend("a", 20)
    # 110 of 100: free again when the 90 are a day old, that is in a day less 1030 s.
    assert budget.take("a", None, 100) == DAY_S - 1030
    clock.now += DAY_S - 1030
    assert budget.take("a", None, 100) == 0
    assert budget.take("a", None, 20) == 1030  # the 20 that were spent later
    assert budget.status() == {"keys": 1}


def test_a_refused_request_costs_no_place_in_the_minute() -> None:
    clock = Clock()
    budget = Budget(clock)
    budget.spend("a", 10)
    assert budget.take("a", 1, 10) > 0
    clock.now += DAY_S
    assert budget.take("a", 1, 10) == 0


def test_threads_count_one_at_a_time() -> None:
    """Serve calls it from several threads; none of the hundred thousand tokens is lost."""
    budget = Budget()
    barrier = threading.Barrier(8)

    def spend() -> float:
        barrier.wait()
        for _ in range(2500):
            budget.spend("a", 5)
        return budget.take("a", 3, None)

    with ThreadPoolExecutor(8) as pool:
        waits = list(pool.map(lambda _: spend(), range(8)))
    assert sum(wait == 0 for wait in waits) == 3
    assert budget.take("a", None, 100_001) == 0 and budget.take("a", None, 100_000) > 0
