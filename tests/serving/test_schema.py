"""Requests as openai clients send them, and what is refused."""

import pytest
from pydantic import ValidationError

from medray.serving.schema import ApiError, ChatRequest, EmbeddingRequest, chunk

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
    [{"n": 2}, {"stop": ["。"]}, {"tools": [{"type": "function"}]}, {"logprobs": True},
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
    assert chunk(identity, {}, "stop")["choices"][0]["finish_reason"] == "stop"
