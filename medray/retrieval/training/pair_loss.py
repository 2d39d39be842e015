"""The InfoNCE loss of stage 2, see `contrastive`. In: a worker's batch. Out: its mean loss.

A file of its own, for FlagEmbedding's training takes seconds to import, and only workers need it.
Shapes: B pairs of one worker, P its passages (of the pairs, then hard negatives), G passages of the
global batch, D width.
"""

from typing import Any

import torch
import torch.distributed as dist
from FlagEmbedding.finetune.embedder.encoder_only.base import BiEncoderOnlyEmbedderModel
from torch import Tensor, nn
from torch.nn import functional


class PairLoss(BiEncoderOnlyEmbedderModel):
    """FlagEmbedding's bi-encoder with negatives from all workers and false negatives masked."""

    def __init__(self, encoder: nn.Module, temperature: float) -> None:
        super().__init__(
            encoder,  # pyright: ignore[reportArgumentType]
            temperature=temperature,
            sentence_pooling_method="cls",
            normalize_embeddings=True,
        )

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        queries: dict[str, Tensor],
        passages: dict[str, Tensor],
        masked: Tensor,
        target: Tensor,
    ) -> Tensor:
        """Returns the mean InfoNCE over this worker's questions against all workers' passages."""
        queries_BD: Tensor = self.encode(queries)  # pyright: ignore[reportAssignmentType]
        passages_PD: Tensor = self.encode(passages)  # pyright: ignore[reportAssignmentType]
        if dist.is_initialized() and dist.get_world_size() > 1:
            passages_GD: Tensor = GatherRows.apply(passages_PD)  # pyright: ignore[reportAssignmentType]
        else:
            passages_GD = passages_PD
        return info_nce(self.compute_score(queries_BD, passages_GD), masked, target)


class GatherRows(torch.autograd.Function):
    """All workers' rows, in rank order; the gradient flows back to the worker that made a row.

    Own, because `torch.distributed.nn.functional.all_gather` is deprecated in torch 2.13 and its
    successor is absent from 2.11.
    """

    @staticmethod
    def forward(ctx: Any, rows_BD: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        gathered = [torch.empty_like(rows_BD) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, rows_BD.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, grad_GD: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        grad_GD = grad_GD.contiguous()
        dist.all_reduce(grad_GD)
        return grad_GD.chunk(dist.get_world_size())[dist.get_rank()]


def info_nce(scores_BG: Tensor, masked_BG: Tensor, target_B: Tensor) -> Tensor:
    """Mean cross-entropy in nats of each question's own passage among all passages.

    Args:
        scores_BG: similarity over temperature.
        masked_BG: True where the passage also answers the question but is not its target, and where
            it only fills up.
        target_B: column of each question's own passage.
    """
    scores_BG = scores_BG.masked_fill(masked_BG, -torch.inf)
    return functional.cross_entropy(scores_BG, target_B)
