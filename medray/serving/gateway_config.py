"""Settings of the gateway: what it serves, to whom, and how much at a time."""

from pydantic import Field

from medray.common.config import Config
from medray.serving.answering.evidence import AnswerConfig
from medray.serving.canary import CanaryConfig
from medray.serving.consult.sessions import ConsultConfig
from medray.serving.identity.oidc import OidcConfig


class GatewayConfig(Config):
    """What the gateway serves, to whom, and how much at a time."""

    model_name: str = "medray"
    embedding_name: str = "medray-embedding"
    reranker_name: str = "medray-reranker"
    rerank_candidates: int = 30
    """Passages of a search that the reranker, if one is served, looks at again."""
    max_in_flight: int = 32
    """Requests in flight at one gateway replica; more are answered 429."""
    retry_after_s: int = 2
    max_input_chars: int = 200_000
    """Longer requests are refused before a tokenizer sees them."""
    max_body_bytes: int = 2_000_000
    """Longer bodies are refused while they come in."""
    body_timeout_s: float = 30.0
    """A body that has not arrived by then is refused."""
    request_timeout_s: float = Field(default=600.0, gt=0)
    """An answer that has not ended by then, or a call to another deployment, ends with 504."""
    health_timeout_s: float = 5.0
    keys_file: str = ""
    """API keys, see `medray keys`; a path that every gateway replica reaches. Empty, and without
    `oidc`: no key is asked for, which `medray serve` allows on this machine's own address alone."""
    oidc: OidcConfig | None = None
    """The hospital's identity provider, whose tokens are accepted as keys are."""
    stop_file: str = ""
    """While this file exists the model does not answer, see `medray serve stop-model`; a path that
    every gateway replica reaches."""
    audit_dir: str = ""
    """Where the audit log is written, see `medray audit`. Empty: none is."""
    ratings_dir: str = ""
    """Where physicians' ratings are kept, a directory with the `responses.jsonl` of
    `sample_responses`; a path that every gateway replica reaches. Empty: nothing is rated."""
    answer: AnswerConfig = AnswerConfig()
    consult: ConsultConfig = ConsultConfig()
    canary: CanaryConfig = CanaryConfig()
