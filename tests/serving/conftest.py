"""A storage root as a finished pipeline leaves it: a tiny policy that knows a few prompts by
heart, a tiny encoder with random weights, and an index of 20 passages; the HTTP API over them."""

import asyncio
import http.server
import ipaddress
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests

from medray.common.manifest import Manifest, list_files, write_manifest
from medray.common.records import Passage
from medray.generation.chat import CHAT_TEMPLATE, SPECIAL_TOKENS
from medray.generation.prompts import NO_ANSWER, Numbered, grounded_answer, grounded_prompt
from medray.generation.sampling import Chat
from medray.serving.consult import words

TOP_K = 3
DISEASES = ["肺炎", "哮喘", "胃炎", "肝炎", "肾炎", "癫痫", "贫血", "心衰", "房颤", "脑炎"]
PASSAGES = [
    Passage(
        passage_id=f"doc{k}:{section}", doc_id=f"doc{k}", start=10, end=10 + len(text),
        section=section, title=f"{disease} {section}", text=text, kind="guideline",
        date="2024-01-01", source="手册",
    )
    for k, disease in enumerate(DISEASES)
    for section, text in (
        ("治疗", f"{disease}首选药物{k}号，每日{k + 1}次。"),
        ("诊断", f"{disease}以检查{k}号确诊，复查{k + 2}周。"),
    )
]  # fmt: skip
QUESTIONS = {name: f"{disease}如何治疗？" for name, disease in
             [("true", "肺炎"), ("false", "心衰"), ("none", "癫痫")]}  # fmt: skip
LONG_QUESTION = "请一直数下去。"
COMPLAINT = "45岁，男\n咳嗽三天"
EXCHANGES = [("有没有发热？", "没有发热"), ("有没有胸闷？", "有一点")]
"""What the policy asks in a consultation, and what it is answered; then it knows enough."""
FINDING = "考虑肺炎。"
"""After which the sources are asked the `true` question."""


class Hospital(NamedTuple):
    """The storage root, and what the policy was taught to say."""

    root: Path
    encoder: Path
    cited: Numbered
    """The passage that the answer to the `true` question cites."""
    answers: dict[str, str]
    questions: dict[str, str] = QUESTIONS
    exchanges: list[tuple[str, str]] = EXCHANGES
    finding: str = FINDING
    long_question: str = LONG_QUESTION


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
    from medray.generation.continuous import BatchingConfig
    from medray.serving.artefacts import Location
    from medray.serving.policy import Policy

    model = Location(path=str(hospital.root / "sft" / "s1" / "model"))
    made = Policy(model, BatchingConfig(max_requests=4))
    yield made
    made.__del__()


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

    def __init__(self, policy: Any, embedder: Any, searcher: Any) -> None:
        from medray.serving.budget import Budget
        from medray.serving.consult.sessions import Consultations, ConsultConfig

        self._policy, self._embedder, self._searcher = policy, embedder, searcher
        self.policy = self.chats = self
        self.others: dict[str, Any] = {}
        self._budget = Budget()
        self.consultations = Consultations(ConsultConfig())
        self._tasks: set[Any] = set()
        self.stream = policy.stream
        self.score = policy.score

    async def encode(self, prompts: Any) -> Any:
        return self._policy.encode(prompts)

    async def embed(self, texts: list[str]) -> Any:
        from medray.serving.messages import Embedded

        return Embedded(self._embedder.embed(texts).tolist(), sum(map(len, texts)))

    async def embed_question(self, question: str) -> list[float]:
        return self._embedder.embed_queries([question])[0].tolist()

    async def search(self, question: str, vector: Any, top_k: int, where: Any) -> Any:
        from medray.serving.messages import Found

        found = await asyncio.to_thread(
            self._searcher.search, question, np.asarray(vector, np.float32), top_k, where
        )
        hits = [
            hit.passage.model_dump() | {"score": hit.score, "cosine": hit.cosine, "bm25": hit.bm25}
            for hit in found
        ]
        return Found(hits, self._searcher.min_cosine, "i1")

    async def take(self, caller: Any) -> float:
        limits = caller.limits
        return self._budget.take(caller.id, limits.requests_per_minute, limits.tokens_per_day)

    def spend(self, caller: Any, num_tokens: int) -> None:
        self._budget.spend(caller.id, num_tokens)

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
    from medray.serving.keys import KeyFile

    file = KeyFile(place / "keys.json")
    made = {role: file.add(role, role).secret for role in ("patient", "clinician", "admin")}
    made |= {
        name: file.add(name, role).secret
        for name, role in (("neighbour", "patient"), ("colleague", "clinician"))
    }
    made["hurried"] = file.add("hurried", "clinician", requests_per_minute=2).secret
    made["thrifty"] = file.add("thrifty", "clinician", tokens_per_day=3).secret
    gone = file.add("gone", "clinician")
    file.revoke(gone.key.id)
    return made | {"gone": gone.secret}


@pytest.fixture(scope="module")
def provider(providing) -> Iterator["Provider"]:
    with providing() as provider:
        yield provider


@pytest.fixture(scope="module")
def client(deployed: Any, place: Path, secrets, provider, listening) -> Iterator["Client"]:
    from medray.serving.metrics import Metrics
    from medray.serving.service import GatewayConfig, Service

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


class Provider:
    """An identity provider of this machine: what it publishes, and the tokens that it signs."""

    def __init__(self) -> None:
        self.signers: dict[str, tuple[Any, str]] = {}
        """Key id → private key and algorithm."""
        self.asked: list[str] = []
        self.published: dict[str, Any] = {}
        """What takes the place of a document, by its path: an int is a status."""
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.issuer = ""

    def rotate(self, kid: str, algorithm: str = "RS256") -> None:
        """Another key."""
        from cryptography.hazmat.primitives.asymmetric import ec, rsa

        fresh = (
            ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256"
            else rsa.generate_private_key(65537, 2048)
        )  # fmt: skip
        self.signers[kid] = (fresh, algorithm)

    def key_set(self) -> dict[str, Any]:
        """The public keys."""
        from jwt.algorithms import ECAlgorithm, RSAAlgorithm

        entries = []
        for kid, (private, algorithm) in self.signers.items():
            kind = ECAlgorithm if algorithm == "ES256" else RSAAlgorithm
            public = kind.to_jwk(private.public_key(), as_dict=True)
            entries.append({**public, "kid": kid, "alg": algorithm, "use": "sig"})
        return {"keys": entries}

    def documents(self) -> dict[str, Any]:
        """Path → what stands there."""
        found = {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys"}
        standard = {"/.well-known/openid-configuration": found, "/keys": self.key_set()}
        return {**standard, **self.published}

    def token(self, kid: str = "k1", **claims: Any) -> str:
        """A token that holds, but for `claims`; None leaves one out."""
        import jwt

        now = int(time.time())
        whole = {
            "iss": self.issuer, "aud": "medray", "sub": "staff-4711", "iat": now, "exp": now + 600,
            "realm_access": {"roles": ["offline_access", "physicians"]},
            "email": "zhang.wei@hospital.example", "name": "张伟", **claims,
        }  # fmt: skip
        private, algorithm = self.signers[kid]
        told = {name: value for name, value in whole.items() if value is not None}
        return jwt.encode(told, private, algorithm=algorithm, headers={"kid": kid})

    def settings(self, **changes: Any) -> dict[str, Any]:
        """`gateway.oidc` for it."""
        roles = [
            {"value": "it-admins", "role": "admin"}, {"value": "physicians", "role": "clinician"},
            {"value": "portal", "role": "patient"},
        ]  # fmt: skip
        return {
            "issuer": self.issuer, "audience": "medray", "roles_claim": "realm_access.roles",
            "roles": roles, "limits": {"patient": {"requests_per_minute": 2}}, **changes,
        }  # fmt: skip


@pytest.fixture(scope="session")
def providing() -> Callable[[], AbstractContextManager[Provider]]:
    """→ an identity provider, over real HTTP."""
    return _providing


@contextmanager
def _providing() -> Iterator[Provider]:
    provider = Provider()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            provider.asked.append(self.path)
            provider.may_answer.wait(20)
            document = provider.documents().get(self.path, 404)
            body = b"" if isinstance(document, int) else json.dumps(document).encode()
            self.send_response(document if isinstance(document, int) else 200)
            self.send_header("Location", "/keys")  # heeded where the status is 302
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        provider.issuer = f"http://127.0.0.1:{server.server_port}"
        provider.rotate("k1")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield provider
        provider.may_answer.set()
        server.shutdown()


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
    return _certify


def _certify(directory: Path, first_day: int = -1, last_day: int = 30) -> tuple[Path, Path]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now + timedelta(days=first_day))
        .not_valid_after(now + timedelta(days=last_day))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    directory.mkdir(exist_ok=True)
    files = directory / "certificate.pem", directory / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


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


def build_encoder(target: Path) -> Path:
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    characters = sorted({c for p in PASSAGES for c in p.title + p.text} | set("如何治疗？"))
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters]
    target.mkdir(parents=True)
    tokenizer = BertTokenizerFast(vocab={token: k for k, token in enumerate(vocabulary)})
    tokenizer.save_pretrained(target)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=130,
        # At the usual 0.02 all texts have one vector up to rounding, and which passages are found
        # depends on the processor.
        initializer_range=0.3,
    )  # fmt: skip
    BertModel(config).save_pretrained(target)
    return target


def build_index(target: Path, encoder: Path) -> dict[str, tuple[str, list[Numbered]]]:
    """Writes the index; returns the grounded prompt and its passages for each question."""
    from medray.retrieval.embed import Embedder
    from medray.retrieval.passage_vectors import EmbedPassages
    from medray.retrieval.search import open_index

    (target / "passages").mkdir(parents=True)
    rows = pa.Table.from_pylist([p.model_dump() for p in PASSAGES])
    table = EmbedPassages(str(encoder), 8, 64, "cpu")(rows)
    pq.write_table(table, target / "passages" / "part-00000.parquet")
    info = {"uri": "", "collection": "docs_v1", "alias": "docs", "config": {}}
    (target / "collection.json").write_text(json.dumps(info))
    vectors = Embedder(encoder).embed_queries(list(QUESTIONS.values()))
    with open_index(target) as searcher:
        found = [
            [hit.passage for hit in searcher.search(question, vector, TOP_K)]
            for question, vector in zip(QUESTIONS.values(), vectors, strict=True)
        ]
    prompts = {}
    for (name, question), passages in zip(QUESTIONS.items(), found, strict=True):
        numbered = [Numbered(p.title, p.text) for p in passages]
        prompts[name] = (grounded_prompt(question, numbered), numbered)
    return prompts


def consultation() -> Iterator[tuple[Chat, str]]:
    """The lessons of a consultation: its questions, that it knows enough, its finding."""
    order = {"role": "system", "content": words.QUESTION_PROMPT["zh"]}
    chat: Chat = [{"role": "user", "content": COMPLAINT}]
    for question, answer in EXCHANGES:
        yield [order, *chat], question
        turn = ({"role": "assistant", "content": question}, {"role": "user", "content": answer})
        chat = [*chat, *turn]
    yield [order, *chat], "信息足够。"
    wish = f"{chat[-1]['content']}\n{words.JUDGE_NOW['zh']}"
    order = {"role": "system", "content": words.JUDGEMENT_PROMPT["zh"]}
    yield [order, *chat[:-1], {"role": "user", "content": wish}], FINDING


def build_policy(target: Path, lessons: list[tuple[str | Chat, str]]) -> None:
    """A Qwen3 of two layers, trained until it says each lesson's answer by itself. It also learns
    one answer that has no end."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=SPECIAL_TOKENS, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    endless = (LONG_QUESTION, "一二三四五六七八九十" * 20)
    chats = [
        ([{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt, answer)
        for prompt, answer in [*((p, f"{a}<|im_end|>") for p, a in lessons), endless]
    ]
    read = [[*(message["content"] for message in chat), answer] for chat, answer in chats]
    raw.train_from_iterator([text for texts in read for text in texts], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=96, intermediate_size=192, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=24, max_position_embeddings=4096,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None, tie_word_embeddings=True,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    examples = []
    for chat, answer in chats:
        prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        head = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        # The same tokens as at inference: the prompt is encoded by itself.
        tail = tokenizer(answer, add_special_tokens=False)["input_ids"]
        examples.append((head, tail))
    width = max(len(head) + len(tail) for head, tail in examples)
    ids = torch.full((len(examples), width), tokenizer.pad_token_id)
    labels = torch.full((len(examples), width), -100)
    for row, (head, tail) in enumerate(examples):
        ids[row, : len(head) + len(tail)] = torch.tensor(head + tail)
        labels[row, len(head) : len(head) + len(tail)] = torch.tensor(tail)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    learned = False
    for _ in range(800):
        output = model(input_ids=ids, labels=labels)
        loss = output.loss
        # Every token of every answer is the likeliest one: then greedy decoding says it by itself.
        told = output.logits[:, :-1].argmax(-1)
        wanted = labels[:, 1:]
        learned = bool((told == wanted)[wanted != -100].all()) and loss.item() < 0.02
        if learned:
            break
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert learned, f"the fixture's policy did not learn its lessons: {loss.item():.3f}"
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
