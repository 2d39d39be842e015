"""What the routes share: deployments, and the life of one request.

A request is admitted (key, limits, a place in flight), logged as asked, answered, and logged as
answered or failed. What cannot be logged is not answered.
"""

import asyncio
import logging
import math
import time
import uuid
from collections.abc import Coroutine
from contextlib import AbstractContextManager
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request

from medray.serving.answering.complete import Complete
from medray.serving.audit_log import AuditLog, key_from_environment
from medray.serving.gateway_config import GatewayConfig
from medray.serving.handles import NOT_TRACED, Deployments
from medray.serving.identity.access import Caller
from medray.serving.identity.keys import KeyFile
from medray.serving.identity.oidc import Tokens
from medray.serving.limits import InFlight, Slot
from medray.serving.meter import Meter
from medray.serving.observe.metrics import Metrics
from medray.serving.observe.traces import Traces
from medray.serving.ratings import RatingRound
from medray.serving.schema.base import ApiError, Usage
from medray.serving.switch import Switch

logger = logging.getLogger(__name__)
T = TypeVar("T")
MODEL_ENDPOINTS = ("chatcmpl", "cmpl", "qual")
STOP_LOOK_S = 0.5
"""How often the emergency switch, a file, is looked at while nothing is sent."""
LEFT = (None, GeneratorExit, asyncio.CancelledError)
"""How a turn ends whose client has gone."""


class Service:
    """One gateway replica."""

    def __init__(
        self, config: GatewayConfig, deployed: Deployments, metrics: Metrics,
        traces: Traces | None = None,
    ) -> None:  # fmt: skip
        """Opens the key file and the answers to rate, and begins the audit log.

        Raises:
            ConfigError: if the key file or a file of the identity provider's keys is missing or
                damaged, or the audit log's key is none.
            DataError: if `ratings_dir` holds no answers to rate, or ratings of others.
        """
        self.config, self.deployed = config, deployed
        self.metrics, self.switch, self.traces = metrics, Switch(config.stop_file), traces
        self.in_flight = InFlight(config.max_in_flight, config.retry_after_s)
        self.created = int(time.time())
        self.keys = KeyFile(config.keys_file) if config.keys_file else None
        if self.keys is not None:
            self.keys.keys()
        audit_key = key_from_environment() if config.audit_dir or config.oidc else None
        self.tokens = Tokens(config.oidc, audit_key) if config.oidc else None
        self.ratings = RatingRound(config.ratings_dir) if config.ratings_dir else None
        self._audit = AuditLog(config.audit_dir, audit_key) if config.audit_dir else None

    @property
    def model_names(self) -> tuple[str, ...]:
        """What is served, by the names that requests use."""
        names = (*self.policy_names, self.config.embedding_name)
        return (*names, self.config.reranker_name) if self.deployed.reranks else names

    @property
    def policy_names(self) -> tuple[str, ...]:
        """Those that write text."""
        return (self.config.model_name, *self.deployed.others)

    @property
    def keeps_texts(self) -> bool:
        """Whether what is said here is kept, encrypted."""
        return self._audit is not None and self._audit.keeps_texts

    def answering(self, name: str) -> str:
        """The model that answers for `name`: while the one that is served is stopped, another that
        was named to answer instead."""
        instead = self.switch.instead if name == self.config.model_name else ""
        return instead if instead in self.deployed.others else name

    def close(self) -> None:
        """Ends the audit log's chain, and writes the traces that are left."""
        if self._audit is not None:
            self._audit.close()
        if self.traces is not None:
            self.traces.close()

    def span(self, name: str) -> AbstractContextManager[Any]:
        """A part of a request, for its trace."""
        return NOT_TRACED if self.traces is None else self.traces.span(name)

    async def admit(
        self,
        caller: Caller,
        endpoint: str,
        asked: dict[str, str],
        urgent: bool = False,
        by_rule: bool = False,
        model: str = "",
        **fields: Any,
    ) -> "Turn":
        """Lets one request in.

        Args:
            asked: its texts, for the audit log.
            model: what is to answer, where it is one of several.
            urgent: an emergency, which no limit holds up; no model is asked.
            by_rule: a rule answers and no model, so that the emergency switch stops nothing.
        Raises:
            ApiError: 429 if a limit is reached or too much is in flight, 503 while the model is
                stopped.
        """
        by_rule = by_rule or urgent
        if endpoint in MODEL_ENDPOINTS and not by_rule:
            self.switch.check(model)
        limits = caller.limits
        if not urgent and (limits.requests_per_minute or limits.tokens_per_day):
            wait_s = await self.deployed.take(caller)
            if wait_s > 0:
                raise ApiError(
                    429, "the limit of this key or account is reached; try again later",
                    code="rate_limit_exceeded", retry_after_s=math.ceil(wait_s),
                )  # fmt: skip
        slot = Slot(None) if urgent else self.in_flight.take()
        turn = Turn(self, caller, endpoint, slot, by_rule, model)
        try:
            turn.log("asked", asked, **({"model": model} if model else {}), **fields)
        except BaseException:
            turn.free()
            raise
        return turn

    def log(self, event: str, texts: dict[str, str], **fields: Any) -> None:
        """Adds an entry to the audit log, if there is one."""
        if self._audit is not None:
            self._audit.append(event, texts, **fields)

    def check_model(self, name: str, *served: str) -> None:
        """Raises ApiError unless `name` is one of `served`."""
        if name not in served:
            raise ApiError(
                404, f"no such model here; this endpoint serves {' and '.join(served)}",
                code="model_not_found", param="model",
            )  # fmt: skip

    def check_size(self, size: int) -> None:
        """Raises ApiError if a request is longer than any tokenizer should see."""
        limit = self.config.max_input_chars
        if size > limit:
            raise ApiError(400, f"the input is {size} characters, more than {limit}",
                           code="input_too_long")  # fmt: skip


class Turn:
    """One request that was let in. As a context manager it gives its place back at the end, and
    logs what went wrong."""

    def __init__(
        self, service: Service, caller: Caller, endpoint: str, slot: Any, by_rule: bool, model: str
    ) -> None:
        self._service, self._caller, self._slot = service, caller, slot
        self._by_rule, self._model = by_rule, model
        self._meter: Meter | None = None
        self._shown: list[str] = []
        self._known: dict[str, Any] = {}
        self._began, self._outcome, self._has_text = time.perf_counter(), "", False
        service.metrics.in_flight(service.in_flight.count)
        self.id, self._endpoint = f"{endpoint}-{uuid.uuid4().hex}", endpoint

    def identity(self, model: str) -> dict[str, Any]:
        """What all parts of the answer carry."""
        return {"id": self.id, "created": int(time.time()), "model": model}

    def meter(self, policy: Complete) -> Meter:
        """The policy for this request, whose tokens are counted whether it is answered or not."""
        self._meter = Meter(policy, self._service.config.request_timeout_s)
        return self._meter

    def note(self, **fields: Any) -> None:
        """What the audit log is to have if there is no answer."""
        self._known |= fields

    def goes_on(self, text: str = "") -> None:
        """To be called before each piece of text is sent.

        Raises:
            ApiError: 503 if the model was stopped meanwhile, and it is the model's text.
        """
        if not self._by_rule:
            self._service.switch.check(self._model)
        self._shown.append(text)
        if not self._has_text:
            self._has_text = True
            self._service.metrics.first_text(self._endpoint, self._seconds)

    async def unless_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """What is awaited before anything is sent; given up once the model is stopped.

        Raises:
            ApiError: 503 if the model was stopped meanwhile.
        """
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait({task}, timeout=STOP_LOOK_S))[0]:
                self._service.switch.check(self._model)
            return task.result()
        finally:
            task.cancel()

    @property
    def _seconds(self) -> float:
        return time.perf_counter() - self._began

    def log(self, event: str, texts: dict[str, str], **fields: Any) -> None:
        """Adds an entry about this request to the audit log."""
        self._service.log(
            event, texts, request=self.id, caller=self._caller.id, role=self._caller.role, **fields
        )

    def answered(self, usage: Usage | None, texts: dict[str, str], **fields: Any) -> None:
        """Counts and logs what was answered."""
        self._outcome = "answered"
        if usage is not None:
            self._service.metrics.tokens(usage.prompt_tokens, usage.completion_tokens)
        counts = {} if usage is None else usage.model_dump()
        self.log("answered", texts, **counts, **fields)
        if (traces := self._service.traces) is not None:
            versions = {n: fields[n] for n in ("model_version", "index_version") if n in fields}
            traces.note(passages=len(fields.get("passages", ())), **counts, **versions)
        if usage is not None and self._caller.limits.tokens_per_day:
            self._service.deployed.spend(self._caller, usage.total_tokens)
        logger.info("%s %s", self.id, " ".join(f"{k}={v}" for k, v in counts.items()))

    def free(self) -> None:
        """Gives the place back; once is enough, twice does no harm."""
        self._slot.free()

    def __enter__(self) -> "Turn":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, _: object) -> None:
        self.free()
        metrics = self._service.metrics
        metrics.in_flight(self._service.in_flight.count)
        outcome = self._outcome or ("left" if kind in LEFT else kind.__name__)
        metrics.ended(self._endpoint, outcome, self._seconds)
        if not self._outcome:
            self._unfinished(outcome)

    def _unfinished(self, outcome: str) -> None:
        """Logs what was shown until then; a reader that left is charged for what was generated."""
        text, known = "".join(self._shown), dict(self._known)
        if self._meter is not None and (usage := self._meter.usage).total_tokens:
            known |= usage.model_dump()
            if self._meter.version:
                known["model_version"] = self._meter.version
            self._service.metrics.tokens(usage.prompt_tokens, usage.completion_tokens)
            if outcome == "left" and self._caller.limits.tokens_per_day:
                self._service.deployed.spend(self._caller, usage.total_tokens)
        self.log("failed", {"answer": text} if text else {}, reason=outcome, **known)


async def _service(request: Request) -> Service:  # a plain function is run in a thread
    return request.app.state.service


Served = Annotated[Service, Depends(_service)]
