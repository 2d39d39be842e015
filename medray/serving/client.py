"""Asks a served endpoint a question, with the plain `openai` client."""

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import openai

from medray.common.errors import ServiceError

DEFAULT_URL = "http://127.0.0.1:8000"
KEY_VARIABLE = "MEDRAY_API_KEY"


class Piece(NamedTuple):
    """Text of the answer; the last piece has no text but the `medray` field of the answer."""

    text: str
    grounding: dict[str, Any] | None = None


def ask(
    question: str,
    base_url: str = DEFAULT_URL,
    *,
    model: str = "medray",
    stream: bool = True,
    retrieval: bool | None = None,
    timeout_s: float = 120.0,
) -> Iterator[Piece]:
    """Yields the answer as it comes, then its passages, citations and verdicts.

    Args:
        retrieval: True answers from passages or not at all, False asks the model alone; None lets
            the service decide by the question.

    Raises:
        ServiceError: if nothing answers at `base_url`, or the server refuses.
    """
    client = openai.OpenAI(
        base_url=f"{base_url.rstrip('/')}/v1",
        api_key=os.environ.get(KEY_VARIABLE) or "none",
        timeout=timeout_s,
        max_retries=2,
    )
    try:
        with client:
            answer = client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": question}],
                stream=stream,
                extra_body={} if retrieval is None else {"retrieval": retrieval},
            )
            if not isinstance(answer, openai.Stream):
                yield Piece(answer.choices[0].message.content or "")
                yield Piece("", (answer.model_extra or {}).get("medray", {}))
                return
            for chunk in answer:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield Piece(chunk.choices[0].delta.content)
                if grounding := (chunk.model_extra or {}).get("medray"):
                    yield Piece("", grounding)
    except openai.APIConnectionError:
        raise ServiceError(
            f"nothing answers at {base_url}; start the server with `medray serve`, "
            "or give its address with --url"
        ) from None
    except openai.APIStatusError as error:
        raise ServiceError(f"{base_url} answered {error.status_code}: {error.message}") from None


def sources(grounding: dict[str, Any]) -> str:
    """The citations of an answer as lines of text: number, title, passage id, offsets; or that the
    model answered alone, where the answer does not begin with that itself."""
    if grounding.get("basis") == "model":
        return "" if grounding["index_version"] else "\n（未依据资料：此回答没有出处。）"
    lines = []
    for citation in grounding["citations"]:
        mark = "✓" if citation["ok"] else f"✗ {citation['fault']}"
        where = citation["passage_id"] or "-"
        span = f" [{citation['start']}:{citation['end']}]" if citation["ok"] else ""
        lines.append(f"\n{mark} [{citation['number']}] 《{citation['title']}》 {where}{span}")
    return "".join(lines)
