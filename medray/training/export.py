"""Export: a merged Hugging Face directory that transformers and vLLM load as it is."""

import copy
from pathlib import Path
from typing import Any

import torch.distributed as dist
from transformers import GenerationConfig, PreTrainedTokenizerBase

from medray.training.language_model import base_of


def export_model(
    engine: Any,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    directory: Path,
    card: dict[str, str],
) -> None:
    """Writes weights (adapters merged, safetensors), tokenizer, chat template and model card.

    Called on every worker, since ZeRO-3 gathers weights from all; the first one writes.
    """
    import deepspeed

    zero3 = engine.zero_optimization_stage() == 3
    parameters = list(model.parameters()) if zero3 else []
    with deepspeed.zero.GatheredParameters(parameters, enabled=zero3):
        if dist.get_rank() == 0:
            write_model(model, tokenizer, directory, card)
    dist.barrier()


def write_model(
    model: Any, tokenizer: PreTrainedTokenizerBase, directory: Path, card: dict[str, str]
) -> None:
    """Writes a model whose weights are all here."""
    merged = merge_adapters(model)
    if merged.can_generate():
        merged.generation_config = GenerationConfig(
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
        )
    merged.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    (directory / "README.md").write_text(model_card(card), encoding="utf-8")


def merge_adapters(model: Any) -> Any:
    """A copy of the model with its adapters merged; the model itself when it has none."""
    if not hasattr(model, "merge_and_unload"):
        return base_of(model)
    return copy.deepcopy(model).merge_and_unload()


def model_card(card: dict[str, str]) -> str:
    """The model card: what this is, what it came from, what it must not be used for."""
    lines = [f"# {card.get('title', 'medray model')}", ""]
    lines += [f"- {name}: {text}" for name, text in card.items() if name != "title"]
    lines += ["", "Made by medray. Not for clinical use without validation.", ""]
    return "\n".join(lines)
