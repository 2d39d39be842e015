"""Loss on held-out records. In: records, an engine, the unigram entropy and the generator's bound.
Out: nats per token, and the share of the distance from unigram to bound that is closed.

The bound: the generator logs the log-probability of each of its choices for a record; no model
can be better on average than their sum, divided by the tokens of the same records.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from medray.common.records import Document
from medray.quality.protocols import Engine


class Loss(NamedTuple):
    """Summed negative log-likelihood (nats) and tokens; ids of the records it is over."""

    nats: float
    tokens: int
    doc_ids: list[str]
    num_too_long: int

    @property
    def per_token(self) -> float | None:
        """Nats per token; None if no record fitted."""
        return self.nats / self.tokens if self.tokens else None


def held_out_loss(
    documents: Sequence[Document], engine: Engine, render: Callable[[Document], str]
) -> Loss:
    """Scores whole records as pretraining text, after their first heading.

    A packed block gives the first token of a document nothing to be predicted from, so the first
    heading, which is the same in nearly all records, is given and the rest is scored.

    Args:
        render: a document as pretraining text.
    """
    prompts: list[str] = []
    texts: list[str] = []
    doc_ids: list[str] = []
    tokens = 0
    for document in documents:
        whole = render(document)
        at = whole.find("】") + 1 or 1
        count = engine.count_tokens(whole[at:])
        if 0 < count <= engine.max_tokens - engine.count_tokens(whole[:at]):
            prompts.append(whole[:at])
            texts.append(whole[at:])
            doc_ids.append(document.doc_id)
            tokens += count
    scores = engine.score(prompts, [[text] for text in texts])
    nats = -sum(row[0] for row in scores)
    return Loss(nats, tokens, doc_ids, len(documents) - len(texts))


def share_closed(unigram: float, loss: float, bound: float) -> float:
    """(unigram − loss) / (unigram − bound), all in nats per token; 1 = nothing left to learn.

    Raises:
        ValueError: if the bound is not below the unigram entropy.
    """
    if bound >= unigram:
        raise ValueError(f"the bound ({bound:.3f}) must be below the unigram entropy {unigram:.3f}")
    return (unigram - loss) / (unigram - bound)
