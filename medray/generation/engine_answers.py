"""The half of `medray.generation.engine_process` that has the weights: `main` is its process."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from multiprocessing.connection import Connection
from typing import Any

from medray.common.errors import GenerationError, MedrayError
from medray.generation.batching import BatchingConfig
from medray.generation.continuous import ContinuousEngine
from medray.generation.engine import HFEngine
from medray.generation.engine_process import LOAD, Loaded
from medray.generation.plain import PlainStreams
from medray.generation.sampling import Token, TokenStreams
from medray.generation.vllm_streams import VLLMStreams

logger = logging.getLogger(__name__)
Score = Callable[[list[list[int]], int], Awaitable[list[list[Token]]]]
"""See `HFEngine.score_texts`."""
CHECK_S = 5.0


class _Answers:
    """Answers what comes over the connection."""

    def __init__(self, streams: TokenStreams, score: Score, connection: Connection) -> None:
        self._streams, self._score_texts, self._connection = streams, score, connection
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._outbox: list[tuple[int, Any]] = []

    async def run(self) -> None:
        """Until the caller closes the connection, or nothing can be answered any more."""
        self._loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def receive() -> None:
            with suppress(EOFError, OSError):
                while True:
                    self._loop.call_soon_threadsafe(self._take, self._connection.recv())
            self._loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=receive, daemon=True).start()
        while not ended.is_set():
            self._streams.check()
            if (load := self._streams.load()) is not None:
                self._tell(LOAD, load)
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), CHECK_S)

    def _take(self, message: tuple[Any, ...]) -> None:
        number, kind, *arguments = message
        if kind == "cancel":
            if task := self._tasks.get(number):
                task.cancel()
            return
        answer = self._stream if kind == "tokens" else self._score
        task = self._tasks[number] = self._loop.create_task(self._answer(number, answer, arguments))
        task.add_done_callback(lambda _: self._tasks.pop(number))

    async def _answer(self, number: int, answer: Any, arguments: list[Any]) -> None:
        last = None
        try:
            await answer(number, *arguments)
        except GenerationError as error:
            last = error
        except Exception as error:
            # Its own text may quote what it was given.
            last = GenerationError(f"the engine failed on this request ({type(error).__name__})")
        self._tell(number, last)

    async def _stream(self, number: int, *arguments: Any) -> None:
        async with aclosing(self._streams.tokens(*arguments)) as batches:
            async for tokens in batches:
                self._tell(number, tokens)

    async def _score(self, number: int, texts: list[list[int]], num_top: int) -> None:
        self._tell(number, await self._score_texts(texts, num_top))

    def _tell(self, number: int, item: Any) -> None:
        """Sends it, with what others tell in this turn of the loop."""
        if not self._outbox:
            self._loop.call_soon(self._flush)
        self._outbox.append((number, item))

    def _flush(self) -> None:
        items, self._outbox = self._outbox, []
        with suppress(OSError):  # the caller has gone; the loop ends
            self._connection.send(items)


def _open(model_dir: str, batching: BatchingConfig) -> tuple[Loaded, TokenStreams, Score]:
    """By vLLM if asked; else continuous batches if the model can be batched so, else a stream a
    thread."""
    if batching.engine == "vllm":
        vllm = VLLMStreams(model_dir, batching)
        return vllm.loaded, vllm, vllm.score_texts
    engine = HFEngine(model_dir)
    streams: TokenStreams
    try:
        streams = ContinuousEngine(engine, batching)
    except (GenerationError, ValueError, NotImplementedError) as error:
        logger.warning("%s; its answers are generated one by one", error)
        streams = PlainStreams(engine, batching.max_requests)

    async def score(texts: list[list[int]], num_top: int) -> list[list[Token]]:
        return await asyncio.to_thread(engine.score_texts, texts, num_top)

    num_embeddings = int(engine.model.get_input_embeddings().num_embeddings)
    loaded = Loaded(engine.tokenizer, engine.eos_ids, engine.max_tokens, num_embeddings)
    return loaded, streams, score


def main(file_descriptor: int) -> None:
    """The process, with its end of the connection."""
    logging.basicConfig()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # its caller ends it
    connection = Connection(file_descriptor)
    model_dir, batching = connection.recv()
    try:
        loaded, streams, score = _open(model_dir, batching)
    except MedrayError as error:
        connection.send(error)  # the caller raises it
        return
    try:
        connection.send(loaded)
        asyncio.run(_Answers(streams, score, connection).run())
    except Exception:
        logger.exception("the engine cannot go on")
    finally:
        # Threads that still generate do so for nobody, and so do processes that vLLM started.
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(0)
