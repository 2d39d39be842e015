"""A job's steps: what each is made from, its key, and its artefact, found or made."""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from medray.common.config import Config
from medray.common.errors import ConfigError, DataError
from medray.common.exports import fetch_export
from medray.common.manifest import (
    Artefact,
    artefact_key,
    fingerprint_directory,
    read_manifest,
    stored_manifest,
)
from medray.common.storage import Storage
from medray.training.card import complete_card

logger = logging.getLogger("medray")

# What each step is made from, and which sections of the profile shape it.
PARENTS: Mapping[str, tuple[str, ...]] = {
    "sample": (),
    "corpus": ("sample",),
    "instructions": ("sample", "corpus"),
    "pretrain": ("corpus", "instructions"),
    "encoder": ("corpus", "instructions"),
    "sft": ("pretrain", "instructions"),
    "reward": ("encoder", "instructions"),
    "ppo": ("sft", "reward", "instructions"),
    "preference": ("sft", "reward", "instructions"),
    "samples": ("ppo", "reward", "instructions"),
    "index": ("encoder", "corpus", "instructions"),
    "reranker": ("encoder", "index", "instructions"),
    "quality": ("ppo", "index", "instructions"),
    "evaluation": ("corpus", "instructions", "pretrain", "sft", "reward", "ppo", "index"),
}
SECTIONS: Mapping[str, tuple[str, ...]] = {
    "pretrain": ("pretrain", "decoder", "workers"),
    "sft": ("sft", "workers"),
    "reward": ("reward", "workers"),
    "ppo": ("ppo", "workers"),
    "preference": ("preference", "workers"),
}
# What may change a result, in the last digits; patience, logs and checkpoints do not, so that a run
# can go on with other ones.
OF_WORKERS = ("num_workers", "use_gpu", "cpus_per_worker", "threads_per_worker")
# Checkpoints and working files inside an artefact in the making; they go when it is published.
SCRATCH = ("train", "encoder_data", "encoder_train", "reranker_data", "reranker_train")
JOBS: Mapping[str, str] = {
    "sample": "generate_sample",
    "corpus": "prepare_corpus",
    "instructions": "build_instructions",
    "pretrain": "run_pretrain",
    "encoder": "run_encoder",
    "sft": "run_sft",
    "reward": "run_reward",
    "ppo": "run_ppo",
    "preference": "run_preference",
    "samples": "sample_responses",
    "index": "build_index",
    "reranker": "run_reranker",
    "quality": "check_quality",
    "evaluation": "run_eval",
}
# Made by their own jobs only: another way than reward and PPO, answers for physicians to rate, and
# a second look at what a search found, which wants a pretrained base.
ASIDE = ("preference", "samples", "reranker")
PIPELINE = tuple(step for step in JOBS if step not in ASIDE)


class Sections(Config):
    """The part of a profile that shapes one step: what its key and its config.yaml hold."""

    sections: dict[str, Any]

    def to_yaml(self) -> str:
        """As the profile writes it."""
        import yaml

        return yaml.safe_dump(self.sections, allow_unicode=True, sort_keys=False)


class Job:
    """A profile with its storage: finds artefacts, makes missing ones, knows what was reused."""

    def __init__(self, profile: Any) -> None:
        self.profile = profile
        self.storage = Storage(profile.storage)
        self.data: Path | None = None
        self.fingerprint = ""
        self.done: dict[str, dict[str, Any]] = {}
        self._keys: dict[str, str] = dict(profile.pin)
        self._check_pins()
        if "://" in profile.data:
            self.data = fetch_export(profile.data, self.storage.local_root)
        elif profile.data:
            self.data = Path(profile.data).expanduser()
            if not self.data.is_dir():
                raise DataError(f"no data directory at {profile.data}; check --data")
        if self.data is not None:
            self.fingerprint = fingerprint_directory(self.data)

    def _check_pins(self) -> None:
        for step, key in self.profile.pin.items():
            if step not in PARENTS:
                raise ConfigError(f"pin.{step}: there is no such step; {', '.join(PARENTS)}")
            if not self.storage.exists(step, key):
                keys = [found for name, found in self.storage.list() if name == step]
                raise DataError(
                    f"pin.{step}: {self.storage.location(step, key)} is not there; "
                    f"there are: {', '.join(keys) or 'none'}"
                )

    def use_all_threads(self) -> None:
        """Gives a model that runs in this process the cores that training's workers have."""
        import torch

        workers = self.profile.workers
        if not workers.use_gpu:
            threads = workers.most_workers * workers.threads_per_worker
            torch.set_num_threads(min(threads, os.cpu_count() or 1))

    def parents(self, step: str) -> list[str]:
        """The steps that `step` is made from; with outside data there is no sample hospital. A
        reward model that ranks or reads likelihoods starts from the fine-tuned decoder; either
        policy may be sampled."""
        names = PARENTS[step]
        if step in ("reward", "samples"):
            first = self.profile.reward.parent if step == "reward" else self.profile.samples.policy
            names = (first, *names[1:])
        if step == "sft" and self.profile.sft.replays:
            names = (*names, "corpus")
        if step == "preference" and not self.profile.preference.needs_reward:
            names = tuple(name for name in names if name != "reward")
        return [parent for parent in names if parent != "sample" or self.data is None]

    def uses_data(self, step: str) -> bool:
        """True if the step reads the outside data directly."""
        return self.data is not None and "sample" in PARENTS[step]

    def sections(self, step: str) -> Sections:
        """The sections of the profile that shape `step`."""
        names = SECTIONS.get(step, (step,))
        values = self.profile.model_dump(mode="json")
        values["workers"] = {name: values["workers"][name] for name in OF_WORKERS}
        return Sections(sections={name: values[name] for name in names})

    def key(self, step: str) -> str:
        """The key of a step's artefact: known before it is made."""
        if step not in self._keys:
            parents = {parent: self.key(parent) for parent in self.parents(step)}
            fingerprint = self.fingerprint if self.uses_data(step) else ""
            self._keys[step] = artefact_key(step, self.sections(step), parents, fingerprint)
        return self._keys[step]

    def artefact(self, step: str) -> tuple[str, str]:
        """(step, key) of a finished artefact, as workers want it.

        Raises:
            DataError: if it has not been made, naming the job that makes it.
        """
        if not self.storage.exists(step, self.key(step)):
            raise DataError(
                f"{self.storage.location(step, self.key(step))} has not been made yet: run "
                f"{JOBS[step]} first with the same profile and settings, or run_pipeline"
            )
        return step, self.key(step)

    def path(self, step: str) -> Path:
        """Local directory of a finished artefact."""
        return self.storage.fetch(*self.artefact(step))

    def earlier(self, step: str, parent: str) -> Path | None:
        """Local directory of the newest other artefact of `step` that was made of the same `parent`
        as is there now; None if there is none."""
        content = stored_manifest(self.storage, *self.artefact(parent)).content
        found = [
            (manifest.created, key)
            for name, key in self.storage.list()
            if name == step and key != self.key(step)
            for manifest in [stored_manifest(self.storage, step, key)]
            if manifest.parents.get(parent) == content
        ]
        return self.storage.fetch(step, max(found)[1]) if found else None

    def hospital(self) -> Path:
        """The directory that the sources of the profile are relative to."""
        return self.data if self.data is not None else self.path("sample")

    def outdated(self, step: str) -> bool:
        """True if the step's artefact is there, and made of other files than its parents hold now,
        as after an erasure. A parent that is not there counts as unchanged, and what is pinned is
        never outdated."""
        if step in self.profile.pin or not self.storage.exists(step, self.key(step)):
            return False
        made_of = stored_manifest(self.storage, step, self.key(step)).parents
        return any(
            self.storage.exists(parent, self.key(parent))
            and stored_manifest(self.storage, parent, self.key(parent)).content != content
            for parent, content in made_of.items()
        )

    def make(self, step: str, work: Callable[[Artefact], None]) -> Path:
        """Makes the artefact of `step` unless it is there; returns its local directory."""
        key = self.key(step)
        location = self.storage.location(step, key)
        if self.outdated(step):
            logger.info("%s: its parents have changed since; made again", step)
            self.storage.remove(step, key)
        if self.storage.exists(step, key):
            path = self.storage.fetch(step, key)
            seconds = read_manifest(path).duration_s
            logger.info("%s: reused, nothing has changed (%s)", step, location)
        else:
            parents = {parent: self.path(parent) for parent in self.parents(step)}
            fingerprint = self.fingerprint if self.uses_data(step) else ""
            logger.info("%s: started", step)
            artefact = Artefact(
                self.storage,
                step,
                self.sections(step),
                parents=parents,
                key=key,
                fingerprint=fingerprint,
            )
            work(artefact)
            complete_card(artefact)
            path = artefact.publish(drop=SCRATCH)
            manifest = read_manifest(path)
            seconds = manifest.duration_s
            for operator, counts in manifest.counts.items():
                if counts.rejected:
                    logger.info(
                        "%s/%s: %d rows in, %d out, rejected %s",
                        step, operator, counts.rows_in, counts.rows_out, counts.rejected,
                    )  # fmt: skip
            logger.info("%s: done in %.0f s (%s)", step, seconds, location)
            self.done[step] = {"reused": False}
        self.done.setdefault(step, {"reused": True})
        self.done[step] |= {"path": str(path), "key": key, "seconds": seconds}
        return path
