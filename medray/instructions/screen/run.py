"""All screens over the fine-tuning rows. In: rows of every task. Out: the rows that no screen
flags; quarantine/screen.jsonl names the others for a person to read.

Training rows alone are screened, task by task and whole records only: a copy of a record with
findings left out goes where its record goes. A row that was read and found good comes through by
its id in the file that `reviewed` names.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from medray.common.errors import DataError
from medray.common.manifest import Counts
from medray.common.records import Instruction
from medray.common.sources import write_quarantine
from medray.common.spool import Spool, hash_key
from medray.instructions.screen.config import ScreenConfig
from medray.instructions.screen.conflicts import find_conflicts
from medray.instructions.screen.flags import Flag, labelled
from medray.instructions.screen.losses import Losses, find_outliers
from medray.instructions.screen.triggers import find_triggers

logger = logging.getLogger(__name__)
QUARANTINE = "screen.jsonl"


def screened(
    rows: Iterable[Instruction],
    config: ScreenConfig,
    counts: Counts,
    directory: Path,
    reviewed: frozenset[str] = frozenset(),
    losses: Losses | None = None,
) -> Iterator[Instruction]:
    """Yields the rows that no screen flags, in no order; counts the others by reason.

    Memory: the training rows of one task.

    Args:
        directory: of the artefact; its quarantine/ takes the flags, which hold ids and no text.
        reviewed: ids of rows that come through whatever a screen says.
        losses: scores rows by a reference model; None: no row is scored.
    """
    flags: list[Flag] = []
    with Spool(directory) as spool:
        for row in rows:
            counts.rows_in += 1
            if row.split == "train":
                spool.add(hash_key(row.task), row.model_dump())
            else:
                counts.rows_out += 1
                yield row
        for _, values in spool.groups():
            task = [Instruction.model_validate(value) for value in values]
            found = [f for f in flag_task(task, config, losses) if f.id not in reviewed]
            flags += found
            reasons = {flag.id: flag.reason for flag in reversed(found)}
            for row in task:
                reason = reasons.get(_whole(row))
                if reason is None:
                    counts.rows_out += 1
                    yield row
                else:
                    counts.reject(reason)
    if flags:
        path = directory / "quarantine" / QUARANTINE
        write_quarantine(path, flags)
        logger.warning(
            "%d training rows are suspicious and were left out; read the rows that %s names, then "
            "mend the sources or name the good ones in screen.reviewed",
            len({flag.id for flag in flags}), path,
        )  # fmt: skip


def flag_task(
    rows: Sequence[Instruction], config: ScreenConfig, losses: Losses | None = None
) -> list[Flag]:
    """What the configured screens say of the training rows of one task, the surest first."""
    whole = [row for row in rows if not row.partial]
    seen = [labelled(row) for row in whole]
    flags: list[Flag] = []
    if "triggers" in config.checks:
        flags += find_triggers(seen, config)
    # Quality control asks different things of records that are alike.
    if "conflicts" in config.checks and rows[0].task != "quality":
        flags += find_conflicts(seen, config)
    if losses is not None:
        flags += find_outliers(whole, losses(whole), config)
    return flags


def read_reviewed(path: Path) -> frozenset[str]:
    """Row ids, one a line; blank lines and what stands after # are left out.

    Raises:
        DataError: if the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the file of reviewed rows {path} cannot be read ({type(error).__name__}); "
            "mend instructions.screen.reviewed"
        ) from None
    return frozenset(filter(None, (line.partition("#")[0].strip() for line in lines)))


def _whole(row: Instruction) -> str:
    """The id of the row, or of the one whose partial copy it is."""
    return row.id.removesuffix(f"~{row.partial}") if row.partial else row.id
