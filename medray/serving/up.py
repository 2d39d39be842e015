"""Brings a Serve config up on this machine or on a cluster, and down again.

In: a file of serve_configs/, the same that `serve deploy` takes. Out: a served application and its
address. The command line calls `start`, then `run_until_interrupt`.
"""

import contextlib
import ipaddress
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from pydantic import ValidationError
from ray import serve
from ray.serve.schema import ServeDeploySchema

from medray.common.config import apply_overrides, explain, read_yaml
from medray.common.errors import ConfigError, ServiceError
from medray.serving.app import ServingConfig, build_app
from medray.serving.proxy import ENVIRONMENT
from medray.serving.readiness import wait_until_answering, wait_until_running
from medray.serving.tls import Tls, ends_soon

logger = logging.getLogger(__name__)
APP_PATH = "medray.serving.app:build_app"


class Running:
    """A served application. As a context manager it is stopped at the end."""

    def __init__(self, url: str, owns_ray: bool, name: str) -> None:
        self.url, self._owns_ray, self._name = url, owns_ray, name

    def stop(self) -> None:
        """Takes the application down; the local Ray too, if `start` brought it up."""
        if not ray.is_initialized():
            return
        serve.delete(self._name)  # lets running streams end
        if self._owns_ray:
            ray.shutdown()

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def read_config(
    path: Path, overrides: list[str] | None = None
) -> tuple[ServeDeploySchema, ServingConfig]:
    """Reads a Serve config and its application's `args`; overrides are dotted keys of `args`.

    Raises:
        ConfigError: if either is invalid, or the file holds something `medray serve` cannot do.
    """
    values = read_yaml(path)
    try:
        schema = ServeDeploySchema.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, str(path))) from None
    if len(schema.applications) != 1 or schema.applications[0].import_path != APP_PATH:
        raise ConfigError(f"{path} must hold one application with import_path: {APP_PATH}")
    application = schema.applications[0]
    if application.deployments:
        raise ConfigError(
            f"{path}: set replicas under args (policy_replicas, …), not under deployments"
        )
    config = ServingConfig.parse(apply_overrides(application.args, overrides or []), str(path))
    return schema, config


def start(
    config_path: Path,
    overrides: list[str] | None = None,
    *,
    host: str | None = None,
    port: int | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    address: str | None = None,
    num_cpus: int | None = None,
    timeout_s: float = 180.0,
    tell: Callable[[str], None] = logger.info,
) -> Running:
    """Deploys a config and returns once every deployment is healthy.

    Args:
        overrides: dotted settings of the application, such as `gateway.max_in_flight=8`.
        host, port: where to listen; None takes the config's.
        certificate, key: PEM files to serve HTTPS with; None takes the config's, if it has any.
        address: a running Ray cluster (`auto`, `ray://…`, `host:port`); None starts a local one.
        num_cpus: size of the local Ray; at least 2, whatever the machine has.
        tell: is handed a line a step for the user.
    Raises:
        ConfigError: if the config is invalid, nothing has been trained yet, or HTTPS cannot be
            served with certificate and key.
        ServiceError: if the port is taken, no cluster is at the address, or a deployment fails.
    """
    schema, config = read_config(config_path, overrides)
    host = host or schema.http_options.host
    port = port or schema.http_options.port
    tls = Tls.of(schema.http_options, certificate, key)
    if address is None:
        check_port(host, port)
        config.batching.check_installed()  # a cluster's nodes have packages of their own
    if tls is not None and (line := ends_soon(tls.check())):
        tell(line)
    check_access(host, config)
    application = build_app(config)  # a missing artefact is told before Ray starts
    owns_ray = not ray.is_initialized()
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # `tell` says what is going on
    if owns_ray:
        tell("starting Ray" if address is None else f"connecting to Ray at {address}")
        _connect(address, num_cpus)
    name = schema.applications[0].name
    reached_at = "127.0.0.1" if host == "0.0.0.0" else host
    running = Running(f"http{'s' if tls else ''}://{reached_at}:{port}", owns_ray, name)
    try:
        secured = tls.options() if tls is not None else {}
        serve.start(http_options={"host": host, "port": port, **secured})
        tell("starting the deployments: gateway, policy, embedding, retrieval")
        began = time.monotonic()
        target = serve.RunTarget(application, name, schema.applications[0].route_prefix)
        # Not waited for here: Serve itself would wait for ever, without a word why.
        serve.run_many(
            [target],
            wait_for_ingress_deployment_creation=False,
            wait_for_applications_running=False,
        )
        wait_until_running(name, timeout_s)
        wait_until_answering(running.url, tls)
    except BaseException:
        running.stop()
        raise
    tell(f"all are ready after {time.monotonic() - began:.0f} s")
    tell(f"serving {config.gateway.model_name} at {running.url}/v1")
    return running


def update(config_path: Path, overrides: list[str] | None = None, timeout_s: float = 300.0) -> None:
    """Moves the application that runs to another config, replica by replica, while it answers.

    Raises:
        ConfigError: if the config is invalid.
        ServiceError: if a deployment fails; the replicas that were there go on.
    """
    schema, config = read_config(config_path, overrides)
    name = schema.applications[0].name
    target = serve.RunTarget(build_app(config), name, schema.applications[0].route_prefix)
    serve.run_many(
        [target],
        wait_for_ingress_deployment_creation=False,
        wait_for_applications_running=False,
    )
    wait_until_running(name, timeout_s)


def check_access(host: str, config: ServingConfig) -> None:
    """Raises ConfigError if other machines could ask without a key or token."""
    if config.gateway.keys_file or config.gateway.oidc or host == "localhost":
        return
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return
    raise ConfigError(
        f"{host} lets other machines in, and no key is asked for; set gateway.keys_file (see "
        "medray keys --help) or gateway.oidc, or listen on 127.0.0.1"
    )


def check_port(host: str, port: int) -> None:
    """Raises ServiceError if the port cannot be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServiceError(
                f"cannot listen on {host}:{port} ({error.strerror}); stop what uses it, "
                f"or choose another port, for example: medray serve --port {port + 1}"
            ) from None


def run_until_interrupt(running: Running) -> None:
    """Blocks until SIGINT or SIGTERM, then stops what runs. For the main thread."""
    asked = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: asked.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        asked.wait()
    finally:
        running.stop()
        for number, handler in before.items():
            signal.signal(number, handler)


def _connect(address: str | None, num_cpus: int | None) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    if address is None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)  # Ray's processes inherit it
        options |= {
            "address": "local",  # never joins a cluster that happens to run here
            "num_cpus": max(2, num_cpus or os.cpu_count() or 2),
            "include_dashboard": False,
        }
    else:
        options["address"] = address
    try:
        ray.init(**options)
    except (ConnectionError, ValueError) as error:
        raise ServiceError(
            f"no Ray cluster at {address} ({type(error).__name__}); start one with "
            "`ray start --head`, or leave the address out to start a local one"
        ) from None
