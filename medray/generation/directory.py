"""Hugging Face model directories. In: a path. Out: the same path, or what it lacks."""

from pathlib import Path

from medray.common.errors import CheckpointError


def check_model_directory(directory: Path) -> Path:
    """Returns `directory` if it holds a config, weights and a tokenizer.

    Raises:
        CheckpointError: naming what is missing and how to mend it.
    """
    if not directory.is_dir():
        raise CheckpointError(f"no model directory at {directory}; check the path")
    if not (directory / "config.json").is_file():
        raise CheckpointError(f"{directory} has no config.json; it is not a Hugging Face directory")
    if not any(directory.glob("*.safetensors")) and not any(directory.glob("*.bin")):
        raise CheckpointError(f"{directory} has no weights (*.safetensors or *.bin)")
    names = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.txt")
    if not any((directory / name).is_file() for name in names[:2] + names[3:]):
        raise CheckpointError(
            f"{directory} has no tokenizer (one of {', '.join(names)}); copy the tokenizer files "
            "of the same model into it"
        )
    return directory
