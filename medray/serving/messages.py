"""What the deployments hand to one another. Loads no model and no framework."""

from typing import Any, NamedTuple

from medray.generation.sampling import Chat, Sampling
from medray.serving.schema.quality import IndicatorVerdict


class Choices(NamedTuple):
    """The same question with ever fewer passages: the first that leaves room for the answer is
    answered. `exact`: False lets the last one leave less."""

    conversations: list[Chat]
    exact: bool


Prompt = Chat | list[int] | Choices
"""What a policy continues: a chat's next turn, tokens, or one of several chats."""


class Fit(NamedTuple):
    """Which of several chats goes into the context, and how much room it leaves: the first item of
    the stream of `Choices`, and the last where none goes.

    `index` is None where none fits; the counts are then those of the last prompt.
    """

    index: int | None
    num_prompt_tokens: int
    max_new_tokens: int
    context_tokens: int


def settled(prompt: Prompt, sampling: Sampling, fit: Fit) -> tuple[Prompt, Sampling]:
    """What is asked once a policy has said what fits: whoever goes on writes by the same passages,
    which the reader sees."""
    if isinstance(prompt, Choices) and fit.index is not None:
        prompt = prompt.conversations[fit.index]
        sampling = sampling.model_copy(update={"max_new_tokens": fit.max_new_tokens})
    return prompt, sampling


class Encoded(NamedTuple):
    """Prompts as tokens and as text, and what the model takes."""

    prompts: list[list[int]]
    texts: list[str]
    context_tokens: int
    num_tokens: int
    """The vocabulary's size."""


class Counted(NamedTuple):
    """How many tokens each of several texts is, how many the model's context takes, and the model's
    version."""

    counts: list[int]
    context_tokens: int
    version: str


class Judged(NamedTuple):
    """The verdicts on a record, what they took, and the version of the model; or none, and why
    (`problem`, which holds no text of the record)."""

    results: list[IndicatorVerdict]
    num_prompt_tokens: int
    num_tokens: int
    version: str
    problem: str = ""


class Spent(NamedTuple):
    """What a request has taken so far, and the version of the model that wrote last."""

    num_prompt_tokens: int
    num_tokens: int
    version: str


class Spelled(NamedTuple):
    """A token as text, with its log-probability (nats; None for a text's first) and the likeliest
    in its place, best first."""

    text: str
    logprob: float | None
    top: tuple[tuple[str, float], ...] = ()


class Piece(NamedTuple):
    """Text of an answer; its tokens, if their log-probabilities were asked for.

    `ids` are all tokens generated since the piece before, those too whose text is held back:
    another replica goes on from them where this one dies, if it has the same `version` of the
    model.
    """

    text: str
    tokens: tuple[Spelled, ...] = ()
    ids: tuple[int, ...] = ()
    version: str = ""


CHANGED = "model_changed"
"""Why a stream ends that was to go on from another version's tokens. The first item, and the
last."""


class Finish(NamedTuple):
    """The last item of a stream. `num_tokens` are those generated, the end token among them;
    `version` is that of the model."""

    finish_reason: str
    num_tokens: int
    version: str = ""


class Found(NamedTuple):
    """Fields of passages with `score`, `cosine`, `bm25` and `sparse`, best first; and the cosine
    that the nearest must have for the index to hold an answer, as was measured when it was built.
    All are of one version of the index."""

    hits: list[dict[str, Any]]
    min_cosine: float
    version: str = ""
    looked_up: bool = True
    """Whether the question is one that passages answer, as the index has learned."""


class QuestionVectors(NamedTuple):
    """What an encoder makes of a question, to search with."""

    vector: list[float]
    weights: dict[int, float]
    """Of its tokens, where the encoder weighs them (BGE-M3); else none."""


class Embedded(NamedTuple):
    """Vectors of one request's texts, in order, and how many tokens they were."""

    vectors: list[list[float]]
    num_tokens: int
