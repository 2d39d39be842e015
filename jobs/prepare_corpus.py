"""The corpus: records and literature, read, de-identified, cleaned, cut and packed.

In: the hospital's exports. Out: corpus/<key> with documents, passages, tokenizer, blocks.
"""

from pathlib import Path

from medray.corpus.prepare import prepare_corpus
from medray.job import Job
from medray.launch import main


def run(job: Job) -> Path:
    """The tokenizer comes with the decoder where there is one, else it is trained here."""
    tokenizer = Path(job.profile.decoder.path).expanduser() if job.profile.decoder.path else None
    return job.make(
        "corpus",
        lambda artefact: prepare_corpus(job.profile.corpus, job.hospital(), artefact, tokenizer),
    )


if __name__ == "__main__":
    main(run, steps=("corpus",))
