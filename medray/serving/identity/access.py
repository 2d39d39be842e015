"""Who may do what. In: a request's key or token. Out: its caller, or a refusal in OpenAI's shape.

With neither a key file nor an identity provider everyone is `anyone`, in the clinician's role:
`medray serve` allows that on this machine's own address alone.
"""

from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from medray.serving.identity.keys import Caller, KeyFile, Role
from medray.serving.identity.oidc import Tokens, looks_like_token
from medray.serving.schema.base import ApiError

Right = str
CHAT, MODEL, SEARCH, FEEDBACK = "chat", "model", "search", "feedback"
CONSULT, ATTEND, RATE, JUDGE = "consult", "attend", "rate", "judge"
RIGHTS: dict[Role, set[Right]] = {
    "patient": {CHAT, FEEDBACK, CONSULT},
    "clinician": {CHAT, MODEL, SEARCH, FEEDBACK, CONSULT, ATTEND, RATE, JUDGE},
    "quality": {CHAT, MODEL, SEARCH, FEEDBACK, CONSULT, RATE, JUDGE},
    "admin": {CHAT, MODEL, SEARCH, FEEDBACK, CONSULT, RATE, JUDGE},
}
"""Role → what it may do: `model` is the bare model (completions, embeddings), `search` the passages
alone, `consult` a consultation of one's own, `attend` everybody's: to read it and take it over,
`rate` the blinded judging of sampled answers, `judge` the quality control of a record.
Patients ask questions that are answered from passages."""


ANYONE = Caller("anyone", "clinician")
BEARER = HTTPBearer(auto_error=False, description="An API key, see `medray keys`, or a token.")


async def caller(
    request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]
) -> Caller:
    """The caller of a request.

    Raises:
        ApiError: 401 without a key or token that holds, 403 for a token without a role of ours.
    """
    keys: KeyFile | None = request.app.state.service.keys
    tokens: Tokens | None = request.app.state.service.tokens
    if keys is None and tokens is None:
        return ANYONE
    secret = given.credentials.strip() if given is not None else ""
    if tokens is not None and looks_like_token(secret):
        return await tokens.caller(secret)
    key = await run_in_threadpool(keys.find, secret) if keys is not None and secret else None
    if key is None:
        what = "token" if keys is None else "API key" if tokens is None else "API key or token"
        shape = "TOKEN" if keys is None else "medray-…"
        raise ApiError(
            401, f"no {what} that holds; send it as `Authorization: Bearer {shape}`",
            code="invalid_api_key", challenge='Bearer realm="medray"',
        )  # fmt: skip
    return Caller(key.id, key.role, key)


def may(right: Right) -> Any:
    """A dependency: the caller, if its role has the right."""

    async def check(asking: Annotated[Caller, Depends(caller)]) -> Caller:
        if right not in RIGHTS[asking.role]:
            raise ApiError(
                403, f"the role {asking.role} may not do this; ask for another one",
                code="insufficient_permissions",
            )  # fmt: skip
        return asking

    return Depends(check)
