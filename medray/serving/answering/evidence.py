"""What an answer may rest on. In: a request and two objects that embed and search. Out: numbered
passages, none where the nearest lies too far away, or that the model is to answer alone.
"""

from typing import Any, NamedTuple, Protocol

from pydantic import Field

from medray.common.config import Config
from medray.retrieval.filters import PassageFilter
from medray.serving.identity.keys import Role
from medray.serving.messages import Found, QuestionVectors
from medray.serving.record.passages import EmbedTexts, beside, record_hits
from medray.serving.schema.chat import ChatRequest
from medray.serving.schema.grounding import FoundPassage


class AnswerConfig(Config):
    """How questions are answered, where the request does not say."""

    top_k: int = 5
    """Passages shown to the model. Source: not given; [EMR-LLM 1.5] leaves k open. Best as many as
    the grounded examples hold that it was fine-tuned on."""
    min_cosine: float | None = Field(default=None, ge=-1, le=1)
    """Where the nearest passage has a lower cosine, the answer is that there is none. None: as
    held-out questions had it when the index was built (`threshold/` in its metrics)."""
    max_tokens: int = 256
    unsourced_roles: tuple[Role, ...] = ("clinician", "quality", "admin")
    """Who may get an answer of the model alone: where passages do not answer the kind of question,
    or by `retrieval` false. Others get one from passages, or that there is none."""


class Embed(Protocol):
    """A question → what to search with."""

    async def __call__(self, question: str, /) -> QuestionVectors: ...


class Search(Protocol):
    """Question, its vectors, k, filter → passages, best first."""

    async def __call__(
        self, question: str, vectors: QuestionVectors, top_k: int, where: PassageFilter, /
    ) -> Found: ...


class Evidence(NamedTuple):
    """What was found for a question."""

    passages: list[FoundPassage]
    looked_up: bool
    """False: passages do not answer questions of this kind, and the model answers alone."""
    version: str
    """Of the index."""


async def find_evidence(
    request: ChatRequest,
    question: str,
    config: AnswerConfig,
    embed: Embed,
    search: Search,
    role: Role,
    embed_texts: EmbedTexts | None,
) -> Evidence:
    """Passages of the index, if the nearest is near enough, and of the record.

    A question of those that the policy was fine-tuned to answer without passages is left to it
    where the request asks for no passages in any way and is of somebody of `unsourced_roles`. It is
    searched for all the same: its vector is judged where the index is.

    Args:
        question: the request's last message, as the model is to read it.
    """
    top_k, where, record = request.top_k or config.top_k, request.filters, request.record
    if record is not None and record.patient_id:
        where = where.model_copy(update={"not_patient": record.patient_id})
    vectors = await embed(question)
    found = await search(question, vectors, top_k, where)
    left_open = (
        request.retrieval is None
        and request.top_k is None
        and request.filters.is_empty
        and record is None
    )
    if left_open and role in config.unsourced_roles and not found.looked_up:
        return Evidence([], False, found.version)
    least = found.min_cosine if config.min_cosine is None else config.min_cosine
    nearest = max((hit["cosine"] for hit in found.hits), default=least)
    hits = found.hits if nearest >= least else []
    if record is not None:
        assert embed_texts is not None, "a record is ranked by meaning too"
        ranked = await record_hits(record, question, vectors.vector, embed_texts)
        hits = beside(hits, ranked, top_k)
    return Evidence(numbered(hits), True, found.version)


async def find_passages(
    question: str, top_k: int, where: PassageFilter, embed: Embed, search: Search
) -> tuple[list[FoundPassage], str]:
    """The best passages, and the version of the index."""
    found = await search(question, await embed(question), top_k, where)
    return numbered(found.hits), found.version


def numbered(hits: list[dict[str, Any]]) -> list[FoundPassage]:
    """Passages, from 1 on."""
    return [FoundPassage.model_validate(hit | {"number": k}) for k, hit in enumerate(hits, 1)]
