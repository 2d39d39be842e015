"""Waits for a served application. In: its name or address. Out: nothing, once it can be asked."""

import time
import urllib.request

from ray import serve

from medray.common.errors import ServiceError
from medray.serving.tls import Tls

POLL_S = 0.2


def wait_until_running(name: str, timeout_s: float) -> None:
    """Returns once every deployment of the application is healthy.

    Raises:
        ServiceError: if one fails to start, or some are not healthy in time; says which, and why.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        application = serve.status().applications[name]
        if application.status == "RUNNING":
            return
        reasons = [
            f"{deployment}: {_last_line(state.message)}"
            for deployment, state in application.deployments.items()
            if state.status == "DEPLOY_FAILED" or state.status == "UNHEALTHY"
        ]
        if application.status == "DEPLOY_FAILED" or reasons:
            raise ServiceError("a deployment failed to start: " + "; ".join(reasons))
        if time.monotonic() > deadline:
            waiting = [
                f"{deployment} {state.status.value}"
                for deployment, state in application.deployments.items()
                if state.status != "HEALTHY"
            ]
            raise ServiceError(
                f"not healthy after {timeout_s:.0f} s: {', '.join(waiting)}; is there enough "
                "memory, and a free CPU or GPU for each replica?"
            )
        time.sleep(POLL_S)


def wait_until_answering(url: str, tls: Tls | None, timeout_s: float = 20.0) -> None:
    """Returns once the address answers: the HTTP proxy learns of an application a moment after it
    runs.

    Raises:
        ServiceError: if it does not in time.
    """
    deadline = time.monotonic() + timeout_s
    context = tls.context() if tls is not None else None
    while True:
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=10, context=context):
                return
        except OSError as error:
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"{url}/healthz does not answer ({error}); if Serve ran on this cluster "
                    "before, it keeps its own host and port: see `serve config`"
                ) from None
        time.sleep(POLL_S)


def _last_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
