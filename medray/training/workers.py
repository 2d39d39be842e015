"""The workers of every training stage: how many, on what, and how they are kept alive."""

from pydantic import Field, model_validator

from medray.common.config import Config
from medray.training.watching import WatchConfig


class WorkersConfig(Config):
    """The workers of every training stage."""

    num_workers: int | tuple[int, int] = 8
    """[EMR-LLM 2.2]: 8 × A100. A pair is the fewest and the most: the stage goes on with fewer when
    machines are lost, and with more when they come back. Every number between must divide
    batch_size / micro_batch_size, or the stage is refused."""
    resize_check_s: float = Field(default=60, gt=0)
    """How often a run with a pair of numbers looks for machines that have come: it then goes back
    to its newest checkpoint, to go on with them. Source: Ray Train's default."""
    use_gpu: bool = True
    cpus_per_worker: float = 1
    threads_per_worker: int = 1
    """Threads of one worker on a machine without a GPU."""
    max_failures: int = 3
    """How often workers that died are started again from the newest checkpoint; those that met a
    mistake of the settings or the data are not."""
    checkpoint_steps: int = 500
    log_steps: int = 50
    collective_timeout_s: int = 1800
    num_to_keep: int = Field(default=2, ge=1)
    """Checkpoints that a run keeps until it ends."""
    upload_in_background: bool = False
    """Train on while a checkpoint is copied to the storage. A worker that dies meanwhile loses two
    intervals instead of one."""
    storage_patience_s: float = Field(default=600, ge=0)
    """How long a checkpoint waits for a storage that cannot be reached, before the stage fails."""

    watch: WatchConfig = WatchConfig()

    @model_validator(mode="after")
    def _check_workers(self) -> "WorkersConfig":
        if not self.possible_workers or self.possible_workers[0] < 1:
            raise ValueError(
                "workers.num_workers is a number from 1, or a pair of the fewest and the most; got "
                f"{self.num_workers}"
            )
        return self

    @property
    def most_workers(self) -> int:
        """The number of workers, or the most of a pair."""
        return self.possible_workers[-1]

    @property
    def possible_workers(self) -> range:
        """Every number of workers that the stage may run with."""
        pair = self.num_workers
        fewest, most = (pair, pair) if isinstance(pair, int) else pair
        return range(fewest, most + 1)


def worker_environment(workers: WorkersConfig) -> dict[str, str]:
    """Environment of the workers: set before torch and DeepSpeed are imported."""
    environment = {
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": str(workers.collective_timeout_s),
    }
    if not workers.use_gpu:
        threads = str(workers.threads_per_worker)
        environment |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": threads}
        # glibc gives large blocks back at once, and the next step's activations touch new pages:
        # of a round of PPO with a small model that was 7 % of the time.
        keep = str(2**32)
        environment |= {"MALLOC_MMAP_THRESHOLD_": keep, "MALLOC_TRIM_THRESHOLD_": keep}
    return environment
