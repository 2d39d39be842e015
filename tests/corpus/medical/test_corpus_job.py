"""The corpus job with the filter on and general text to replay; the texts are invented."""

import json
import random
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from medray.common.errors import ConfigError
from medray.common.manifest import Artefact
from medray.common.packing import read_segments
from medray.common.records import Document
from medray.common.rows import read_rows
from medray.common.storage import Storage, StorageConfig
from medray.corpus.clean import render
from medray.corpus.medical import filter as medical_filter
from medray.corpus.medical.classifier import MedicalClassifier
from medray.corpus.prepare import CorpusConfig, prepare_corpus
from medray.corpus.tokenizer import load_tokenizer

SETTINGS = {
    "sources": [
        {"name": "books", "kind": "document", "path": "books.jsonl"},
        {"name": "news", "kind": "document", "path": "news.jsonl", "general": True},
        {"name": "web", "kind": "document", "path": "web.jsonl", "medical": "filter"},
    ],
    "medical_filter": {"train": {"medical": ["books"], "general": ["news"]}},
    "replay_fraction": 0.25,
    "dev_fraction": 0.2,
    "block_tokens": 64,
    "tokenizer": {"vocab_size": 700},
}
BLOCKS = ("train", "heldout", "general", "heldout_general")


@pytest.fixture(scope="module")
def texts(medical_text, general_text) -> dict[str, list[str]]:
    """90 books, 120 news and a crawl of 30 medical and 20 general pages, one of them in English."""
    rng = random.Random(0)
    return {
        "books": [medical_text(rng) for _ in range(90)],
        "news": [general_text(rng) for _ in range(120)],
        "web": [medical_text(rng) for _ in range(30)]
        + [general_text(rng) for _ in range(19)]
        + ["An English page, of which the filter knows nothing."],
    }


def write_texts(data: Path, texts: dict[str, list[str]], seed: int | None = None) -> None:
    """One file a source, its rows in the order of `seed`."""
    data.mkdir()
    for name, lines in texts.items():
        rows = [{"doc_id": f"{name}{k}", "text": text} for k, text in enumerate(lines)]
        if seed is not None:
            random.Random(seed).shuffle(rows)
        path = data / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run(settings: dict, data: Path, root: Path) -> Artefact:
    config = CorpusConfig.model_validate(settings)
    artefact = Artefact(Storage(StorageConfig(root=str(root))), "corpus", config, key="test")
    prepare_corpus(config, data, artefact, None)
    return artefact


@pytest.fixture(scope="module")
def made(ray_cluster, texts, tmp_path_factory) -> Artefact:
    directory = tmp_path_factory.mktemp("medical")
    write_texts(directory / "data", texts)
    return run(SETTINGS, directory / "data", directory / "root")


@pytest.mark.cluster
def test_what_is_not_medical_is_left_out_and_counted(made):
    assert made.counts["medical_filter"].model_dump() == {
        "rows_in": 260, "rows_out": 241, "rejected": {"not_medical": 19}}  # fmt: skip
    quarantine = (made.dir / "quarantine" / "web.jsonl").read_text(encoding="utf-8")
    places = [json.loads(line) for line in quarantine.splitlines()]
    assert [(p["line"], p["reason"]) for p in places] == [
        (line, "not_medical") for line in range(31, 50)]  # fmt: skip
    kept = {d.doc_id for d in read_rows(made.dir / "documents", Document) if d.source == "web"}
    assert kept == {f"web{k}" for k in (*range(30), 49)}
    scored = made.metrics["medical_filter"]["probabilities"]["web"]
    assert scored["not_judged"] == 1 and sum(scored["tenths"]) == 49
    assert sum(scored["tenths"][:5]) == 19
    assert not list(made.dir.rglob(".*"))


@pytest.mark.cluster
def test_the_filter_and_its_figures_are_kept(made, medical_text, general_text):
    directory = made.dir / "medical"
    figures = json.loads((directory / "metrics.json").read_text(encoding="utf-8"))
    assert (
        figures["held_out"]["auc"]["value"] == made.metrics["medical_filter"]["auc"]["value"] == 1
    )
    held_out = sum(figures["held_out"]["documents"].values())
    assert held_out + sum(figures["trained_on"].values()) == 210
    texts = [medical_text(random.Random(9)), general_text(random.Random(9))]
    assert (MedicalClassifier.load(directory).probabilities(texts) > 0.5).tolist() == [True, False]


@pytest.mark.cluster
def test_general_text_is_marked_and_replayed_by_its_share(made):
    """Training blocks hold every medical token once, and general ones to 0.25 of all."""
    tokenizer = load_tokenizer(made.dir / "tokenizer")
    tokens: dict[tuple[str, bool], list[list[int]]] = {}
    for document in read_rows(made.dir / "documents", Document):
        assert document.general == (document.source == "news")
        ids = tokenizer.encode(render(document), add_special_tokens=False)
        name = "train" if document.split == "train" else "heldout"
        tokens.setdefault((name, document.general), []).append([*ids, tokenizer.eos_token_id])
    blocks = made.dir / "blocks"
    pieces = {
        name: [
            list(map(int, piece))
            for piece in read_segments(
                np.load(blocks / f"{name}.npy"), np.load(blocks / f"{name}_segments.npy")
            )
        ]
        for name in BLOCKS
    }

    def cut(documents: list[list[int]]) -> list[list[int]]:
        return sorted(d[at : at + 64] for d in documents for at in range(0, len(d), 64))

    assert sorted(pieces["heldout"]) == cut(tokens["heldout", False])
    assert sorted(pieces["heldout_general"]) == cut(tokens["heldout", True])
    assert sorted(pieces["general"]) == cut(tokens["train", True])
    medical = sum(map(len, tokens["train", False]))
    total = sum(map(len, pieces["train"]))
    assert medical == made.metrics["train_tokens"]
    assert total - medical == made.metrics["replayed_tokens"] == round(medical / 3)
    rest = sorted(pieces["train"])
    for piece in cut(tokens["train", False]):
        rest.remove(piece)
    general = cut(tokens["train", True])
    assert sum(piece not in general for piece in rest) <= 1  # the last one is cut short
    replay = made.counts["replay"]
    assert replay.rows_in == len(tokens["train", True])
    assert 0 < replay.rejected["not_replayed"] < replay.rows_in
    heldout = pq.read_table(blocks / "heldout_docs.parquet").to_pylist()
    assert {row["general"]: row["source"] == "news" for row in heldout} == {
        True: True,
        False: False,
    }
    assert made.counts["train_tokenizer"].rejected["general"] == replay.rows_in


@pytest.mark.cluster
def test_neither_order_nor_workers_change_the_filter(made, texts, tmp_path, monkeypatch):
    monkeypatch.setattr(medical_filter, "TASK_ROWS", 7)
    monkeypatch.setattr(medical_filter, "max_tasks_of_cluster", lambda: 1)
    write_texts(tmp_path / "data", texts, seed=5)
    other = run(SETTINGS, tmp_path / "data", tmp_path / "root")
    for name in ("weights.npz", "config.json", "metrics.json"):
        ours, theirs = (a.dir / "medical" / name for a in (made, other))
        assert ours.read_bytes() == theirs.read_bytes()
    assert other.metrics["medical_filter"] == made.metrics["medical_filter"]
    ids = [{d.doc_id for d in read_rows(a.dir / "documents", Document)} for a in (made, other)]
    assert ids[0] == ids[1]


@pytest.mark.cluster
def test_a_trained_filter_is_used_again(made, texts, tmp_path):
    """By a corpus without general text, which packs as it would without these settings."""
    write_texts(tmp_path / "data", texts)
    settings = {
        **SETTINGS,
        "sources": [SETTINGS["sources"][0], SETTINGS["sources"][2]],
        "medical_filter": {"model": str(made.dir / "medical"), "threshold": 0.4},
    }
    other = run(settings, tmp_path / "data", tmp_path / "root")
    assert other.counts["medical_filter"].rejected == {"not_medical": 19}
    assert (other.dir / "medical" / "weights.npz").read_bytes() == (
        made.dir / "medical" / "weights.npz"
    ).read_bytes()
    assert "replay" not in other.counts and "replayed_tokens" not in other.metrics
    assert not list((other.dir / "blocks").glob("*general*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"medical_filter": None}, "web: medical: filter needs medical_filter"),
        ({"medical_filter": {}}, "needs either model, a trained filter, or train"),
        ({"medical_filter": {"train": {"medical": ["web"], "general": ["news"]}}},
         "train.medical may name books; not web"),
        ({"medical_filter": {"train": {"medical": ["books"], "general": ["books"]}}},
         "train.general may name news; not books"),
        ({"sources": [SETTINGS["sources"][1]], "medical_filter": None}, "nothing to train on"),
        ({"sources": [{**SETTINGS["sources"][1], "kind": "record"}]}, "general text is of kind"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        CorpusConfig.parse({**SETTINGS, **change}, "profile")
