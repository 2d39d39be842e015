"""Streams of tokens by plain `generate`, a thread and a pass of its own for each answer.

For models that continuous batching gets wrong. Answers share nothing, so that many at a time cost
as much as one after the other.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from transformers import LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from medray.common.errors import GenerationError
from medray.generation.choice import TokenChoice
from medray.generation.engine import HFEngine
from medray.generation.prompts import Numbered
from medray.generation.sampling import Sampling, Token


class PlainStreams:
    """Streams of tokens from one model."""

    def __init__(self, engine: HFEngine, max_requests: int) -> None:
        """`max_requests` answers are generated at a time; more wait for their turn."""
        self._engine = engine
        self._pool = ThreadPoolExecutor(max_requests, thread_name_prefix="stream")

    async def tokens(
        self,
        prompt: list[int],
        sampling: Sampling,
        citable: Mapping[int, Numbered],
        done: Sequence[int] = (),
    ) -> AsyncGenerator[list[Token], None]:
        """See `TokenStreams.tokens`."""
        engine, loop = self._engine, asyncio.get_running_loop()
        device = engine.model.device
        choice = TokenChoice(engine.tokenizer, len(prompt), sampling, citable, device, len(done))
        left = sampling.model_copy(update={"max_new_tokens": sampling.max_new_tokens - len(done)})
        passed = _Passed(loop)
        ids = torch.tensor([[*prompt, *done]], device=device)

        @torch.inference_mode()
        def work() -> None:
            try:
                if not passed.stopped.is_set():
                    engine.model.generate(
                        ids,
                        attention_mask=torch.ones_like(ids),
                        streamer=passed,
                        stopping_criteria=StoppingCriteriaList([_Stop(passed.stopped)]),
                        logits_processor=LogitsProcessorList([choice] if choice.active else []),
                        **engine.arguments(left),
                    )
            finally:
                passed.end()

        thread = loop.run_in_executor(self._pool, work)
        try:
            while (token := await passed.tokens.get()) is not None:
                yield [choice.told.pop(0) if choice.told else Token(token)]
            try:
                await thread
            except Exception as error:
                # Its own text may quote what it was given.
                raise GenerationError(
                    f"the engine failed on this request ({type(error).__name__})"
                ) from None
        finally:
            passed.stopped.set()
            thread.cancel()  # if its turn has not come

    def check(self) -> None:
        """See `TokenStreams.check`. A failure ends one stream only."""

    def load(self) -> None:
        """See `TokenStreams.load`: not told."""

    def close(self) -> None:
        """See `TokenStreams.close`."""
        self._pool.shutdown(cancel_futures=True)


class _Passed(BaseStreamer):
    """Passes tokens from the thread that generates to the loop that sends them; None at the end."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.tokens: asyncio.Queue[int | None] = asyncio.Queue()
        self.stopped = threading.Event()
        self._loop, self._in_prompt = loop, True

    def put(self, value: Any) -> None:
        if self._in_prompt:  # generate hands the prompt over first
            self._in_prompt = False
            return
        for token in value.flatten().tolist():
            self._loop.call_soon_threadsafe(self.tokens.put_nowait, token)

    def end(self) -> None:
        """Called by `generate`, and again by the thread whatever befell it; one None is read."""
        self._loop.call_soon_threadsafe(self.tokens.put_nowait, None)


class _Stop(StoppingCriteria):
    """Ends a generation when its reader has gone."""

    def __init__(self, stopped: threading.Event) -> None:
        self.stopped = stopped

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self.stopped.is_set(), device=input_ids.device)
