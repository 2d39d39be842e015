"""The cross-encoder: scores of the bare model, the blend and the loss by hand, its training."""

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from medray.common.errors import CheckpointError, DataError
from medray.common.manifest import Artefact
from medray.common.records import RetrievalQuestion
from medray.common.rows import write_rows
from medray.common.storage import Storage, StorageConfig
from medray.retrieval.directory import INFO
from medray.retrieval.embed import Embedder, passage_text
from medray.retrieval.questions import load_passages
from medray.retrieval.rerank import SETTINGS, Reranker, RerankSettings, blended
from medray.retrieval.training.listwise import GroupBatches, GroupsConfig, ListwiseLoss
from medray.retrieval.training.reranker import MINED, RerankerConfig, train_reranker

PAIRS = [
    ("肺炎怎么治疗？", "肺炎首先应当给予抗生素。"),
    ("肺炎怎么治疗？", "哮喘"),
    ("哮喘如何处理？" * 20, "哮喘首先应当给予激素。" * 20),
]


def classifier(encoder_dir: Path, target: Path, num_labels: int = 1) -> Path:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(encoder_dir, num_labels=num_labels)
    torch.nn.init.normal_(model.classifier.weight, std=2)  # else all scores are alike
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(encoder_dir).save_pretrained(target)
    return target


def test_scores_are_those_of_the_bare_model(encoder_dir: Path, tmp_path: Path) -> None:
    directory = classifier(encoder_dir, tmp_path / "model")
    scores = Reranker(directory, batch_size=2).scores(PAIRS)
    model = AutoModelForSequenceClassification.from_pretrained(directory).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    for pair, score in zip(PAIRS, scores, strict=True):
        encoded = tokenizer(*pair, truncation=True, max_length=62, return_tensors="pt")
        with torch.no_grad():
            logit = model(**encoded).logits.item()
        assert score == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-5)
    assert np.ptp(scores) > 0.01


def test_what_is_no_reranker_is_refused(encoder_dir: Path, tmp_path: Path) -> None:
    directory = classifier(encoder_dir, tmp_path / "model", num_labels=3)
    with pytest.raises(CheckpointError, match="3 labels; a reranker has one output"):
        Reranker(directory)
    with pytest.raises(CheckpointError, match="no model directory"):
        Reranker(tmp_path / "none")


def test_blended_by_hand() -> None:
    fused, relevance = np.array([0.8, 0.4, 0.0]), np.array([0.1, 0.9, 0.5])
    assert blended(fused, relevance, 0.25) == pytest.approx([0.75 + 0.025, 0.375 + 0.225, 0.125])
    assert blended(fused, relevance, 1.0) == pytest.approx(relevance)


def test_listwise_loss_by_hand() -> None:
    class Given(torch.nn.Module):
        def forward(self, logits: torch.Tensor) -> object:
            return type("Output", (), {"logits": logits})

    logits = torch.tensor([[2.0], [0.0], [1.0], [0.0], [0.0], [0.0]])
    loss = ListwiseLoss(Given(), 3)({"logits": logits})
    first = -2 + math.log(math.exp(2) + 1 + math.exp(1))
    assert loss.item() == pytest.approx((first + math.log(3)) / 2, abs=1e-6)


def test_workers_share_a_batch(encoder_dir: Path, corpus: Path) -> None:
    passages = load_passages(corpus / "passages")
    mined = [
        {"question": f"q{i}", "gold": ["肺炎-治疗"], "negatives": ["哮喘-治疗", "胃炎-症状"]}
        for i in range(6)
    ]
    config = GroupsConfig(batch_size=4, negatives=2, depth=3, max_tokens=48)
    tokenizer = AutoTokenizer.from_pretrained(encoder_dir)
    batches = GroupBatches(config, mined, passages, tokenizer, seed=1)
    groups = batches.groups(5)
    assert len(groups) == 4
    for group in groups:
        assert len({question for question, _ in group}) == 1
        assert group[0][1] == batches.text("肺炎-治疗")
        assert {text for _, text in group[1:]} == {
            batches.text("哮喘-治疗"), batches.text("胃炎-症状")
        }  # fmt: skip
    shares = [batches.batch(5, rank, 2)["pairs"]["input_ids"] for rank in (0, 1)]
    whole = batches.batch(5, 0, 1)["pairs"]["input_ids"].view(4, 3, -1)
    for rank, share in enumerate(shares):
        torch.testing.assert_close(share.view(2, 3, -1), whole[rank::2])


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of num_workers 3"):
        RerankerConfig(num_workers=3)
    with pytest.raises(ValueError, match="depth must be more than negatives 9"):
        GroupsConfig(negatives=9, depth=9)


def written_index(corpus: Path, encoder_dir: Path, root: Path) -> Path:
    """What the index job writes, without Ray."""
    directory = root / "index"
    (directory / "passages").mkdir(parents=True)
    paths = sorted((corpus / "passages").glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(path) for path in paths])
    texts = zip(table["title"].to_pylist(), table["text"].to_pylist(), strict=True)
    vectors_ND = Embedder(encoder_dir).embed([passage_text(*pair) for pair in texts])
    column = pa.FixedSizeListArray.from_arrays(vectors_ND.ravel(), vectors_ND.shape[1])
    pq.write_table(
        table.append_column("vector", column), directory / "passages" / "part-00000.parquet"
    )
    (directory / INFO).write_text(json.dumps({"uri": "", "config": {}}))
    return directory


@pytest.mark.cluster
def test_it_mines_learns_and_measures(
    ray_cluster, encoder_dir: Path, corpus: Path, instructions: Path, tmp_path: Path
) -> None:
    questions, index = instructions / "questions", written_index(corpus, encoder_dir, tmp_path)
    config = RerankerConfig(
        base=str(encoder_dir), steps=6, warmup_steps=1, learning_rate=5e-3, checkpoint_every=2,
        log_every=1, candidates=10,
        groups=GroupsConfig(batch_size=4, negatives=3, depth=8, max_tokens=60),
    )  # fmt: skip
    storage = Storage(StorageConfig(root=str(tmp_path)))
    artefact = Artefact(storage, "reranker", config, key="k")
    train_reranker(config, encoder_dir.parent, index, questions, artefact)

    rows = pq.read_table(artefact.dir / MINED / "mined.parquet").to_pylist()
    assert len(rows) == 5
    for row in rows:
        assert len(row["negatives"]) == 7 and not set(row["gold"]) & set(row["negatives"])
    assert artefact.metrics["loss_after"] < artefact.metrics["loss_before"]
    # five questions choose no weight; all ten passages are candidates, so that all are found
    assert artefact.metrics["weight"] == 1.0 and artefact.metrics["recall@10"] == 1.0
    settings = RerankSettings.model_validate_json((artefact.dir / "model" / SETTINGS).read_text())
    assert settings == RerankSettings(weight=1.0, max_tokens=60)
    begun = AutoModelForSequenceClassification.from_pretrained(encoder_dir, num_labels=1)
    learned = load_file(artefact.dir / "model" / "model.safetensors")
    name = "bert.embeddings.word_embeddings.weight"
    assert not torch.equal(learned[name], begun.state_dict()[name])

    held_out = RetrievalQuestion(id="q", question="哮喘", passage_ids=["哮喘-治疗"], split="dev")
    write_rows(tmp_path / "none", RetrievalQuestion, [held_out])
    (artefact.dir / MINED / "mined.parquet").unlink()
    with pytest.raises(DataError, match="no training question"):
        train_reranker(config, encoder_dir.parent, index, tmp_path / "none", artefact)
