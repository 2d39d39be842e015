"""What one request has its policy generate: counted as it comes, and ended when it takes too long.

In: a policy. Out: a policy like any other. A reader that leaves is charged by it, and the audit log
has what was generated until then.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from medray.generation.sampling import Sampling
from medray.serving.answering.complete import Complete
from medray.serving.messages import Encoded, Finish, Fit, Piece, Prompt, Spelled, Spent
from medray.serving.schema.base import ApiError, Usage


def too_late(limit_s: float) -> ApiError:
    """The answer to a request that took too long."""
    return ApiError(
        504, f"there was no answer within {limit_s:g} s; ask for fewer tokens, or again later",
        code="timeout",
    )  # fmt: skip


class Meter:
    """A policy for one request."""

    def __init__(self, policy: Complete, limit_s: float) -> None:
        """Begins the request's time. To be called where an event loop runs."""
        self._policy, self._limit_s = policy, limit_s
        self._deadline = asyncio.get_running_loop().time() + limit_s
        self._num_prompt_tokens = self._num_tokens = 0
        self._scored: list[list[int]] = []
        self.version = ""
        """Of the model, once it has written."""

    @property
    def usage(self) -> Usage:
        """What has been read and written so far."""
        return Usage(
            prompt_tokens=self._num_prompt_tokens,
            completion_tokens=self._num_tokens,
            total_tokens=self._num_prompt_tokens + self._num_tokens,
        )

    def spent(self, so_far: Spent) -> None:
        """Counts what another deployment has the policy write."""
        self._num_prompt_tokens, self._num_tokens, self.version = so_far

    async def encode(self, prompts: list[str] | list[list[int]]) -> Encoded:
        """As the policy does."""
        return await self._policy.encode(prompts)

    async def score(self, texts: list[list[int]], num_top: int) -> list[list[Spelled]]:
        """As the policy does."""
        self._num_prompt_tokens += sum(map(len, texts))
        self._scored += texts
        return await self._policy.score(texts, num_top)

    async def stream(
        self, prompt: Prompt, sampling: Sampling
    ) -> AsyncGenerator[Fit | Piece | Finish, None]:
        """As the policy does.

        Raises:
            ApiError: 504 once the request has taken too long.
        """
        # What has been scored is read, and continued from there: it counts once.
        if prompt and isinstance(prompt[0], int) and prompt not in self._scored:
            self._num_prompt_tokens += len(prompt)
        async with aclosing(self._policy.stream(prompt, sampling)) as items:
            while True:
                try:
                    async with asyncio.timeout_at(self._deadline):
                        item = await anext(items)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    raise too_late(self._limit_s) from None
                if isinstance(item, Piece):
                    self._num_tokens += len(item.ids)
                if isinstance(item, Fit):
                    self._num_prompt_tokens += 0 if item.index is None else item.num_prompt_tokens
                else:
                    self.version = item.version or self.version
                yield item
