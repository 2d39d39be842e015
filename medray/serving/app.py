"""The Serve application: gateway → budget, consultations, retrieval, embedding, reranking, quality,
policy.

In: `ServingConfig`, the `args` of a file in serve_configs/. Out: the bound graph, by
`medray.serving.app:build_app`, which `medray serve` and `serve deploy` both call.
"""

import logging
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator
from ray import serve

from medray.common.config import Config
from medray.generation.batching import BatchingConfig
from medray.quality.indicators import load_indicators
from medray.serving.alias import IndexAlias
from medray.serving.artefacts import Location, directory, newest, warn_of_erasures
from medray.serving.budget import Budget
from medray.serving.consult.sessions import Consultations
from medray.serving.embedding import Embedding
from medray.serving.gateway import Gateway
from medray.serving.gateway_config import GatewayConfig
from medray.serving.handles import OTHER
from medray.serving.identity.jwks import is_url
from medray.serving.observe.traces import TracesConfig
from medray.serving.policy import Policy
from medray.serving.quality import Quality
from medray.serving.ratings import read_tasks
from medray.serving.reranking import Reranking
from medray.serving.retrieval import Retrieval

logger = logging.getLogger(__name__)


class Replicas(Config):
    """How many replicas of a deployment there are, and what each takes."""

    min: int = 1
    max: int = 1
    """More than `min` turns autoscaling on."""
    target_ongoing_requests: float = 4.0
    """Autoscaling adds replicas above this load per replica."""
    downscale_delay_s: float = 600.0
    """Source: Ray Serve's default."""
    num_cpus: float = 0.1
    """Serve's default of a whole CPU a replica hangs three deployments on two cores."""
    num_gpus: float = 0.0
    drain_timeout_s: float = 20.0
    """How long a replica that is told to stop may go on with its streams."""

    def options(self, max_ongoing_requests: int) -> dict[str, Any]:
        """Options of `serve.deployment`."""
        options: dict[str, Any] = {
            "max_ongoing_requests": max_ongoing_requests,
            "graceful_shutdown_timeout_s": self.drain_timeout_s,
            "graceful_shutdown_wait_loop_s": 0.5,
            "ray_actor_options": {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus},
        }
        if self.max == self.min:
            return options | {"num_replicas": self.min}
        autoscaling = {
            "min_replicas": self.min,
            "max_replicas": self.max,
            "target_ongoing_requests": self.target_ongoing_requests,
            "downscale_delay_s": self.downscale_delay_s,
        }
        return options | {"autoscaling_config": autoscaling}

    @model_validator(mode="after")
    def _check(self) -> "Replicas":
        if not 1 <= self.min <= self.max:
            raise ValueError(f"1 ≤ min ≤ max must hold, got min {self.min} and max {self.max}")
        return self


class ServingConfig(Config):
    """What is served, from where, and at what size."""

    storage_root: str = ""
    """Where a pipeline has run; what it finished last is served. Relative paths begin at the
    working directory of `medray serve`, or of `ray start` where `serve deploy` is used."""
    model_dir: str = ""
    """Serve this Hugging Face directory instead of the pipeline's policy."""
    models: dict[Annotated[str, Field(pattern=r"^[\w.-]+$")], str] = Field(default={})
    """Other models by the names that requests use: directories of models, or of LoRA adapters. Each
    has replicas of its own, as `policy_replicas` says."""
    encoder_dir: str = ""
    index_dir: str = ""
    reranker_dir: str = ""
    """A reranker, as `reranker/KEY/model` of `medray run reranker` or a BGE reranker. Empty: none
    looks again at what a search found."""
    index_file: str = ""
    """Which index is searched, once `medray serve use-index` has written it; a path that every
    retrieval replica reaches. Empty: the newest when the application was built."""
    indicator_files: list[str] = Field(default=[])
    """Indicators that records are judged by; empty: those shipped with medray. Read once, where the
    server is started."""
    gateway: GatewayConfig = GatewayConfig()
    batching: BatchingConfig = BatchingConfig()
    """How much one policy replica generates at a time."""
    traces: TracesConfig | None = None
    """Spans of requests, for those who look where the time goes. None: none are made."""
    gateway_replicas: Replicas = Replicas()
    policy_replicas: Replicas = Replicas()
    embedding_replicas: Replicas = Replicas()
    retrieval_replicas: Replicas = Replicas()
    reranking_replicas: Replicas = Replicas()

    @model_validator(mode="after")
    def _check(self) -> "ServingConfig":
        if not self.storage_root and not (self.model_dir and self.encoder_dir and self.index_dir):
            raise ValueError("set storage_root, or all of model_dir, encoder_dir and index_dir")
        gateway = self.gateway
        taken = {gateway.model_name, gateway.embedding_name, gateway.reranker_name}
        if twice := taken & self.models.keys():
            raise ValueError(
                f"models: {' and '.join(sorted(twice))} is served by that name already"
            )
        if gateway.canary.model and gateway.canary.model not in self.models:
            raise ValueError(
                f"gateway.canary.model {gateway.canary.model!r} is none of models: "
                f"{', '.join(self.models) or 'there are none'}"
            )
        if bool(self.encoder_dir) != bool(self.index_dir):
            # An index is searched with the encoder that made it; another gives noise, silently.
            raise ValueError("encoder_dir and index_dir belong together; set both or none")
        return self

    def locate(self, given: str, *steps: str, part: str = "") -> Location:
        """The directory given, else the pipeline's newest of `steps`."""
        return directory(given) if given else newest(self.storage_root, steps, part)


def build_app(args: ServingConfig) -> serve.Application:
    """Binds the graph. Nothing starts before Serve deploys it.

    Raises:
        ConfigError: if the storage root holds no finished pipeline.
        DataError: if there is no `responses.jsonl` to rate where there should be one.
        QualityError: naming the indicator's file and what is wrong in it.
    """
    model = args.locate(args.model_dir, "ppo", "sft", part="model")
    encoder = args.locate(args.encoder_dir, "encoder", part="model")
    newest_index = args.locate(args.index_dir, "index")
    index_file = str(Path(args.index_file).expanduser().resolve()) if args.index_file else ""
    index = IndexAlias(index_file, newest_index).named().index
    warn_of_erasures((model, encoder, index))
    logger.info("serving policy %s, index %s", model.version, index.version)
    paths: dict[str, Any] = {
        name: str(Path(path).expanduser().resolve())
        for name in ("keys_file", "audit_dir", "stop_file", "ratings_dir")
        if (path := getattr(args.gateway, name))
    }  # relative ones begin where the server was started, not where a replica runs
    oidc = args.gateway.oidc
    if oidc is not None and oidc.jwks and not is_url(oidc.jwks):
        key_set = str(Path(oidc.jwks).expanduser().resolve())
        paths["oidc"] = oidc.model_copy(update={"jwks": key_set})
    if "ratings_dir" in paths:
        read_tasks(Path(paths["ratings_dir"]))  # what is wrong is told before anything starts
    gateway_config = args.gateway.model_copy(update=paths)
    if stop_file := gateway_config.canary.stop_file:
        stops = {"stop_file": str(Path(stop_file).expanduser().resolve())}
        canary = gateway_config.canary.model_copy(update=stops)
        gateway_config = gateway_config.model_copy(update={"canary": canary})
    traces = args.traces
    if traces is not None and traces.directory:
        directory_of = str(Path(traces.directory).expanduser().resolve())
        traces = traces.model_copy(update={"directory": directory_of})
    files = [Path(name).expanduser() for name in args.indicator_files] or None
    indicators = list(load_indicators(files).values())
    # Queues are bounded by the gateway alone; the others must never refuse what it let in,
    # nor a health check.
    ongoing = args.gateway.max_in_flight * args.gateway_replicas.max + 16
    policy = serve.deployment(Policy, name="policy").options(
        **args.policy_replicas.options(ongoing)
    )
    embedding = serve.deployment(Embedding, name="embedding").options(
        **args.embedding_replicas.options(ongoing)
    )
    retrieval = serve.deployment(Retrieval, name="retrieval").options(
        **args.retrieval_replicas.options(ongoing)
    )
    reranking = serve.deployment(Reranking, name="reranking").options(
        **args.reranking_replicas.options(ongoing)
    )
    budget = serve.deployment(Budget, name="budget").options(
        max_ongoing_requests=ongoing, ray_actor_options={"num_cpus": 0}
    )
    consultations = serve.deployment(Consultations, name="consultations").options(
        max_ongoing_requests=ongoing, ray_actor_options={"num_cpus": 0}
    )
    quality = serve.deployment(Quality, name="quality").options(
        max_ongoing_requests=ongoing, ray_actor_options={"num_cpus": 0}
    )
    # Far more than may be in flight, so that the gateway itself answers 429.
    gateway = serve.deployment(Gateway, name="gateway").options(
        **args.gateway_replicas.options(args.gateway.max_in_flight * 4 + 64)
    )
    policies = {"policy": policy.bind(model, args.batching, traces)}
    for name, path in args.models.items():
        policies[OTHER + name] = policy.options(name=f"{OTHER}{name}").bind(
            directory(path), args.batching, traces
        )
    handles = policies | {
        "embedding": embedding.bind(encoder),
        "retrieval": retrieval.bind(newest_index, index_file),
        "consultations": consultations.bind(args.gateway.consult),
        "quality": quality.bind(policies, indicators),
    }
    if args.gateway.keys_file or oidc is not None:
        handles["budget"] = budget.bind()
    if args.reranker_dir:
        handles["reranking"] = reranking.bind(directory(args.reranker_dir))
    return gateway.bind(gateway_config, handles, traces)
