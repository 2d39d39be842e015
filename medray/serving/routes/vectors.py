"""POST /v1/embeddings, POST /v1/retrieve and POST /v1/rerank."""

import base64
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from medray.serving.answering.evidence import find_passages
from medray.serving.identity.access import MODEL, SEARCH, Caller, may
from medray.serving.schema.base import ApiError, Usage
from medray.serving.schema.embeddings import EmbeddingRequest, embeddings
from medray.serving.schema.grounding import RetrieveRequest
from medray.serving.schema.rerank import RerankRequest, ranking
from medray.serving.service import Served

router = APIRouter()


@router.post("/v1/embeddings")
async def embed(
    request: EmbeddingRequest, service: Served, caller: Annotated[Caller, may(MODEL)]
) -> Response:
    """Unit vectors of the texts, as floats or base64 of little-endian float32."""
    service.check_model(request.model, service.config.embedding_name)
    texts = request.texts()
    service.check_size(sum(map(len, texts)))
    with await service.admit(caller, "embd", {}, num_texts=len(texts)) as turn:
        vectors, num_tokens = await service.deployed.embed(texts)
        turn.answered(Usage(prompt_tokens=num_tokens, total_tokens=num_tokens), {})
    if request.dimensions not in (None, len(vectors[0])):
        raise ApiError(
            400, f"this model has {len(vectors[0])} dimensions; leave dimensions out",
            code="unsupported_parameter", param="dimensions",
        )  # fmt: skip
    if request.encoding_format == "base64":
        vectors = [base64.b64encode(np.array(v, "<f4").tobytes()).decode() for v in vectors]
    return JSONResponse(embeddings(request.model, vectors, num_tokens))


@router.post("/v1/retrieve")
async def retrieve(
    request: RetrieveRequest, service: Served, caller: Annotated[Caller, may(SEARCH)]
) -> dict[str, Any]:
    """The best passages for a question, with what ranked them; no model is asked."""
    service.check_size(len(request.query))
    with await service.admit(caller, "retr", {"query": request.query}) as turn:
        found, version = await find_passages(
            request.query, request.top_k, request.filters, service.deployed.embed_question,
            service.deployed.search,
        )  # fmt: skip
        turn.answered(
            None, {}, index_version=version,
            passages=[passage.passage_id for passage in found],
        )  # fmt: skip
    data = [passage.model_dump() for passage in found]
    return {"object": "list", "index_version": version, "data": data}


@router.post("/v1/rerank")
async def rerank(
    request: RerankRequest, service: Served, caller: Annotated[Caller, may(SEARCH)]
) -> dict[str, Any]:
    """How well each document answers the query, best first."""
    if not service.deployed.reranks:
        raise ApiError(
            404, "no reranker is served here; set reranker_dir in the serve configuration",
            code="model_not_found", param="model",
        )  # fmt: skip
    service.check_model(request.model, service.config.reranker_name)
    service.check_size(len(request.query) + sum(map(len, request.documents)))
    asked = {"query": request.query}
    with await service.admit(caller, "rank", asked, num_texts=len(request.documents)) as turn:
        relevance = await service.deployed.relevance(request.query, request.documents)
        turn.answered(None, {})
    return {"id": turn.id, "model": request.model, "results": ranking(request, relevance)}
