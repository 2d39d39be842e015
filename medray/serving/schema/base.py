"""What all requests and answers share: errors in OpenAI's shape, strict types, token counts."""

from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict


class ApiError(Exception):
    """An answer other than 200, in OpenAI's shape. The message never holds text of a request."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None,
        retry_after_s: int | None = None, challenge: str | None = None,
    ) -> None:  # fmt: skip
        """`challenge` is the header WWW-Authenticate, which every 401 has."""
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.retry_after_s, self.challenge = retry_after_s, challenge

    def __reduce__(self) -> tuple[Any, ...]:
        # A deployment may raise it at another; an exception is made anew from its message alone.
        told = {"code": self.code, "param": self.param, "challenge": self.challenge}
        return partial(
            ApiError, self.status, self.message, retry_after_s=self.retry_after_s, **told
        ), ()

    def body(self) -> dict[str, Any]:
        """The error body."""
        kinds = {429: "rate_limit_error", 404: "not_found_error"}
        kind = kinds.get(
            self.status, "server_error" if self.status >= 500 else "invalid_request_error"
        )
        return {
            "error": {
                "message": self.message,
                "type": kind,
                "param": self.param,
                "code": self.code,
            }
        }


class Request(BaseModel):
    """Base of requests: types are strict, fields unknown to us are kept aside."""

    model_config = ConfigDict(extra="allow", strict=True, use_attribute_docstrings=True)

    def check_neutral(self, neutral: dict[str, tuple[Any, ...]]) -> None:
        """Raises ApiError if a field that cannot be honoured asks for something.

        Args:
            neutral: field → the values that ask for nothing.
        """
        for name, values in neutral.items():
            if (self.model_extra or {}).get(name) not in values:
                raise ApiError(
                    400, f"{name} is not supported by this server; leave it out",
                    code="unsupported_parameter", param=name,
                )  # fmt: skip


def example(value: dict[str, Any]) -> ConfigDict:
    """The configuration of a request that shows an example of itself in the API's description."""
    return ConfigDict(json_schema_extra={"examples": [value]})


class Usage(BaseModel):
    """Token counts of one request."""

    prompt_tokens: int
    completion_tokens: int = 0
    total_tokens: int
