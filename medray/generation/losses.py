"""How hard a model finds given answers. In: chats. Out: the loss of each chat's last turn."""

from collections.abc import Sequence

from medray.common.records import Instruction
from medray.generation.engine import HFEngine


def answer_losses(engine: HFEngine, rows: Sequence[Instruction]) -> list[float | None]:
    """Mean negative log-likelihood (nats a token) of each row's last turn after the turns before.

    None for a row without an answer, or longer than the model's context.
    """
    chats = [[message.model_dump() for message in row.messages] for row in rows]
    lengths = [engine.count_tokens(chat[-1]["content"]) for chat in chats]
    prompts = [engine.prompt(chat[:-1]) for chat in chats]
    known = [
        k for k, prompt in enumerate(prompts)
        if lengths[k] and engine.count_tokens(prompt) + lengths[k] <= engine.max_tokens
    ]  # fmt: skip
    scores = engine.score([prompts[k] for k in known], [[chats[k][-1]["content"]] for k in known])
    losses: list[float | None] = [None] * len(rows)
    for k, (score,) in zip(known, scores, strict=True):
        losses[k] = -score / lengths[k]
    return losses
