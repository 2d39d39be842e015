"""Guided decoding of quotations: inside `《title》[k]：“…”` only words of passage k can be written,
and inside an answer's leading `“…”`, the evidence of a verdict, only words of the record.

In: the texts that each answer may quote, the tokens generated so far. Out: logits, with every
token forbidden that would leave the text. A quotation starts and ends at a clause's edge, so
that it says what its passage says; a sentence that begins with `《` names a passage, and its title
is followed by that passage's number. Which title and which clause is left to the model, and so is
everything outside of quotations; whether a passage answers the question is not decided here.

A quotation that the model could not have misspelt need not be thrown away when it is checked.
Source: not in the method; constrained generation over a given text (De Cao et al. 2021).
"""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from medray.common.sentences import CLAUSE_MARKS, SENTENCE
from medray.generation.prompts import RECORD, VERDICTS, Numbered

LINE = re.compile(r"[^\n]+")
OPEN_TITLE = re.compile(r"^\s*《([^》\n]*)$")
OPEN_HEAD = re.compile(r"《([^》\n]*)》([^《“\n]*)$")
OPEN_QUOTE = re.compile(r"《[^》]*》\[(\d+)\]：“([^”\n]*)$")
OPEN_EVIDENCE = re.compile(r"^\s*“([^”\n]*)$")
ENDINGS = ("”", "”。", "”；", "”，")
EVIDENCE_ENDINGS = ("”", *(f"”{word}" for word, value in VERDICTS.items() if value is not None))
"""What may follow a quotation; a tokenizer may hold several of these characters in one token."""


class Quotable:
    """One text as it may be quoted: what can follow a quotation's first words."""

    def __init__(self, text: str, piece: re.Pattern[str]) -> None:
        """A quotation lies within one match of `piece` and holds no closing quote, which the
        answer's format could not show."""
        self._starts: list[str] = []
        """Everything that can be quoted from a clause's beginning on."""
        for part in (part for match in piece.findall(text) for part in match.split("”")):
            edges = [i + 1 for i, char in enumerate(part) if char in CLAUSE_MARKS]
            rests = [part[i:].strip("\n") for i in (0, *edges)]
            self._starts += [
                rest
                for rest in rests
                if any(char.isalnum() for char in rest) and rest[0] not in CLAUSE_MARKS
            ]

    def rests(self, begun: str) -> tuple[list[str], bool]:
        """Returns the texts that may follow `begun`, and whether the quotation may end here."""
        found = [text[len(begun) :] for text in self._starts if text.startswith(begun)]
        at_edge = any(not rest or rest[0] in CLAUSE_MARKS for rest in found)
        may_end = bool(found and begun) and (at_edge or begun[-1] in CLAUSE_MARKS)
        return [rest for rest in found if rest], may_end


class GuidedQuotes(LogitsProcessor):
    """Keeps the quotations of a batch of answers to their texts."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        texts: Sequence[Mapping[int, Numbered]],
        num_prompt_tokens: int,
    ) -> None:
        """Args:
        texts: number → passage, or `RECORD` → record, for each row of the batch.
        num_prompt_tokens: length of the padded prompts; what comes after was generated.
        """
        self._tokenizer = tokenizer
        self._heads = [{k: text.title for k, text in row.items() if k != RECORD} for row in texts]
        self._rows = [
            {k: Quotable(text.text, SENTENCE if k == RECORD else LINE) for k, text in row.items()}
            for row in texts
        ]
        self._decode_from = [num_prompt_tokens] * len(texts)
        self._unfinished: list[list[list[int]]] = [[] for _ in texts]
        self._anchor = self._encode("“")
        self._endings = [self._piece(text) for text in ENDINGS]
        self._evidence_endings = [self._piece(text) for text in EVIDENCE_ENDINGS]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Sets forbidden logits [B, V] to −∞."""
        for row, quotables in enumerate(self._rows):
            if quotables and (allowed := self._allowed(row, input_ids[row], quotables)):
                index = torch.tensor(sorted(allowed), device=scores.device)
                kept = scores[row, index]
                scores[row] = -torch.inf
                scores[row, index] = kept
        return scores

    def _allowed(self, row: int, ids: Tensor, quotables: dict[int, Quotable]) -> set[int]:
        """Token ids that may come next; empty if all may."""
        pieces = self._unfinished[row]
        if pieces:  # in the middle of a character that is spread over several tokens
            last = int(ids[-1])
            pieces = [piece[1:] for piece in pieces if piece[0] == last and len(piece) > 1]
            self._unfinished[row] = pieces
            if pieces:
                return {piece[0] for piece in pieces}
        generated = ids[self._decode_from[row] :]
        text = str(self._tokenizer.decode(generated, skip_special_tokens=True))
        if quote := self._open_quote(text, quotables):
            rests, may_end = quote
            endings = self._evidence_endings if RECORD in quotables else self._endings
            pieces = [self._piece(rest) for rest in rests] + (endings if may_end else [])
        elif rests := self._head(row, text):
            pieces = [self._piece(rest) for rest in rests]
        elif RECORD not in quotables and text.endswith(("。", "\n")):
            self._decode_from[row] = len(ids)  # long answers are not decoded again and again
        self._unfinished[row] = [piece for piece in pieces if len(piece) > 1]
        return {piece[0] for piece in pieces}

    def _open_quote(
        self, text: str, quotables: dict[int, Quotable]
    ) -> tuple[list[str], bool] | None:
        """What may follow the quotation that `text` ends in; None if it ends in none."""
        if RECORD in quotables:
            evidence = OPEN_EVIDENCE.search(text)
            return quotables[RECORD].rests(evidence[1]) if evidence else None
        quote = OPEN_QUOTE.search(text)
        if quote is None or int(quote[1]) not in quotables:
            return None
        return quotables[int(quote[1])].rests(quote[2])

    def _head(self, row: int, text: str) -> list[str]:
        """What may follow in a citation's `《title》[k]：“`; empty where `text` is in no such."""
        if title := OPEN_TITLE.search(text):
            heads, begun = [f"{known}》" for known in self._heads[row].values()], title[1]
        elif head := OPEN_HEAD.search(text):
            known, begun = head.groups()
            heads = [f"[{k}]：“" for k, other in self._heads[row].items() if other == known]
        else:
            return []
        return [head[len(begun) :] for head in heads if head.startswith(begun)]

    def _piece(self, text: str) -> list[int]:
        """The tokens of the first characters of `text`, as few as are whole; mostly one."""
        return self._first_character(self._continuation(text[:16]))

    def _first_character(self, ids: list[int]) -> list[int]:
        """The shortest beginning of `ids` that is whole characters."""
        for length in range(1, len(ids)):
            if "\ufffd" not in str(self._tokenizer.decode(ids[:length])):
                return ids[:length]
        return ids

    def _continuation(self, text: str) -> list[int]:
        """Tokens of `text` as it stands after other text: SentencePiece puts a blank before a
        text that stands alone."""
        ids = self._encode("“" + text)
        length = len(self._anchor)
        return ids[length:] if ids[:length] == self._anchor else self._encode(text)

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]
