"""Many Ray tasks, a few at a time. In: calls. Out: their results, as they come."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any


def in_tasks(work: Callable[..., Any], calls: Iterable[tuple], max_tasks: int) -> Iterator[Any]:
    """Results of `work` in Ray tasks, as they come; at most `max_tasks` calls are under way."""
    import ray

    remote = ray.remote(work)
    pending: set[Any] = set()
    for call in calls:
        pending.add(remote.remote(*call))
        if len(pending) == max_tasks:
            yield ray.get(_next(pending))
    while pending:
        yield ray.get(_next(pending))


def max_tasks_of_cluster() -> int:
    """One a CPU."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _next(pending: set[Any]) -> Any:
    import ray

    (done,), _ = ray.wait(list(pending), num_returns=1)
    pending.remove(done)
    return done
