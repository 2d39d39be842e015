"""The deployments behind the gateway, as `medray.serving.answer` wants them: plain async calls."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from medray.generation.engine import Chat, Sampling
from medray.retrieval.filters import PassageFilter
from medray.serving.embedding import Embedded
from medray.serving.policy import Finish, Fit


class PolicyHandle:
    """The policy deployment."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def fit(self, conversations: list[Chat], max_new_tokens: int, exact: bool) -> Fit:
        """Which of the conversations fits into the context."""
        return Fit(*await self._handle.fit.remote(conversations, max_new_tokens, exact))

    async def stream(
        self, messages: Chat, sampling: Sampling
    ) -> AsyncGenerator[str | Finish, None]:
        """Text, then why it ended; a reader that leaves cancels it."""
        response = self._handle.options(stream=True).stream.remote(messages, sampling)
        ended = False
        try:
            async for item in response:  # type: ignore[attr-defined]
                yield item
            ended = True
        finally:
            if not ended:
                response.cancel()


class Deployments:
    """All of them."""

    def __init__(
        self, policy: DeploymentHandle, embedding: DeploymentHandle, retrieval: DeploymentHandle
    ) -> None:
        self._handles = {"policy": policy, "embedding": embedding, "retrieval": retrieval}
        self.policy = PolicyHandle(policy)

    async def embed(self, texts: list[str]) -> Embedded:
        """Vectors of texts as they are."""
        return Embedded(*await self._handles["embedding"].embed.remote(texts))

    async def embed_question(self, question: str) -> list[float]:
        """The vector to search with."""
        return await self._handles["embedding"].embed_question.remote(question)

    async def search(
        self, question: str, vector: list[float], top_k: int, where: PassageFilter
    ) -> list[dict[str, Any]]:
        """Passages, best first."""
        return await self._handles["retrieval"].search.remote(question, vector, top_k, where)

    async def states(self, timeout_s: float) -> dict[str, dict[str, Any]]:
        """What each says of itself; `ready` is false if it says nothing in time."""
        states = await asyncio.gather(*(self._state(name, timeout_s) for name in self._handles))
        return dict(zip(self._handles, states, strict=True))

    async def _state(self, name: str, timeout_s: float) -> dict[str, Any]:
        try:
            status = await asyncio.wait_for(self._handles[name].status.remote(), timeout_s)
        except (TimeoutError, RayError, RayServeException) as error:
            return {"ready": False, "reason": type(error).__name__}
        return {"ready": True, **status}
