"""POST /v1/feedback: what a reader says of an answer. medray's own."""

from pydantic import Field, model_validator

from medray.serving.schema.base import Request, example

MAX_SCORE = 10


class FeedbackRequest(Request):
    """A score, a comment, a better answer: at least one of them."""

    model_config = example(
        {"request": f"chatcmpl-{'0' * 32}", "score": 7, "comment": "说得对，但太短"}
    )

    request: str = Field(pattern=r"^(chatcmpl|consult)-[0-9a-f]{32}$")
    """The answer's `id`; of a consultation, the message's `request`."""
    score: float | None = Field(None, ge=0, le=MAX_SCORE)
    """0 to 10, as the experts' scores of the reward data."""
    comment: str | None = Field(None, max_length=10_000)
    corrected: str | None = Field(None, max_length=50_000)
    """What should have been answered."""

    @model_validator(mode="after")
    def _says_something(self) -> "FeedbackRequest":
        if self.score is None and not self.comment and not self.corrected:
            raise ValueError("give a score, a comment or a corrected answer")
        return self

    def texts(self) -> dict[str, str]:
        """What may hold a patient's words."""
        return {
            name: text
            for name, text in (("comment", self.comment), ("corrected", self.corrected))
            if text
        }
