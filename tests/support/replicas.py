"""Processes of Serve's replicas, found by what Ray calls them."""

import contextlib

import psutil


def replica(deployment: str, process: psutil.Process | None = None) -> psutil.Process:
    """The one replica of a deployment, below a process that has started Ray: this one, if none is
    given."""
    found = []
    for child in (process or psutil.Process()).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # others end meanwhile
            if f"ServeReplica:medray:{deployment}" in "".join(child.cmdline()[:1]):
                found.append(child)
    (one,) = found
    return one
