"""Strict, frozen configuration: class default < profile YAML < dotted override."""

from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from medray.common.errors import ConfigError

HIDDEN = "hidden"
"""Type of a fault whose value is not shown: it may be a secret."""


class Config(BaseModel):
    """Base of every configuration class: unknown keys are refused, values never change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )

    @classmethod
    def load(cls, path: Path, overrides: list[str] | None = None) -> Self:
        """Reads a YAML profile and applies overrides such as `sft.learning_rate=1e-4`.

        Raises:
            ConfigError: with the file, the dotted key, the value found and what was expected.
        """
        return cls.parse(apply_overrides(read_yaml(path), overrides or []), str(path))

    @classmethod
    def parse(cls, values: dict[str, Any], source: str) -> Self:
        """Validates `values`; `source` names where they came from in an error."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(explain(error, source)) from None

    def to_yaml(self) -> str:
        """The resolved configuration as YAML, written beside every artefact."""
        return yaml.safe_dump(self.model_dump(mode="json"), allow_unicode=True, sort_keys=False)


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads one YAML mapping."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no profile at {path}; give a name such as laptop or a path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid UTF-8 YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, found {type(values).__name__}")
    return values


def apply_overrides(values: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Returns a copy of `values` with each `a.b.c=value` set; values are parsed as YAML."""
    merged = _copy(values)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise ConfigError(f"override {override!r} must read section.key=value")
        node = merged
        *parents, last = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"override {key}: {parent} is a value, not a section")
        try:
            node[last] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"override {key}: {text!r} is not valid YAML: {error}") from None
    return merged


def explain(error: ValidationError, source: str) -> str:
    """A pydantic error in words: one line a fault, without the documentation links."""
    lines = []
    for fault in error.errors(include_url=False):
        where = ".".join(str(part) for part in fault["loc"]) or "(top level)"
        if fault["type"] == "extra_forbidden":
            lines.append(f"  {where}: unknown key; remove it or mend its spelling")
        elif fault["type"] == "missing":
            lines.append(f"  {where}: required, but not set")
        elif fault["type"] == HIDDEN:
            lines.append(f"  {where}: {fault['msg']}")
        else:
            lines.append(f"  {where}: {fault['msg']}, got {fault['input']!r}")
    return "\n".join([f"invalid configuration in {source}:", *lines])


def _copy(values: dict[str, Any]) -> dict[str, Any]:
    return {k: _copy(v) if isinstance(v, dict) else v for k, v in values.items()}
