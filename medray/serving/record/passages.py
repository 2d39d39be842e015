"""A patient's record as passages of one answer.

In: the record that came with a chat, the question and its vector. Out: the record's best passages,
which are shown, numbered and cited as those of the index are. They live as long as the request: no
file, no log and no index holds them.
"""

import asyncio
from typing import Any, Protocol

import numpy as np

from medray.common.sentences import spans
from medray.retrieval.embed import passage_text
from medray.retrieval.memory import rank_few
from medray.serving.messages import Embedded
from medray.serving.schema.record import PatientRecord

TITLE = "患者病历"
PASSAGE_CHARS = 300
"""As the corpus cuts its passages."""


class EmbedTexts(Protocol):
    """Texts → their unit vectors."""

    async def __call__(self, texts: list[str], /) -> Embedded: ...


async def record_hits(
    record: PatientRecord, question: str, vector: list[float], embed: EmbedTexts
) -> list[dict[str, Any]]:
    """All passages of a record with their scores, best first, fields as `Found` has them.

    `start` and `end` are offsets in the text of the section, whose number stands in `passage_id`:
    `record#<section>-<start>`.
    """
    passages = [
        {
            "passage_id": f"record#{index}-{start}",
            "doc_id": "record",
            "title": f"{TITLE} {section.heading}".strip(),
            "section": section.heading,
            "start": start,
            "end": end,
            "source": "",
            "date": section.date,
            "kind": "record",
            "text": section.text[start:end],
        }
        for index, section in enumerate(record.sections)
        for start, end in spans(section.text, PASSAGE_CHARS)
    ]
    if not passages:  # nothing but marks
        return []
    titles, texts = ([str(p[name]) for p in passages] for name in ("title", "text"))
    embedded = await embed([passage_text(a, b) for a, b in zip(titles, texts, strict=True)])
    vectors_ND, vector_D = (np.array(v, dtype=np.float32) for v in (embedded.vectors, vector))
    ranked = await asyncio.to_thread(rank_few, titles, texts, vectors_ND, question, vector_D)
    return [
        passages[place] | {"score": score, "cosine": cosine, "bm25": bm25}
        for place, score, cosine, bm25 in ranked
    ]


def beside(
    index: list[dict[str, Any]], record: list[dict[str, Any]], top_k: int
) -> list[dict[str, Any]]:
    """At most `top_k` hits of both by turns, the index first; what stands last is left out first.

    The record has half of the places, rounded down, but one at least; places that either cannot
    fill go to the other. Their scores are of two rankings and do not compare.
    """
    share = max(1, top_k // 2)
    num_record = min(len(record), max(share, top_k - len(index)))
    num_index = min(len(index), top_k - num_record)
    turns = [(2 * k, hit) for k, hit in enumerate(index[:num_index])]
    turns += [(2 * k + 1, hit) for k, hit in enumerate(record[:num_record])]
    return [hit for _, hit in sorted(turns, key=lambda turn: turn[0])]
