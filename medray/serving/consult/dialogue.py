"""The model's part of a consultation: one question, or the judgement.

In: a consultation, and objects that embed, search and generate. Out: text, and what it took.
Nothing here knows of HTTP or Ray.

The judgement has two parts of the model: what the patient may have, drawn from the history by the
model alone, since no passage can be quoted on this patient; then what the sources say on it,
answered from passages and checked as any grounded answer is. The rest is text of the service.
Source: steps of [MedFM table 3]; retrieval [EMR-LLM 1.5].
"""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Literal, NamedTuple

from medray.generation.sampling import Chat, Sampling
from medray.serving.answering.answer import (
    Generate,
    Outcome,
    Plan,
    first_fit,
    plan_answer,
    write_answer,
)
from medray.serving.answering.evidence import AnswerConfig, Embed, Search
from medray.serving.consult import words
from medray.serving.consult.sessions import ConsultConfig
from medray.serving.messages import Choices, Finish, Piece
from medray.serving.schema.base import ApiError, Usage
from medray.serving.schema.chat import ChatMessage, ChatRequest
from medray.serving.schema.consult import Consultation
from medray.serving.schema.grounding import Grounding

QUESTION_END = re.compile(r"[？?]")
LEAD_IN = re.compile(
    r"[\s\d.、)）#*:：-]*(?:(?:可能的|考虑的|初步的?|首先)?(?:诊断|判断|考虑|印象)(?:为|是|考虑|可能是)?"
    r"|(?:the )?(?:most )?(?:likely|possible|first) (?:diagnos[ie]s|judgement)(?: is| are)?)?"
    r"[\s\d.、)）#*:：-]*",
    re.IGNORECASE,
)
MAX_FINDING_CHARS = 60
"""Of the judgement, searched for in the sources: its first clause names the likeliest."""


class Reply(NamedTuple):
    """What the model said: a question, or the judgement with its passages and checked citations."""

    kind: Literal["question", "judgement"]
    text: str
    usage: Usage
    version: str
    grounding: Grounding | None = None
    author: Literal["model", "service"] = "model"


class Behind(NamedTuple):
    """What a reply is made with."""

    config: AnswerConfig
    consult: ConsultConfig
    embed: Embed
    search: Search
    policy: Generate


async def reply(
    consultation: Consultation, behind: Behind, judged: bool
) -> AsyncGenerator[Piece | Reply, None]:
    """Yields text that may be shown, then one Reply: the next question while there is one and it
    may be asked, else the judgement. Closing it stops the model."""
    spent = _usage(0, 0)
    if not judged and consultation.num_questions < consultation.max_questions:
        asked = await ask(consultation, behind.policy, behind.consult)
        if asked.text:
            yield Piece(asked.text)
            yield asked
            return
        spent = asked.usage
    text = ""
    async with aclosing(judge(consultation, behind)) as items:
        async for item in items:
            if isinstance(item, Outcome):
                usage = _sum(spent, item.usage)
                yield Reply("judgement", text, usage, item.version, item.grounding)
            else:
                text += item.text
                yield item


async def ask(consultation: Consultation, policy: Generate, config: ConsultConfig) -> Reply:
    """The next question: what the model writes up to its first question mark. Where it asks
    nothing, or what it asked before, it knows enough, and the text is empty; but what any doctor
    asks is asked first.

    Raises:
        ApiError: 400 if not even the complaint and the last exchange fit into the context.
    """
    prompt = words.QUESTION_PROMPT[consultation.language]
    chats = [_ordered(prompt, chat) for chat in _shorter(consultation.chat())]
    stream = policy.stream(
        Choices(chats, exact=False), Sampling(max_new_tokens=config.question_tokens)
    )
    fit = await first_fit(stream)
    if fit.index is None:
        raise ApiError(
            400, f"the model's context is {fit.context_tokens} tokens, too few for this "
            "consultation; ask for the judgement or open another", code="context_length_exceeded",
        )  # fmt: skip
    text, finish = "", Finish("stop", 0)
    async with aclosing(stream):
        async for item in stream:
            if isinstance(item, Finish):
                finish = item
            elif isinstance(item, Piece):
                text += item.text
    found = QUESTION_END.search(text)
    question = text[: found.end()].strip() if found else ""
    asked = {m.content for m in consultation.messages if m.kind == "question"}
    usage = _usage(fit.num_prompt_tokens, finish.num_tokens)
    if question and question not in asked:
        return Reply("question", question, usage, finish.version)
    standard = words.STANDARD_QUESTIONS[consultation.language]
    left = [text for text in standard if text not in asked]
    needed = consultation.num_questions < config.min_questions
    text = left[0] if needed and left else ""
    return Reply("question", text, usage, finish.version, author="service")


async def judge(
    consultation: Consultation, behind: Behind
) -> AsyncGenerator[Piece | Outcome, None]:
    """Yields text, then one Outcome with the passages of the grounded part. Closing it stops the
    model."""
    language, finding = consultation.language, ""
    plan = await _plan_finding(consultation, behind)
    yield Piece(words.OPENING[language])
    drawn = None
    async with aclosing(write_answer(plan)) as items:
        async for item in items:
            if isinstance(item, Outcome):
                drawn = item
            else:
                finding += item.text
                yield item
    assert drawn is not None
    if not finding.strip():
        yield Piece(words.NO_FINDING[language])
    if words.SERIOUS.search(finding):
        yield Piece(words.CARE[language])
    yield Piece(words.EVIDENCE[language])
    about = likeliest(finding) or consultation.said()[0][:MAX_FINDING_CHARS]
    question = words.EVIDENCE_QUESTION[language].format(finding=" ".join(about.split()))
    request = _request([{"role": "user", "content": question}], retrieval=True)
    plan = await _plan(request, behind)
    cited = None
    async with aclosing(write_answer(plan)) as items:
        async for item in items:
            if isinstance(item, Outcome):
                cited = item
            else:
                yield item
    assert cited is not None
    yield Piece(words.WHEN_TO_GO[language])
    usage = _sum(drawn.usage, cited.usage)
    yield Outcome(drawn.finish_reason, usage, cited.grounding, drawn.version)


def likeliest(finding: str) -> str:
    """What a judgement names first: its first clause, without what leads in to it."""
    for clause in re.split(r"[。！？；，,;!?\n：:（(]|\.\s|\.$", finding):
        found = LEAD_IN.match(clause)
        named = clause[found.end() if found else 0 :].strip(" *-")
        if named:
            return named[:MAX_FINDING_CHARS]
    return ""


async def _plan_finding(consultation: Consultation, behind: Behind) -> Plan:
    """Raises ApiError 400 if not even the complaint and the last exchange fit."""
    prompt = words.JUDGEMENT_PROMPT[consultation.language]
    wish = {"role": "user", "content": words.JUDGE_NOW[consultation.language]}
    chats = [_ordered(prompt, _joined(chat, wish)) for chat in _shorter(consultation.chat())]
    for chat in chats[:-1]:
        try:
            return await _plan(_request(chat, retrieval=False), behind)
        except ApiError as error:
            if error.code != "context_length_exceeded":
                raise
    return await _plan(_request(chats[-1], retrieval=False), behind)


async def _plan(request: ChatRequest, behind: Behind) -> Plan:
    """Every message of the patient has passed the guard by itself. Where the model's words stand
    beside them its rules for patients would see doses that nobody asked for: hence the role."""
    return await plan_answer(
        request, behind.config, behind.embed, behind.search, behind.policy, role="clinician"
    )


def _request(messages: Chat, retrieval: bool) -> ChatRequest:
    chat = [ChatMessage.model_validate(message) for message in messages]
    return ChatRequest.model_validate({"model": "", "messages": chat, "retrieval": retrieval})


def _shorter(chat: Chat) -> list[Chat]:
    """The chat, then ever fewer exchanges behind the complaint, the oldest left out first."""
    middle = range(0, max(len(chat) - 3, 0) + 1, 2)
    return [chat[:1] + chat[1 + dropped :] for dropped in middle]


def _ordered(prompt: str, chat: Chat) -> Chat:
    return [{"role": "system", "content": prompt}, *chat]


def _joined(chat: Chat, wish: dict[str, str]) -> Chat:
    """The chat with a last wish of the user's."""
    if chat and chat[-1]["role"] == "user":
        return [*chat[:-1], {**wish, "content": f"{chat[-1]['content']}\n{wish['content']}"}]
    return [*chat, wish]


def _sum(one: Usage, other: Usage) -> Usage:
    return _usage(
        one.prompt_tokens + other.prompt_tokens, one.completion_tokens + other.completion_tokens
    )


def _usage(num_prompt: int, num_completion: int) -> Usage:
    return Usage(
        prompt_tokens=num_prompt,
        completion_tokens=num_completion,
        total_tokens=num_prompt + num_completion,
    )
