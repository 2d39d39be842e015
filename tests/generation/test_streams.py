"""The contract of engines that stream, which each must pass."""

import asyncio
import itertools
import threading
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import torch

from medray.common.errors import GenerationError
from medray.generation import choice
from medray.generation.batching import BatchingConfig
from medray.generation.continuous import ContinuousEngine
from medray.generation.engine import HFEngine
from medray.generation.engine_process import EngineProcess
from medray.generation.plain import PlainStreams
from medray.generation.prompts import RECORD, Numbered
from medray.generation.sampling import EngineLoad, Sampling, Token, TokenStreams

PROMPTS = ["咳嗽", "肺炎三天。", "哮喘", "胃痛是否肺炎？", "A", "咳嗽三天是否哮喘？是。"]
SMALL = BatchingConfig(max_requests=4, cache_tokens=256, page_tokens=16, batch_tokens=16)


@pytest.fixture(scope="module", params=["continuous", "plain", "process", "vllm"])
def streams(request, engine: HFEngine, model_dir: Path) -> Iterator[TokenStreams]:
    made: TokenStreams
    match request.param:
        case "continuous":
            made = ContinuousEngine(engine, SMALL)
        case "plain":
            made = PlainStreams(engine, 4)
        case "process":
            made = EngineProcess(model_dir, SMALL)
        case _:
            pytest.importorskip("vllm")
            made = EngineProcess(model_dir, SMALL.model_copy(update={"engine": "vllm"}))
    yield made
    made.close()


def ask(streams: TokenStreams, *wanted: tuple[list[int], Sampling]) -> list[list[Token]]:
    """All answers, asked for at the same time."""

    async def one(prompt: list[int], sampling: Sampling) -> list[Token]:
        return [t async for tokens in streams.tokens(prompt, sampling, {}) for t in tokens]

    async def every() -> list[list[Token]]:
        return await asyncio.gather(*(one(*each) for each in wanted))

    return asyncio.run(every())


def ids(answers: list[list[Token]]) -> list[list[int]]:
    return [[token.id for token in answer] for answer in answers]


def test_greedy_answers_are_those_of_generate(streams, engine: HFEngine) -> None:
    """More at a time than the cache holds: 18 answers of up to 61 tokens, 256 in all."""
    prompts = [engine.encode(prompt) for prompt in PROMPTS * 3]
    for length in (1, 50):
        sampling = Sampling(max_new_tokens=length)
        answers = ids(ask(streams, *((prompt, sampling) for prompt in prompts)))
        assert answers == engine.generate_ids(prompts, sampling)


def test_an_answer_depends_on_its_own_seed_alone(streams, engine: HFEngine) -> None:
    prompt = engine.encode(PROMPTS[1])

    def drawn(seed: int) -> tuple[list[int], Sampling]:
        return prompt, Sampling(max_new_tokens=20, temperature=1.0, top_p=0.9, seed=seed)

    alone = ids(ask(streams, drawn(3)))[0]
    together = ids(ask(streams, *map(drawn, range(6))))
    assert together[3] == alone
    assert len({tuple(answer) for answer in together}) == 6


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_goes_on_where_another_engine_stopped(
    streams, engine: HFEngine, temperature: float
) -> None:
    prompt = engine.encode(PROMPTS[1])
    sampling = Sampling(max_new_tokens=24, temperature=temperature, top_p=0.9, seed=5)
    whole = ids(ask(streams, (prompt, sampling)))[0]
    assert len(whole) > 10

    async def rest(cut: int) -> list[int]:
        found = streams.tokens(prompt, sampling, {}, whole[:cut])
        return [token.id async for tokens in found for token in tokens]

    for cut in (1, 7, len(whole) - 1):
        assert whole[:cut] + asyncio.run(rest(cut)) == whole


def test_log_probabilities_are_the_models(streams, engine: HFEngine) -> None:
    """Before temperature, of what was drawn; greedy neighbours are told nothing."""
    prompt = engine.encode(PROMPTS[3])
    drawn = Sampling(max_new_tokens=15, temperature=1.5, seed=1, num_logprobs=3)
    told, silent = ask(streams, (prompt, drawn), (prompt, Sampling(max_new_tokens=15)))
    assert all(token.logprob is None and token.top == () for token in silent)
    expected = engine.score_texts([prompt + [t.id for t in told]], num_top=3)[0][len(prompt) :]
    assert [t.id for t in told] == [t.id for t in expected]
    for token, again in zip(told, expected, strict=True):
        assert token.logprob == pytest.approx(again.logprob, abs=1e-4)
        assert [k for k, _ in token.top] == [k for k, _ in again.top]
        assert [p for _, p in token.top] == pytest.approx([p for _, p in again.top], abs=1e-4)


def test_no_token_is_lost_where_steps_and_their_reader_meet(
    engine: HFEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second token is taken down while the first is read, and the next two come together."""
    first_read, fourth_begun, numbers = threading.Event(), threading.Event(), itertools.count()
    plainly = choice.told

    def told(*arguments: Any) -> Token:
        number = next(numbers)
        if number == 1:
            assert first_read.wait(60)
        elif number == 3:
            fourth_begun.set()
        return plainly(*arguments)

    monkeypatch.setattr("medray.generation.choice.told", told)
    streams = ContinuousEngine(engine, SMALL)
    prompt = engine.encode(PROMPTS[1])
    sampling = Sampling(max_new_tokens=8, num_logprobs=0)

    async def read() -> list[list[Token]]:
        batches = []
        async for tokens in streams.tokens(prompt, sampling, {}):
            batches.append(tokens)
            if not first_read.is_set():
                # What has been read is cut off when the reader asks for more.
                asyncio.get_running_loop().call_soon(first_read.set)
                asyncio.get_running_loop().call_soon(fourth_begun.wait, 60)
        return batches

    batches = asyncio.run(read())
    streams.close()
    answer = [token for tokens in batches for token in tokens]
    assert [token.id for token in answer] == engine.generate_ids([prompt], sampling)[0]
    assert len(answer) > 4 and all(token.logprob is not None for token in answer)
    assert len(batches[0]) == 1 and len(batches[1]) >= 2


def test_a_prompt_that_begins_as_another_is_taken_from_the_cache(engine: HFEngine) -> None:
    """In whole pages of 16 tokens, of which the prompt's last token is never one."""
    streams = ContinuousEngine(engine, SMALL)
    begin = (engine.encode("咳嗽三天是否肺炎？") * 20)[:48]
    prompts = [begin + engine.encode(end) for end in ("哮喘", "胃痛。", "A")]
    before = streams.load().cached_tokens
    cached, short = [], Sampling(max_new_tokens=3)
    for prompt in prompts:
        answer = ids(ask(streams, (prompt, short)))
        assert answer == engine.generate_ids([prompt], short)  # as if nothing were shared
        cached.append(streams.load().cached_tokens - before)
    assert cached == [0, 48, 96]
    ask(streams, (begin[:40], short))
    assert streams.load().cached_tokens - before == 96 + 32
    streams.close()


def test_what_waits_is_counted(engine: HFEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first answer's second step is held up until five others have come."""
    held, counted, numbers = threading.Event(), threading.Event(), itertools.count()
    plainly = choice.told

    def told(*arguments: Any) -> Token:
        if next(numbers) == 1:
            held.set()
            assert counted.wait(60)
        return plainly(*arguments)

    monkeypatch.setattr("medray.generation.choice.told", told)
    streams = ContinuousEngine(engine, SMALL)
    prompt, sampling = engine.encode(PROMPTS[1]), Sampling(max_new_tokens=4, num_logprobs=0)

    async def run() -> EngineLoad:
        async def one() -> list[list[Token]]:
            return [tokens async for tokens in streams.tokens(prompt, sampling, {})]

        first = asyncio.create_task(one())
        assert await asyncio.to_thread(held.wait, 60)
        others = [asyncio.create_task(one()) for _ in range(5)]
        await asyncio.sleep(0)  # each asks for its place, and waits
        load = streams.load()
        counted.set()
        await asyncio.gather(first, *others)
        return load

    load = asyncio.run(run())
    assert (load.waiting, load.active) == (5, 1)
    assert streams.load()[:2] == (0, 0)
    streams.close()


def test_quotations_are_guided_in_a_batch(streams, engine: HFEngine) -> None:
    """Whoever opens a quotation, drawn nearly at random, goes on with its own record's words."""
    records = ["咳嗽三天。", "胃痛是否肺炎？"]

    async def one(seed: int) -> str:
        sampling = Sampling(max_new_tokens=8, temperature=20.0, seed=seed)
        record = {RECORD: Numbered("", records[seed % 2])}
        found = streams.tokens(engine.encode("是"), sampling, record)
        told = [token.id async for tokens in found for token in tokens]
        return str(engine.tokenizer.decode(told, skip_special_tokens=True))

    async def every() -> list[str]:
        return await asyncio.gather(*map(one, range(240)))

    quoted = [(k, text) for k, text in enumerate(asyncio.run(every())) if text.startswith("“")]
    assert {k % 2 for k, _ in quoted} == {0, 1}
    for k, text in quoted:
        quote = text[1:].split("”")[0]
        assert quote and quote in records[k % 2]


def test_leaving_ends_an_answer_and_others_go_on(streams, engine: HFEngine) -> None:
    prompt = engine.encode(PROMPTS[0])
    long = Sampling(max_new_tokens=100)
    whole = engine.generate_ids([prompt], long)[0]
    assert len(whole) > 20

    async def run() -> list[int]:
        async def leave() -> list[Token]:
            async with aclosing(streams.tokens(prompt, long, {})) as batches:
                return await anext(batches)

        async def stay() -> list[int]:
            return [t.id async for tokens in streams.tokens(prompt, long, {}) for t in tokens]

        *left, stayed = await asyncio.gather(leave(), leave(), leave(), stay())
        assert all(0 < len(tokens) < len(whole) for tokens in left)
        # The places of those that left are free again.
        assert await stay() == whole
        return stayed

    assert asyncio.run(run()) == whole
    streams.check()


def test_an_end_token_is_the_last(streams, engine: HFEngine) -> None:
    sampling = Sampling(max_new_tokens=100, temperature=1.0)
    for seed in range(20):
        [answer] = ids(
            ask(streams, (engine.encode("是"), sampling.model_copy(update={"seed": seed})))
        )
        assert not engine.eos_ids & set(answer[:-1])
        if answer[-1] in engine.eos_ids:
            return
        assert len(answer) == 100
    raise AssertionError("no answer ended")


def test_a_closed_engine_says_so(engine: HFEngine) -> None:
    streams = ContinuousEngine(engine, SMALL)
    streams.check()
    streams.close()
    with pytest.raises(GenerationError, match="ended"):
        streams.check()
    with pytest.raises(GenerationError, match="start it again"):
        ask(streams, (engine.encode("A"), Sampling()))


def test_the_engines_own_passes_go_on_beside(streams, engine: HFEngine) -> None:
    """The manager changes its model's attention; `score` must not meet that."""
    before = engine.score(PROMPTS[:2], [["是", "否"]] * 2)
    implementation = engine.model.config._attn_implementation
    ask(streams, (engine.encode("A"), Sampling(max_new_tokens=5)))
    assert engine.model.config._attn_implementation == implementation
    assert engine.score(PROMPTS[:2], [["是", "否"]] * 2) == before


def test_the_weights_are_shared(engine: HFEngine) -> None:
    streams = ContinuousEngine(engine, SMALL)
    twin: Any = streams._manager.model
    assert twin is not engine.model
    assert all(a is b for a, b in zip(twin.parameters(), engine.model.parameters(), strict=True))
    streams.close()


def test_bloom_is_refused(tmp_path: Path, model_dir: Path) -> None:
    """Its ALiBi biases are wrong in continuous batches, and only a warning says so."""
    from transformers import AutoTokenizer, BloomConfig, BloomForCausalLM

    AutoTokenizer.from_pretrained(model_dir).save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = BloomConfig(
        vocab_size=40, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3, eos_token_id=2
    )
    BloomForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises((GenerationError, ValueError)):
        ContinuousEngine(HFEngine(tmp_path), SMALL)
