"""A canary: a share of the chats is answered by a new model, until it fails too often.

In: the policy that is trusted and a new one. Out: a policy like any other. A chat whose new model
fails before it has said anything is answered by the trusted one; one that it fails in the middle of
fails, since no model can go on with another's words. Past `max_failures` it gets no more chats, at
every gateway that reaches `stop_file`.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing

from pydantic import Field
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from medray.common.config import Config
from medray.generation.sampling import Sampling
from medray.serving.answering.complete import Complete
from medray.serving.messages import Encoded, Finish, Fit, Piece, Prompt, Spelled, settled
from medray.serving.observe.metrics import Metrics
from medray.serving.switch import Switch

logger = logging.getLogger(__name__)


class CanaryConfig(Config):
    """Which model is tried, on how many chats, and when that ends."""

    model: str = ""
    """One of `models`; empty tries none."""
    share: float = Field(default=0.1, gt=0, le=1)
    """Of the chats that ask for `model_name`."""
    max_failures: float = Field(default=0.05, ge=0, lt=1)
    """Share of its newest answers that may fail."""
    first_item_s: float = Field(default=10.0, gt=0)
    """A model that by then has not even said what fits into its context (it does so before it
    queues a chat) has failed: its replica is gone, and Serve waits for another."""
    next_item_s: float = Field(default=60.0, gt=0)
    """One that has said so and then for so long writes nothing has failed too."""
    newest: int = Field(default=200, ge=1)
    fewest: int = Field(default=20, ge=1)
    """Answers at one gateway before they are judged."""
    stop_file: str = ""
    """Made when it fails too often; while it exists the canary is asked nothing. See `medray serve
    stop-canary`; a path that every gateway replica reaches. Empty: each gateway stops for itself,
    until it starts anew."""


class Canary:
    """The two policies as one."""

    def __init__(
        self, config: CanaryConfig, trusted: Complete, new: Complete, metrics: Metrics
    ) -> None:
        self._config, self._trusted, self._new, self._metrics = config, trusted, new, metrics
        self._failed: deque[bool] = deque(maxlen=config.newest)
        self._switch = Switch(config.stop_file)
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """Whether the new model is asked nothing. A canary that is started again is judged anew."""
        if not self._config.stop_file:
            return self._stopped
        stopped = self._switch.is_off
        if self._stopped and not stopped:
            self._failed.clear()
        self._stopped = stopped
        return stopped

    async def encode(self, prompts: list[str] | list[list[int]]) -> Encoded:
        """By the trusted one: what is encoded or scored is no chat."""
        return await self._trusted.encode(prompts)

    async def score(self, texts: list[list[int]], num_top: int) -> list[list[Spelled]]:
        """By the trusted one."""
        return await self._trusted.score(texts, num_top)

    async def stream(
        self, prompt: Prompt, sampling: Sampling
    ) -> AsyncGenerator[Fit | Piece | Finish, None]:
        """As `PolicyHandle.stream`."""
        if not self.stopped and random.random() < self._config.share:
            said = False
            try:
                async with aclosing(self._new.stream(prompt, sampling)) as items:
                    async with asyncio.timeout(self._config.first_item_s):
                        first = await anext(items)
                    # Too long for its context is no failure; the other one's may be longer.
                    fits = not isinstance(first, Fit) or first.index is not None
                    if isinstance(first, Fit):
                        prompt, sampling = settled(prompt, sampling, first)
                    if fits:
                        yield first
                        async for item in _timely(items, self._config.next_item_s):
                            said = True
                            yield item
                if fits:
                    self._count(failed=False)
                    return
            except (RayError, RayServeException, TimeoutError) as error:
                self._count(failed=True)
                if said:
                    raise
                logger.warning("the canary failed (%s); another answers", type(error).__name__)
        async with aclosing(self._trusted.stream(prompt, sampling)) as items:
            async for item in items:
                yield item

    def _count(self, failed: bool) -> None:
        config = self._config
        self._failed.append(failed)
        self._metrics.canary(failed)
        judged = len(self._failed) >= config.fewest
        if judged and sum(self._failed) > config.max_failures * len(self._failed):
            self._stopped = True
            if config.stop_file:
                self._switch.stop()
            logger.error(
                "the canary %s failed %d of %d times and is asked no more",
                config.model, sum(self._failed), len(self._failed),
            )  # fmt: skip


async def _timely(
    items: AsyncGenerator[Fit | Piece | Finish, None], limit_s: float
) -> AsyncGenerator[Fit | Piece | Finish, None]:
    """The items; raises TimeoutError if one takes too long."""
    while True:
        async with asyncio.timeout(limit_s):
            item = await anext(items, None)
        if item is None:
            return
        yield item
