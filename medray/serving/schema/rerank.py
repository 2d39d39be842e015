"""POST /v1/rerank. Source: the rerank API that Jina, Cohere and vLLM share."""

from typing import Annotated, Any

from pydantic import Field

from medray.serving.schema.base import Request, example

Text = Annotated[str, Field(pattern=r"\S")]


class RerankRequest(Request):
    """A question, and documents to rank."""

    model_config = example(
        {
            "model": "medray-reranker",
            "query": "肺炎如何治疗？",
            "documents": ["肺炎首选阿莫西林。", "哮喘宜吸入激素。"],
            "top_n": 1,
        }
    )

    model: str
    query: Text
    documents: Annotated[list[Text], Field(min_length=1, max_length=1000)]
    top_n: int | None = Field(None, ge=1)
    return_documents: bool = False


def ranking(request: RerankRequest, relevance: list[float]) -> list[dict[str, Any]]:
    """The `results` of an answer: indices into `documents`, best first."""
    order = sorted(range(len(relevance)), key=lambda index: -relevance[index])
    results = []
    for index in order[: request.top_n]:
        result: dict[str, Any] = {"index": index, "relevance_score": relevance[index]}
        if request.return_documents:
            result["document"] = {"text": request.documents[index]}
        results.append(result)
    return results
