"""The policy deployment: one language model, many streams at a time.

In: chats or prompts. Out: text as it is generated, then how it ended; log-probabilities of given
text. Answers are generated together by continuous batching (transformers' or vLLM's), or each by
itself where a model cannot be batched that way.
"""

import asyncio
import logging
import os
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, cast

from medray.generation import detokenise
from medray.generation.batching import BatchingConfig
from medray.generation.detokenise import Detokeniser
from medray.generation.engine_process import EngineProcess
from medray.generation.sampling import Chat, Sampling, Token, quotable
from medray.serving.artefacts import Location
from medray.serving.messages import (
    CHANGED,
    Choices,
    Counted,
    Encoded,
    Finish,
    Fit,
    Piece,
    Prompt,
    Spelled,
)
from medray.serving.observe.metrics import EngineMetrics
from medray.serving.observe.traces import Traces, TracesConfig

logger = logging.getLogger(__name__)
FLUSH_S = 0.03
"""Text that comes faster than this is sent on together."""


class Policy:
    """Answers with the engine."""

    def __init__(
        self, model: Location, batching: BatchingConfig, traces: TracesConfig | None = None
    ) -> None:
        """Loads the model."""
        self._traces = Traces(traces) if traces else None
        self._engine = EngineProcess(
            model.fetch(), batching, on_end=_end_replica, on_load=EngineMetrics().told
        )
        self._version = model.version
        self._num_slots = batching.max_requests
        self._num_active = 0
        tokenizer: Any = self._engine.tokenizer
        added = map(str, tokenizer.added_tokens_decoder.values())
        special = sorted({*tokenizer.all_special_tokens, *added}, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, special)) or r"(?!)")

    def status(self) -> dict[str, Any]:
        """What /healthz shows."""
        return {
            "version": self._version,
            "context_tokens": self._engine.max_tokens,
            "active_streams": self._num_active,
            "slots": self._num_slots,
        }

    def check_health(self) -> None:
        """Serve calls this; a replica that raises is started anew."""
        self._engine.check()

    def __del__(self) -> None:
        """Serve calls this when the replica is told to stop."""
        if engine := getattr(self, "_engine", None):
            engine.close()
        if traces := getattr(self, "_traces", None):
            traces.close()

    def fit(self, choices: Choices, max_new_tokens: int) -> tuple[Fit, list[int]]:
        """The first conversation that leaves room for `max_new_tokens` in the context, and its
        tokens."""
        context = self._engine.max_tokens
        ids: list[int] = []
        for index, messages in enumerate(choices.conversations):
            ids = self._encode(self._harmless(messages))
            if len(ids) + max_new_tokens <= context:
                return Fit(index, len(ids), max_new_tokens, context), ids
        room = context - len(ids)
        if not choices.exact and room > 0:
            return Fit(len(choices.conversations) - 1, len(ids), room, context), ids
        return Fit(None, len(ids), max(room, 0), context), ids

    def encode(self, prompts: list[str] | list[list[int]]) -> Encoded:
        """Plain prompts as the model reads a text's beginning; tokens stay as they are."""
        tokenizer: Any = self._engine.tokenizer
        known = self._engine.num_embeddings
        encoded = [tokenizer(p)["input_ids"] if isinstance(p, str) else p for p in prompts]
        texts = [
            p if isinstance(p, str) else tokenizer.decode([k for k in p if 0 <= k < known])
            for p in prompts
        ]
        return Encoded(encoded, texts, self._engine.max_tokens, known)

    def count(self, texts: list[str]) -> Counted:
        """How long texts are as parts of a chat."""
        counts = [len(self._engine.encode(self._special.sub(_broken, text))) for text in texts]
        return Counted(counts, self._engine.max_tokens, self._version)

    async def score(self, texts: list[list[int]], num_top: int) -> list[list[Spelled]]:
        """Every token of each text with its log-probability."""
        scored = await self._engine.score_texts(texts, num_top)
        return [list(map(Speller(self._engine.tokenizer), row)) for row in scored]

    async def stream(
        self,
        prompt: Prompt,
        sampling: Sampling,
        done: Sequence[int] = (),
        num_sent: int = 0,
        version: str = "",
    ) -> AsyncGenerator[Fit | Piece | Finish, None]:
        """Yields what fits, if there is a choice, then text, then one Finish. Closing the iterator
        ends the generation.

        Args:
            done: tokens that another replica generated before it died.
            num_sent: characters of their text that it had sent.
            version: of the model that generated them; another's tokens are not gone on from.
        """
        if done and version != self._version:
            yield Finish(CHANGED, 0, self._version)
            return
        ids: Any = prompt
        chat: Chat = []
        if isinstance(prompt, Choices):
            fit, ids = await asyncio.to_thread(self.fit, prompt, sampling.max_new_tokens)
            yield fit
            if fit.index is None:
                return
            sampling = sampling.model_copy(update={"max_new_tokens": fit.max_new_tokens})
            chat = self._harmless(prompt.conversations[fit.index])
        elif prompt and isinstance(prompt[0], dict):
            chat = self._harmless(cast(Chat, prompt))
            ids = await asyncio.to_thread(self._encode, chat)
        texts = quotable(chat, sampling) if chat else {}
        tokenizer = self._engine.tokenizer
        text = Detokeniser(tokenizer, self._engine.eos_ids, sampling.stop)
        spell = None if sampling.num_logprobs is None else Speller(tokenizer)
        pending = Piece(text.feed([Token(token) for token in done]).text[num_sent:])
        loop = asyncio.get_running_loop()
        sent = -FLUSH_S
        self._num_active += 1
        try:
            if text.finish_reason is None and len(done) < sampling.max_new_tokens:
                async with aclosing(self._engine.tokens(ids, sampling, texts, done)) as batches:
                    async for tokens in batches:
                        pending = _join(pending, text.feed(tokens), spell, tokens)
                        if text.finish_reason is not None:
                            break
                        if loop.time() - sent >= FLUSH_S:
                            yield pending._replace(version=self._version)
                            pending, sent = Piece(""), loop.time()
            pending = _join(pending, text.finish(), spell)
            if pending != Piece(""):
                yield pending._replace(version=self._version)
            yield Finish(text.finish_reason or "length", text.num_tokens, self._version)
        finally:
            self._num_active -= 1

    async def traced_stream(
        self,
        prompt: Prompt,
        sampling: Sampling,
        done: Sequence[int],
        num_sent: int,
        version: str,
        parent: str,
    ) -> AsyncGenerator[Fit | Piece | Finish, None]:
        """`stream` with spans below `parent`, a `traceparent`."""
        assert self._traces is not None, "the gateway and the policy are configured together"
        first = "fit" if isinstance(prompt, Choices) else "first_token"
        stream = self.stream(prompt, sampling, done, num_sent, version)
        async with aclosing(self._traces.generation(stream, parent, first)) as items:
            async for item in items:
                yield item

    def _encode(self, messages: Chat) -> list[int]:
        return self._engine.encode(self._engine.prompt(messages))

    def _harmless(self, messages: Chat) -> Chat:
        """Special tokens are the template's alone: written by a user or standing in a passage they
        would open a turn of somebody else's."""
        return [
            {**message, "content": self._special.sub(_broken, message["content"])}
            for message in messages
        ]


class Speller:
    """Tokens of one text as text: what each adds to those before it. Of a character that several
    tokens make, the last has it all."""

    def __init__(self, tokenizer: Any) -> None:
        self._decode, self._text = tokenizer.decode, Detokeniser(tokenizer, set())

    def __call__(self, token: Token) -> Spelled:
        """The next token."""
        text = self._text.feed([token]).text
        top = tuple((text if k == token.id else self._decode([k]), p) for k, p in token.top)
        return Spelled(text, token.logprob, top)


def _join(
    piece: Piece, more: detokenise.Piece, spell: Speller | None, new: Sequence[Token] = ()
) -> Piece:
    told = tuple(map(spell, more.tokens)) if spell else ()
    ids = tuple(token.id for token in new)
    return Piece(piece.text + more.text, piece.tokens + told, piece.ids + ids)


def _end_replica() -> None:
    """The engine's process and its replica end together, so that what was under way goes on on
    another replica."""
    logger.error("the engine's process has ended, and this replica with it")
    os._exit(1)


def _broken(match: re.Match[str]) -> str:
    return f"{match[0][0]} {match[0][1:]}"
