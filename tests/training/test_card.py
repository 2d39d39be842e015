"""A model card names the parents by content and holds what was measured, but no time."""

from pathlib import Path

from medray.common.config import Config
from medray.common.manifest import Artefact, read_manifest
from medray.common.storage import Storage, StorageConfig
from medray.training.card import complete_card
from medray.training.export import model_card


def test_the_card_has_lineage_and_figures_once(tmp_path: Path) -> None:
    storage = Storage(StorageConfig(root=str(tmp_path / "root")))
    corpus = Artefact(storage, "corpus", Config(), key="c1")
    (corpus.dir / "blocks").write_text("tokens", encoding="utf-8")
    corpus_dir = corpus.publish()
    parent = Artefact(storage, "pretrain", Config(), parents={"corpus": corpus_dir}, key="p1")
    (parent.dir / "weights").write_text("w", encoding="utf-8")
    parent_dir = parent.publish()
    made = Artefact(storage, "sft", Config(), parents={"pretrain": parent_dir}, key="s1")
    model = made.dir / "model"
    model.mkdir()
    (model / "README.md").write_text(model_card({"title": "T", "base": "pretrain/p1"}), "utf-8")
    made.metrics = {"loss_before": 0.5, "loss_after": 0.25, "seconds": 12.3}
    complete_card(made)
    text = (model / "README.md").read_text(encoding="utf-8")
    complete_card(made)
    assert (model / "README.md").read_text(encoding="utf-8") == text
    assert text.startswith("# T\n\n- base: pretrain/p1\n")
    assert "Not for clinical use without validation." in text
    assert f"- pretrain/p1, sha256 of its files {read_manifest(parent_dir).content}" in text
    assert f"  - from corpus, {read_manifest(corpus_dir).content}" in text
    assert "- loss_after: 0.25" in text and "12.3" not in text


def test_an_artefact_without_a_model_is_left_as_it_is(tmp_path: Path) -> None:
    storage = Storage(StorageConfig(root=str(tmp_path / "root")))
    made = Artefact(storage, "corpus", Config(), key="c1")
    complete_card(made)
    assert not (made.dir / "model").exists()
