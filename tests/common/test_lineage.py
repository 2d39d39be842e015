"""What is outdated after a file of an ancestor was changed."""

from pathlib import Path

from medray.common.config import Config
from medray.common.lineage import find_outdated
from medray.common.manifest import Artefact, list_files, read_manifest, write_manifest
from medray.common.storage import Storage, StorageConfig


class StepConfig(Config):
    """Of no step."""


def test_what_descends_from_a_changed_artefact_is_outdated(tmp_path: Path) -> None:
    storage = Storage(StorageConfig(root=str(tmp_path)))

    def make(step: str, text: str, **parents: Path) -> Path:
        artefact = Artefact(storage, step, StepConfig(), key="k", parents=parents)
        (artefact.dir / "file").write_text(text)
        return artefact.publish()

    corpus, other = make("corpus", "1"), make("encoder", "2")
    sft = make("sft", "4", pretrain=make("pretrain", "3", corpus=corpus))
    make("index", "5", encoder=other)
    make("ppo", "6", sft=sft)
    assert find_outdated(storage) == []

    (corpus / "file").write_text("changed")
    changed = read_manifest(corpus).model_copy(update={"files": list_files(corpus)})
    write_manifest(corpus, changed)
    assert find_outdated(storage) == [("ppo", "k"), ("pretrain", "k"), ("sft", "k")]
    (corpus / "file").write_text("1")
    write_manifest(corpus, changed.model_copy(update={"files": list_files(corpus)}))
    assert find_outdated(storage) == []  # the same files again

    storage.remove("corpus", "k")
    assert find_outdated(storage) == []  # nothing to compare with
    assert storage.list() == [(s, "k") for s in ("encoder", "index", "ppo", "pretrain", "sft")]
