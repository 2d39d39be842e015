"""Who may do what. In: a request's key. Out: its caller, or a refusal in OpenAI's shape.

Without a key file everyone is `anyone`, in the clinician's role: `medray serve` allows that on this
machine's own address alone.
"""

from typing import Annotated, Any, NamedTuple

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from medray.serving.keys import ApiKey, KeyFile, Role
from medray.serving.schema.base import ApiError

Right = str
CHAT, MODEL, SEARCH, FEEDBACK = "chat", "model", "search", "feedback"
CONSULT, ATTEND, RATE = "consult", "attend", "rate"
RIGHTS: dict[Role, set[Right]] = {
    "patient": {CHAT, FEEDBACK, CONSULT},
    "clinician": {CHAT, MODEL, SEARCH, FEEDBACK, CONSULT, ATTEND, RATE},
    "quality": {CHAT, MODEL, SEARCH, FEEDBACK, CONSULT, RATE},
    "admin": {CHAT, MODEL, SEARCH, FEEDBACK, CONSULT, RATE},
}
"""Role → what it may do: `model` is the bare model (completions, embeddings), `search` the passages
alone, `consult` a consultation of one's own, `attend` everybody's: to read it and take it over,
`rate` the blinded judging of sampled answers.
Patients ask questions that are answered from passages."""


class Caller(NamedTuple):
    """Who asks."""

    id: str
    role: Role
    key: ApiKey | None = None


ANYONE = Caller("anyone", "clinician")


BEARER = HTTPBearer(auto_error=False, description="An API key, see `medray keys`.")


def caller(
    request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]
) -> Caller:
    """The caller of a request.

    Raises:
        ApiError: 401 without a key that holds.
    """
    keys: KeyFile | None = request.app.state.service.keys
    if keys is None:
        return ANYONE
    key = keys.find(given.credentials.strip()) if given is not None else None
    if key is None:
        raise ApiError(
            401, "no API key that holds; send it as `Authorization: Bearer medray-…`",
            code="invalid_api_key",
        )  # fmt: skip
    return Caller(key.id, key.role, key)


def may(right: Right) -> Any:
    """A dependency: the caller, if its role has the right."""

    def check(asking: Annotated[Caller, Depends(caller)]) -> Caller:
        if right not in RIGHTS[asking.role]:
            raise ApiError(
                403, f"a key of role {asking.role} may not do this; ask for another role",
                code="insufficient_permissions",
            )  # fmt: skip
        return asking

    return Depends(check)
