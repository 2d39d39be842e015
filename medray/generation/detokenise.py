"""Text from tokens while they come, and an end where a stop string begins.

In: an answer's tokens. Out: text that will not change any more, with the tokens that made it.
"""

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from medray.generation.sampling import Token

BROKEN = "\ufffd"
"""What a tokenizer writes for a character of which it has seen a part."""


class Piece(NamedTuple):
    """Text of an answer, and the tokens that completed it."""

    text: str
    tokens: tuple[Token, ...] = ()


class Detokeniser:
    """The text of one answer.

    A token is decoded together with a few before it, since many tokenizers write a token otherwise
    at a text's beginning; it is held back while it ends inside a character.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, eos_ids: set[int], stop: Sequence[str] = ()
    ) -> None:
        """Args:
        stop: strings that end the answer; they and what follows are no part of it.
        """
        self.finish_reason: str | None = None
        """`stop` after an end token or a stop string, else None."""
        self.num_tokens = 0
        self._tokenizer, self._eos_ids = tokenizer, eos_ids
        self._stop = [text for text in stop if text]
        self._ids: list[int] = []
        self._from = self._read = 0
        self._held, self._held_tokens, self._cut = "", [], False

    def feed(self, tokens: Sequence[Token]) -> Piece:
        """Takes tokens and returns what may be sent on, often nothing."""
        for token in tokens:
            if self.finish_reason is not None:
                break
            self.num_tokens += 1
            self._held_tokens.append(token)
            if token.id in self._eos_ids:
                self.finish_reason = "stop"
                break
            self._ids.append(token.id)
            self._held += self._next_text()
            self._cut_at_stop()
        if self.finish_reason is not None:
            return self.finish()
        kept = max(map(self._begun, self._stop), default=0)
        text, self._held = (
            self._held[: len(self._held) - kept],
            self._held[len(self._held) - kept :],
        )
        whole = not self._held and self._read == len(self._ids)
        return Piece(text, self._take_tokens() if whole else ())

    def finish(self) -> Piece:
        """What is still held, at the answer's end."""
        if not self._cut:
            self._held += self._decode(self._from, None)[
                len(self._decode(self._from, self._read)) :
            ]
            self._from = self._read = len(self._ids)
            self._cut_at_stop()
        text, self._held = self._held, ""
        return Piece(text, self._take_tokens())

    def _take_tokens(self) -> tuple[Token, ...]:
        tokens, self._held_tokens = tuple(self._held_tokens), []
        return tokens

    def _next_text(self) -> str:
        """Source: vLLM's and TGI's incremental decoding, with a prefix of what was read before."""
        before = self._decode(self._from, self._read)
        text = self._decode(self._from, None)
        if len(text) <= len(before) or text.endswith(BROKEN):
            return ""
        self._from, self._read = self._read, len(self._ids)
        return text[len(before) :]

    def _decode(self, start: int, end: int | None) -> str:
        return str(self._tokenizer.decode(self._ids[start:end], skip_special_tokens=True))

    def _cut_at_stop(self) -> None:
        places = [place for text in self._stop if (place := self._held.find(text)) >= 0]
        if places:
            self._held, self.finish_reason, self._cut = self._held[: min(places)], "stop", True

    def _begun(self, stop: str) -> int:
        """How many characters at the end of what is held may begin `stop`."""
        lengths = range(min(len(stop) - 1, len(self._held)), 0, -1)
        return next((n for n in lengths if self._held.endswith(stop[:n])), 0)
