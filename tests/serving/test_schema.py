"""Requests as openai clients send them, and what is refused."""

import pickle

import pytest
from pydantic import ValidationError

from medray.serving.messages import Spelled
from medray.serving.schema.base import ApiError
from medray.serving.schema.chat import ChatRequest, chunk
from medray.serving.schema.completions import CompletionRequest, choice
from medray.serving.schema.embeddings import EmbeddingRequest

QUESTION = [{"role": "user", "content": "肺炎如何治疗？"}]


def request(**fields) -> ChatRequest:
    return ChatRequest.model_validate({"model": "medray", "messages": QUESTION, **fields})


def test_harmless_fields_are_accepted():
    request(
        user="u", metadata={"a": "b"}, store=True, service_tier="auto", n=1, stop=None, tools=[],
        presence_penalty=0.0, response_format={"type": "text"}, temperature=None, max_tokens=None,
    ).check()  # fmt: skip


@pytest.mark.parametrize(
    "field",
    [{"n": 2}, {"tools": [{"type": "function"}]}, {"logit_bias": {"1": 5}},
     {"response_format": {"type": "json_object"}}, {"frequency_penalty": 0.5}],
)  # fmt: skip
def test_fields_that_would_change_the_answer_are_refused(field):
    with pytest.raises(ApiError, match="not supported") as caught:
        request(**field).check()
    assert caught.value.status == 400
    assert caught.value.param == next(iter(field))


@pytest.mark.parametrize(
    "field",
    [{"messages": []}, {"messages": "hello"}, {"messages": [{"role": "user"}]},
     {"messages": [{"role": "doctor", "content": "x"}]}, {"temperature": "0.5"},
     {"temperature": 3}, {"max_tokens": 0}, {"stream": "yes"}, {"top_k": 0}, {"top_p": 0},
     {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}],
)  # fmt: skip
def test_wrong_types_and_ranges_are_refused(field):
    with pytest.raises(ValidationError):
        request(**field)


def test_the_last_message_must_be_a_question():
    answer = {"role": "assistant", "content": "好"}
    with pytest.raises(ApiError, match="must be the user's"):
        request(messages=[*QUESTION, answer]).check()
    with pytest.raises(ApiError, match="empty"):
        request(messages=[{"role": "user", "content": " "}]).check()


def test_content_parts_are_joined_and_developer_is_system():
    parts = [{"type": "text", "text": "肺炎"}, {"type": "text", "text": "？"}]
    messages = [{"role": "developer", "content": "简答"}, {"role": "user", "content": parts}]
    assert [m.plain() for m in request(messages=messages).messages] == [
        {"role": "system", "content": "简答"},
        {"role": "user", "content": "肺炎？"},
    ]


@pytest.mark.parametrize("value", ["", [], ["a", ""], [1, 2], None])
def test_embedding_input_is_text(value):
    with pytest.raises(ValidationError):
        EmbeddingRequest.model_validate({"model": "m", "input": value})


def test_error_body_has_openai_shape():
    error = ApiError(404, "no such model", code="model_not_found", param="model")
    assert error.body() == {
        "error": {
            "message": "no such model",
            "type": "not_found_error",
            "param": "model",
            "code": "model_not_found",
        }
    }
    assert ApiError(400, "x").body()["error"]["type"] == "invalid_request_error"
    assert ApiError(429, "x").body()["error"]["type"] == "rate_limit_error"
    assert ApiError(503, "x").body()["error"]["type"] == "server_error"


def test_usage_chunk_has_no_choice():
    identity = {"id": "c", "created": 0, "model": "m"}
    assert chunk(identity, None, usage={"total_tokens": 1})["choices"] == []
    assert chunk(identity, {}, (), "stop")["choices"][0]["finish_reason"] == "stop"


def test_logprobs_are_told_of_plain_answers_only():
    request(logprobs=True, top_logprobs=2, retrieval=False).check()
    with pytest.raises(ApiError, match="set retrieval to false"):
        request(logprobs=True).check()
    told = [Spelled("肺", -0.5, (("肺", -0.5), ("心", -1.0))), Spelled("\ufffd", -2.0)]
    [first, second] = chunk({}, {"content": "肺"}, told)["choices"][0]["logprobs"]["content"]
    assert (first["token"], first["logprob"], first["bytes"]) == ("肺", -0.5, [0xE8, 0x82, 0xBA])
    assert [top["token"] for top in first["top_logprobs"]] == ["肺", "心"]
    assert second["bytes"] is None  # a part of a character


@pytest.mark.parametrize(
    ("stop", "expected"), [(None, ()), ("", ()), ("。", ("。",)), (["a", "", "b"], ("a", "b"))]
)
def test_stop_strings(stop, expected):
    assert request(stop=stop).stops() == expected


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]])],
)
def test_prompts_of_a_completion(prompt, prompts):
    given = CompletionRequest.model_validate({"model": "m", "prompt": prompt})
    assert given.prompts() == prompts
    given.check()


@pytest.mark.parametrize(
    "field",
    [{"prompt": []}, {"prompt": [[]]}, {"prompt": [1, "a"]}, {"prompt": None}, {"logprobs": 21},
     {"max_tokens": -1}, {"logprobs": True}, {"seed": 2**63}],
)  # fmt: skip
def test_wrong_completions_are_refused(field):
    with pytest.raises(ValidationError):
        CompletionRequest.model_validate({"model": "m", "prompt": "a", **field})


@pytest.mark.parametrize(
    ("field", "message"),
    [({"n": 2}, "n is not supported"), ({"best_of": 3}, "best_of is not"),
     ({"max_tokens": 0}, "without echo"), ({"prompt": ["a", "b"], "stream": True}, "one prompt")],
)  # fmt: skip
def test_completions_that_cannot_be_honoured_are_refused(field, message):
    with pytest.raises(ApiError, match=message):
        CompletionRequest.model_validate({"model": "m", "prompt": "a", **field}).check()


def test_logprobs_of_a_completion():
    """Offsets count characters; of two tokens spelled alike the likelier stands; the token that
    was drawn is told though it is not among the likeliest."""
    tokens = [
        Spelled("患者", None),
        Spelled("咳", -3.0, (("发", -0.1), ("\ufffd", -2.5), ("\ufffd", -2.9))),
        Spelled("嗽", -0.2, (("嗽", -0.2),)),
    ]
    assert choice(0, "患者咳嗽", tokens, "stop")["logprobs"] == {
        "tokens": ["患者", "咳", "嗽"],
        "token_logprobs": [None, -3.0, -0.2],
        "top_logprobs": [None, {"发": -0.1, "\ufffd": -2.5, "咳": -3.0}, {"嗽": -0.2}],
        "text_offset": [0, 2, 3],
    }
    assert choice(0, "", None, None)["logprobs"] is None


def test_an_error_comes_whole_from_one_deployment_to_another():
    told = {"code": "busy", "param": "p", "retry_after_s": 3, "challenge": "Bearer"}
    error = pickle.loads(pickle.dumps(ApiError(429, "too much", **told)))
    assert (error.status, error.message, str(error)) == (429, "too much", "too much")
    assert {name: getattr(error, name) for name in told} == told
