"""Every YAML that ships in jobs/profiles and serve_configs is valid, and they fit each other."""

from pathlib import Path

import pytest
import yaml

from medray.common.config import read_yaml
from medray.common.errors import ConfigError
from medray.profile import Profile
from medray.serving.up import read_config

ROOT = Path(__file__).parent.parent
PROFILES = sorted((ROOT / "jobs" / "profiles").glob("*.yaml"))
SERVE_CONFIGS = sorted((ROOT / "serve_configs").glob("*.yaml"))


def test_both_profiles_and_both_serve_configs_ship() -> None:
    for files in (PROFILES, SERVE_CONFIGS):
        assert {"laptop", "a100x8"} <= {path.stem for path in files}


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_profile_is_valid(path: Path) -> None:
    profile = Profile.load(path)
    # What is written beside every artefact reads back as the same profile.
    assert Profile.parse(yaml.safe_load(profile.to_yaml()), "resolved") == profile


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_profile_refuses_an_unknown_key_and_names_it(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sft\.learning_rte: unknown key"):
        Profile.load(path, ["sft.learning_rte=1e-4"])


@pytest.mark.parametrize("path", SERVE_CONFIGS, ids=lambda path: path.stem)
def test_serve_config_is_valid(path: Path) -> None:
    schema, _ = read_config(path)
    assert schema.applications[0].route_prefix == "/"
    with pytest.raises(ConfigError, match="nix: unknown key"):
        read_config(path, ["nix=1"])
    assert read_config(path, ["gateway.max_in_flight=3"])[1].gateway.max_in_flight == 3


@pytest.mark.parametrize("name", ["laptop", "a100x8"])
def test_what_a_profile_trains_its_serve_config_serves(name: str) -> None:
    root = read_yaml(ROOT / "jobs" / "profiles" / f"{name}.yaml")["storage"]["root"]
    assert read_config(ROOT / "serve_configs" / f"{name}.yaml")[1].storage_root == root


@pytest.mark.parametrize("path", [*PROFILES, *SERVE_CONFIGS], ids=lambda path: path.name)
def test_numbers_and_switches_are_not_read_as_text(path: Path) -> None:
    """PyYAML reads 2e-5 as text and `on` as true: pydantic would mend the first, not the second."""

    def walk(value: object, where: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                assert isinstance(key, str), f"{where}: quote the key {key!r}"
                walk(inner, f"{where}.{key}")

    walk(read_yaml(path), path.name)
