"""Prometheus metrics of the service, at Ray's metrics endpoint with `ray_` before their names.

Names and numbers only: no text of a request, no key, no passage.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ray.util.metrics import Counter, Gauge, Histogram

from medray.generation.sampling import EngineLoad
from medray.serving.schema.grounding import Grounding

SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120]
COSINES = [k / 10 for k in range(1, 11)]


class Metrics:
    """What one gateway replica counts."""

    def __init__(self) -> None:
        self._requests = Counter(
            "medray_requests_total", "Requests that were let in, by how they ended",
            ("endpoint", "outcome"),
        )  # fmt: skip
        self._refused = Counter(
            "medray_refused_total", "Requests that were not let in, by status and code",
            ("status", "code"),
        )  # fmt: skip
        self._seconds = Histogram(
            "medray_request_seconds", "From letting a request in to its end", SECONDS, ("endpoint",)
        )
        self._first = Histogram(
            "medray_first_text_seconds", "From letting a request in to its first text",
            SECONDS, ("endpoint",),
        )  # fmt: skip
        self._stage = Histogram(
            "medray_stage_seconds", "Of a call to a deployment", SECONDS, ("stage",)
        )
        self._tokens = Counter("medray_tokens_total", "Tokens of prompts and answers", ("kind",))
        self._answers = Counter("medray_answers_total", "Answers by what they rest on", ("basis",))
        self._sentences = Counter(
            "medray_sentences_total", "Sentences of grounded answers by verdict", ("verdict",)
        )
        self._guard = Counter(
            "medray_guard_total", "Questions that were not answered, by kind", ("kind",)
        )
        self._cosine = Histogram(
            "medray_best_cosine", "Of the best passage to its question", COSINES, ()
        )
        self._canary = Counter(
            "medray_canary_total", "Answers of the model that is tried, by how they ended",
            ("outcome",),
        )  # fmt: skip
        self._in_flight = Gauge("medray_in_flight", "Requests in flight", ())

    def ended(self, endpoint: str, outcome: str, seconds: float) -> None:
        """One request has ended."""
        self._requests.inc(1, {"endpoint": endpoint, "outcome": outcome})
        self._seconds.observe(seconds, {"endpoint": endpoint})

    def canary(self, failed: bool) -> None:
        """One answer of the model that is tried has ended."""
        self._canary.inc(1, {"outcome": "failed" if failed else "answered"})

    def refused(self, status: int, code: str) -> None:
        """One request was not let in."""
        self._refused.inc(1, {"status": str(status), "code": code})

    def first_text(self, endpoint: str, seconds: float) -> None:
        """The first text of an answer is on its way."""
        self._first.observe(seconds, {"endpoint": endpoint})

    def tokens(self, num_prompt: int, num_completion: int) -> None:
        """Tokens of one request."""
        for kind, count in (("prompt", num_prompt), ("completion", num_completion)):
            if count:  # a counter refuses 0
                self._tokens.inc(count, {"kind": kind})

    def guarded(self, kind: str) -> None:
        """One question was answered by a rule."""
        self._guard.inc(1, {"kind": kind})

    def answered(self, grounding: Grounding) -> None:
        """One answer: what it rests on, verdicts on its sentences, how near its best passage is."""
        self._answers.inc(1, {"basis": grounding.basis})
        if grounding.guard:
            self.guarded(grounding.guard)
        for one in grounding.verdicts if grounding.retrieval else ():
            self._sentences.inc(1, {"verdict": one.verdict})
        if grounding.passages:
            self._cosine.observe(max(passage.cosine for passage in grounding.passages))

    def in_flight(self, count: int) -> None:
        """Requests in flight now."""
        self._in_flight.set(count)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a call to a deployment."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._stage.observe(time.perf_counter() - began, {"stage": name})


class EngineMetrics:
    """What one replica's engine has to do, every few seconds."""

    def __init__(self) -> None:
        self._waiting = Gauge("medray_engine_waiting", "Answers whose turn has not come", ())
        self._active = Gauge("medray_engine_active", "Answers that are generated together", ())
        self._cached = Counter(
            "medray_prefix_cached_tokens_total",
            "Tokens of prompts that were found in the cache as the beginning of another", (),
        )  # fmt: skip
        self._num_cached = 0

    def told(self, load: EngineLoad) -> None:
        """Sets the gauges; what is new of the cached tokens is added."""
        self._waiting.set(load.waiting)
        self._active.set(load.active)
        if new := load.cached_tokens - self._num_cached:  # a counter refuses 0
            self._cached.inc(new)
        self._num_cached = load.cached_tokens
