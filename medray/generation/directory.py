"""Hugging Face model directories. In: a path. Out: the same path, or what it lacks.

Weights are read from safetensors only, since a pickle may run code as it is read; and a model that
brings Python code of its own is refused unless the profile trusts it.
"""

import json
import logging
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medray.common.errors import CheckpointError

logger = logging.getLogger(__name__)
ADAPTER_CONFIG = "adapter_config.json"
TRUST = "MEDRAY_TRUST_REMOTE_CODE"
"""Environment variable that the jobs set, in all workers, from the profile's trust_remote_code."""


def check_model_directory(directory: Path) -> Path:
    """Returns `directory` if it holds a config, weights and a tokenizer that may be loaded.

    Raises:
        CheckpointError: naming what is missing and how to mend it.
    """
    if not directory.is_dir():
        raise CheckpointError(f"no model directory at {directory}; check the path")
    if not (directory / "config.json").is_file():
        raise CheckpointError(f"{directory} has no config.json; it is not a Hugging Face directory")
    if not any(directory.glob("*.safetensors")):
        if any(directory.glob("*.bin")):
            raise CheckpointError(
                f"{directory} has pickled weights (*.bin) only, which may run code as they are "
                "read; take the safetensors of the same model, or make them with "
                "`medray convert --bin`"
            )
        raise CheckpointError(f"{directory} has no weights (*.safetensors)")
    names = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.txt")
    if not any((directory / name).is_file() for name in names[:2] + names[3:]):
        raise CheckpointError(
            f"{directory} has no tokenizer (one of {', '.join(names)}); copy the tokenizer files "
            "of the same model into it"
        )
    _check_code(directory)
    if quantisation(directory) == "bitsandbytes":
        check_quantiser(f"{directory} is quantised and", "on every machine that loads it")
    return directory


def check_servable(directory: Path) -> tuple[Path, Path | None]:
    """(the model's directory, the LoRA adapter over it if `directory` is one).

    An adapter is a directory as PEFT and TRL save it: adapter_config.json, which names its base's
    directory, and weights.

    Raises:
        CheckpointError: naming what is missing and how to mend it.
    """
    file = directory / ADAPTER_CONFIG
    if not file.is_file():
        return check_model_directory(directory), None
    if not (directory / "adapter_model.safetensors").is_file():
        raise CheckpointError(
            f"{directory} has no adapter_model.safetensors; save the adapter anew with "
            "safe_serialization"
        )
    try:
        name = json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"]
        base = Path(name).expanduser()
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"{file} names no base; copy it again") from None
    if not base.is_dir():
        raise CheckpointError(
            f"{directory} is an adapter of {name}, which is no directory here; set "
            f"base_model_name_or_path in {file} to where that model lies"
        )
    if quantisation(check_model_directory(base)):
        raise CheckpointError(
            f"{directory} is an adapter of {base}, whose weights are quantised, and nothing can be "
            "added to those; set base_model_name_or_path to the model they were made from"
        )
    return base, directory


def check_trainable(directory: Path) -> Path:
    """`check_model_directory`, and the weights are no quantised ones.

    Raises:
        CheckpointError: naming what is missing or in the way, and how to mend it.
    """
    if quantisation(check_model_directory(directory)):
        raise CheckpointError(
            f"{directory} has quantised weights, which cannot be trained; take the directory that "
            "it was made from (its README.md names it)"
        )
    return directory


def quantisation(directory: Path) -> str:
    """The method that the weights are quantised by (`bitsandbytes`, `gptq`, …), empty if none."""
    found = read_config(directory).get("quantization_config")
    return str(found.get("quant_method", "bitsandbytes")) if found else ""


def check_quantiser(what: str, where: str) -> None:
    """Raises CheckpointError if bitsandbytes is not installed, which `what` needs."""
    if find_spec("bitsandbytes") is None:
        raise CheckpointError(
            f"{what} needs the package bitsandbytes: pip install bitsandbytes, {where}"
        )


def load_options() -> dict[str, Any]:
    """What every `from_pretrained` of a checked directory is given."""
    return {"trust_remote_code": trusts_remote_code()}


def trusts_remote_code() -> bool:
    """Whether the profile lets models run code of their own."""
    return os.environ.get(TRUST) == "1"


def read_config(directory: Path) -> dict[str, Any]:
    """config.json of a directory that has one."""
    try:
        return json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(
            f"{directory}/config.json is no JSON ({error}); copy it again"
        ) from None


def _check_code(directory: Path) -> None:
    """Raises CheckpointError if the model needs code of its own that is not trusted; warns if it is
    trusted."""
    config = read_config(directory)
    if not config.get("auto_map"):
        return
    if trusts_remote_code():
        logger.warning("%s runs Python code of its own (trust_remote_code)", directory)
        return
    from transformers import CONFIG_MAPPING

    if config.get("model_type") in CONFIG_MAPPING:
        return  # transformers has an implementation of it
    raise CheckpointError(
        f"{directory} brings Python code of its own ({', '.join(sorted(config['auto_map']))}); "
        "read it and set trust_remote_code to true in the profile, or, for Baichuan, turn it into "
        "a Llama with `medray convert`"
    )
