"""Ray workers that are forked from a process which has imported what they need.

A worker of training spends more time importing torch, transformers and DeepSpeed than a tiny model
takes to train. Ray starts each worker through a small script of its own, whose path a node takes as
an option; this file is another such script. It hands the worker's command to a process started by
`forking`, which forks, and stays until the worker has ended, so that the raylet sees one process
come and go as ever. The worker is Ray's own from then on; only its imports are shared.
"""

import argparse
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ADDRESS = "FORKED_WORKERS_SOCKET"
"""Environment variable: where the forking process listens."""


@contextmanager
def forking(modules: Sequence[str]) -> Iterator[str]:
    """Runs a process that has imported `modules`; yields a node's `setup_worker_path`.

    They may not import Ray, which reads a worker's job from the environment as it is loaded. The
    environment of this moment is theirs; nodes must be started in the context, by this process.
    """
    with tempfile.TemporaryDirectory() as scratch:
        os.environ[ADDRESS] = str(Path(scratch) / "socket")
        process = subprocess.Popen(
            [sys.executable, __file__, "--fork", *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            if not process.stdout.readline():
                raise RuntimeError(f"the forking process ended with {process.wait()}")
            yield __file__
        finally:
            del os.environ[ADDRESS]
            process.stdin.close()
            process.wait()


def ask() -> None:
    """Ray's side: has a worker forked with this command, and waits for its end."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ[ADDRESS])
        command = {"argv": sys.argv[1:], "environment": dict(os.environ), "directory": os.getcwd()}
        socket.send_fds(connection, [b"\n"], [0, 1, 2])
        connection.sendall(json.dumps(command).encode() + b"\n")
        connection.recv(1)  # nothing ever comes; the worker holds the other end


def fork_workers(modules: Sequence[str]) -> None:
    """The forking process. Returns in a worker that has ended, or as standard input is closed."""
    for module in modules:
        importlib.import_module(module)
    assert "ray" not in sys.modules
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a worker
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.environ[ADDRESS])
        server.listen()
        print("ready", flush=True)
        while server in select.select([server, sys.stdin], [], [])[0]:
            connection, _ = server.accept()
            _, files, _, _ = socket.recv_fds(connection, 1, 3)
            with connection.makefile("rb") as stream:
                command = json.loads(stream.readline())
            if os.fork() == 0:
                server.close()
                for number, file in enumerate(files):
                    os.dup2(file, number)
                    os.close(file)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                become_worker(command)
                return
            connection.close()
            for file in files:
                os.close(file)


def become_worker(command: dict) -> None:
    """What Ray's own script does, without another interpreter."""
    os.chdir(command["directory"])
    os.environ.clear()
    os.environ.update(command["environment"])
    from ray._private.runtime_env.context import (
        RuntimeEnvContext,
        update_envs,  # pyright: ignore[reportPrivateImportUsage]
    )

    parser = argparse.ArgumentParser()
    parser.add_argument("--serialized-runtime-env-context", default="{}")
    parser.add_argument("--language")
    arguments, sys.argv = parser.parse_known_args(command["argv"])
    context = RuntimeEnvContext.deserialize(arguments.serialized_runtime_env_context)
    update_envs(context.env_vars)
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--fork"]:
        fork_workers(sys.argv[2:])
    else:
        ask()
