"""A hospital's export in an object store, copied here."""

import stat
from pathlib import Path

import pytest

from medray.common.errors import DataError
from medray.common.exports import fetch_export
from medray.common.storage import Storage, StorageConfig


def test_an_export_in_an_object_store_is_copied_once(tmp_path: Path) -> None:
    root, export = tmp_path / "root", tmp_path / "export"
    (export / "a").mkdir(parents=True)
    for name in ("a/one.csv", "a/two.csv", "manifest.json"):
        (export / name).write_text(name)
    uri = f"file://{export}"

    def copied() -> dict[str, tuple[str, int]]:
        files = [path for path in here.rglob("*") if path.is_file()]
        names = [path.relative_to(here).as_posix() for path in files]
        return {n: (p.read_text(), p.stat().st_ino) for n, p in zip(names, files, strict=True)}

    here = fetch_export(uri, root)
    before = copied()
    assert {name: text for name, (text, _) in before.items()} == {
        name: name for name in ("a/one.csv", "a/two.csv", "manifest.json")}  # fmt: skip
    assert stat.S_IMODE(here.stat().st_mode) == 0o700
    assert Storage(StorageConfig(root=str(root))).list() == []
    (export / "a/one.csv").write_text("another")
    (export / "a/two.csv").unlink()
    (export / "b.csv").write_text("new")
    assert fetch_export(uri, root) == here
    after = copied()
    assert (after.pop("a/one.csv")[0], after.pop("b.csv")[0]) == ("another", "new")
    assert after == {"manifest.json": before["manifest.json"]}  # the very file
    with pytest.raises(DataError, match=r"file://.*/none cannot be read \(FileNotFoundError"):
        fetch_export(f"file://{tmp_path}/none", root)
    with pytest.raises(DataError, match="nowhere://x cannot be read"):
        fetch_export("nowhere://x", root)
