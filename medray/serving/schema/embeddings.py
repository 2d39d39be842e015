"""POST /v1/embeddings. Source: OpenAI API reference."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from medray.serving.schema.base import Request, example


class EmbeddingRequest(Request):
    """POST /v1/embeddings."""

    model_config = example({"model": "medray-embedding", "input": ["肺炎如何治疗？"]})

    model: str
    input: str | Annotated[list[str], Field(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1)

    @field_validator("input")
    @classmethod
    def _not_empty(cls, value: str | list[str]) -> str | list[str]:
        if not all([value] if isinstance(value, str) else value):
            raise ValueError("must not hold an empty string")
        return value

    def texts(self) -> list[str]:
        """The input as a list."""
        return [self.input] if isinstance(self.input, str) else self.input


def embeddings(model: str, data: Sequence[Any], num_tokens: int) -> dict[str, Any]:
    """The body of an embeddings answer; `data` holds lists of floats or base64 strings."""
    return {
        "object": "list",
        "model": model,
        "data": [
            {"object": "embedding", "index": index, "embedding": value}
            for index, value in enumerate(data)
        ],
        "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
    }
