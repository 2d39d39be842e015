"""Continued pretraining on packed blocks. In: corpus (blocks, tokenizer). Out: model/.

Source: [EMR-LLM 1.2, 2.2].
"""

from typing import Any

from medray.common.manifest import Artefact
from medray.common.storage import Storage
from medray.training.language_model import DecoderConfig, build_decoder
from medray.training.optimiser import OptimiserConfig
from medray.training.packed import PackedBlocks
from medray.training.supervised import headline, train_language_model
from medray.training.trainer import WorkersConfig, fit


class PretrainConfig(OptimiserConfig):
    """Settings of pretraining; the defaults are the published ones [EMR-LLM 2.2]."""

    seed: int = 0


def pretrain(
    config: PretrainConfig,
    decoder: DecoderConfig,
    workers: WorkersConfig,
    corpus: tuple[str, str],
    artefact: Artefact,
) -> None:
    """Trains; the model comes to `artefact`. `corpus` is the (step, key) of the corpus artefact."""
    arguments = {
        "config": config,
        "decoder": decoder,
        "workers": workers,
        "storage": artefact.storage.config,
        "corpus": corpus,
    }
    artefact.metrics |= headline(fit(_train, arguments, workers, artefact))


def _train(arguments: dict[str, Any]) -> None:
    config: PretrainConfig = arguments["config"]
    corpus = Storage(arguments["storage"]).fetch(*arguments["corpus"])
    model, tokenizer = build_decoder(arguments["decoder"], corpus / "tokenizer", config.seed)
    train_language_model(
        "pretrain",
        model,
        tokenizer,
        PackedBlocks.open(corpus / "blocks", "train"),
        PackedBlocks.open(corpus / "blocks", "heldout"),
        config,
        arguments["workers"],
        config.seed,
        {"title": "Pretrained decoder", "base": arguments["decoder"].path or "new, Qwen3"},
        arguments["progress"],
    )
