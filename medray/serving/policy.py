"""The policy deployment: one language model, several streams at a time.

In: chats. Out: text as it is generated, then how it ended. The engine blocks, so each stream runs
in a thread of its own; a reader that leaves stops its thread at the next token.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from medray.generation.engine import Chat, HFEngine, Sampling
from medray.serving.artefacts import Location

logger = logging.getLogger(__name__)


class Fit(NamedTuple):
    """Which of several prompts goes into the context, and how much room it leaves.

    `index` is None where none fits; the counts are then those of the last prompt.
    """

    index: int | None
    num_prompt_tokens: int
    max_new_tokens: int
    context_tokens: int


class Finish(NamedTuple):
    """The last item of a stream. `num_tokens` are those generated, the end token among them."""

    finish_reason: str
    num_tokens: int


class CountingStop(threading.Event):
    """Tells the engine to stop, and counts its tokens: it asks once after each.

    Counting the text's tokens afterwards would not do: a text has several tokenisations.
    """

    num_tokens = 0

    def is_set(self) -> bool:
        self.num_tokens += 1
        return super().is_set()


class Policy:
    """Answers chats with the engine."""

    def __init__(self, model: Location, num_slots: int) -> None:
        """Loads the model; `num_slots` streams run at a time, more wait for their turn."""
        self._engine = HFEngine(model.fetch())
        self._version = model.version
        self._num_slots = num_slots
        self._slots = asyncio.Semaphore(num_slots)
        self._pool = ThreadPoolExecutor(num_slots, thread_name_prefix="stream")
        self._num_active = 0

    def status(self) -> dict[str, Any]:
        """What /healthz shows."""
        return {
            "version": self._version,
            "context_tokens": self._engine.max_tokens,
            "active_streams": self._num_active,
            "slots": self._num_slots,
        }

    def fit(self, conversations: list[Chat], max_new_tokens: int, exact: bool) -> Fit:
        """The first conversation that leaves room for `max_new_tokens` in the context.

        Args:
            conversations: the same question with ever fewer passages.
            exact: False lets the last conversation have less room than `max_new_tokens`.
        """
        context = self._engine.max_tokens
        num_tokens = 0
        for index, messages in enumerate(conversations):
            num_tokens = self._engine.count_tokens(self._engine.prompt(messages))
            if num_tokens + max_new_tokens <= context:
                return Fit(index, num_tokens, max_new_tokens, context)
        room = context - num_tokens
        if not exact and room > 0:
            return Fit(len(conversations) - 1, num_tokens, room, context)
        return Fit(None, num_tokens, max(room, 0), context)

    async def stream(
        self, messages: Chat, sampling: Sampling
    ) -> AsyncGenerator[str | Finish, None]:
        """Yields text, then one Finish. Closing the iterator ends the generation."""
        async with self._slots:
            self._num_active += 1
            loop = asyncio.get_running_loop()
            queue: asyncio.Queue[str | None] = asyncio.Queue()
            stopped = CountingStop()

            def work() -> None:
                try:
                    for text in self._engine.stream(messages, sampling, stopped):
                        loop.call_soon_threadsafe(queue.put_nowait, text)
                finally:
                    loop.call_soon_threadsafe(queue.put_nowait, None)

            thread = loop.run_in_executor(self._pool, work)
            # The slot is free once the thread has ended, not when its reader has gone.
            thread.add_done_callback(self._count_down)
            try:
                while (text := await queue.get()) is not None:
                    yield text
                await thread  # raises what the engine raised
                full = stopped.num_tokens >= sampling.max_new_tokens
                yield Finish("length" if full else "stop", stopped.num_tokens)
            finally:
                stopped.set()
                await asyncio.wait([thread])

    def _count_down(self, _: object) -> None:
        self._num_active -= 1
