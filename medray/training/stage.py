"""What a training stage is to the loop that runs it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Stage:
    """What the loop needs of a training stage."""

    name: str
    engine: Any
    """DeepSpeed engine."""
    total_steps: int
    train_step: Callable[[int], dict[str, float]]
    """Does step t (from 0); returns its metrics, the same on every worker."""
    evaluate: Callable[[], dict[str, float]]
    """Held-out figures, the same on every worker."""
    export: Callable[[Path], None]
    """Writes a Hugging Face directory; called on every worker, writes on the first."""
    partial_state: bool = False
    """True if frozen weights stay out of checkpoints (LoRA)."""
    milestones: Mapping[int, str] = field(default_factory=dict)
    """Step → name: after it held-out figures are measured too (the end of a curriculum's stage)."""
    score: Callable[[dict[str, float]], float] = lambda figures: -figures["loss"]
    """Held-out figures → what the best model has most of."""
    get_state: Callable[[], dict[str, Any]] = dict
    """Further state of the stage (the KL coefficient)."""
    set_state: Callable[[dict[str, Any]], None] = lambda state: None
    samples: Callable[[int], Sequence[dict[str, Any]]] = lambda num: ()
    """Up to `num` examples of the last step, described without their text, for samples.jsonl."""
    takes_memory: Sequence[str] = ()
    """Settings that the memory of a step grows with, for the message when it runs out; empty:
    micro_batch_size alone."""
