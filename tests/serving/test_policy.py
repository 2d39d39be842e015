"""The policy deployment without Serve: text, flushing, and going on for a replica that died."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from medray.generation.sampling import Sampling
from medray.serving import policy as module
from medray.serving.messages import CHANGED, Choices, Finish, Piece
from medray.serving.policy import Policy

pytestmark = pytest.mark.xdist_group("hospital")  # one worker makes the models


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every token is a piece, so that a stream can be cut anywhere."""
    monkeypatch.setattr(module, "FLUSH_S", 0.0)


def chat(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


async def collect(policy: Policy, *arguments) -> tuple[list[Piece], Finish]:
    *pieces, finish = [item async for item in policy.stream(*arguments)]
    return pieces, finish  # type: ignore[return-value]


def _joined(pieces: list[Piece]) -> tuple[str, list[int], set[str]]:
    """Text, tokens and versions: how many tokens a piece has is the machine's doing."""
    ids = [token for piece in pieces for token in piece.ids]
    return "".join(piece.text for piece in pieces), ids, {piece.version for piece in pieces}


@pytest.mark.parametrize("stop", [(), ("四五",), ("六七八", "二三四五六x")])
def test_another_replica_goes_on_from_any_place(policy: Policy, hospital, stop) -> None:
    """With stop strings text is held back: it is neither lost nor sent twice."""
    prompt = chat(hospital.long_question)
    sampling = Sampling(max_new_tokens=40, stop=stop)
    pieces, finish = asyncio.run(collect(policy, prompt, sampling))
    whole = "".join(piece.text for piece in pieces)
    assert whole.startswith("一二三")
    assert finish.version == "model"
    for cut in range(len(pieces) + 1):
        done = [token for piece in pieces[:cut] for token in piece.ids]
        sent = "".join(piece.text for piece in pieces[:cut])
        gone_on = (done, len(sent), pieces[0].version)
        rest, again = asyncio.run(collect(policy, prompt, sampling, *gone_on))
        assert sent + "".join(piece.text for piece in rest) == whole
        assert again == finish


def test_another_models_tokens_are_not_gone_on_from(policy: Policy, hospital) -> None:
    prompt, sampling = chat(hospital.long_question), Sampling(max_new_tokens=8)
    pieces, finish = asyncio.run(collect(policy, prompt, sampling))
    assert {piece.version for piece in pieces} == {finish.version} == {"model"}
    done = list(pieces[0].ids)
    nothing, ended = asyncio.run(collect(policy, prompt, sampling, done, 1, "before"))
    assert (nothing, ended) == ([], Finish(CHANGED, 0, "model"))
    anew, same = asyncio.run(collect(policy, prompt, sampling, [], 0, "before"))
    assert (_joined(anew), same) == (_joined(pieces), finish)


def test_pieces_come_together_when_tokens_come_fast(
    policy: Policy, hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, num_batches = policy._engine.tokens, 0

    async def counted(*arguments: Any) -> AsyncGenerator[Any, None]:
        nonlocal num_batches
        async with aclosing(own(*arguments)) as batches:
            async for batch in batches:
                num_batches += 1
                yield batch

    prompt, sampling = chat(hospital.long_question), Sampling(max_new_tokens=60)
    with monkeypatch.context() as patched:
        patched.setattr(policy._engine, "tokens", counted)
        each, finish = asyncio.run(collect(policy, prompt, sampling))
    monkeypatch.setattr(module, "FLUSH_S", 3600.0)
    together, same = asyncio.run(collect(policy, prompt, sampling))
    # What the engine gives at a time, several tokens where the machine is busy, is a piece.
    assert len(each) == num_batches > 2
    assert len(together) == 2  # the first token at once, the rest at the end
    assert _joined(together) == _joined(each)
    assert finish == same == Finish("length", 60, "model")


def test_leaving_frees_the_place(policy: Policy, hospital) -> None:
    async def leave() -> None:
        async with aclosing(policy.stream(chat(hospital.long_question), Sampling())) as items:
            await anext(items)
            assert policy.status()["active_streams"] == 1

    asyncio.run(leave())
    assert policy.status()["active_streams"] == 0
    policy.check_health()


def test_a_context_with_room_for_some(policy: Policy) -> None:
    long, short = chat("患" * 9000), chat("患")
    fit, ids = policy.fit(Choices([long, short], exact=True), 16)
    assert (fit.index, fit.max_new_tokens, fit.context_tokens) == (1, 16, 4096)
    assert fit.num_prompt_tokens == len(ids) > 1
    assert policy.fit(Choices([long], exact=True), 16)[0].index is None
    room, _ = policy.fit(Choices([short], exact=False), 5000)
    assert (room.index, room.max_new_tokens) == (0, 4096 - room.num_prompt_tokens)


def test_of_several_chats_the_first_that_fits_is_answered(policy: Policy, hospital) -> None:
    """What fits is told first; nothing follows where none does."""
    long, asked = chat("患" * 9000), chat(hospital.long_question)

    async def items(*chats) -> list:
        choices = Choices(list(chats), exact=True)
        return [item async for item in policy.stream(choices, Sampling(max_new_tokens=12))]

    fit, *pieces, finish = asyncio.run(items(long, asked))
    alone, end = asyncio.run(collect(policy, asked, Sampling(max_new_tokens=12)))
    assert (fit.index, fit.max_new_tokens) == (1, 12)
    assert "".join(p.text for p in pieces) == "".join(p.text for p in alone)
    assert finish == end
    (none,) = asyncio.run(items(long))
    assert none.index is None
