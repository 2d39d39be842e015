"""From prompts to completions: encode → check → score (echo) → continue.

In: a completion request and a policy. Out: choices of the API. Nothing here knows of HTTP or Ray.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, NamedTuple, Protocol

from medray.generation.sampling import Sampling
from medray.serving.messages import Encoded, Finish, Fit, Piece, Prompt, Spelled
from medray.serving.schema.base import ApiError, Usage
from medray.serving.schema.completions import CompletionRequest, choice

DEFAULT_MAX_TOKENS = 16


class Complete(Protocol):
    """The policy: see `medray.serving.policy.Policy`."""

    async def encode(self, prompts: list[str] | list[list[int]], /) -> Encoded: ...

    async def score(self, texts: list[list[int]], num_top: int, /) -> list[list[Spelled]]: ...

    def stream(
        self, prompt: Prompt, sampling: Sampling, /
    ) -> AsyncGenerator[Fit | Piece | Finish, None]: ...


class Plan(NamedTuple):
    """A request that has passed every check."""

    encoded: Encoded
    sampling: Sampling
    echo: bool


async def plan_completions(request: CompletionRequest, policy: Complete) -> Plan:
    """Encodes the prompts.

    Raises:
        ApiError: 400 if a prompt is empty, holds an unknown token, or is too long.
    """
    max_tokens = DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens
    encoded = await policy.encode(request.prompts())
    longest = max(map(len, encoded.prompts))
    if not all(encoded.prompts):
        raise ApiError(400, "a prompt holds no token", param="prompt")
    if max(map(max, encoded.prompts)) >= encoded.num_tokens or min(map(min, encoded.prompts)) < 0:
        raise ApiError(
            400, f"a prompt holds a token outside 0 to {encoded.num_tokens - 1}", param="prompt"
        )
    if longest + max_tokens > encoded.context_tokens:
        raise ApiError(
            400,
            f"the model's context is {encoded.context_tokens} tokens, but a prompt takes {longest} "
            f"and the completion up to {max_tokens}; shorten the prompt or lower max_tokens",
            code="context_length_exceeded",
            param="prompt",
        )
    sampling = Sampling(
        max_new_tokens=max_tokens,
        temperature=request.temperature or 0.0,
        top_p=1.0 if request.top_p is None else request.top_p,
        seed=request.seed or 0,
        stop=request.stops(),
        num_logprobs=request.logprobs,
    )
    return Plan(encoded, sampling, bool(request.echo))


async def complete(plan: Plan, policy: Complete) -> tuple[list[dict[str, Any]], Usage]:
    """All choices, and what they took."""
    indices = range(len(plan.encoded.prompts))
    scored: list[list[Spelled]] = [[] for _ in indices]
    if plan.echo and plan.sampling.num_logprobs is not None:
        scored = await policy.score(plan.encoded.prompts, plan.sampling.num_logprobs)
    tasks = [asyncio.ensure_future(_one(plan, policy, k)) for k in indices]
    try:
        written = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()  # if another failed, or the client has gone
    told = plan.sampling.num_logprobs is not None
    choices = [
        choice(k, echoed(plan, k) + piece.text, [*scored[k], *piece.tokens] if told else None,
               finish.finish_reason)
        for k, (piece, finish) in enumerate(written)
    ]  # fmt: skip
    return choices, count(plan, sum(finish.num_tokens for _, finish in written))


async def stream(plan: Plan, policy: Complete) -> AsyncGenerator[dict[str, Any] | Usage, None]:
    """The one prompt's choice in pieces, then what it took. Closing it stops the model."""
    told = plan.sampling.num_logprobs is not None
    if plan.echo:
        [scored] = await policy.score(plan.encoded.prompts, plan.sampling.num_logprobs or 0)
        yield choice(0, echoed(plan, 0), scored if told else None, None)
    finish = Finish("length", 0)
    if plan.sampling.max_new_tokens:
        async with aclosing(policy.stream(plan.encoded.prompts[0], plan.sampling)) as items:
            async for item in items:
                if isinstance(item, Finish):
                    finish = item
                elif isinstance(item, Piece) and (item.text or item.tokens):
                    yield choice(0, item.text, item.tokens if told else None, None)
    yield choice(0, "", None, finish.finish_reason)
    yield count(plan, finish.num_tokens)


def echoed(plan: Plan, index: int) -> str:
    """The prompt's text, if it is to be repeated."""
    return plan.encoded.texts[index] if plan.echo else ""


def count(plan: Plan, num_tokens: int) -> Usage:
    """Token counts of a request."""
    num_prompt_tokens = sum(map(len, plan.encoded.prompts))
    return Usage(
        prompt_tokens=num_prompt_tokens,
        completion_tokens=num_tokens,
        total_tokens=num_prompt_tokens + num_tokens,
    )


async def _one(plan: Plan, policy: Complete, index: int) -> tuple[Piece, Finish]:
    text, tokens, finish = [], [], Finish("length", 0)
    if plan.sampling.max_new_tokens:
        async with aclosing(policy.stream(plan.encoded.prompts[index], plan.sampling)) as items:
            async for item in items:
                if isinstance(item, Finish):
                    finish = item
                elif isinstance(item, Piece):
                    text.append(item.text)
                    tokens += item.tokens
    return Piece("".join(text), tuple(tokens)), finish
