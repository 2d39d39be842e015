"""What every output of `build_instructions` shares: inputs, where it writes, what it reports."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from medray.common.manifest import Counts
from medray.common.records import Row
from medray.instructions.config import InstructionsConfig
from medray.instructions.examples import Mask, Skipped
from medray.instructions.reading import TaskReader
from medray.instructions.screen.losses import Losses
from medray.instructions.settle import Share, settle

RowType = TypeVar("RowType", bound=Row)
RawType = TypeVar("RawType")


@dataclass
class Step:
    """What every output reads, where it writes and what it reports."""

    config: InstructionsConfig
    reader: TaskReader
    mask: Mask
    corpus: Path
    directory: Path
    losses: Losses | None = None
    """Scores rows by a reference model, where one is set."""
    counts: dict[str, Counts] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)

    def each(
        self, operator: str, rows: Iterable[RawType], make: Callable[[RawType], RowType | Skipped]
    ) -> Iterator[RowType]:
        """Yields what `make` makes of each row; counts afresh what it skips, by reason."""
        self.counts[operator] = Counts()
        for row in rows:
            made = self.count(operator, make(row))
            if made is not None:
                yield made

    def count(self, operator: str, made: RowType | Skipped) -> RowType | None:
        """Counts one row through `operator`; returns it unless it was skipped."""
        counts = self.counts[operator]
        counts.rows_in += 1
        if isinstance(made, Skipped):
            counts.reject(made.reason)
            return None
        counts.rows_out += 1
        return made

    def write(
        self,
        output: str,
        row_type: type[RowType],
        rows: Iterable[RowType],
        prompt_of: Callable[[RowType], str],
        share_of: Callable[[RowType], Share],
    ) -> None:
        """Settles `rows` into `directory/output`; reports the rows of each group."""
        self.counts[f"write/{output}"], written = settle(
            self.directory / output, row_type, rows,
            prompt_of=prompt_of, share_of=share_of, seed=self.config.seed,
        )  # fmt: skip
        self.metrics |= {f"{output}/{group}_rows": rows for group, rows in written.items()}
