"""Consultations in memory: bounds, idleness, turns that cross. The model's part with a script."""

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError

from medray.serving.answering.evidence import AnswerConfig
from medray.serving.consult import words
from medray.serving.consult.dialogue import Behind, Reply, likeliest, reply
from medray.serving.consult.sessions import Consultations, ConsultConfig
from medray.serving.messages import Finish, Fit, Found, Piece, QuestionVectors
from medray.serving.schema.consult import Consultation, ConsultMessage


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Desk:
    """The sessions, called without a loop around each call."""

    def __init__(self, **config: Any) -> None:
        self.clock = Clock()
        self._sessions = Consultations(ConsultConfig(**config), self.clock)

    def __getattr__(self, method: str) -> Any:
        return lambda *arguments: asyncio.run(getattr(self._sessions, method)(*arguments))


def consultation(name: str, **fields: Any) -> Consultation:
    return Consultation(id=name, language="zh", max_questions=6, **fields)


def said(content: str, author: Any = "patient", kind: Any = "statement") -> ConsultMessage:
    return ConsultMessage(author=author, kind=kind, content=content)


def test_a_consultation_is_forgotten_when_nobody_writes() -> None:
    desk = Desk(idle_s=60)
    desk.open(consultation("a"), "p")
    desk.clock.now += 30
    desk.open(consultation("b"), "p")
    desk.begin("a", "p", "r1", said("咳嗽"))
    desk.finish("a", "r1", [said("多久了？", "model", "question")], "asking")
    desk.clock.now += 40  # b was idle for 40 s, a for 40 s
    assert desk.find("a", "p").num_messages == 2
    desk.begin("a", "p", "r2", said("三天"))
    desk.finish("a", "r2", [said("发热吗？", "model", "question")], "asking")
    desk.clock.now += 30  # b for 70 s, a for 30 s; reading keeps none
    assert desk.find("b", "p") == "unknown"
    assert desk.find("a", "p").idle_s == 30
    assert desk.status() == {"open": 1}


def test_where_there_is_no_room_the_oldest_that_was_judged_goes() -> None:
    desk = Desk(max_sessions=2)
    assert desk.open(consultation("a"), "p") is None
    assert desk.open(consultation("b", status="judged"), "p") is None
    assert desk.open(consultation("c"), "p") is None  # in b's place
    assert desk.find("b", "p") == "unknown"
    assert desk.open(consultation("d"), "p") == "crowded"
    assert desk.remove("a", "q") == "unknown"  # somebody else's
    assert desk.remove("a", "p") is None
    assert desk.open(consultation("d"), "p") is None


def test_a_turn_that_died_holds_up_no_longer_than_its_time() -> None:
    desk = Desk(turn_s=10, idle_s=1000)
    desk.open(consultation("a"), "p")
    desk.begin("a", "p", "r0", said("你好"))
    desk.finish("a", "r0", [said("怎么了？", "model", "question")], "asking")
    assert desk.begin("a", "p", "r1", said("咳嗽")).messages[-1].content == "咳嗽"
    assert desk.begin("a", "p", "r2", said("咳嗽")) == "busy"
    assert desk.begin("a", "q", "r2", said("咳嗽")) == "unknown"
    desk.clock.now += 11
    assert desk.begin("a", "p", "r3", said("咳嗽")).status == "asking"
    late = desk.finish("a", "r1", [said("多久了？", "model", "question")], "asking")
    assert len(late.messages) == 2  # the turn of r1 is nobody's any more
    desk.abandon("a", "r1")  # nor does its end touch r3's
    assert desk.begin("a", "p", "r4", said("咳嗽")) == "busy"
    desk.abandon("a", "r3")
    assert desk.begin("a", "p", "r4", said("咳嗽")).messages[-1].content == "咳嗽"


def test_a_turn_that_was_to_open_and_failed_leaves_none() -> None:
    desk = Desk()
    desk.open(consultation("a"), "p")
    desk.begin("a", "p", "r1", said("咳嗽"))
    desk.abandon("a", "r0")
    assert desk.status() == {"open": 1}
    desk.abandon("a", "r1")
    assert desk.status() == {"open": 0}


@pytest.mark.parametrize("between", ["take_over", "alarm"])
def test_what_comes_between_wins_and_loses_no_word(between: str) -> None:
    """The model's answer is dropped; the patient's message that it was to answer stands."""
    desk = Desk()
    desk.open(consultation("a"), "p")
    desk.begin("a", "p", "r1", said("咳嗽"))
    if between == "take_over":
        desk.take_over("a", "d", said("医生来了", "service", "notice"))
    else:
        messages = [said("胸痛大汗"), said("拨打120", "service", "urgent")]
        desk.alarm("a", "p", "chest_pain", messages)
    told = desk.finish("a", "r1", [said("多久了？", "model", "question")], "asking")
    contents = [message.content for message in told.messages]
    assert contents[0] == "咳嗽" and "多久了？" not in contents
    assert told.status == ("clinician" if between == "take_over" else "urgent")
    assert [message.number for message in told.messages] == list(range(len(contents)))


def test_a_consultation_holds_so_many_messages() -> None:
    desk = Desk(max_messages=4)
    desk.open(consultation("a"), "p")
    for turn in range(2):
        desk.begin("a", "p", f"r{turn}", said("咳嗽"))
        desk.finish("a", f"r{turn}", [said(f"问题{turn}？", "model", "question")], "asking")
    assert desk.begin("a", "p", "r3", said("咳嗽")) == "long"
    told = desk.alarm("a", "p", "stroke", [said("说话不清"), said("拨打120", "service", "urgent")])
    assert told.status == "urgent"  # an emergency finds room


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match="min_questions 2 is more than max_questions 1"):
        ConsultConfig(max_questions=1)


class Script:
    """A policy that says its lines in turn, a character a piece."""

    def __init__(self, *lines: str, context: int = 10_000) -> None:
        self.lines, self.context, self.seen = list(lines), context, []

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
        self.seen.append(prompt.conversations[fit.index])
        line = self.lines.pop(0)
        for character in line:
            yield Piece(character)
        yield Finish("stop", len(line), "v1")


def turn(policy: Script, held: Consultation, judged: bool = False) -> tuple[str, Reply]:
    async def embed(question: str) -> QuestionVectors:
        return QuestionVectors([1.0], {})

    async def search(question, vector, top_k, where):
        return Found([], 0.5)

    async def run():
        behind = Behind(AnswerConfig(), ConsultConfig(), embed, search, policy)
        *pieces, last = [item async for item in reply(held, behind, judged)]
        return "".join(piece.text for piece in pieces), last

    return asyncio.run(run())


def test_one_question_and_no_second() -> None:
    shown, made = turn(
        Script("您辛苦了。疼了多久？是哪里疼？"), consultation("a", messages=[said("头痛")])
    )
    assert (shown, made.text, made.author) == ("您辛苦了。疼了多久？", shown, "model")
    assert (made.usage.completion_tokens, made.version) == (15, "v1")


def test_where_the_model_asks_nothing_the_service_does_until_enough_is_known() -> None:
    held = consultation("a", messages=[said("头痛")])
    first, second, _ = words.STANDARD_QUESTIONS["zh"]
    # A question that was asked before is none.
    for number, (line, standard) in enumerate([("信息足够", first), (first, second)]):
        _, made = turn(Script(line), held)
        assert (made.text, made.author) == (standard, "service")
        messages = [*held.messages, said(standard, "service", "question"), said("没有")]
        held = held.model_copy(update={"messages": messages, "num_questions": number + 1})
    policy = Script("信息足够", "考虑紧张型头痛。", "")
    shown, made = turn(policy, held)
    assert made.kind == "judgement" and "考虑紧张型头痛。" in shown
    # The service's questions are the assistant's turns, and turns alternate.
    roles = [message["role"] for message in policy.seen[0]]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]


@pytest.mark.parametrize(("finding", "careful"), [("考虑肺癌。", True), ("考虑感冒。", False)])
def test_a_serious_finding_is_told_with_care(finding: str, careful: bool) -> None:
    shown, made = turn(Script(finding), consultation("a", messages=[said("咳嗽")]), judged=True)
    assert (words.CARE["zh"] in shown) == careful
    assert shown.endswith(words.WHEN_TO_GO["zh"])
    assert made.text == shown
    assert made.grounding is not None and made.grounding.verdicts[0].verdict == "no_answer"


def test_a_model_without_a_finding_is_told_as_such() -> None:
    shown, _ = turn(Script(""), consultation("a", messages=[said("咳嗽")]), judged=True)
    assert words.NO_FINDING["zh"] in shown


def test_the_oldest_exchanges_give_way_where_the_context_is_short() -> None:
    """The complaint and the newest exchange stay."""
    order = len(words.QUESTION_PROMPT["zh"])
    messages = [said("主诉" * 10)]
    for number in range(4):
        messages += [said(f"问题{number}？" * 10, "model", "question"), said(f"回答{number}" * 10)]
    policy = Script("还有吗？", context=order + 20 + 96 + 80 + 10)
    turn(policy, consultation("a", messages=messages, num_questions=4))
    seen = [message["content"][:3] for message in policy.seen[0][1:]]
    assert seen == ["主诉主", "问题3", "回答3"]


@pytest.mark.parametrize(
    ("finding", "named"),
    [("诊断考虑肺结核。建议使用异烟肼治疗。", "肺结核"), ("初步考虑紧张型头痛。", "紧张型头痛"),
     ("可能的诊断：\n1. 偏头痛：搏动性", "偏头痛"), ("**初步诊断**：偏头痛（最可能）", "偏头痛"),
     ("Most likely diagnosis: tension headache. Rest.", "tension headache"), ("", "")],
)  # fmt: skip
def test_what_a_judgement_names_first(finding: str, named: str) -> None:
    assert likeliest(finding) == named
