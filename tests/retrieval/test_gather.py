"""Two gloo processes compute the gradient that one process computes on the whole batch."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModel, AutoTokenizer

from medray.retrieval.training.contrastive import ContrastiveConfig, PairBatches
from medray.retrieval.training.pair_loss import PairLoss


def gradient(
    rank: int, num_workers: int, hard_negatives: int, encoder: Path, passages: Path, target: Path
) -> None:
    """Writes the gradient of one step; the questions share passages, so some are masked."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{target}.init", rank=rank, world_size=num_workers
    )
    questions = [(f"肺炎{i}", [i % 3]) for i in range(8)]
    # The six of the batch bring 15: one is filled up. Row 0 answers two of them.
    mined = [[4, 5, 6, 7, 8, 9] if i % 3 else [9, 0][: i + 1] for i in range(8)]
    batches = PairBatches(
        ContrastiveConfig(batch_size=8, hard_negatives=hard_negatives), questions,
        pq.read_table(passages), AutoTokenizer.from_pretrained(encoder), seed=0,
        mined=mined if hard_negatives else [],
    )  # fmt: skip
    model = AutoModel.from_pretrained(encoder)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("pooler" not in name)
    loss = PairLoss(model, 0.05).eval()
    parallel = DistributedDataParallel(loss) if num_workers > 1 else loss
    parallel(**batches.batch(0, rank, num_workers)).backward()
    if rank == 0:
        torch.save({name: p.grad for name, p in loss.named_parameters() if p.requires_grad}, target)
    # The reducer must not be the last owner of the process group: gloo's thread would wait for
    # the interpreter lock that its destructor holds.
    del parallel, loss
    dist.destroy_process_group()


@pytest.mark.cluster  # no Ray, but two rounds of fresh processes
@pytest.mark.parametrize("hard_negatives", [0, 3])
def test_gradient_does_not_depend_on_the_number_of_workers(
    hard_negatives: int, encoder_dir: Path, corpus: Path, tmp_path: Path
) -> None:
    found = []
    for num_workers in (1, 2):
        target = tmp_path / f"{num_workers}.pt"
        arguments = num_workers, hard_negatives, encoder_dir, corpus / "passages", target
        multiprocessing.spawn(gradient, arguments, num_workers)
        found.append(torch.load(target))
    scale = max(values.abs().max().item() for values in found[0].values())
    assert scale > 1e-3
    for name, values in found[0].items():
        difference = (values - found[1][name]).abs().max().item()
        assert difference == pytest.approx(0, abs=1e-4 * scale), name
