"""A round of rating: answers that physicians score and rank without knowing whose they are.

In: `DIR/responses.jsonl`, as `sample_responses` writes it. Out: `DIR/ratings.jsonl`, which `medray
ratings` reads, a line an answer; and `DIR/skipped.jsonl`. A rater is shown each scenario once, all
raters in the file's order, so that those who stop early have judged the same ones. The answers
stand in an order of the rater's own, the same at each look, and without their ids: an id may say
more than a rater should know.

All gateway replicas write to the same two files, one at a time.
"""

import fcntl
import os
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from medray.common.errors import DataError
from medray.common.ratings import Rating, RatingTask, Response, read_line, read_lines
from medray.common.records import Row
from medray.common.split import unit_hash

RESPONSES, RATINGS, SKIPPED = "responses.jsonl", "ratings.jsonl", "skipped.jsonl"


class Skipped(Row):
    """A scenario that a rater did not want to judge."""

    scenario_id: str = Field(min_length=1)
    rater: str = Field(min_length=1)


class Progress(NamedTuple):
    """How far a rater is, in scenarios."""

    rated: int
    skipped: int
    total: int


class Judgement(NamedTuple):
    """What a rater says of a scenario's answers, in the order in which the rater was shown them.
    `ranks`: 1 is best, equals are allowed. One of the two may be missing."""

    scores: Sequence[float] | None
    ranks: Sequence[int] | None
    comments: Sequence[str] = ()


class AlreadyJudged(Exception):
    """The rater has judged or skipped this scenario before."""


class OtherNumber(Exception):
    """A judgement that is not of the answers that there are; the message says what does not fit."""


class RatingRound:
    """One directory's round. Its methods block: they wait for other writers, and for the disk."""

    def __init__(self, directory: Path | str) -> None:
        """Reads the answers, and the ratings that are there.

        Raises:
            DataError: no responses.jsonl, a line of a file that is none, or ratings of other ones.
        """
        self._directory = Path(directory).expanduser()
        self._tasks = read_tasks(self._directory)
        self._mutex = threading.Lock()
        self._rated: dict[str, set[str]] = defaultdict(set)
        self._skipped: dict[str, set[str]] = defaultdict(set)
        self._sizes = {RATINGS: 0, SKIPPED: 0}
        with self._locked(RATINGS), self._locked(SKIPPED):
            handle = os.open(self._directory, os.O_RDONLY)
            try:
                os.fsync(handle)  # the two files' names
            finally:
                os.close(handle)

    def progress(self, rater: str) -> Progress:
        """How far a rater is."""
        with self._mutex, self._locked(RATINGS), self._locked(SKIPPED):
            return self._progress(rater)

    def next(self, rater: str) -> tuple[RatingTask | None, Progress]:
        """The scenario that a rater is to judge next, with its answers in the rater's order; None
        when there is none left."""
        with self._mutex, self._locked(RATINGS), self._locked(SKIPPED):
            done = self._rated[rater] | self._skipped[rater]
            task = next((t for s, t in self._tasks.items() if s not in done), None)
            shown = task and task.model_copy(update={"responses": in_order(task, rater)})
            return shown, self._progress(rater)

    def task(self, scenario_id: str) -> RatingTask | None:
        """A scenario with its answers in the file's order."""
        return self._tasks.get(scenario_id)

    def keep(self, task: RatingTask, rater: str, judgement: Judgement) -> list[Rating]:
        """Writes a line an answer, all or none; returned when they are on the disk.

        Raises:
            AlreadyJudged: if the rater was through with this scenario.
            OtherNumber: if the judgement is not of as many answers as there are.
        """
        rows = _rows(task, rater, judgement)
        with self._mutex, self._locked(RATINGS) as file, self._locked(SKIPPED):
            self._once(task, rater)
            self._append(RATINGS, file, rows)
        return rows

    def skip(self, task: RatingTask, rater: str) -> None:
        """Has a scenario not shown to a rater again.

        Raises:
            AlreadyJudged: if the rater was through with it.
        """
        with self._mutex, self._locked(RATINGS), self._locked(SKIPPED) as file:
            self._once(task, rater)
            self._append(SKIPPED, file, [Skipped(scenario_id=task.scenario_id, rater=rater)])

    def _once(self, task: RatingTask, rater: str) -> None:
        if task.scenario_id in self._rated[rater] | self._skipped[rater]:
            raise AlreadyJudged

    def _progress(self, rater: str) -> Progress:
        return Progress(len(self._rated[rater]), len(self._skipped[rater]), len(self._tasks))

    @contextmanager
    def _locked(self, name: str) -> Iterator[int]:
        """A file that nobody else writes to meanwhile, with what others wrote taken in."""
        flags = os.O_CREAT | os.O_APPEND | os.O_RDWR
        handle = os.open(self._directory / name, flags, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            self._catch_up(name, handle)
            yield handle
        finally:
            os.close(handle)

    def _catch_up(self, name: str, handle: int) -> None:
        size, begin = os.fstat(handle).st_size, self._sizes[name]
        if size < begin:
            raise DataError(f"{self._directory / name} was cut while it was in use; restart")
        # Writers hold the lock until a line is whole: half a line is of one that died.
        *lines, half = os.pread(handle, size - begin, begin).split(b"\n")
        if half:
            os.ftruncate(handle, size - len(half))
        model, by_rater = (Rating, self._rated) if name == RATINGS else (Skipped, self._skipped)
        for number, line in enumerate(lines, 1):
            where = f"{self._directory / name}, line {number} from byte {begin}"
            row = read_line(line, model, where)
            if row.scenario_id not in self._tasks:
                raise DataError(
                    f"{where}: its scenario is not in {RESPONSES}; "
                    "give each round a directory of its own"
                )
            by_rater[row.rater].add(row.scenario_id)
        self._sizes[name] = size - len(half)

    def _append(self, name: str, handle: int, rows: Sequence[Row]) -> None:
        data = "".join(row.model_dump_json(exclude_defaults=True) + "\n" for row in rows).encode()
        size = os.fstat(handle).st_size
        try:
            if os.write(handle, data) != len(data):
                raise OSError(f"no room for {name}")
            os.fsync(handle)
        except OSError:
            os.ftruncate(handle, size)
            raise
        self._catch_up(name, handle)


def read_tasks(directory: Path) -> dict[str, RatingTask]:
    """Scenario id → the scenario and its answers, in the file's order.

    Raises:
        DataError: no responses.jsonl, a line that is none, or an id that stands twice.
    """
    tasks: dict[str, RatingTask] = {}
    for number, task in read_lines(directory / RESPONSES, RatingTask):
        ids = {response.response_id for response in task.responses}
        if task.scenario_id in tasks or len(ids) < len(task.responses):
            raise DataError(f"{directory / RESPONSES}, line {number}: an id stands twice")
        tasks[task.scenario_id] = task
    return tasks


def in_order(task: RatingTask, rater: str) -> list[Response]:
    """A task's answers as one rater sees them: shuffled by a hash, so that it needs no memory."""
    return sorted(
        task.responses,
        key=lambda response: unit_hash(f"{rater}\n{task.scenario_id}\n{response.response_id}"),
    )


def _rows(task: RatingTask, rater: str, judgement: Judgement) -> list[Rating]:
    shown = in_order(task, rater)
    for given in judgement:
        if given and len(given) != len(shown):
            raise OtherNumber(f"there are {len(shown)} answers, and {len(given)} are judged")
    if judgement.ranks and max(judgement.ranks) > len(shown):
        raise OtherNumber(f"ranks go from 1 to {len(shown)}")
    nothing = [None] * len(shown)
    scores, ranks = judgement.scores or nothing, judgement.ranks or nothing
    comments = judgement.comments or [""] * len(shown)
    return [
        Rating(
            scenario_id=task.scenario_id, response_id=response.response_id, rater=rater,
            score=score, rank=rank, comment=comment,
        )
        for response, score, rank, comment in zip(shown, scores, ranks, comments, strict=True)
    ]  # fmt: skip
