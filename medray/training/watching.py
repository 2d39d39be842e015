"""Where a run can be watched beside its metrics.jsonl: TensorBoard, MLflow, W&B, Prometheus.

Only figures leave the worker, no text. Each sink is a setting; a package that is missing is said at
the start, not in the middle of a run.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from medray.common.config import Config
from medray.common.errors import ConfigError

Sink = Callable[[int, Mapping[str, float]], None]


class WatchConfig(Config):
    """Sinks of the training figures, all of the first worker."""

    tensorboard: str = ""
    """A directory that `tensorboard --logdir` reads; each run writes to a directory in it."""
    mlflow: str = ""
    """Tracking URI of an MLflow server, such as http://127.0.0.1:5000. Its password comes from the
    environment (MLFLOW_TRACKING_PASSWORD)."""
    wandb: str = ""
    """Project in Weights & Biases; the key comes from the environment (WANDB_API_KEY)."""
    prometheus: bool = True
    """Gauges `ray_medray_<figure>{stage, run}` at Ray's metrics endpoint, for its dashboard."""


def check_packages(config: WatchConfig) -> None:
    """All workers call this, so that none waits for one that stopped.

    Raises:
        ConfigError: if a package is missing.
    """
    for setting, package in _PACKAGES.items():
        if getattr(config, setting):
            _load(package, setting)


_PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}


@contextmanager
def open_sinks(config: WatchConfig, stage: str, run: str, first_step: int) -> Iterator[list[Sink]]:
    """The sinks of a run; what they hold back is written at the end.

    Args:
        run: what tells it from other runs of the stage; a resumed run has the same.
        first_step: the step it (re)starts at; what TensorBoard has of later ones is dropped.
    """
    sinks: list[Sink] = []
    with ExitStack() as stack:
        if config.tensorboard:
            sinks.append(_tensorboard(stack, config.tensorboard, stage, run, first_step))
        if config.mlflow:
            sinks.append(_mlflow(config.mlflow, stage, run))
        if config.wandb:
            sinks.append(_wandb(stack, config.wandb, stage, run))
        if config.prometheus:
            sinks.append(_prometheus(stage, run))
        yield sinks


def _load(package: str, setting: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ConfigError(
            f"workers.watch.{setting} needs the package {package}: pip install {package}, on every "
            "machine that trains, or leave the setting empty"
        ) from None


def _tensorboard(stack: ExitStack, directory: str, stage: str, run: str, first_step: int) -> Sink:
    package = _load("tensorboardX", "tensorboard")
    where = f"{directory}/{stage}-{run}"
    writer = package.SummaryWriter(
        where,
        purge_step=first_step + 1,
        flush_secs=5,
        filename_suffix=f".{first_step}",  # files are named by the second
    )
    stack.callback(writer.close)

    def write(step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            writer.add_scalar(name, value, step)

    return write


def _mlflow(uri: str, stage: str, run: str) -> Sink:
    mlflow = _load("mlflow", "mlflow")
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("medray")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("medray").experiment_id
    found = client.search_runs([experiment], f"attributes.run_name = '{stage}-{run}'")
    run_id = (found[0] if found else client.create_run(experiment, run_name=f"{stage}-{run}")).info

    def write(step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            client.log_metric(run_id.run_id, name, value, step=step)

    return write


def _wandb(stack: ExitStack, project: str, stage: str, run: str) -> Sink:
    wandb = _load("wandb", "wandb")
    # No captured output, no code, no names: figures only.
    quiet = wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        x_disable_meta=True,
        x_disable_stats=True,
    )
    logged = wandb.init(project=project, id=f"{stage}-{run}", resume="allow", settings=quiet)
    stack.callback(logged.finish)
    return lambda step, figures: logged.log(dict(figures), step=step)


def _prometheus(stage: str, run: str) -> Sink:
    from ray.util.metrics import Gauge

    gauges: dict[str, Gauge] = {}
    tags = {"stage": stage, "run": run}

    def write(step: int, figures: Mapping[str, float]) -> None:
        for name, value in {"step": float(step), **figures}.items():
            metric = "medray_" + "".join(c if c.isalnum() else "_" for c in name)
            if metric not in gauges:
                gauges[metric] = Gauge(metric, f"{name} of a training run", tag_keys=tuple(tags))
            gauges[metric].set(value, tags)

    return write
