"""What the quality deployment asks and answers, with a policy of a few lines; the schema."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from pydantic import ValidationError

from medray.common.errors import GenerationError
from medray.quality.indicators import Indicator, load_indicators
from medray.serving.messages import CHANGED, Choices, Counted, Finish, Fit, Piece
from medray.serving.quality import AT_ONCE, Judge, document_of
from medray.serving.schema.base import ApiError
from medray.serving.schema.quality import RECORD, QualityReport, QualityRequest

PCI, AF = "pci-angio-success", "af-risk-assessed"
KNOWN = {"b": "乙", "a": "甲"}


class Script:
    """Answers by a function of the prompt, in two pieces; a token is a character."""

    def __init__(self, reply: Callable[[str], str], context_tokens: int = 1000) -> None:
        self.reply, self.context_tokens = reply, context_tokens
        self.prompts: list[str] = []
        self.num_open = self.most_open = 0

    async def count(self, texts: list[str]) -> Counted:
        return Counted([len(text) for text in texts], self.context_tokens, "v1")

    async def stream(self, prompt: Any, sampling: Any) -> AsyncGenerator[Any, None]:
        assert isinstance(prompt, Choices) and sampling.guided_quotes and not sampling.temperature
        text = prompt.conversations[0][0]["content"]
        self.prompts.append(text)
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)
        try:
            yield Fit(0, len(text), sampling.max_new_tokens, self.context_tokens)
            await asyncio.sleep(0)  # lets others in
            answer = self.reply(text)
            yield Piece(answer[:2])
            yield Piece(answer[2:])
            yield Finish("stop", len(answer) + 1, "v1")
        finally:
            self.num_open -= 1


def judge(script: Script, record: str, *ids: str, own: Indicator | None = None) -> Any:
    made = Judge({"policy": script}, [own] if own else load_indicators().values())
    return asyncio.run(collect(made.judge("policy", record, ids)))[-1]


async def collect(items: AsyncGenerator[Any, None]) -> list[Any]:
    return [item async for item in items]


def reply(prompt: str) -> str:
    question = prompt.split("质控：")[1]
    answers = {"介入": "“植入支架一枚。”是", "<20%": "“残余狭窄10%”是", "TIMI": "“血流3级。”是"}
    return next((v for k, v in answers.items() if k in question), "未提及")


def test_quotes_are_places_of_the_record_that_was_sent() -> None:
    record = "主诉：胸痛。\n\n  【手术记录】 \n植入支架一枚。残余狭窄10%，满意。血流3级。"
    script = Script(reply)
    judged = judge(script, record, PCI)
    [result] = judged.results
    assert (result.verdict, result.applies, result.deciding) == ("met", True, ["T1", "T3"])
    told = {t.task: (t.value, t.reason, t.quote, t.start, t.end) for t in result.sub_tasks}
    # 主诉：胸痛。 is 6 long; 2 line ends, 2 blanks, 6 of the heading, 2 more: the section is at 18.
    assert told == {
        "PCI": (True, "met", "植入支架一枚。", 18, 25),
        "T1": (True, "met", "残余狭窄10%", 25, 32),
        "T2": (None, "absent", None, None, None),
        "T3": (True, "met", "血流3级。", 36, 41),
    }
    assert all(record[t[3] : t[4]] == t[2] for t in told.values() if t[2])
    assert not any("胸痛" in prompt for prompt in script.prompts)
    assert judged.version == "v1"
    assert judged.num_prompt_tokens == sum(map(len, script.prompts))
    assert judged.num_tokens == sum(len(reply(prompt)) + 1 for prompt in script.prompts)


def test_what_applies() -> None:
    silent = Script(lambda _: "未提及")
    [pci, fibrillation] = judge(silent, "现病史：心悸三天。", PCI, AF).results
    # PCI reads operation notes alone: none, so nothing is asked, and absence means no.
    assert [p for p in silent.prompts if "介入" in p] == []
    assert (pci.verdict, pci.applies, pci.deciding) == ("unknown", False, ["PCI"])
    assert (fibrillation.verdict, fibrillation.applies) == ("unknown", False)
    # Fibrillation, but whether it is valvular is open: so is whether the record counts.
    some = Script(lambda p: "“心房颤动。”是" if "是否心房颤动" in p else "未提及")
    [open_case] = judge(some, "诊断：心房颤动。", AF).results
    assert (open_case.verdict, open_case.applies) == ("unknown", None)
    assert open_case.deciding == ["VALVULAR"]


def test_an_indicator_names_a_section_by_any_of_its_names() -> None:
    own = Indicator.model_validate(
        {
            "id": "own", "unit": "patient", "defaults": {"sections": ["手术经过"]},
            "tasks": {"A": {"ask": "是否输血"}, "B": {"ask": "是否发热", "sections": ["主诉"]}},
            "populations": {"initial-population": "A", "denominator": "A", "numerator": "B"},
        }
    )  # fmt: skip
    script = Script(lambda _: "未提及")
    judge(script, "主诉\n发热。\n手术名称：\n输血。", "own", own=own)
    assert [p.split("\n")[0] for p in script.prompts] == ["病历：输血。", "病历：发热。"]


def test_a_long_record_is_asked_in_windows_and_a_few_at_a_time() -> None:
    script = Script(lambda p: "“血流3级。”是" if "血流3级" in p else "未提及", 250)
    judged = judge(script, "手术记录：" + "情况可。" * 60 + "血流3级。", PCI)
    read = "".join(p.split("\n")[0] for p in script.prompts if "TIMI" in p)
    assert read.count("情况可。") == 60
    assert max(map(len, script.prompts)) + 16 + 128 <= 250
    assert [t.value for t in judged.results[0].sub_tasks] == [True, True, True, True]
    assert script.most_open == AT_ONCE < len(script.prompts)


def test_a_sentence_that_is_too_long_is_named_by_its_place() -> None:
    judged = judge(Script(reply, 200), "主诉：痛。\n手术记录：可。" + "狭窄" * 100, PCI)
    # 主诉：痛。 and the line end are 6, 手术记录： is 5, 可。 is 2.
    assert "begins at 13 does not fit into the 72 tokens" in judged.problem
    assert "狭窄" not in judged.problem


def test_a_failure_ends_the_other_questions() -> None:
    def fail(prompt: str) -> str:
        raise GenerationError("gone")

    script = Script(fail)
    with pytest.raises(GenerationError):
        judge(script, RECORD, PCI)
    assert script.num_open == 0


def test_what_was_taken_is_told_after_each_answer() -> None:
    script = Script(reply)
    made = Judge({"policy": script}, load_indicators().values())
    *told, judged = asyncio.run(collect(made.judge("policy", RECORD, [PCI])))
    assert len(told) == len(script.prompts) > 1
    assert [one.num_prompt_tokens for one in told] == sorted(one.num_prompt_tokens for one in told)
    assert told[-1] == judged[1:4]


def test_a_question_is_asked_anew_where_the_model_is_changed_meanwhile() -> None:
    left = 2

    def change(prompt: str) -> str:
        nonlocal left
        if "TIMI" in prompt and left:
            left -= 1
            raise ApiError(503, "changed", code=CHANGED)
        return reply(prompt)

    record = "手术记录：植入支架一枚。残余狭窄10%。血流3级。"
    assert judge(Script(change), record, PCI).results == judge(Script(reply), record, PCI).results

    def busy(prompt: str) -> str:
        raise ApiError(503, "busy", code="busy")

    with pytest.raises(ApiError, match="busy"):
        judge(Script(busy), record, PCI)


def test_the_example_of_the_description_is_true() -> None:
    QualityRequest.model_validate(QualityRequest.model_config["json_schema_extra"]["examples"][0])  # type: ignore[index,call-overload]
    [told] = QualityReport.model_config["json_schema_extra"]["examples"]  # type: ignore[index,call-overload]
    report = QualityReport.model_validate(told)
    [sub_task] = report.results[0].sub_tasks
    assert RECORD[sub_task.start : sub_task.end] == sub_task.quote
    indicator = load_indicators()[report.results[0].indicator]
    assert report.results[0].title == indicator.title
    assert sub_task.question == indicator.tasks[sub_task.task].question


def test_what_a_request_may_be() -> None:
    for body in ({}, {"record": " \n"}, {"record": "痛" * 30_001}, {"record": 1},
                 {"record": "痛", "indicators": ["a"] * 101}):  # fmt: skip
        with pytest.raises(ValidationError):
            QualityRequest.model_validate(body)
    assert QualityRequest(record="痛" * 30_000).chosen(KNOWN) == ["b", "a"]
    assert QualityRequest(record="痛", indicators=["a", "a"]).chosen(KNOWN) == ["a"]
    with pytest.raises(ApiError) as caught:
        QualityRequest(record="痛", indicators=["a", "张三"]).chosen(KNOWN)
    assert (caught.value.status, caught.value.param) == (400, "indicators")
    assert caught.value.message == "no such indicator; there are: a, b"


def test_sections_begin_where_their_text_does() -> None:
    document, starts = document_of("前言\n现病史：\n  咳嗽。 \n\n# 手术\n顺利。")
    told = [(s.heading, s.text, at) for s, at in zip(document.sections, starts, strict=True)]
    assert told == [("", "前言", 0), ("现病史", "咳嗽。", 10), ("手术操作", "顺利。", 21)]
