"""An engine in a process of its own, so that what its caller does beside (HTTP, gRPC, JSON) does
not hold up the model: in one process they take turns with Python's lock, after every operation.

The caller's half, `EngineProcess`, has the tokenizer; the other has the weights, and sends the
tokens of all answers of a step in one message. It ends with its caller, however that ends: the
connection between them is closed then.
"""

import asyncio
import itertools
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from medray.common.errors import GenerationError, MedrayError
from medray.generation.chat import chat_prompt, encode
from medray.generation.continuous import BatchingConfig, ContinuousEngine
from medray.generation.engine import HFEngine
from medray.generation.plain import PlainStreams
from medray.generation.prompts import Numbered
from medray.generation.sampling import Chat, Sampling, Token, TokenStreams

logger = logging.getLogger(__name__)
CHECK_S = 5.0
ENDED = "the engine's process has ended"


class Loaded(NamedTuple):
    """What the caller is told of a model that has been loaded."""

    tokenizer: Any
    eos_ids: set[int]
    max_tokens: int
    """Of its context."""
    num_embeddings: int


class EngineProcess:
    """`TokenStreams` of a model that another process holds."""

    def __init__(
        self,
        model_dir: Path | str,
        batching: BatchingConfig,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        """Starts the process and waits until it has loaded the model.

        Args:
            on_end: called, in a thread, if the process ends before it is closed.
        Raises:
            CheckpointError: as `HFEngine`.
            GenerationError: if the process ends meanwhile.
        """
        ours, theirs = socket.socketpair()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from {__name__} import main; main({theirs.fileno()})"],
                pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        self._connection = Connection(ours.detach())
        try:
            self._connection.send((str(model_dir), batching))
            loaded = self._connection.recv()
        except (EOFError, OSError):
            loaded = GenerationError(f"{ENDED} as it loaded the model; its log says why")
        if isinstance(loaded, Exception):
            self._connection.close()
            self._process.wait()
            raise loaded
        self.tokenizer, self.eos_ids, self.max_tokens, self.num_embeddings = loaded
        self._numbers, self._sending = itertools.count(), threading.Lock()
        self._readers: dict[int, tuple[asyncio.AbstractEventLoop, asyncio.Queue[Any]]] = {}
        self._on_end, self._closed = on_end, False
        self._thread = threading.Thread(target=self._receive, name="engine", daemon=True)
        self._thread.start()

    def prompt(self, messages: Chat) -> str:
        """The text that the model continues with the assistant's next turn."""
        return chat_prompt(self.tokenizer, messages)

    def encode(self, text: str) -> list[int]:
        """Tokens of a prompt; special tokens written in it are parsed."""
        return encode(self.tokenizer, text)

    async def tokens(
        self,
        prompt: list[int],
        sampling: Sampling,
        citable: Mapping[int, Numbered],
        done: Sequence[int] = (),
    ) -> AsyncGenerator[list[Token], None]:
        """See `TokenStreams.tokens`."""
        asked = self._ask("tokens", prompt, sampling, dict(citable), tuple(done))
        async with aclosing(asked) as items:
            async for tokens in items:
                yield tokens

    async def score_texts(self, texts: list[list[int]], num_top: int) -> list[list[Token]]:
        """See `HFEngine.score_texts`."""
        async with aclosing(self._ask("score", texts, num_top)) as items:
            return await anext(items)

    def check(self) -> None:
        """See `TokenStreams.check`."""
        if not self._thread.is_alive():
            raise GenerationError(ENDED)

    def close(self) -> None:
        """See `TokenStreams.close`."""
        self._closed = True
        self._process.kill()  # it keeps nothing
        self._process.wait()
        self._thread.join()
        self._connection.close()

    async def _ask(self, *request: Any) -> AsyncGenerator[Any, None]:
        """What the process sends until the end; an error is raised."""
        number = next(self._numbers)
        items: asyncio.Queue[Any] = asyncio.Queue()
        self._readers[number] = asyncio.get_running_loop(), items
        ended = False
        try:
            self._send(number, *request)
            while (item := await items.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
            ended = True
        except GenerationError:
            ended = True
            raise
        finally:
            del self._readers[number]
            if not ended:
                with suppress(GenerationError):
                    self._send(number, "cancel")

    def _send(self, *message: Any) -> None:
        try:
            with self._sending:
                self.check()
                self._connection.send(message)
        except OSError:
            raise GenerationError(ENDED) from None

    def _receive(self) -> None:
        """Hands on what the process sends, until it ends."""
        with suppress(EOFError, OSError):
            while True:
                self._hand_on(self._connection.recv())
        self._hand_on([(number, GenerationError(ENDED)) for number in list(self._readers)])
        if not self._closed and self._on_end is not None:
            self._on_end()

    def _hand_on(self, items: list[tuple[int, Any]]) -> None:
        """One call a loop for a step's tokens."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Queue[Any], Any]]] = {}
        for number, item in items:
            if reader := self._readers.get(number):
                by_loop.setdefault(reader[0], []).append((reader[1], item))
        for loop, pairs in by_loop.items():
            with suppress(RuntimeError):  # a loop that is closed has no reader any more
                loop.call_soon_threadsafe(_put, pairs)


def _put(pairs: list[tuple[asyncio.Queue[Any], Any]]) -> None:
    for queue, item in pairs:
        queue.put_nowait(item)


class _Answers:
    """The process's half: answers what comes over the connection."""

    def __init__(self, engine: HFEngine, streams: TokenStreams, connection: Connection) -> None:
        self._engine, self._streams, self._connection = engine, streams, connection
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
        self._tell(number, await asyncio.to_thread(self._engine.score_texts, texts, num_top))

    def _tell(self, number: int, item: Any) -> None:
        """Sends it, with what others tell in this turn of the loop."""
        if not self._outbox:
            self._loop.call_soon(self._flush)
        self._outbox.append((number, item))

    def _flush(self) -> None:
        items, self._outbox = self._outbox, []
        with suppress(OSError):  # the caller has gone; the loop ends
            self._connection.send(items)


def _open_streams(engine: HFEngine, batching: BatchingConfig) -> TokenStreams:
    """Continuous batches if the model can be batched so, else a stream a thread."""
    try:
        return ContinuousEngine(engine, batching)
    except (GenerationError, ValueError, NotImplementedError) as error:
        logger.warning("%s; its answers are generated one by one", error)
        return PlainStreams(engine, batching.max_requests)


def main(file_descriptor: int) -> None:
    """The process, with its end of the connection."""
    logging.basicConfig()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # its caller ends it
    connection = Connection(file_descriptor)
    model_dir, batching = connection.recv()
    try:
        engine = HFEngine(model_dir)
        streams = _open_streams(engine, batching)
    except MedrayError as error:
        connection.send(error)
        raise
    num_embeddings = int(engine.model.get_input_embeddings().num_embeddings)
    connection.send(Loaded(engine.tokenizer, engine.eos_ids, engine.max_tokens, num_embeddings))
    try:
        asyncio.run(_Answers(engine, streams, connection).run())
    except GenerationError:
        logger.exception("the engine cannot go on")
    finally:
        os._exit(0)  # threads that still generate do so for nobody
