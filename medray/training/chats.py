"""Instructions as packed tokens. In: chats. Out: blocks whose loss falls on the answers.

    sequence = [q; sep; a], loss over a       (separators come from the chat template)

A row of questions on one text becomes a sequence that branches behind the text. Every worker
tokenises its share of the rows, and all get all. Source: [EMR-LLM 1.3].
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch.distributed as dist
from transformers import PreTrainedTokenizerBase

from medray.common.errors import DataError
from medray.common.manifest import Counts
from medray.common.records import Instruction, Message
from medray.training.packed import PackedBlocks, Tokens

logger = logging.getLogger(__name__)
Reduction = Literal["token", "example"]


class Packer(NamedTuple):
    """How instructions become blocks."""

    tokenizer: PreTrainedTokenizerBase
    block_tokens: int
    reduction: Reduction = "token"
    """"token" weighs every answer token alike [EMR-LLM 1.3], "example" every example: its answer
    tokens share a weight of 1 [ClinicalGPT 2.2]."""

    @property
    def pad(self) -> int:
        """The token that fills a block's end."""
        pad: Any = self.tokenizer.pad_token_id
        eos: Any = self.tokenizer.eos_token_id
        return eos if pad is None else pad

    def pack(self, rows: Iterable[Instruction], what: str) -> PackedBlocks:
        """Tokenises and packs; examples longer than a block are left out and counted.

        Every worker of the process group, if there is one, calls this with the same rows.
        Raises:
            DataError: on every worker, if no row fits or the chat template cannot be used.
        """
        return self._blocks(self._fitting(rows, what), what)

    def pack_by_task(self, rows: Iterable[Instruction], what: str) -> dict[str, PackedBlocks]:
        """The blocks of each task; a task of which no row fits is left out.

        Raises:
            DataError: as `pack`, if no row of any task fits.
        """
        tasks: dict[str, list[Instruction]] = defaultdict(list)
        for row in rows:
            tasks[row.task].append(row)
        fitting = {task: self._fitting(tasks[task], f"{what} {task}") for task in sorted(tasks)}
        if not any(fitting.values()):
            self._blocks([], what)
        return {task: self._blocks(found, task) for task, found in fitting.items() if found}

    def _fitting(self, rows: Iterable[Instruction], what: str) -> list[Tokens]:
        places: list[int] = []
        chats: dict[str, tuple[int, Instruction]] = {}  # a weight above 1 repeats rows
        for row in rows:
            chat = row.model_dump_json(include={"messages", "shared_chars"})
            places.append(chats.setdefault(chat, (len(chats), row))[0])
        distinct = _tokenise_together([row for _, row in chats.values()], self.tokenizer)
        if self.reduction == "example":
            distinct = [share_weight(tokens) for tokens in distinct]
        fitting = [distinct[i] for i in places if len(distinct[i].ids) <= self.block_tokens]
        counts = Counts(rows_in=len(places), rows_out=len(fitting))
        if counts.rows_in > counts.rows_out:
            counts.reject("too_long", counts.rows_in - counts.rows_out)
        logger.info("%s instructions: %s", what, counts)
        return fitting

    def _blocks(self, sequences: list[Tokens], what: str) -> PackedBlocks:
        if not sequences:
            raise DataError(
                f"no {what} instruction fits into {self.block_tokens} tokens, or there is none; "
                "look at the counts of the instructions artefact, or raise block_tokens"
            )
        return PackedBlocks.pack(sequences, self.block_tokens, self.pad)


def share_weight(tokens: Tokens) -> Tokens:
    """The same sequence, the answer tokens of each branch sharing a weight of 1."""
    weights = np.asarray(tokens.weights, np.float32)
    branches = np.broadcast_to(tokens.branches, weights.shape)
    sums = np.bincount(branches, weights)
    return tokens._replace(weights=weights / np.maximum(sums, 1)[branches])


def tokenise_rows(rows: Sequence[Instruction], tokenizer: PreTrainedTokenizerBase) -> list[Tokens]:
    """The sequence of each row.

    Raises:
        DataError: as `tokenise_chats`.
    """
    asked = [_questions(row) for row in rows]
    chats = iter(tokenise_chats([chat for same in asked for chat in same], tokenizer))
    return [_branch([next(chats) for _ in same]) for same in asked]


def _questions(row: Instruction) -> list[list[Message]]:
    """The chats of a row: one, or a question on the shared text each."""
    if not row.shared_chars:
        return [row.messages]
    shared = row.messages[0].content[: row.shared_chars]
    first, *others = zip(row.messages[::2], row.messages[1::2], strict=True)
    return [
        list(first),
        *(
            [question.model_copy(update={"content": shared + question.content}), answer]
            for question, answer in others
        ),
    ]


def _branch(chats: list[Tokens]) -> Tokens:
    """One sequence of chats, in which what they begin with stands once."""
    if len(chats) == 1:
        return chats[0]
    first = np.asarray(chats[0].ids)
    num_shared = min(_common_length(first, np.asarray(chat.ids)) for chat in chats[1:])
    tails = [len(chat.ids) - num_shared for chat in chats]
    return Tokens(
        np.concatenate([first[:num_shared], *(chat.ids[num_shared:] for chat in chats)]),
        np.concatenate(
            [chats[0].weights[:num_shared], *(chat.weights[num_shared:] for chat in chats)]
        ),
        np.repeat(np.arange(len(chats) + 1, dtype=np.int32), [num_shared, *tails]),
    )


def _common_length(a: np.ndarray, b: np.ndarray) -> int:
    """Tokens that two sequences begin with; the last of the shorter is not counted, so that
    something is left of each."""
    length = min(len(a), len(b)) - 1
    differs = np.flatnonzero(a[:length] != b[:length])
    return int(differs[0]) if len(differs) else length


def tokenise_chats(
    chats: Sequence[list[Message]], tokenizer: PreTrainedTokenizerBase
) -> list[Tokens]:
    """Tokens of each chat; the answers are the assistant's words, their end token included.

    The template is rendered turn by turn and the pieces are tokenised one by one, so that this
    works with any chat template whose rendering of a prefix is a prefix of the rendering.
    Raises:
        DataError: if the template is not such a one.
    """
    pieces = [_pieces(messages, tokenizer) for messages in chats]
    texts = [text for chat in pieces for text, _ in chat]
    encoded: Any = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    tokenised = iter(encoded)
    tokens: list[Tokens] = []
    for chat in pieces:
        runs = [(next(tokenised), is_answer) for _, is_answer in chat]
        tokens.append(
            Tokens(
                np.array([token for ids, _ in runs for token in ids], np.int32),
                np.array([is_answer for ids, is_answer in runs for _ in ids], bool),
            )
        )
    return tokens


def _tokenise_together(rows: list[Instruction], tokenizer: PreTrainedTokenizerBase) -> list[Tokens]:
    """The sequences of all rows, on every worker."""
    if not dist.is_initialized():
        return tokenise_rows(rows, tokenizer)
    world_size = dist.get_world_size()
    share: list[Tokens] | DataError
    try:
        share = tokenise_rows(rows[dist.get_rank() :: world_size], tokenizer)
    except DataError as error:
        share = error  # the others must not wait for this worker
    shares: list[Any] = [None] * world_size
    dist.all_gather_object(shares, share)
    for share in shares:
        if isinstance(share, DataError):
            raise share
    return [shares[i % world_size][i // world_size] for i in range(len(rows))]


def _pieces(messages: list[Message], tokenizer: PreTrainedTokenizerBase) -> list[tuple[str, bool]]:
    """The rendered chat in pieces, and whether each is an answer."""
    chat = [message.model_dump() for message in messages]
    pieces: list[tuple[str, bool]] = []
    done = ""
    for k, message in enumerate(chat):
        if message["role"] != "assistant":
            continue
        prefix = _render(tokenizer, chat[:k], add_generation_prompt=True)
        whole = _render(tokenizer, chat[: k + 1], add_generation_prompt=False)
        if not (prefix.startswith(done) and whole.startswith(prefix)):
            raise DataError("this chat template rewrites earlier turns; give a plain ChatML one")
        answer = whole[len(prefix) :].rstrip("\n")
        pieces += [(prefix[len(done) :], False), (answer, True)]
        done = prefix + answer
    return pieces


def _render(
    tokenizer: PreTrainedTokenizerBase, chat: list[dict[str, Any]], *, add_generation_prompt: bool
) -> str:
    return str(
        tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=add_generation_prompt
        )
    )
