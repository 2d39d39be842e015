"""A storage root as a finished pipeline leaves it: a tiny policy that knows a few prompts by
heart, a tiny encoder with random weights, and an index of 20 passages; the HTTP API over them."""

import asyncio
import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import certificates
import identity_provider
import numpy as np
import pytest
import requests
from identity_provider import Provider
from tiny_hospital import (
    QUESTIONS,
    Hospital,
    build_encoder,
    build_index,
    build_policy,
    consultation,
)

from medray.common.manifest import Manifest, list_files, write_manifest
from medray.generation.prompts import NO_ANSWER, grounded_answer, grounded_prompt
from medray.generation.sampling import Chat


@pytest.fixture(scope="session")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    root = tmp_path_factory.mktemp("storage")
    encoder = build_encoder(root / "encoder" / "e1" / "model")
    prompts = build_index(root / "index" / "i1", encoder)
    cited = prompts["true"][1][1]
    answers = {
        "true": grounded_answer(cited.title, 2, cited.text.split("，")[0]),
        # A source that was not shown, in the middle of a sentence, where decoding leaves titles
        # alone: the gateway has to refuse it.
        "false": "参见" + grounded_answer("民间偏方", 9, "一派胡言"),
        "none": NO_ANSWER,
    }
    lessons: list[tuple[str | Chat, str]] = [
        (prompt, answers[name]) for name, (prompt, _) in prompts.items()
    ]
    # The passages of a question that none answers score alike and may come in any order.
    lessons += [
        (grounded_prompt(QUESTIONS["none"], order), NO_ANSWER)
        for order in itertools.permutations(prompts["none"][1])
    ]
    lessons += consultation()
    build_policy(root / "sft" / "s1" / "model", lessons)
    steps: dict[str, Any] = {}
    for step, key in (("encoder", "e1"), ("index", "i1"), ("sft", "s1")):
        manifest = Manifest(
            step=step, key=key, created="", duration_s=0, medray="", git_commit="", packages={},
            parents={}, input="", counts={}, metrics={}, files=list_files(root / step / key),
        )  # fmt: skip
        write_manifest(root / step / key, manifest)
        steps[step] = {"path": str(root / step / key), "key": key}
    (root / "pipeline.json").write_text(json.dumps({"steps": steps}))
    return Hospital(root, encoder, cited, answers)


@pytest.fixture(scope="session")
def policy(hospital: Hospital) -> Iterator[Any]:
    """The policy deployment without Serve."""
    from medray.generation.batching import BatchingConfig
    from medray.serving.artefacts import Location
    from medray.serving.policy import Policy

    model = Location(path=str(hospital.root / "sft" / "s1" / "model"))
    made = Policy(model, BatchingConfig(max_requests=4))
    yield made
    made.__del__()


@pytest.fixture(scope="session")
def judge_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that knows verdicts on records by heart."""
    from tiny_judge import build_judge

    return build_judge(tmp_path_factory.mktemp("judge") / "model")


@pytest.fixture(scope="session")
def in_process() -> type["InProcess"]:
    return InProcess


@pytest.fixture(scope="session")
def reranker(hospital: Hospital, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder with random weights that says how relevant passages are, and leaves their
    order as it is."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from medray.retrieval.rerank import SETTINGS, RerankSettings

    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("reranker")
    model = AutoModelForSequenceClassification.from_pretrained(hospital.encoder, num_labels=1)
    torch.nn.init.normal_(model.classifier.weight, std=2)  # else all scores are alike
    model.save_pretrained(directory)
    AutoTokenizer.from_pretrained(hospital.encoder).save_pretrained(directory)
    (directory / SETTINGS).write_text(RerankSettings(weight=0).model_dump_json())
    return directory


class InProcess:
    """`Deployments`, without the processes between."""

    reranks = False

    def __init__(self, policy: Any, embedder: Any = None, searcher: Any = None) -> None:
        from medray.quality.indicators import load_indicators
        from medray.serving.budget import Budget
        from medray.serving.consult.sessions import Consultations, ConsultConfig
        from medray.serving.quality import Judge

        self._policy, self._embedder, self._searcher = policy, embedder, searcher
        self.policy = self.chats = self
        self.others: dict[str, Any] = {}
        self._budget, self.spent = Budget(), threading.Event()
        self.consultations = Consultations(ConsultConfig())
        self._tasks: set[Any] = set()
        self.stream = policy.stream
        self.score = policy.score
        self._judge = Judge({"policy": self}, load_indicators().values())

    async def encode(self, prompts: Any) -> Any:
        return self._policy.encode(prompts)

    async def count(self, texts: list[str]) -> Any:
        return self._policy.count(texts)

    async def indicators(self) -> dict[str, str]:
        return self._judge.titles()

    async def judge(self, model: str, record: str, ids: list[str], spent: Any) -> Any:
        from medray.serving.messages import Judged

        async for item in self._judge.judge("policy", record, ids):
            if isinstance(item, Judged):
                return item
            spent(item)

    async def embed(self, texts: list[str]) -> Any:
        from medray.serving.messages import Embedded

        return Embedded(self._embedder.embed(texts).tolist(), sum(map(len, texts)))

    async def embed_question(self, question: str) -> Any:
        from medray.serving.messages import QuestionVectors

        return QuestionVectors(self._embedder.embed_queries([question])[0].tolist(), {})

    async def search(self, question: str, vectors: Any, top_k: int, where: Any) -> Any:
        from medray.serving.messages import Found
        from medray.serving.retrieval import hit_fields

        vector_D = np.asarray(vectors.vector, np.float32)
        found = await asyncio.to_thread(self._searcher.search, question, vector_D, top_k, where)
        looked_up = self._searcher.looks_up(vector_D)
        return Found(list(map(hit_fields, found)), self._searcher.min_cosine, "i1", looked_up)

    async def take(self, caller: Any) -> float:
        limits = caller.limits
        return self._budget.take(caller.id, limits.requests_per_minute, limits.tokens_per_day)

    def spend(self, caller: Any, num_tokens: int) -> None:
        self._budget.spend(caller.id, num_tokens)
        self.spent.set()

    async def consult(self, method: str, *arguments: Any) -> Any:
        return await getattr(self.consultations, method)(*arguments)

    def abandon_consult(self, identifier: str, request: str) -> None:
        task = asyncio.ensure_future(self.consultations.abandon(identifier, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def states(self, timeout_s: float) -> dict[str, Any]:
        return {"policy": {"ready": True, **self._policy.status()}}


@pytest.fixture(scope="module")
def deployed(hospital, policy) -> Iterator[InProcess]:
    from medray.retrieval.embed import Embedder
    from medray.retrieval.search import open_index

    with open_index(hospital.root / "index" / "i1") as searcher:
        yield InProcess(policy, Embedder(hospital.encoder), searcher)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serving")


@pytest.fixture(scope="module")
def secrets(place: Path) -> dict[str, str]:
    from medray.serving.identity.keys import KeyFile

    file = KeyFile(place / "keys.json")
    made = {role: file.add(role, role).secret for role in ("patient", "clinician", "admin")}
    made |= {
        name: file.add(name, role).secret
        for name, role in (("neighbour", "patient"), ("colleague", "clinician"))
    }
    made["hurried"] = file.add("hurried", "clinician", requests_per_minute=2).secret
    made["filing"] = file.add("filing", "patient", requests_per_minute=1).secret
    made["thrifty"] = file.add("thrifty", "clinician", tokens_per_day=3).secret
    made["leaver"] = file.add("leaver", "clinician", tokens_per_day=3).secret
    gone = file.add("gone", "clinician")
    file.revoke(gone.key.id)
    return made | {"gone": gone.secret}


@pytest.fixture(scope="module")
def provider(providing) -> Iterator["Provider"]:
    with providing() as provider:
        yield provider


@pytest.fixture(scope="module")
def client(deployed: Any, place: Path, secrets, provider, listening) -> Iterator["Client"]:
    from medray.serving.gateway_config import GatewayConfig
    from medray.serving.observe.metrics import Metrics
    from medray.serving.service import Service

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDRAY_AUDIT_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
        config = GatewayConfig.parse(
            {"keys_file": str(place / "keys.json"), "audit_dir": str(place / "audit"),
             "oidc": provider.settings(), "stop_file": str(place / "stopped"),
             "ratings_dir": str(rating_round(place / "round")),
             "max_body_bytes": 20_000, "body_timeout_s": 2,
             "answer": {"top_k": 3, "min_cosine": -1}}, "test",
        )  # fmt: skip
        service = Service(config, deployed, Metrics())
    with listening(service) as client:
        yield client


@pytest.fixture(scope="session")
def providing() -> Callable[[], AbstractContextManager[Provider]]:
    """→ an identity provider, over real HTTP."""
    return identity_provider.providing


def rating_round(directory: Path) -> Path:
    """Two scenarios for physicians to judge."""
    tasks = [
        {"scenario_id": s, "scenario": f"情景{s}", "responses": [
            {"response_id": f"{s}-{n}", "text": f"{s}的第{n}个回答"} for n in range(3)
        ]}
        for s in "AB"
    ]  # fmt: skip
    directory.mkdir()
    lines = "".join(json.dumps(task, ensure_ascii=False) + "\n" for task in tasks)
    (directory / "responses.jsonl").write_text(lines, encoding="utf-8")
    return directory


class Client(requests.Session):
    """HTTP to one port of this machine."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port

    def request(self, method, url, *args, **kwargs):  # type: ignore[override]
        kwargs.setdefault("timeout", 120)
        return super().request(method, f"http://127.0.0.1:{self.port}{url}", *args, **kwargs)

    @contextmanager
    def events(self, url: str, body: dict[str, Any], secret: str) -> Iterator[Iterator[str]]:
        """What server-sent events hold, as they come."""
        with self.post(
            url, json=body, headers={"Authorization": f"Bearer {secret}"}, stream=True
        ) as response:
            lines = response.iter_lines(chunk_size=1)
            yield (line.decode()[6:] for line in lines if line)


@pytest.fixture(scope="session")
def certify() -> Callable[..., tuple[Path, Path]]:
    """→ files of a certificate of this machine, signed by itself, and of its key."""
    return certificates.certify


@pytest.fixture(scope="session")
def listening() -> Callable[[Any], AbstractContextManager["Client"]]:
    """Service → a client of its API, over real HTTP."""
    return _listening


@contextmanager
def _listening(service: Any) -> Iterator["Client"]:
    import uvicorn

    from medray.serving.gateway import build_api

    server = uvicorn.Server(uvicorn.Config(build_api(service), port=0, log_level="error"))
    bound = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([bound],))
    thread.start()
    try:
        with Client(bound.getsockname()[1]) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()
        bound.close()
