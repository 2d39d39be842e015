"""Storage: nobody sees half an artefact, on a local root or behind a URI."""

from pathlib import Path

import pyarrow.fs as pafs
import pytest

from medray.common.errors import ConfigError, StorageError
from medray.common.storage import MANIFEST, Storage, StorageConfig


@pytest.fixture(params=["local", "remote"])
def storage(request, tmp_path: Path) -> Storage:
    if request.param == "local":
        return Storage(StorageConfig(root=str(tmp_path / "root")))
    return Storage(StorageConfig(root=f"file://{tmp_path}/root", cache=str(tmp_path / "cache")))


def fill(storage: Storage, text: str = "weights", manifest: bool = True) -> Path:
    partial = storage.partial("sft", "k1")
    (partial / "model").mkdir(parents=True, exist_ok=True)
    (partial / "model" / "file").write_text(text, encoding="utf-8")
    if manifest:
        (partial / MANIFEST).write_text("{}", encoding="utf-8")
    return partial


def on_two_machines(tmp_path: Path) -> tuple[Storage, Storage, Path]:
    """One root from two machines, with an artefact that the first has published, and its place."""
    root = f"file://{tmp_path}/root"
    fill(one := Storage(StorageConfig(root=root, cache=str(tmp_path / "one"))))
    path = one.publish("sft", "k1")
    return one, Storage(StorageConfig(root=root, cache=str(tmp_path / "other"))), path


def test_publish_then_fetch(storage: Storage) -> None:
    storage.check_writable()
    partial = fill(storage)
    assert not storage.exists("sft", "k1")
    published = storage.publish("sft", "k1")
    assert not partial.exists()
    assert storage.exists("sft", "k1")
    assert storage.fetch("sft", "k1") == published == storage.path("sft", "k1")
    assert (published / "model" / "file").read_text(encoding="utf-8") == "weights"
    assert (published / MANIFEST).read_text(encoding="utf-8") == "{}"
    # No scratch is left beside it.
    assert [path.name for path in published.parent.iterdir() if path.name != "k1"] in (
        [],
        [".k1.partial"],
    )


def test_without_manifest_nothing_is_published(storage: Storage) -> None:
    fill(storage, manifest=False)
    with pytest.raises(StorageError, match=r"has no manifest\.json"):
        storage.publish("sft", "k1")
    assert not storage.exists("sft", "k1")
    with pytest.raises(StorageError, match="run the sft job first"):
        storage.fetch("sft", "k1")


def test_publishing_again_replaces(storage: Storage) -> None:
    fill(storage)
    storage.publish("sft", "k1")
    fill(storage, "newer")
    path = storage.publish("sft", "k1")
    assert (path / "model" / "file").read_text(encoding="utf-8") == "newer"


def test_another_machine_downloads(tmp_path: Path) -> None:
    root = f"file://{tmp_path}/root"
    fill(one := Storage(StorageConfig(root=root, cache=str(tmp_path / "one"))))
    one.publish("sft", "k1")
    other = Storage(StorageConfig(root=root, cache=str(tmp_path / "other")))
    path = other.fetch("sft", "k1")
    assert path.is_relative_to(tmp_path / "other")
    assert (path / "model" / "file").read_text(encoding="utf-8") == "weights"
    assert other.location("sft", "k1") == f"{root}/sft/k1"


def test_another_machine_downloads_again_what_was_changed(tmp_path: Path) -> None:
    one, other, path = on_two_machines(tmp_path)
    copy = other.fetch("sft", "k1")
    (path / "model" / "file").unlink()
    (path / MANIFEST).write_text('{"files": []}', encoding="utf-8")
    one.update("sft", "k1")
    assert other.fetch("sft", "k1") == copy
    assert not (copy / "model" / "file").exists()
    (copy / "mine").touch()
    assert (other.fetch("sft", "k1") / "mine").exists()  # and not a third time


def test_an_upload_that_breaks_off_stays_invisible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(StorageConfig(root=f"file://{tmp_path}/root", cache=str(tmp_path / "cache")))
    fill(storage)
    copy, copied = pafs.copy_files, []

    def break_off(*arguments) -> None:
        copy(*arguments)
        copied.append(arguments)
        raise OSError("the network is gone")

    monkeypatch.setattr(pafs, "copy_files", break_off)
    with pytest.raises(OSError, match="network"):
        storage.publish("sft", "k1")
    monkeypatch.undo()
    # The files are there, the manifest is not: absent, for every reader.
    assert len(copied) == 1 and (tmp_path / "root" / "sft" / "k1" / "model" / "file").exists()
    assert not storage.exists("sft", "k1")
    assert storage.remove_unfinished() == [("sft", "k1")]
    assert not (tmp_path / "root" / "sft" / "k1").exists()
    # The next run of the step finds its partial directory and publishes.
    fill(storage)
    storage.publish("sft", "k1")
    assert storage.exists("sft", "k1")


def test_what_is_uploaded_anew_is_not_there_until_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other, path = on_two_machines(tmp_path)
    (path / "model" / "file").write_text("new", encoding="utf-8")
    (path / MANIFEST).write_text('{"files": []}', encoding="utf-8")
    copy, seen = pafs.copy_files, []

    def watched(*arguments) -> None:
        seen.append(other.exists("sft", "k1"))
        copy(*arguments)

    monkeypatch.setattr(pafs, "copy_files", watched)
    one.update("sft", "k1")
    monkeypatch.undo()
    assert len(seen) > 1 and not any(seen) and other.exists("sft", "k1")
    fetched = other.fetch("sft", "k1") / "model" / "file"
    assert fetched.read_text(encoding="utf-8") == "new"


def test_what_is_changed_while_it_is_read_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other, path = on_two_machines(tmp_path)
    copy = pafs.copy_files

    def overtaken(*arguments) -> None:
        monkeypatch.undo()
        (path / MANIFEST).write_text('{"files": []}', encoding="utf-8")
        one.update("sft", "k1")
        copy(*arguments)

    monkeypatch.setattr(pafs, "copy_files", overtaken)
    with pytest.raises(StorageError, match="changed while it was read"):
        other.fetch("sft", "k1")
    assert list((tmp_path / "other" / "sft").iterdir()) == []
    assert other.fetch("sft", "k1").is_dir()


def test_a_download_that_breaks_off_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, other, _ = on_two_machines(tmp_path)
    copy = pafs.copy_files

    def break_off(*arguments) -> None:
        copy(*arguments)
        raise OSError("the network is gone")

    monkeypatch.setattr(pafs, "copy_files", break_off)
    with pytest.raises(OSError, match="network"):
        other.fetch("sft", "k1")
    assert list((tmp_path / "other" / "sft").iterdir()) == []


def test_two_processes_of_a_machine_may_download_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, other, _ = on_two_machines(tmp_path)
    copy = pafs.copy_files

    def overtaken(*arguments) -> None:
        copy(*arguments)
        monkeypatch.undo()  # the other process comes in with a pid of its own, and is first
        monkeypatch.setattr("os.getpid", lambda: -1)
        other.fetch("sft", "k1")
        monkeypatch.undo()

    monkeypatch.setattr(pafs, "copy_files", overtaken)
    path = other.fetch("sft", "k1")
    assert (path / "model" / "file").read_text(encoding="utf-8") == "weights"
    assert [entry.name for entry in path.parent.iterdir()] == ["k1"]


def test_a_file_in_the_roots_place(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("", encoding="utf-8")
    with pytest.raises(StorageError, match=r"not writable.*set storage\.root"):
        Storage(StorageConfig(root=str(tmp_path / "root"))).check_writable()


def test_a_scheme_that_nobody_knows(tmp_path: Path) -> None:
    storage = Storage(StorageConfig(root="ftps://host/x", cache=str(tmp_path)))
    with pytest.raises(StorageError, match=r"storage root ftps://host/x is not writable"):
        storage.check_writable()


def test_small_files_are_written_whole(storage: Storage, tmp_path: Path) -> None:
    storage.check_writable()
    storage.write_text("pipeline.json", "{}")
    storage.write_text("pipeline.json", '{"a": "病"}')
    assert (tmp_path / "root" / "pipeline.json").read_text(encoding="utf-8") == '{"a": "病"}'


def test_a_relative_root_is_the_same_place_from_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = Storage(StorageConfig(root="runs"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert Storage(here.config).local_root == tmp_path / "runs" == here.local_root


@pytest.mark.parametrize(
    ("place", "refused"),
    [
        ("s3://KEY:s3cr3t@bucket/medray", True),
        ("s3://KEY:s3/cr3t@bucket/medray", True),
        ("gs://:s3cr3t@bucket", True),
        ("s3://bucket/2023-05-17T08:00@ward", False),
        ("hdfs://namenode:9000/medray@ward", False),
        ("abfs://container@account.dfs.example/medray", False),
        ("/mnt/a:b@c", False),
    ],
)
def test_a_secret_in_a_uri_is_refused_and_not_shown(place: str, refused: bool) -> None:
    if not refused:
        assert StorageConfig(root=place).root == place
        return
    with pytest.raises(ConfigError, match="root: the URI holds a key or a password") as caught:
        StorageConfig.parse({"root": place}, "test")
    assert "cr3t" not in str(caught.value)
    with pytest.raises(ValueError) as unparsed:
        StorageConfig(root=place)
    assert "cr3t" not in str(unparsed.value)


def test_checkpoints_go_with_their_artefact(tmp_path: Path) -> None:
    """Else a stage that is made again would go on from the model that was removed."""
    local = Storage(StorageConfig(root=str(tmp_path / "here")))
    assert Path(local.checkpoints("sft", "k1")).parent == local.partial("sft", "k1")
    storage = Storage(StorageConfig(root=f"file://{tmp_path}/root", cache=str(tmp_path / "cache")))
    for key in ("k1", "k2"):
        made = Path(storage.checkpoints("sft", key).removeprefix("file://")) / "sft" / "c"
        made.mkdir(parents=True)
    fill(storage)
    storage.publish("sft", "k1")
    storage.remove("sft", "k1")
    assert [path.name for path in (tmp_path / "root" / "train").iterdir()] == ["sft-k2"]
    storage.remove_checkpoints()
    assert not (tmp_path / "root" / "train").exists()
    storage.remove("sft", "k1")  # what is not there is no error
    storage.remove_checkpoints()
