"""Strict configuration: what is wrong, where, and what was found; nothing changes afterwards."""

from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from medray.common.config import Config, apply_overrides
from medray.common.errors import ConfigError


class Inner(Config):
    rate: float = Field(default=0.5, gt=0)
    name: str = "a"


class Outer(Config):
    inner: Inner = Inner()
    steps: int


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "profile.yaml"
    path.write_text("steps: 3\ninner: {rate: 0.25}\n", encoding="utf-8")
    return path


def test_class_default_then_profile_then_override(profile: Path) -> None:
    config = Outer.load(profile, ["inner.rate=1e-3", "inner.name=b"])
    assert (config.steps, config.inner.rate, config.inner.name) == (3, 1e-3, "b")
    assert Outer.load(profile).inner == Inner(rate=0.25, name="a")


def test_override_reaches_a_section_that_the_profile_leaves_out() -> None:
    assert apply_overrides({}, ["a.b.c=[1, 2]"]) == {"a": {"b": {"c": [1, 2]}}}


def test_overrides_leave_their_input_alone() -> None:
    values = {"a": {"b": 1}}
    apply_overrides(values, ["a.b=2"])
    assert values == {"a": {"b": 1}}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("inner.rte=1", r"inner\.rte: unknown key"),
        ("inner.rate=fast", r"inner\.rate: .*number.*got 'fast'"),
        ("inner.rate=-1", r"inner\.rate: .*greater than 0.*got -1"),
        ("steps=null", r"steps: .*integer.*got None"),
        ("steps", r"override 'steps' must read section\.key=value"),
        ("=3", r"must read section\.key=value"),
        ("steps.more=1", r"override steps\.more: steps is a value, not a section"),
        ("steps=[1", r"override steps: '\[1' is not valid YAML"),
    ],
)
def test_error_names_the_key_and_the_value(profile: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Outer.load(profile, [override])


def test_error_names_the_file_and_holds_no_links(profile: Path) -> None:
    profile.write_text("inner: {}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        Outer.load(profile)
    assert "steps: required, but not set" in str(caught.value)
    assert str(profile) in str(caught.value)
    assert "http" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- 1\n", "must hold a mapping of settings, found list"),
        (b"a: [1\n", "not valid UTF-8 YAML"),
        ("a: 病".encode("gb18030"), "not valid UTF-8 YAML"),
    ],
)
def test_unreadable_profile(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        Outer.load(path)


def test_missing_profile_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give a name such as laptop or a path"):
        Outer.load(tmp_path / "none.yaml")


def test_values_never_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Inner().name = "b"  # type: ignore[misc]


def test_resolved_yaml_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "resolved.yaml"
    config = Outer(steps=2, inner=Inner(name="病"))
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert Outer.load(path) == config
