"""Where a run can be watched beside its metrics.jsonl: TensorBoard, MLflow, W&B, Prometheus.

Only figures leave the worker, no text. Each sink is a setting; a package that is missing is said at
the start, not in the middle of a run.
"""

import importlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from typing import Any
from urllib.parse import quote

from pydantic import Field

from medray.common.config import Config
from medray.common.errors import ConfigError
from medray.training.forgetting import BY, STAGE

logger = logging.getLogger(__name__)
Sink = Callable[[int, Mapping[str, float]], None]


class WatchConfig(Config):
    """Sinks of the training figures, all of the first worker."""

    progress: bool = True
    """A bar on the driver. It takes a small process of its own for each stage."""
    tensorboard: str = ""
    """A directory that `tensorboard --logdir` reads; each run writes to a directory in it."""
    mlflow: str = ""
    """Tracking URI of an MLflow server, such as http://127.0.0.1:5000. Its password comes from the
    environment (MLFLOW_TRACKING_PASSWORD)."""
    wandb: str = ""
    """Project in Weights & Biases; the key comes from the environment (WANDB_API_KEY)."""
    prometheus: bool = True
    """Gauges `ray_medray_<figure>{stage, run}` at Ray's metrics endpoint, for its dashboard and for
    cluster/grafana_training.json and cluster/prometheus_training.yaml."""
    samples: int = Field(default=8, ge=0)
    """Answers of PPO that samples.jsonl describes at each log step, in numbers."""


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
def open_sinks(
    config: WatchConfig, stage: str, run: str, first_step: int, num_workers: int = 1
) -> Iterator[list[Sink]]:
    """The sinks of a run; what they hold back is written at the end.

    A sink that cannot be opened or closed, because its server is away, is left out, and the log
    says so: a run is not ended by what watches it.

    Args:
        run: what tells it from other runs of the stage; a resumed run has the same.
        first_step: the step it (re)starts at; what TensorBoard has of later ones is dropped, and
            MLflow is not given again what it has.
        num_workers: a gauge of its own.
    """
    chosen: dict[str, AbstractContextManager[Sink]] = {}
    if config.tensorboard:
        chosen["tensorboard"] = _tensorboard(config.tensorboard, stage, run, first_step)
    if config.mlflow:
        chosen["mlflow"] = _mlflow(config.mlflow, stage, run, first_step)
    if config.wandb:
        chosen["wandb"] = _wandb(config.wandb, stage, run)
    if config.prometheus:
        chosen["prometheus"] = _prometheus(stage, run, num_workers)
    sinks: list[Sink] = []
    with ExitStack() as stack:
        for name, context in chosen.items():
            try:
                sinks.append(context.__enter__())
            except Exception as error:  # whatever a package raises
                logger.warning("%s is not watched in %s: %s", stage, name, type(error).__name__)
            else:
                stack.push(_closing(name, context))
        yield sinks


def _closing(name: str, context: AbstractContextManager[Sink]) -> Callable[..., None]:
    def close(*exc_info: Any) -> None:
        try:
            context.__exit__(*exc_info)
        except Exception as error:
            logger.warning("%s may lack the last figures: %s", name, type(error).__name__)

    return close


def _load(package: str, setting: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ConfigError(
            f"workers.watch.{setting} needs the package {package}: pip install {package}, on every "
            "machine that trains, or leave the setting empty"
        ) from None


@contextmanager
def _tensorboard(directory: str, stage: str, run: str, first_step: int) -> Iterator[Sink]:
    package = _load("tensorboardX", "tensorboard")
    writer = package.SummaryWriter(
        f"{directory}/{stage}-{run}",
        purge_step=first_step + 1,
        flush_secs=5,
        filename_suffix=f".{first_step}",  # files are named by the second
    )

    def write(step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            writer.add_scalar(name, value, step)

    try:
        yield write
    finally:
        writer.close()


MLFLOW_NAME = re.compile(r"[^\w.\- :/]")
"""What MLflow refuses in a metric's name. Source: mlflow.utils.validation, 3.17."""


@contextmanager
def _mlflow(uri: str, stage: str, run: str, first_step: int) -> Iterator[Sink]:
    # Of 7 tries, each twice as late as the one before: all workers wait for the first one.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    mlflow = _load("mlflow", "mlflow")
    client, name = mlflow.MlflowClient(tracking_uri=uri), f"{stage}-{run}"
    known = client.get_experiment_by_name("medray")
    experiment = known.experiment_id if known else client.create_experiment("medray")
    found = client.search_runs([experiment], f"run_name = '{name}'") if first_step else []
    run_id = (found or [client.create_run(experiment, run_name=name)])[0].info.run_id
    client.update_run(run_id, status="RUNNING")  # one that ended badly goes on

    @cache
    def last_step(metric: str) -> int:
        """How far the run was when it was interrupted."""
        history = client.get_metric_history(run_id, metric) if found else []
        return max((point.step for point in history), default=-1)

    def write(step: int, figures: Mapping[str, float]) -> None:
        now_ms = int(time.time() * 1000)
        named = {MLFLOW_NAME.sub("_", figure): value for figure, value in figures.items()}
        new = [
            mlflow.entities.Metric(metric, value, now_ms, step)
            for metric, value in named.items()
            if step > last_step(metric)
        ]
        client.log_batch(run_id, metrics=new)

    try:
        yield write
    except BaseException:
        client.set_terminated(run_id, status="FAILED")
        raise
    client.set_terminated(run_id)


@contextmanager
def _wandb(project: str, stage: str, run: str) -> Iterator[Sink]:
    wandb = _load("wandb", "wandb")
    # No captured output, no code, no names: figures only.
    quiet = wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
        host="-",  # an empty one is found out
    )
    name = f"{stage}-{run}"
    with wandb.init(project=project, id=name, name=name, resume="allow", settings=quiet) as logged:
        yield lambda step, figures: logged.log(dict(figures), step=step)


FIGURE = re.compile(rf"(?:{STAGE}(?P<after>.+?)/)?(?P<name>.*?)(?:(?<={BY})(?P<task>.+))?")


def gauge_of(figure: str) -> tuple[str, dict[str, str]]:
    """A figure's gauge, without the `ray_` that Ray puts before it, and its tags beside stage, run.

    The names of tasks, sources and a curriculum's stages are tags: they hold any character, and a
    gauge with others than a-z, 0-9 and _ is not exported. Ray takes tags in ASCII only, so that
    they are written as in a URL.
    """
    found = FIGURE.fullmatch(figure)
    assert found is not None  # its parts match anything
    tags = {tag: quote(found[tag], safe="/ ") for tag in ("after", "task") if found[tag]}
    name = (STAGE if found["after"] else "") + found["name"].rstrip("/")
    return "medray_" + re.sub(r"[^a-zA-Z0-9]", "_", name), tags


@contextmanager
def _prometheus(stage: str, run: str, num_workers: int) -> Iterator[Sink]:
    from ray.util.metrics import Gauge

    gauges: dict[str, Gauge] = {}
    run_tags = {"stage": stage, "run": run}

    def write(step: int, figures: Mapping[str, float]) -> None:
        for figure, value in {"step": step, "workers": num_workers, **figures}.items():
            name, own_tags = gauge_of(figure)
            tags = run_tags | own_tags
            if name not in gauges:
                gauges[name] = Gauge(name, f"{name} of a training run", tag_keys=tuple(tags))
            gauges[name].set(float(value), tags)

    yield write
