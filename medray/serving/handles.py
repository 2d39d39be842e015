"""The deployments behind the gateway, as `answering.answer` wants them: plain async calls."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import nullcontext
from typing import Any, TypeVar

from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from medray.generation.sampling import Sampling
from medray.retrieval.filters import PassageFilter
from medray.serving.canary import Canary, CanaryConfig
from medray.serving.identity.keys import Caller
from medray.serving.messages import (
    CHANGED,
    Counted,
    Embedded,
    Encoded,
    Finish,
    Fit,
    Found,
    Judged,
    Piece,
    Prompt,
    QuestionVectors,
    Spelled,
    Spent,
    settled,
)
from medray.serving.meter import too_late
from medray.serving.observe.metrics import Metrics
from medray.serving.observe.traces import Traces
from medray.serving.schema.base import ApiError

logger = logging.getLogger(__name__)
T = TypeVar("T")
NOT_TRACED = nullcontext()
RETRIES = 3
"""How often a call is given to another replica when one dies under it. Calls only read, or
change what dies with the replica, so that nothing is done twice."""
OTHER = "model-"
"""Before the names of other models, among the handles."""


class Calls:
    """Calls to deployments, timed; again on another replica if one dies."""

    def __init__(
        self, metrics: Metrics, traces: Traces | None = None, limit_s: float | None = None
    ) -> None:
        self._metrics, self._traces, self._limit_s = metrics, traces, limit_s

    async def __call__(self, stage: str, method: Any, *arguments: Any) -> Any:
        """Calls a deployment's method.

        Raises:
            ApiError: 504 if it does not answer in time.
        """

        async def once() -> Any:
            return await method.remote(*arguments)

        return await self.repeated(stage, once)

    async def repeated(self, stage: str, once: Callable[[], Awaitable[T]]) -> T:
        """What a call of `once` returns, as above."""
        traced = self._traces.span(stage) if self._traces is not None else NOT_TRACED
        with self._metrics.stage(stage), traced:
            try:
                async with asyncio.timeout(self._limit_s):
                    return await self._repeated(stage, once)
            except TimeoutError:
                logger.error("%s took more than %s s", stage, self._limit_s)
                raise too_late(self._limit_s or 0) from None

    async def _repeated(self, stage: str, once: Callable[[], Awaitable[T]]) -> T:
        for _ in range(RETRIES):
            try:
                return await once()
            except RayActorError as error:
                if isinstance(error, RayTaskError):  # it lives, and what it asked has died
                    raise
                kind = type(error).__name__
                logger.warning("a replica died (%s); %s is repeated", kind, stage)
        return await once()


class PolicyHandle:
    """The policy deployment."""

    def __init__(
        self,
        handle: DeploymentHandle,
        call: Calls,
        traces: Traces | None = None,
        retries: int = RETRIES,
    ) -> None:
        self._handle, self._call = handle, call
        self._traces, self._retries = traces, retries

    async def encode(self, prompts: list[str] | list[list[int]]) -> Encoded:
        """Plain prompts as tokens."""
        return Encoded(*await self._call("encode", self._handle.encode, prompts))

    async def count(self, texts: list[str]) -> Counted:
        """How long texts are as parts of a chat."""
        return Counted(*await self._call("count", self._handle.count, texts))

    async def score(self, texts: list[list[int]], num_top: int) -> list[list[Spelled]]:
        """Every token of each text with its log-probability."""
        return await self._call("score", self._handle.score, texts, num_top)

    async def stream(
        self, prompt: Prompt, sampling: Sampling
    ) -> AsyncGenerator[Fit | Piece | Finish, None]:
        """What fits of `Choices`, text, then why it ended; a reader that leaves cancels it.

        When a replica dies, another goes on from what was sent. The log-probabilities of tokens
        whose text was held back then are not told. Where the model was changed meanwhile, an answer
        of which nothing was sent begins anew.

        Raises:
            ApiError: 503 if the model was changed in the middle of an answer.
        """
        done: list[int] = []
        num_sent = num_deaths = 0
        version = ""
        parent = self._traces.parent() if self._traces is not None else ""
        while True:
            handle = self._handle.options(stream=True)
            response = (
                handle.traced_stream.remote(prompt, sampling, done, num_sent, version, parent)
                if parent else handle.stream.remote(prompt, sampling, done, num_sent, version)
            )  # fmt: skip
            ended = changed = False
            try:
                async for item in response:  # type: ignore[attr-defined]
                    if isinstance(item, Piece):
                        done += item.ids
                        num_sent += len(item.text)
                        version = item.version
                    if isinstance(item, Finish) and item.finish_reason == CHANGED:
                        changed = True
                    else:
                        yield item
                    if isinstance(item, Fit):
                        prompt, sampling = settled(prompt, sampling, item)
                ended = True
                if not changed:
                    return
                if num_sent:
                    raise ApiError(
                        503, "the model was changed in the middle of this answer; ask again",
                        code=CHANGED, retry_after_s=1,
                    )  # fmt: skip
                done = []
            except RayActorError as error:
                ended = True
                num_deaths += 1
                if num_deaths > self._retries:
                    raise
                logger.warning(
                    "a replica died (%s); another goes on after %d tokens",
                    type(error).__name__, len(done),
                )  # fmt: skip
            finally:
                if not ended:
                    response.cancel()


class Deployments:
    """All of them."""

    def __init__(
        self,
        handles: dict[str, DeploymentHandle],
        metrics: Metrics,
        rerank_candidates: int = 0,
        canary: CanaryConfig | None = None,
        traces: Traces | None = None,
        limit_s: float | None = None,
    ) -> None:
        """`handles` by name: policy, embedding, retrieval, consultations and quality; budget where
        requests carry keys; reranking where a reranker looks again at the `rerank_candidates` best
        of each search; `model-NAME` of each other model. A call may take `limit_s`."""
        # By gRPC and not as Ray's objects, which cost twice as much a message.
        self._handles = {name: h.options(_by_reference=False) for name, h in handles.items()}
        self._rerank_candidates = rerank_candidates
        call = self._call = Calls(metrics, traces, limit_s)
        self.policy = PolicyHandle(self._handles["policy"], call, traces)
        self.others = {
            name.removeprefix(OTHER): PolicyHandle(handle, call, traces)
            for name, handle in self._handles.items()
            if name.startswith(OTHER)
        }
        """Other models, by the names that requests use."""
        self.chats: PolicyHandle | Canary = self.policy
        """What answers chats."""
        if canary is not None and canary.model:
            # What kills a replica of the new model counts as its failure.
            new = PolicyHandle(self._handles[OTHER + canary.model], call, traces, retries=0)
            self.chats = Canary(canary, self.policy, new, metrics)

    async def embed(self, texts: list[str]) -> Embedded:
        """Vectors of texts as they are."""
        return Embedded(*await self._call("embed", self._handles["embedding"].embed, texts))

    async def embed_question(self, question: str) -> QuestionVectors:
        """What to search with."""
        embed = self._handles["embedding"].embed_question
        return QuestionVectors(*await self._call("embed", embed, question))

    async def search(
        self, question: str, vectors: QuestionVectors, top_k: int, where: PassageFilter
    ) -> Found:
        """Passages, best first."""
        method, num = self._handles["retrieval"].search, top_k
        if self.reranks:
            num = max(top_k, self._rerank_candidates)
        found = Found(*await self._call("search", method, question, vectors, num, where))
        if not self.reranks or not found.hits:
            return found
        look_again = self._handles["reranking"].look_again
        hits = await self._call("rerank", look_again, question, found.hits)
        return found._replace(hits=hits[:top_k])

    @property
    def reranks(self) -> bool:
        """Whether there is a reranker."""
        return "reranking" in self._handles

    async def relevance(self, question: str, texts: list[str]) -> list[float]:
        """How well each text answers, by the reranker."""
        return await self._call("rerank", self._handles["reranking"].relevance, question, texts)

    async def indicators(self) -> dict[str, str]:
        """Id → title of what a record can be judged by."""
        return await self._call("indicators", self._handles["quality"].titles)

    async def judge(
        self, model: str, record: str, ids: list[str], spent: Callable[[Spent], None]
    ) -> Judged:
        """The verdicts on a record by a model, the one served or one of the others; `spent` is told
        what they have taken so far."""
        policy = OTHER + model if model in self.others else "policy"
        handle = self._handles["quality"].options(stream=True)

        async def once() -> Judged:
            judged = Judged([], 0, 0, "")
            response = handle.judge.remote(policy, record, ids)
            try:
                async for item in response:  # type: ignore[attr-defined]
                    if isinstance(item, Judged):
                        judged = item
                    else:
                        spent(item)
            except BaseException:
                response.cancel()
                raise
            return judged

        return await self._call.repeated("judge", once)

    async def consult(self, method: str, *arguments: Any) -> Any:
        """Calls a method of `medray.serving.consult.sessions.Consultations`. If their replica dies
        the consultations are gone with it, so that nothing is done twice either."""
        return await self._call(
            "consult", getattr(self._handles["consultations"], method), *arguments
        )

    def abandon_consult(self, identifier: str, request: str) -> None:
        """Ends a turn of a consultation that failed, if it has not ended. Nobody waits for it."""
        self._handles["consultations"].abandon.remote(identifier, request)

    async def take(self, caller: Caller) -> float:
        """Counts a request; seconds to wait where a limit of the caller's is reached."""
        take, limits = self._handles["budget"].take, caller.limits
        return await self._call(
            "budget", take, caller.id, limits.requests_per_minute, limits.tokens_per_day
        )

    def spend(self, caller: Caller, num_tokens: int) -> None:
        """Counts the tokens of an answer. Nobody waits for it."""
        self._handles["budget"].spend.remote(caller.id, num_tokens)

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
