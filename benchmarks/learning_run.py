"""A profile under one root, whose jobs run as processes and whose artefacts are read here, for
benchmarks/learning.py. In: a profile with overrides. Out: artefacts, figures of theirs, and
measurements that are made once.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medray.common.manifest import read_manifest
from medray.evaluation.figures import Figure
from medray.job import JOBS, Job
from medray.launch import load_profile
from medray.project import jobs_directory
from medray.training.forgetting import FILE


class Run:
    """A profile under one root: its jobs run as processes, its artefacts are read here."""

    def __init__(self, profile: str, root: Path, overrides: list[str], data: Path | None) -> None:
        self.root, self.profile, self.data = root, profile, data
        self.overrides = [f"storage.root={root}", *overrides]
        self.job = Job(load_profile(profile, self.overrides, str(data) if data else None))

    def vary(self, *overrides: str) -> "Run":
        """The same with other settings."""
        return Run(self.profile, self.root, [*self.overrides[1:], *overrides], self.data)

    def make(self, *steps: str, job: str = "") -> None:
        """Runs the jobs, or the one `job`, of the steps that are missing."""
        for step in steps:
            if not self.job.storage.exists(step, self.job.key(step)):
                self._start(job or JOBS[step])

    def _start(self, job: str) -> None:
        command = [sys.executable, str(jobs_directory() / f"{job}.py"), "--profile", self.profile]
        command += ["--data", str(self.data)] if self.data else []
        self.root.mkdir(parents=True, exist_ok=True)
        log = self.root / "jobs.log"
        say(f"{self.root.name}: {job}")
        with log.open("ab") as file:
            code = subprocess.call(
                [*command, *self.overrides], stdout=subprocess.DEVNULL, stderr=file
            )
        if code:
            tail = log.read_text(encoding="utf-8", errors="replace")[-3000:]
            raise RuntimeError(f"{job} ended with {code}:\n{tail}")

    def metrics(self, step: str) -> dict[str, Any]:
        """Headline figures of a finished step."""
        return read_manifest(self.job.path(step)).metrics

    def once(self, measure: Callable[[Job, str], Any], step: str) -> Any:
        """What `measure` gives for the artefact of `step`, from a file if it was measured."""
        name = measure.__name__
        path = self.root / "measured" / f"{name}-{step}-{self.job.key(step)}.json"
        if not path.exists():
            say(f"{self.root.name}: {name} of {step}")
            self.job.use_all_threads()
            content = json.dumps(measure(self.job, step))
            path.parent.mkdir(exist_ok=True)
            path.with_suffix(".tmp").write_text(content, encoding="utf-8")
            path.with_suffix(".tmp").replace(path)
        return json.loads(path.read_text(encoding="utf-8"))

    def evaluated(self, model: str) -> tuple[dict[str, Figure], dict[str, list[float]]]:
        """A model's figures by metric/group, and its values per item."""
        path = self.job.path("evaluation") / "models" / f"{model}.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        found = [Figure.model_validate(row) for row in content["figures"]]
        return {row.key.removeprefix(f"{model}/"): row for row in found}, content["items"]

    def losses(self) -> dict[str, Any]:
        """Step → moment → source or task → held-out loss, where a step tells them apart; the
        encoder's, of which no values per item can be had, as its manifest has them."""
        found: dict[str, Any] = {}
        if self.job.storage.exists("encoder", self.job.key("encoder")):
            known = self.metrics("encoder")
            found["encoder"] = {name: known[name] for name in known if "loss" in name}
        for step in ("pretrain", "sft"):
            path = self.job.path(step) / FILE
            if path.exists():
                found[step] = json.loads(path.read_text(encoding="utf-8"))["loss"]
        return found


def say(text: str) -> None:
    """To people; standard output holds the result alone."""
    print(text, file=sys.stderr, flush=True)
