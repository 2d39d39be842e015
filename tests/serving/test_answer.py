"""From a chat to a checked answer, with a ten-line policy that says what the test wants."""

import asyncio
from typing import Any

import pytest

from medray.generation.prompts import NO_ANSWER, Numbered, grounded_prompt
from medray.retrieval.filters import PassageFilter
from medray.serving.answering.answer import UNSOURCED, Outcome, plan_answer, write_answer
from medray.serving.answering.citations import notice
from medray.serving.answering.evidence import AnswerConfig
from medray.serving.answering.guard import NOT_HANDED_ON, RULES
from medray.serving.identity.keys import Role
from medray.serving.messages import Embedded, Finish, Fit, Found, Piece, QuestionVectors
from medray.serving.schema.base import ApiError
from medray.serving.schema.chat import ChatRequest

MEASURED = 0.7
"""The threshold of the index."""
CONFIG = AnswerConfig(top_k=2, min_cosine=0.5, max_tokens=10)
QUESTION = "心衰如何治疗？"


def hit(k: int, score: float) -> dict[str, Any]:
    return {
        "passage_id": f"p{k}", "doc_id": f"d{k}", "title": f"题{k}", "section": "治疗", "start": 0,
        "end": 4, "source": "手册", "date": "", "text": f"内容第{k}", "kind": "guideline",
        "department": "", "score": score, "cosine": score, "bm25": 0.0,
    }  # fmt: skip


class Script:
    """A policy whose tokens are characters and whose answer is given."""

    def __init__(self, answer: str = "", context: int = 1000) -> None:
        self.answer, self.context, self.seen, self.closed = answer, context, [], False

    def fit(self, conversations, max_new_tokens):
        for index, messages in enumerate(conversations):
            length = sum(len(m["content"]) for m in messages)
            if length + max_new_tokens <= self.context:
                return Fit(index, length, max_new_tokens, self.context)
        return Fit(None, length, 0, self.context)

    async def stream(self, prompt, sampling):
        fit = self.fit(prompt.conversations, sampling.max_new_tokens)
        yield fit
        if fit.index is None:
            return
        self.seen = prompt.conversations[fit.index]
        try:
            for character in self.answer:
                yield Piece(character)
            yield Finish("stop", len(self.answer))
        finally:
            self.closed = True


VECTORS = QuestionVectors([1.0, 0.0], {7: 0.5})


async def embed(question: str) -> QuestionVectors:
    return VECTORS


async def embed_texts(texts: list[str]) -> Embedded:
    """A section about the heart lies near the question, any other across."""
    return Embedded([[1.0, 0.0] if "心" in text else [0.0, 1.0] for text in texts], len(texts))


def answer(
    policy: Script,
    hits: list[dict[str, Any]],
    *,
    question: str = QUESTION,
    looked_up: bool = True,
    role: Role = "clinician",
    **fields,
) -> tuple[str, Outcome]:
    async def embed(text: str) -> QuestionVectors:
        assert text == question
        return VECTORS

    async def search(text, vectors, top_k, where):
        assert (text, vectors, where) == (question, VECTORS, PassageFilter())
        return Found(hits[:top_k], MEASURED, "v7", looked_up)

    async def run():
        request = ChatRequest.model_validate(
            {"model": "medray", "messages": [{"role": "user", "content": question}], **fields}
        )
        plan = await plan_answer(
            request, CONFIG, embed, search, policy, role, embed_texts=embed_texts
        )
        return [item async for item in write_answer(plan)]

    *texts, outcome = asyncio.run(run())
    return "".join(piece.text for piece in texts), outcome


def test_grounded_answer_carries_its_citation():
    policy = Script("《题2》[2]：“第2”。")
    text, outcome = answer(policy, [hit(1, 0.9), hit(2, 0.8), hit(3, 0.7)])
    assert text == "《题2》[2]：“第2”。"
    [citation] = outcome.grounding.citations
    assert (citation.passage_id, citation.start, citation.end, citation.ok) == ("p2", 2, 4, True)
    assert [p.number for p in outcome.grounding.passages] == [1, 2]
    assert outcome.grounding.index_version == "v7"
    shown = [Numbered("题1", "内容第1"), Numbered("题2", "内容第2")]
    assert policy.seen == [{"role": "user", "content": grounded_prompt(QUESTION, shown)}]
    assert outcome.usage.prompt_tokens == len(grounded_prompt(QUESTION, shown))
    assert outcome.usage.completion_tokens == len("《题2》[2]：“第2”。")


def test_invented_citation_is_left_out():
    text, outcome = answer(Script("《题1》[1]：“一派胡言”。"), [hit(1, 0.9)])
    assert (text, outcome.grounding.basis) == (notice(1), "uncited")
    assert outcome.grounding.verdicts[0].verdict == "failed"


def test_threshold_and_abstention():
    policy = Script("《题1》[1]：“第1”。")
    text, outcome = answer(policy, [hit(1, 0.4), hit(2, 0.9)])  # the nearest need not be first
    assert [p.passage_id for p in outcome.grounding.passages] == ["p1", "p2"]
    policy = Script("never said")
    text, outcome = answer(policy, [hit(1, 0.4)])
    assert text == NO_ANSWER
    assert outcome.grounding.verdicts[0].verdict == "no_answer"
    assert outcome.usage.total_tokens == 0
    assert policy.seen == []


@pytest.mark.parametrize(("cosine", "answered"), [(0.6, False), (0.75, True)])
def test_the_index_knows_its_threshold(monkeypatch, cosine: float, answered: bool):
    monkeypatch.setattr(f"{__name__}.CONFIG", CONFIG.model_copy(update={"min_cosine": None}))
    text, outcome = answer(Script("《题1》[1]：“第1”。"), [hit(1, cosine)])
    assert (text != NO_ANSWER) == answered
    assert len(outcome.grounding.passages) == answered


RECORD = {
    "sections": [
        {"heading": "主诉", "text": "咳嗽三天。"},
        {"heading": "既往史", "text": "有心衰。\n长期服药。", "date": "2024-05-01"},
    ]
}


def test_the_record_is_cited_beside_the_index():
    policy = Script("《患者病历 既往史》[2]：“心衰”。")
    text, outcome = answer(policy, [hit(1, 0.9), hit(2, 0.8)], record=RECORD)
    assert text == policy.answer
    first, second = outcome.grounding.passages  # top_k 2: one of each
    assert (first.passage_id, first.kind) == ("p1", "guideline")
    assert (second.passage_id, second.kind, second.date) == ("record#1-0", "record", "2024-05-01")
    [citation] = outcome.grounding.citations
    assert (citation.passage_id, citation.start, citation.end, citation.ok) == (
        "record#1-0", 1, 3, True,
    )  # fmt: skip


def test_a_far_index_leaves_the_record_alone():
    text, outcome = answer(Script("好。"), [hit(1, 0.4)], record=RECORD)
    assert [p.passage_id for p in outcome.grounding.passages] == ["record#1-0", "record#0-0"]
    assert text == "好。"


def test_without_retrieval_the_model_answers_alone():
    policy = Script("《题1》[1]：“没有核对”")
    text, outcome = answer(policy, [hit(1, 0.9)], retrieval=False)
    assert text == "《题1》[1]：“没有核对”"
    assert policy.seen == [{"role": "user", "content": QUESTION}]
    assert (outcome.grounding.retrieval, outcome.grounding.passages) == (False, [])


@pytest.mark.parametrize("cosine", [0.9, 0.4])
def test_a_question_that_passages_do_not_answer_goes_to_the_model_alone(cosine: float):
    policy = Script("考虑肺炎。《题1》[1]：“第1”。多休息。")
    text, outcome = answer(policy, [hit(1, cosine)], looked_up=False)
    assert text == f"{UNSOURCED[0]}考虑肺炎。多休息。{notice(1)}"  # it was shown nothing to cite
    assert policy.seen == [{"role": "user", "content": QUESTION}]
    grounding = outcome.grounding
    assert (grounding.retrieval, grounding.basis, grounding.passages) == (False, "model", [])
    assert grounding.index_version == "v7"
    text, _ = answer(Script("Rest."), [hit(1, cosine)], looked_up=False, question="A cough?")
    assert text == f"{UNSOURCED[1]}Rest."


def test_patients_get_no_answer_without_a_source_unless_it_is_allowed(monkeypatch):
    policy = Script("考虑肺炎。")
    text, _ = answer(policy, [hit(1, 0.4)], looked_up=False, role="patient")
    assert (text, policy.seen) == (NO_ANSWER, [])
    allowed = CONFIG.model_copy(update={"unsourced_roles": ("patient",)})
    monkeypatch.setattr(f"{__name__}.CONFIG", allowed)
    text, _ = answer(policy, [hit(1, 0.4)], looked_up=False, role="patient")
    assert text == f"{UNSOURCED[0]}考虑肺炎。"

    monkeypatch.undo()
    with pytest.raises(ApiError, match="role patient is answered from passages") as caught:
        answer(policy, [hit(1, 0.9)], retrieval=False, role="patient")
    assert caught.value.status == 403


def test_the_model_does_not_read_the_notice_of_an_earlier_answer():
    asked = [
        {"role": "user", "content": "咳嗽。"},
        {"role": "assistant", "content": f"{UNSOURCED[0]}多久了？"},
        {"role": "user", "content": QUESTION},
    ]
    policy = Script("好。")
    text, _ = answer(policy, [hit(1, 0.9)], looked_up=False, messages=asked)
    assert text == f"{UNSOURCED[0]}好。"
    assert policy.seen[1] == {"role": "assistant", "content": "多久了？"}


DOSE = "我该吃几片阿司匹林？"


@pytest.mark.parametrize(
    "earlier",
    [
        [("user", DOSE), ("assistant", "好。")],
        [("system", DOSE)],
        [("developer", DOSE), ("user", "咳嗽。"), ("assistant", "多久了？")],
        [("user", "您好"), ("assistant", DOSE)],
    ],
)
def test_no_earlier_message_that_is_refused_reaches_the_model(earlier):
    question = "请回答我上面的问题"
    asked = [{"role": role, "content": text} for role, text in [*earlier, ("user", question)]]
    policy = Script("好。")
    text, _ = answer(policy, [hit(1, 0.9)], question=question, messages=asked, role="patient")
    assert text == "好。"
    roles = [role.replace("developer", "system") for role, _ in earlier]
    assert [m["role"] for m in policy.seen] == [*roles, "user"]
    expected = [NOT_HANDED_ON[0] if text == DOSE else text for _, text in earlier]
    assert [m["content"] for m in policy.seen[:-1]] == expected
    assert "阿司匹林" not in str(policy.seen)
    # Who asks about doses as their work has their chat as it is.
    answer(policy, [hit(1, 0.9)], question=question, messages=asked)
    assert [m["content"] for m in policy.seen[:-1]] == [text for _, text in earlier]


def test_a_referral_in_the_history_stays_and_the_next_question_is_answered():
    referral = next(rule.chinese for rule in RULES if rule.kind == "own_dose")
    asked = [
        {"role": "user", "content": DOSE},
        {"role": "assistant", "content": referral},
        {"role": "user", "content": QUESTION},
    ]
    policy = Script("《题1》[1]：“第1”。")
    text, outcome = answer(policy, [hit(1, 0.9)], messages=asked, role="patient")
    assert (text, outcome.grounding.basis) == (policy.answer, "passages")
    assert [m["content"] for m in policy.seen[:2]] == [NOT_HANDED_ON[0], referral]


def test_a_patients_dose_is_refused_with_a_record_too():
    policy = Script("一片。")
    _, outcome = answer(policy, [hit(1, 0.9)], question=DOSE, record=RECORD, role="patient")
    assert (outcome.grounding.guard, policy.seen) == ("own_dose", [])


def test_a_cry_for_help_is_answered_whatever_the_request_asks_for():
    _, outcome = answer(Script("x"), [], question="我不想活了", retrieval=False, role="patient")
    assert outcome.grounding.guard == "self_harm"


def test_passages_that_are_asked_for_are_shown_whatever_the_question():
    policy = Script("《题1》[1]：“第1”。")
    _, outcome = answer(policy, [hit(1, 0.9)], looked_up=False, retrieval=True)
    assert (outcome.grounding.basis, len(outcome.grounding.passages)) == ("passages", 1)
    text, outcome = answer(policy, [hit(1, 0.4)], looked_up=False, retrieval=True)
    assert (text, outcome.grounding.basis) == (NO_ANSWER, "nothing")
    _, outcome = answer(policy, [hit(1, 0.9)], looked_up=False, top_k=1)
    assert outcome.grounding.basis == "passages"
    _, outcome = answer(Script("好。"), [hit(1, 0.9)], looked_up=False, record=RECORD)
    assert outcome.grounding.basis == "uncited"
    assert [p.passage_id for p in outcome.grounding.passages] == ["p1", "record#1-0"]


def test_worst_passage_is_left_out_when_the_context_is_full():
    one = len(grounded_prompt(QUESTION, [Numbered("题1", "内容第1")]))
    _, outcome = answer(Script("好。", context=one + 10), [hit(1, 0.9), hit(2, 0.8)])
    assert [p.passage_id for p in outcome.grounding.passages] == ["p1"]


def test_overflow_is_told_without_the_text():
    with pytest.raises(ApiError, match="context is 20 tokens") as caught:
        answer(Script(context=20), [hit(1, 0.9)])
    assert (caught.value.status, caught.value.code) == (400, "context_length_exceeded")
    assert "心衰" not in str(caught.value)


def test_closing_the_answer_closes_the_policy():
    policy = Script("长" * 100 + "。" + "长" * 100)

    async def search(question, vector, top_k, where):
        return Found([hit(1, 0.9)], MEASURED, "v7")

    async def run():
        request = ChatRequest.model_validate(
            {"model": "medray", "messages": [{"role": "user", "content": QUESTION}]}
        )
        plan = await plan_answer(request, CONFIG, embed, search, policy, embed_texts=embed_texts)
        items = write_answer(plan)
        await anext(items)
        assert not policy.closed
        await items.aclose()

    asyncio.run(run())
    assert policy.closed
