"""Keys: made once, kept as hashes, taken back at once."""

import json
import os
import stat
from pathlib import Path

import pytest

from medray.common.errors import ConfigError
from medray.serving.identity.keys import KeyFile


def test_a_key_opens_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys" / "keys.json")
    made = file.add("心内科", "clinician", tokens_per_day=5)
    other = file.add("院外", "patient")
    assert file.find(made.secret) == made.key
    assert file.find(other.secret) == other.key
    text = file.path.read_text(encoding="utf-8")
    assert made.secret not in text and made.secret.split("-", 2)[2] not in text
    assert stat.S_IMODE(os.stat(file.path).st_mode) == 0o600
    assert [path.name for path in file.path.parent.iterdir()] == ["keys.json"]
    assert made.key.tokens_per_day == 5 and other.key.requests_per_minute is None


@pytest.mark.parametrize(
    "change",
    [lambda s: s[:-1], lambda s: s + "x", lambda s: "x" + s[1:], lambda s: s.upper(), lambda _: ""],
)
def test_nearly_a_key_opens_nothing(tmp_path: Path, change) -> None:
    file = KeyFile(tmp_path / "keys.json")
    secret = file.add("a", "admin").secret
    assert file.find(change(secret)) is None
    assert file.find(secret) is not None


def test_another_process_takes_a_key_back(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    serving, command_line = KeyFile(path), KeyFile(path)
    made, kept = command_line.add("a", "clinician"), command_line.add("b", "clinician")
    assert serving.find(made.secret) is not None
    revoked = command_line.revoke(made.key.id)
    assert serving.find(made.secret) is None
    assert serving.find(kept.secret) is not None
    assert command_line.revoke(made.key.id).revoked == revoked.revoked  # the first time counts
    assert [key.name for key in serving.keys().values()] == ["a", "b"]
    with pytest.raises(ConfigError, match="no key ffff"):
        command_line.revoke("ffff")


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    with pytest.raises(ConfigError, match=r"medray keys --file .* new NAME"):
        file.keys()
    file.path.write_text(json.dumps([{"id": "a", "name": "b", "role": "doctor"}]))
    with pytest.raises(ConfigError, match="role"):
        file.keys()
    file.path.write_text("[")
    with pytest.raises(ConfigError, match=r"keys\.json"):
        file.keys()
    with pytest.raises(ConfigError, match="requests_per_minute"):
        KeyFile(tmp_path / "new.json").add("a", "patient", requests_per_minute=0)
    assert not (tmp_path / "new.json").exists()
