"""The shape of a model, without its weights. In: a directory. Out: transformers' configuration.

Code that a directory brings is never run: Baichuan's is read as the Llama that `medray convert`
makes of it, and what transformers has no implementation of is refused. A directory that is not on
this machine is taken for the published model that its name begins with.
"""

from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    BertConfig,
    BloomConfig,
    LlamaConfig,
    PretrainedConfig,
)

from medray.common.errors import CheckpointError
from medray.generation.directory import read_config
from medray.training import baichuan

_BERT_BASE = BertConfig(vocab_size=21_128)
SHAPES: dict[str, PretrainedConfig] = {
    "baichuan2-7b": LlamaConfig(
        vocab_size=125_696, hidden_size=4096, intermediate_size=11_008, num_hidden_layers=32,
        num_attention_heads=32, max_position_embeddings=4096,
    ),
    "bloom-7b": BloomConfig(vocab_size=250_880, hidden_size=4096, n_layer=30, n_head=32),
    "bert-base-chinese": _BERT_BASE,
    "bge-base-zh": _BERT_BASE,
}  # fmt: skip
"""Models of the papers, and the encoder of the profiles."""


def shape_of(path: str) -> PretrainedConfig:
    """The shape of the model in a directory, or of the published one that its name begins with.

    Raises:
        CheckpointError: no directory of a known name, no config.json, or one of an architecture
            that needs code of its own.
    """
    directory = Path(path).expanduser()
    if not directory.is_dir():
        for name, shape in SHAPES.items():
            if directory.name.lower().startswith(name):
                return shape
        raise CheckpointError(
            f"no model directory at {directory}, and its name begins with none of the published "
            f"({', '.join(SHAPES)}); check the path"
        )
    if not (directory / "config.json").is_file():
        raise CheckpointError(f"{directory} has no config.json; copy it from the model's source")
    if baichuan.is_baichuan(directory):
        return baichuan.llama_config(baichuan.read_config(directory))
    config = read_config(directory)
    kind = config.get("model_type")
    if kind not in CONFIG_MAPPING:
        needs = "is none that the installed transformers knows"
        if config.get("auto_map"):
            needs = "needs Python code of its own, which is not run here"
        raise CheckpointError(
            f"{directory}/config.json is of model_type {kind!r}, which {needs}; take a model of an "
            "architecture that transformers has, or a newer transformers"
        )
    try:
        return AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise CheckpointError(f"{directory}/config.json: {error}; copy it again") from None
