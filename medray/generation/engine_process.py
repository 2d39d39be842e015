"""An engine in a process of its own, so that what its caller does beside (HTTP, gRPC, JSON) does
not hold up the model: in one process they take turns with Python's lock, after every operation.

The caller's half, here, has the tokenizer and loads no framework; the other, `engine_answers`, has
the weights, and sends the tokens of all answers of a step in one message. It ends with its caller,
however that ends: the connection between them is closed then.
"""

import asyncio
import itertools
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

from medray.common.errors import GenerationError
from medray.generation.batching import BatchingConfig
from medray.generation.chat import chat_prompt, encode
from medray.generation.prompts import Numbered
from medray.generation.sampling import Chat, EngineLoad, Sampling, Token

OTHER_HALF = "medray.generation.engine_answers"
LOAD = -1
"""Stands for a request's number where an `EngineLoad` is told."""
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
        on_load: Callable[[EngineLoad], None] | None = None,
    ) -> None:
        """Starts the process and waits until it has loaded the model.

        Args:
            on_end: called, in a thread, if the process ends before it is closed.
            on_load: called, in that thread, every few seconds with what the engine has to do.
        Raises:
            CheckpointError: as `HFEngine`. ConfigError: if vLLM is asked for and not there.
            GenerationError: if the process ends meanwhile.
        """
        self._ending = threading.Lock()
        ours, theirs = socket.socketpair()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from {OTHER_HALF} import main; main({theirs.fileno()})"],
                pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL,
                start_new_session=True,  # a group of its own: vLLM starts others
            )  # fmt: skip
        self._connection = Connection(ours.detach())
        try:
            self._connection.send((str(model_dir), batching))
            loaded = self._connection.recv()
        except (EOFError, OSError):
            loaded = GenerationError(f"{ENDED} as it loaded the model; its log says why")
        if isinstance(loaded, Exception):
            self._connection.close()
            self._kill()
            raise loaded
        self.tokenizer, self.eos_ids, self.max_tokens, self.num_embeddings = loaded
        self._numbers, self._sending = itertools.count(), threading.Lock()
        self._readers: dict[int, tuple[asyncio.AbstractEventLoop, asyncio.Queue[Any]]] = {}
        self._on_end, self._on_load, self._closed = on_end, on_load, False
        self._load: EngineLoad | None = None
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

    def load(self) -> EngineLoad | None:
        """See `TokenStreams.load`: as the process told last."""
        return self._load

    def close(self) -> None:
        """See `TokenStreams.close`."""
        self._closed = True
        self._kill()  # it keeps nothing
        self._thread.join()
        self._connection.close()

    def _kill(self) -> None:
        """Ends the process, and what it started."""
        with self._ending:
            if self._process.returncode is None:  # not waited for yet: its number is no other's
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

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
            self._thread.join()  # `on_end` comes first here too
            raise GenerationError(ENDED) from None

    def _receive(self) -> None:
        """Hands on what the process sends, until it ends."""
        with suppress(EOFError, OSError):
            while True:
                self._hand_on(self._connection.recv())
        self._kill()
        if not self._closed and self._on_end is not None:
            self._on_end()  # first: a replica that ends here has its streams go on at another
        self._hand_on([(number, GenerationError(ENDED)) for number in list(self._readers)])

    def _hand_on(self, items: list[tuple[int, Any]]) -> None:
        """One call a loop for a step's tokens."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Queue[Any], Any]]] = {}
        for number, item in items:
            if number == LOAD:
                self._load = item
                if self._on_load is not None:
                    self._on_load(item)
            elif reader := self._readers.get(number):
                by_loop.setdefault(reader[0], []).append((reader[1], item))
        for loop, pairs in by_loop.items():
            with suppress(RuntimeError):  # a loop that is closed has no reader any more
                loop.call_soon_threadsafe(_put, pairs)


def _put(pairs: list[tuple[asyncio.Queue[Any], Any]]) -> None:
    for queue, item in pairs:
        queue.put_nowait(item)
