"""A stream whose replica dies goes on with another: by the same passages, by the same model."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest
from ray import cloudpickle, serve
from ray.exceptions import RayActorError, RayTaskError

from medray.generation.sampling import Sampling
from medray.serving.handles import Calls, PolicyHandle
from medray.serving.messages import CHANGED, Choices, Finish, Fit, Piece
from medray.serving.observe.metrics import Metrics
from medray.serving.schema.base import ApiError

pytestmark = pytest.mark.cluster
FIRST, SECOND = ([{"role": "user", "content": text}] for text in ("两段", "一段"))
CHOICES = Choices([FIRST, SECOND], exact=False)
FIT = Fit(1, 7, 30, 64)
DIES = RayActorError()


class Scripted:
    """Says its lines, one list a call, and what it was asked."""

    def __init__(self, *calls: list[Any]) -> None:
        self._calls, self._asked = iter(calls), []  # type: ignore[var-annotated]

    async def stream(self, *asked: Any) -> AsyncGenerator[Any, None]:
        self._asked.append(asked)
        for item in next(self._calls):
            if isinstance(item, Exception):
                raise item
            yield item

    def asked(self) -> list[Any]:
        return self._asked


PIECE, REST, HELD = (Piece(text, (), (4,), "v1") for text in ("咳", "嗽", ""))
WHOLE = [Piece("发热", (), (9,), "v2"), Finish("stop", 1, "v2")]
CHANGES = [Finish(CHANGED, 0, "v2")]
CALLS: dict[str, list[list[Any]]] = {
    "dies": [[FIT, PIECE, DIES], [REST, Finish("stop", 2, "v1")]],
    "changes": [[FIT, PIECE, DIES], CHANGES],
    "unheard": [[FIT, HELD, DIES], CHANGES, WHOLE],
}


@pytest.fixture(scope="module")
def read(ray_cluster) -> Iterator[dict[str, tuple[list[Any], list[Any]]]]:
    """What a reader got of each of `CALLS`, and what was asked."""

    async def reading(name: str) -> tuple[list[Any], list[Any]]:
        handle, items = serve.get_app_handle(name), []
        try:
            policy = PolicyHandle(handle, Calls(Metrics()))
            async for item in policy.stream(CHOICES, Sampling(max_new_tokens=50)):
                items.append(item)
        except ApiError as error:
            items.append((error.status, error.code))
        return items, await handle.asked.remote()

    async def all_of_them() -> dict[str, tuple[list[Any], list[Any]]]:
        return {name: await reading(name) for name in CALLS}

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # no replica can import a test
    for name, calls in CALLS.items():
        scripted = serve.deployment(Scripted).options(ray_actor_options={"num_cpus": 0})
        serve.run(scripted.bind(*calls), name=name, route_prefix=None)
    loop = asyncio.new_event_loop()  # which Serve's handles use until the end
    yield loop.run_until_complete(all_of_them())
    serve.shutdown()
    loop.close()
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_another_goes_on_by_the_passages_that_the_reader_sees(read) -> None:
    items, asked = read["dies"]
    assert items == [FIT, PIECE, REST, Finish("stop", 2, "v1")]
    assert asked == [
        (CHOICES, Sampling(max_new_tokens=50), [], 0, ""),
        (SECOND, Sampling(max_new_tokens=30), [4], 1, "v1"),
    ]


def test_no_model_goes_on_with_anothers_words(read) -> None:
    items, _ = read["changes"]
    assert items == [FIT, PIECE, (503, CHANGED)]


def test_an_answer_of_which_nothing_was_sent_begins_anew(read) -> None:
    items, asked = read["unheard"]
    assert items == [FIT, HELD, *WHOLE]
    assert asked[2] == (SECOND, Sampling(max_new_tokens=30), [], 0, "v1")


@pytest.mark.parametrize(("error", "num_calls"), [(DIES, 4), (RayTaskError("f", "", DIES), 1)])
def test_only_what_the_replica_itself_dies_of_is_repeated(error: Any, num_calls: int) -> None:
    raised = error.as_instanceof_cause() if isinstance(error, RayTaskError) else error
    calls = 0

    async def once() -> None:
        nonlocal calls
        calls += 1
        raise raised

    with pytest.raises(RayActorError):
        asyncio.run(Calls(Metrics()).repeated("judge", once))
    assert calls == num_calls
