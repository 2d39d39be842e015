"""A port for a server of a test."""

import contextlib
import random
import socket


def free_port() -> int:
    """A free port below those that the system hands out: one of these may be taken by a process of
    Ray before the server binds it."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("100 ports are taken")
