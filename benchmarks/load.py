"""Clients of a served graph: questions that arrive by themselves, whether or not it keeps up.

In: a URL, questions, a rate. Out: what became of each. A part of other benchmarks.
"""

import asyncio
import json
import random
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import aiohttp


class Reply(NamedTuple):
    """What became of a question. Seconds since the load began."""

    question: str
    began: float
    first: float | None
    """When its first text came."""
    ended: float
    status: int
    """0 where there was no answer at all."""
    text: str
    num_tokens: int
    whole: bool
    """The stream came to its end."""
    error: str
    retry_after: str


def body(question: str, max_tokens: int, retrieval: bool) -> dict[str, Any]:
    """A streamed chat."""
    return {
        "model": "medray", "stream": True, "retrieval": retrieval, "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": question}],
        "stream_options": {"include_usage": True},
    }  # fmt: skip


async def ask(
    client: aiohttp.ClientSession, question: str, max_tokens: int, retrieval: bool, zero: float
) -> Reply:
    """Asks one question."""
    began, first, texts, num_tokens, whole = time.perf_counter() - zero, None, [], 0, False
    status, error, retry_after = 0, "", ""
    try:
        request = body(question, max_tokens, retrieval)
        async with client.post("/v1/chat/completions", json=request) as response:
            status = response.status
            retry_after = response.headers.get("retry-after", "")
            async for sent in response.content:
                line = sent.decode().rstrip("\n")
                if status != 200 or not line.startswith("data: "):
                    continue
                if line == "data: [DONE]":
                    whole = True
                    continue
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    error = chunk["error"]["code"] or "error"
                    continue
                for choice in chunk["choices"]:
                    if text := choice["delta"].get("content", ""):
                        first = time.perf_counter() - zero if first is None else first
                        texts.append(text)
                num_tokens = (chunk.get("usage") or {}).get("completion_tokens", num_tokens)
    except (aiohttp.ClientError, TimeoutError) as problem:
        error = type(problem).__name__
    ended = time.perf_counter() - zero
    return Reply(
        question, began, first, ended, status, "".join(texts), num_tokens, whole, error, retry_after
    )


async def open_loop(
    url: str,
    questions: Sequence[str],
    *,
    rate_per_s: float,
    seconds: float,
    max_tokens: int,
    retrieval: bool = True,
    seed: int = 0,
) -> list[Reply]:
    """Questions arrive at random, `rate_per_s` on average, for so many seconds; all are waited
    for."""
    draw, tasks, zero = random.Random(seed), [], time.perf_counter()
    connections = aiohttp.TCPConnector(limit=0)
    patience = aiohttp.ClientTimeout(600)
    async with aiohttp.ClientSession(url, connector=connections, timeout=patience) as client:
        when = 0.0
        while (when := when + draw.expovariate(rate_per_s)) < seconds:
            await asyncio.sleep(max(0.0, zero + when - time.perf_counter()))
            question = draw.choice(questions)
            tasks.append(asyncio.ensure_future(ask(client, question, max_tokens, retrieval, zero)))
        return list(await asyncio.gather(*tasks))


def lost(reply: Reply) -> bool:
    """Whether a request that was let in was not answered to its end."""
    refused = reply.status == 429 and reply.retry_after
    return not refused and not (reply.status == 200 and reply.whole and not reply.error)
