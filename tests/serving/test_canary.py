"""A canary beside policies that answer, fail or hang as they are told."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RayActorError

from medray.generation.sampling import Sampling
from medray.serving.canary import Canary, CanaryConfig
from medray.serving.messages import Choices, Finish, Fit, Piece, Prompt
from medray.serving.switch import Switch

ASKED = Choices([[{"role": "user", "content": "长"}], [{"role": "user", "content": "短"}]], True)
FIT = Fit(1, 3, 5, 64)


class Counts:
    """Of the metrics, what a canary tells."""

    def __init__(self) -> None:
        self.failed: list[bool] = []

    def canary(self, failed: bool) -> None:
        self.failed.append(failed)


class Scripted:
    """A policy that gives these items; an exception is raised, None is waited for in vain."""

    def __init__(self, *items: Any) -> None:
        self.items, self.asked = items, []

    async def stream(
        self, prompt: Prompt, sampling: Sampling
    ) -> AsyncGenerator[Fit | Piece | Finish, None]:
        self.asked.append((prompt, sampling.max_new_tokens))
        for item in self.items:
            if item is None:
                await asyncio.Event().wait()
            elif isinstance(item, Exception):
                raise item
            else:
                yield item


TRUSTED = (Piece("旧"), Finish("stop", 1, "old"))


def canary(new: Scripted, trusted: Scripted, **settings: Any) -> tuple[Canary, list[bool]]:
    counts: Any = Counts()
    config = CanaryConfig(model="next", **({"share": 1} | settings))
    return Canary(config, trusted, new, counts), counts.failed


def answer(canary: Canary, prompt: Prompt = ASKED) -> list[Any]:
    async def items() -> list[Any]:
        return [item async for item in canary.stream(prompt, Sampling(max_new_tokens=9))]

    return asyncio.run(items())


def test_the_new_model_answers() -> None:
    said = (FIT, Piece("新"), Finish("stop", 1, "new"))
    new, trusted = Scripted(*said), Scripted(*TRUSTED)
    both, failed = canary(new, trusted)
    assert answer(both) == [*said]
    assert (trusted.asked, failed) == ([], [False])


def test_its_share_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter([0.1, 0.25, 0.9])
    monkeypatch.setattr("random.random", lambda: next(draws))
    new, trusted = Scripted(FIT, Finish("stop", 0, "new")), Scripted(*TRUSTED)
    both, _ = canary(new, trusted, share=0.25)
    assert [answer(both)[-1].version for _ in range(3)] == ["new", "old", "old"]


@pytest.mark.parametrize("items", [(), (FIT,)], ids=["at once", "after it said what fits"])
def test_what_fails_before_a_word_is_answered_by_the_other(items: tuple[Any, ...]) -> None:
    new, trusted = Scripted(*items, RayActorError()), Scripted(*TRUSTED)
    both, failed = canary(new, trusted)
    assert answer(both) == [*items, *TRUSTED]
    # The reader has been shown the passages of the second; it has room for 5 tokens.
    assert trusted.asked == [(ASKED.conversations[1], 5) if items else (ASKED, 9)]
    assert failed == [True]


def test_a_model_that_says_nothing_has_failed() -> None:
    both, failed = canary(Scripted(None), Scripted(FIT, *TRUSTED), first_item_s=0.01)
    assert answer(both) == [FIT, *TRUSTED]
    assert failed == [True]


def test_a_model_that_says_what_fits_and_then_nothing_has_failed() -> None:
    new, trusted = Scripted(FIT, None), Scripted(*TRUSTED)
    both, failed = canary(new, trusted, next_item_s=0.01)
    assert answer(both) == [FIT, *TRUSTED]
    assert failed == [True]
    both, failed = canary(Scripted(FIT, Piece("新"), None), trusted, next_item_s=0.01)
    with pytest.raises(TimeoutError):
        answer(both)
    assert failed == [True]


def test_what_is_too_long_for_it_is_answered_by_the_other() -> None:
    trusted = Scripted(FIT, *TRUSTED)
    both, failed = canary(Scripted(Fit(None, 99, 0, 64)), trusted)
    assert answer(both) == [FIT, *TRUSTED]
    assert (trusted.asked, failed) == ([(ASKED, 9)], [])


def test_what_fails_in_the_middle_fails() -> None:
    trusted = Scripted(*TRUSTED)
    both, failed = canary(Scripted(FIT, Piece("新"), RayActorError()), trusted)
    with pytest.raises(RayActorError):
        answer(both)
    assert (trusted.asked, failed) == ([], [True])


def test_a_reader_that_leaves_counts_for_nothing() -> None:
    async def leave() -> None:
        stream = both.stream(ASKED, Sampling())
        await anext(stream)
        await stream.aclose()

    both, failed = canary(Scripted(FIT, Piece("新"), None), Scripted(*TRUSTED))
    asyncio.run(leave())
    assert failed == []


def test_it_stops_everywhere_once_it_fails_too_often(tmp_path: Path) -> None:
    bad, good = Scripted(RayActorError()), Scripted(FIT, Finish("stop", 0, "new"))
    settings: Any = {"fewest": 4, "max_failures": 0.5, "stop_file": str(tmp_path / "stopped")}
    failing, failed = canary(bad, Scripted(*TRUSTED), **settings)
    beside, _ = canary(good, Scripted(*TRUSTED), **settings)
    for _ in range(6):
        assert answer(failing)[-1].version == "old"
    assert failed == [True] * 4  # 3 of 4 would do; it is judged from the fourth on
    assert answer(beside)[-1].version == "old"
    Switch(settings["stop_file"]).start()
    assert answer(beside)[-1].version == "new"
    answer(failing)
    assert failed == [True] * 5  # asked again, and judged anew
    assert not failing.stopped


def test_a_few_failures_are_borne() -> None:
    both, _ = canary(Scripted(FIT, Finish("stop", 0)), Scripted(*TRUSTED), fewest=2)
    both._failed.extend([False] * 19)
    both._new = Scripted(RayActorError())
    answer(both)  # 1 of 20 is 0.05, and no more than may fail
    assert not both.stopped
    answer(both)
    assert both.stopped
