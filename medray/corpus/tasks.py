"""Ray tasks, some at a time. In: calls of one function. Out: their results, as they come."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from medray.common.errors import MedrayError


def in_tasks(work: Callable[..., Any], calls: Iterable[tuple], max_tasks: int) -> Iterator[Any]:
    """Yields what `work` returns for each of `calls`; at most `max_tasks` are under way.

    Raises:
        MedrayError: what a call raised, as it was; the calls under way are cancelled.
    """
    import ray

    remote = ray.remote(work)
    pending: set[Any] = set()
    try:
        for call in calls:
            pending.add(remote.remote(*call))
            if len(pending) == max_tasks:
                yield _next(pending)
        while pending:
            yield _next(pending)
    finally:
        for reference in pending if ray.is_initialized() else ():
            ray.cancel(reference)


def in_order(results: Iterable[tuple[int, Any]]) -> Iterator[Any]:
    """Yields results by their places 0, 1, 2 ...; one that comes early waits in memory."""
    early: dict[int, Any] = {}
    place = 0
    for found, result in results:
        early[found] = result
        while place in early:
            yield early.pop(place)
            place += 1


def max_tasks_of_cluster() -> int:
    """One a CPU."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _next(pending: set[Any]) -> Any:
    import ray

    (done,), _ = ray.wait(list(pending), num_returns=1)
    pending.remove(done)
    try:
        return ray.get(done)
    except MedrayError as error:  # Ray's, which is also one of its cause's type
        raise getattr(error, "cause", error) from None
