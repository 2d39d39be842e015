"""The sample hospital: records and everything else a hospital has, with known truth.

Out: sample/<key>, the directory that the sources of the laptop profile name.
"""

from pathlib import Path

import ray

from medray.common.manifest import Artefact, Counts
from medray.job import Job
from medray.launch import main
from medray.sample.hospital import num_shards, write_knowledge, write_shard, write_summary


def run(job: Job) -> Path:
    """Shards are independent, so that any number of them are made at once."""
    config = job.profile.sample

    def work(artefact: Artefact) -> None:
        shard = ray.remote(write_shard)
        pending = [shard.remote(config, artefact.dir, k) for k in range(num_shards(config))]
        shards = ray.get(pending)
        write_knowledge(config, artefact.dir)
        write_summary(config, artefact.dir, shards)
        artefact.counts["records"] = Counts(rows_in=config.num_records, rows_out=config.num_records)

    return job.make("sample", work)


if __name__ == "__main__":
    main(run, steps=("sample",))
