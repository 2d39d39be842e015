"""The index moves while questions come in: no answer is lost, and each is of one version."""

import json
import queue
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
import requests

from medray.cli import main
from medray.common.errors import ConfigError
from medray.common.manifest import read_manifest, write_manifest
from medray.serving import up
from medray.serving.alias import IndexAlias, find_index
from medray.serving.artefacts import newest

LAPTOP = Path(__file__).parents[2] / "serve_configs" / "laptop.yaml"
NUM_CLIENTS = 8
MARK = {"i1": "doc", "i2": "second-", "i3": "third-"}
"""Version → how its passages' ids begin."""


class Storage(NamedTuple):
    root: Path
    alias: Path

    def command(self, *words: str) -> int:
        """`medray serve …` of this storage root."""
        return main(["serve", *words, f"storage_root={self.root}", f"index_file={self.alias}"])


@pytest.fixture(scope="module")
def storage(hospital, tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """The fixture's models, its index i1, and two more whose passages are told apart by id."""
    root = tmp_path_factory.mktemp("versions")
    for step in ("encoder", "sft"):
        (root / step).symlink_to(hospital.root / step)
    (root / "pipeline.json").write_text((hospital.root / "pipeline.json").read_text())
    built = hospital.root / "index" / "i1"
    for key, mark in MARK.items():
        (root / "index" / key / "passages").mkdir(parents=True)
        (shard,) = (built / "passages").glob("*.parquet")
        table = pq.read_table(shard)
        ids = [name.replace("doc", mark) for name in table["passage_id"].to_pylist()]
        table = table.set_column(0, table.schema.field("passage_id"), [ids])
        pq.write_table(table, root / "index" / key / "passages" / shard.name)
        (root / "index" / key / "collection.json").write_text(
            (built / "collection.json").read_text()
        )
        encoder = read_manifest(hospital.root / "encoder" / "e1").content
        parents = {"encoder": "another" if key == "i3" else encoder}
        manifest = read_manifest(built).model_copy(update={"key": key, "parents": parents})
        write_manifest(root / "index" / key, manifest)
    return Storage(root, root / "alias.json")


def test_the_alias_moves_and_comes_back(storage, tmp_path) -> None:
    first = newest(str(storage.root), ("index",))
    alias, reader = (IndexAlias(str(tmp_path / "alias.json"), first) for _ in range(2))
    with pytest.raises(ConfigError, match="no version to go back to"):
        alias.roll_back()
    second = find_index(first, "i2")
    assert reader.named().index == find_index(first) == first
    assert (alias.move(first), alias.move(second), alias.move(second)) == (False, True, False)
    assert reader.named().index == second
    assert alias.roll_back() == reader.named().index == first
    assert alias.roll_back() == reader.named().index == second
    with pytest.raises(ConfigError, match="i3 was made by another encoder than i2"):
        alias.move(find_index(first, "i3"))
    with pytest.raises(ConfigError, match=r"3 indexes .* begin with 'i'; there are: i1, i2, i3"):
        find_index(first, "i")
    (tmp_path / "alias.json").write_text("{}")
    with pytest.raises(ConfigError, match="names no index; write it with"):
        reader.named()


def test_the_command_says_what_is_wrong(storage, tmp_path, capsys) -> None:
    assert main(["serve", "use-index", "i2", f"storage_root={storage.root}"]) == 2
    assert "set index_file" in capsys.readouterr().err
    other = Storage(storage.root, tmp_path / "alias.json")
    assert other.command("move-index") == 2
    assert other.command("use-index", "i2", "i3") == 2
    assert other.command("roll-back-index") == 2
    assert not other.alias.exists()


class Answer(NamedTuple):
    began: float
    ended: float
    status: int
    version: str
    ids: list[str]


class Load:
    """Clients that search and chat without pause until the end."""

    def __init__(self, url: str, question: str) -> None:
        self._url, self._question = url, question
        self._over, self._answers = threading.Event(), queue.Queue[Answer]()
        self.answers: list[Answer] = []
        self._pool = ThreadPoolExecutor(NUM_CLIENTS)
        self._clients = [self._pool.submit(self._ask, k % 2 == 0) for k in range(NUM_CLIENTS)]

    def __enter__(self) -> "Load":
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._pool.shutdown()
        for client in self._clients:
            client.result()
        while not self._answers.empty():
            self.answers.append(self._answers.get())

    def wait_for(self, count: int, since: float) -> None:
        """Returns when so many questions that were asked after a time have been answered."""
        while sum(answer.began > since for answer in self.answers) < count:
            self.answers.append(self._answers.get(timeout=300))

    def _ask(self, chats: bool) -> None:
        message = [{"role": "user", "content": self._question}]
        path, body = "retrieve", {"query": self._question, "top_k": 5}
        if chats:
            path, body = "chat/completions", {
                "model": "medray", "messages": message, "max_tokens": 4,
            }  # fmt: skip
        while not self._over.is_set():
            began = time.monotonic()
            response = requests.post(f"{self._url}/v1/{path}", json=body, timeout=300)
            told = response.json()
            found = told["medray"]["passages"] if chats else told["data"]
            version = (told["medray"] if chats else told)["index_version"]
            ids = [passage["passage_id"] for passage in found]
            self._answers.put(Answer(began, time.monotonic(), response.status_code, version, ids))


def searched(url: str, version: str, timeout_s: float = 120) -> dict[str, Any]:
    """What retrieval says of itself once it searches a version."""
    deadline = time.monotonic() + timeout_s
    while True:
        state = requests.get(f"{url}/healthz", timeout=60).json()
        if state["index_version"] == version:
            return state["deployments"]["retrieval"]
        assert time.monotonic() < deadline, state
        time.sleep(0.1)  # the server offers no event


@pytest.fixture(scope="module")
def url(ray_cluster, storage) -> Iterator[str]:
    from ray import serve

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    overrides = [
        f"storage_root={storage.root}", f"index_file={storage.alias}",
        "gateway.answer.top_k=3", "gateway.answer.min_cosine=-1",
    ]  # fmt: skip
    with up.start(LAPTOP, overrides, port=port, timeout_s=400) as running:
        yield running.url
    serve.shutdown()


@pytest.mark.cluster
def test_each_answer_is_whole_and_of_one_version_while_the_index_moves(
    url, storage, hospital
) -> None:
    with Load(url, hospital.questions["true"]) as load:
        load.wait_for(2 * NUM_CLIENTS, 0)
        assert storage.command("use-index", "i2") == 0
        assert searched(url, "i2")["open"] == ["i2", "i1"]
        moved = time.monotonic()
        load.wait_for(2 * NUM_CLIENTS, moved)
        back = time.monotonic()
        assert storage.command("roll-back-index") == 0
        rolled_back = time.monotonic()
        load.wait_for(2 * NUM_CLIENTS, rolled_back)
    assert {answer.status for answer in load.answers} == {200}
    for answer in load.answers:
        assert len(answer.ids) in (3, 5)
        assert all(name.startswith(MARK[answer.version]) for name in answer.ids)
    assert {answer.version for answer in load.answers} == {"i1", "i2"}
    assert {a.version for a in load.answers if moved < a.began < a.ended < back} == {"i2"}
    # The version before had stayed open: from the first question on that came after.
    assert {a.version for a in load.answers if a.began > rolled_back} == {"i1"}


@pytest.mark.cluster
def test_a_version_that_cannot_be_opened_leaves_the_one_before(url, storage) -> None:
    searched(url, "i1")
    broken = storage.root / "index" / "i4"
    broken.mkdir()
    write_manifest(broken, read_manifest(storage.root / "index" / "i2"))
    assert storage.command("use-index", "i4") == 0
    for _ in range(3):
        found = requests.post(f"{url}/v1/retrieve", json={"query": "肺炎"}, timeout=60).json()
        assert (found["index_version"], len(found["data"])) == ("i1", 10)
    assert json.loads(storage.alias.read_text())["index"]["key"] == "i4"
    assert storage.command("roll-back-index") == 0
    assert searched(url, "i1")["version"] == "i1"
