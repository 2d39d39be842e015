"""Instructions as packed tokens. In: chats. Out: blocks whose loss falls on the answers.

    sequence = [q; sep; a], loss over a       (separators come from the chat template)

Every worker tokenises its share of the chats, and all get all. Source: [EMR-LLM 1.3].
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch.distributed as dist
from transformers import PreTrainedTokenizerBase

from medray.common.errors import DataError
from medray.common.manifest import Counts
from medray.common.records import Instruction, Message
from medray.training.packed import PackedBlocks

logger = logging.getLogger(__name__)

Tokens = tuple[np.ndarray, np.ndarray]
"""Tokens of a chat, int32 [T], and which are the assistant's words (its end token included),
bool [T]."""


def pack_instructions(
    rows: Iterable[Instruction], tokenizer: PreTrainedTokenizerBase, block_tokens: int, what: str
) -> PackedBlocks:
    """Tokenises and packs; examples longer than a block are left out and counted.

    Every worker of the process group, if there is one, calls this with the same rows.
    Raises:
        DataError: on every worker, if no row fits or the chat template cannot be used.
    """
    places: list[int] = []
    chats: dict[str, tuple[int, list[Message]]] = {}  # a weight above 1 repeats rows
    for row in rows:
        chat = row.model_dump_json(include={"messages"})
        places.append(chats.setdefault(chat, (len(chats), row.messages))[0])
    distinct = _tokenise_together([messages for _, messages in chats.values()], tokenizer)
    fitting = [distinct[i] for i in places if len(distinct[i][0]) <= block_tokens]
    counts = Counts(rows_in=len(places), rows_out=len(fitting))
    if counts.rows_in > counts.rows_out:
        counts.reject("too_long", counts.rows_in - counts.rows_out)
    if not fitting:
        raise DataError(
            f"no {what} instruction fits into {block_tokens} tokens ({counts.rows_in} read); "
            "raise sft.block_tokens or look at the instructions artefact"
        )
    logger.info("%s instructions: %s", what, counts)
    pad: Any = tokenizer.pad_token_id
    eos: Any = tokenizer.eos_token_id
    return PackedBlocks.pack(fitting, block_tokens, eos if pad is None else pad)


def tokenise_chats(
    chats: Sequence[list[Message]], tokenizer: PreTrainedTokenizerBase
) -> list[Tokens]:
    """Tokens of each chat.

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
            (
                np.array([token for ids, _ in runs for token in ids], np.int32),
                np.array([is_answer for ids, is_answer in runs for _ in ids], bool),
            )
        )
    return tokens


def _tokenise_together(
    chats: list[list[Message]], tokenizer: PreTrainedTokenizerBase
) -> list[Tokens]:
    """The tokens of all chats, on every worker."""
    if not dist.is_initialized():
        return tokenise_chats(chats, tokenizer)
    world_size = dist.get_world_size()
    share: list[Tokens] | DataError
    try:
        share = tokenise_chats(chats[dist.get_rank() :: world_size], tokenizer)
    except DataError as error:
        share = error  # the others must not wait for this worker
    shares: list[Any] = [None] * world_size
    dist.all_gather_object(shares, share)
    for share in shares:
        if isinstance(share, DataError):
            raise share
    return [shares[i % world_size][i // world_size] for i in range(len(chats))]


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
