"""medray's own part of the API: passages, citations, and what the check said of each sentence."""

from typing import Literal

from pydantic import BaseModel, Field, computed_field

from medray.common.records import Kind
from medray.retrieval.filters import PassageFilter
from medray.serving.schema.base import Request, example

MOST_PASSAGES = 50


class RetrieveRequest(Request):
    """POST /v1/retrieve, which is medray's own."""

    model_config = example({"query": "肺炎如何治疗？", "top_k": 3, "filters": {"since": "2023"}})

    query: str = Field(pattern=r"\S")
    top_k: int = Field(default=10, ge=1, le=MOST_PASSAGES)
    filters: PassageFilter = PassageFilter()


class FoundPassage(BaseModel):
    """A passage that the model was shown. `start`, `end`: offsets in the section of the document;
    `score`: of the whole ranking, 0 to 1 within one search; `cosine`, `bm25`, `sparse` (0 where the
    encoder weighs no tokens) and, from a reranker if there is one, `relevance`: what makes it."""

    number: int
    passage_id: str
    doc_id: str
    title: str
    section: str
    start: int
    end: int
    source: str
    date: str
    superseded_by: str = ""
    """`doc_id` of the document that replaces this one's."""
    kind: Kind | Literal["record"]
    """`record`: of the record that came with the question."""
    score: float
    cosine: float
    bm25: float
    sparse: float = 0.0
    relevance: float | None = None
    text: str


Fault = Literal["no_such_passage", "other_title", "quote_not_in_passage", "no_quote"]


class CheckedCitation(BaseModel):
    """A citation that the model wrote, and whether it holds."""

    sentence: int
    """Index into `verdicts`."""
    number: int
    passage_id: str | None
    """None where there is no passage of this number; `source` and `section` are empty then."""
    source: str = ""
    title: str
    section: str = ""
    quote: str
    start: int | None = None
    """Where the quote begins in the section of the document."""
    end: int | None = None
    ok: bool
    fault: Fault | None = None


class SentenceVerdict(BaseModel):
    """What the check said of one sentence. `failed` sentences are not in the answer."""

    verdict: Literal["supported", "failed", "uncited", "no_answer"]
    faults: list[Fault] = []


Basis = Literal["passages", "uncited", "model", "nothing", "rule"]


class Grounding(BaseModel):
    """medray's extra field of an answer. `retrieval`: whether it was to rest on passages; false
    where the model answered alone. `guard`: why the question was not answered, if so."""

    retrieval: bool
    guard: str = ""
    index_version: str = ""
    passages: list[FoundPassage] = []
    citations: list[CheckedCitation] = []
    verdicts: list[SentenceVerdict] = []

    @computed_field
    @property
    def basis(self) -> Basis:
        """What the answer rests on. `uncited`: passages were shown, and nothing of it that stands
        cites one; `nothing`: it says that there is no answer."""
        if self.guard:
            return "rule"
        if not self.retrieval:
            return "model"
        said = {one.verdict for one in self.verdicts}
        if "supported" in said:
            return "passages"
        return "nothing" if "no_answer" in said else "uncited"
