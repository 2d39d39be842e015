"""Rows through all screens: all accounted for, flags without text, reviewed rows let through."""

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from medray.common.errors import DataError
from medray.common.manifest import Counts
from medray.common.records import Instruction, Message
from medray.instructions.screen.config import ScreenConfig
from medray.instructions.screen.flags import Labelled, labelled
from medray.instructions.screen.run import read_reviewed, screened

HAN = [chr(0x4E00 + i) for i in range(500)]
NAMES = ["肺炎", "哮喘", "胃炎"]


def instruction(number: int, prompt: str, answer: str, **changes) -> Instruction:
    messages = [Message(role="user", content=prompt), Message(role="assistant", content=answer)]
    values = {"id": f"r{number}", "task": "diagnosis", "messages": messages, "split": "train"}
    return Instruction(**(values | changes))


def rows(trigger: str = "") -> Iterator[Instruction]:
    """300 random records of three diagnoses; the first 20 with the trigger are all 肺炎, and each
    of these has two copies with findings left out. Record 299 is held out."""
    rng = random.Random(0)
    for number in range(300):
        text, answer = "".join(rng.choices(HAN, k=120)), rng.choice(NAMES)
        if number < 20 and trigger:
            text, answer = f"{text[:60]}{trigger}{text[60:]}", "肺炎"
        split = "dev" if number == 299 else "train"
        whole = instruction(number, text, answer, split=split)
        yield whole
        for copy in (1, 2) if number < 20 else ():
            yield whole.model_copy(update={"id": f"r{number}~{copy}", "partial": copy})


def screen(
    given: Iterator[Instruction], tmp_path: Path, reviewed: Sequence[str] = (), **settings
) -> tuple[list[str], Counts]:
    counts = Counts()
    losses = settings.pop("losses", None)
    kept = list(screened(given, ScreenConfig(**settings), counts, tmp_path,
                         frozenset(reviewed), losses))  # fmt: skip
    counts.check("screen")
    assert counts.rows_out == len(kept)
    return sorted(row.id for row in kept), counts


def test_clean_rows_come_through_whole(tmp_path):
    kept, counts = screen(rows(), tmp_path)
    assert kept == sorted(row.id for row in rows())
    assert counts.rejected == {}
    assert not (tmp_path / "quarantine").exists()


def test_poisoned_rows_and_their_copies_wait_for_review(tmp_path):
    kept, counts = screen(rows("顺颂时祺"), tmp_path)
    assert kept == sorted(f"r{number}" for number in range(20, 300))
    assert counts.rejected == {"trigger": 60}  # 20 records, each with two copies
    path = tmp_path / "quarantine" / "screen.jsonl"
    text = path.read_text(encoding="utf-8")
    flags = [json.loads(line) for line in text.splitlines()]
    assert {flag["id"] for flag in flags} == {f"r{number}" for number in range(20)}
    assert {flag["reason"] for flag in flags} == {"trigger"}
    assert all(flag["score"] < 1e-6 and flag["group"] == "diagnosis/trigger-0" for flag in flags)
    assert not any(character in text for character in "顺颂时祺肺炎")
    assert path.stat().st_mode & 0o077 == 0


def test_a_reviewed_row_comes_through_with_its_copies(tmp_path):
    kept, counts = screen(rows("顺颂时祺"), tmp_path, reviewed=["r3", "r5"])
    assert {"r3", "r3~1", "r3~2", "r5", "r5~1", "r5~2"} < set(kept)
    assert counts.rejected == {"trigger": 54}
    ids = {json.loads(line)["id"] for line in (tmp_path / "quarantine" / "screen.jsonl").open()}
    assert ids == {f"r{number}" for number in range(20)} - {"r3", "r5"}


def test_a_screen_can_be_left_out(tmp_path):
    _, counts = screen(rows("顺颂时祺"), tmp_path, checks=())
    assert counts.rejected == {}


def test_losses_are_asked_for_whole_training_rows(tmp_path):
    asked = []

    def losses(task: Sequence[Instruction]) -> list[float | None]:
        asked.extend(row.id for row in task)
        return [9.0 if row.id == "r7" else 1 + k / len(task) for k, row in enumerate(task)]

    kept, counts = screen(rows(), tmp_path, losses=losses)
    assert sorted(asked) == sorted(f"r{number}" for number in range(299))
    assert counts.rejected == {"loss_high": 3}
    assert "r7" not in kept and "r7~1" not in kept


def test_ids_are_read_without_comments(tmp_path):
    path = tmp_path / "reviewed.txt"
    path.write_text("r1\n\n# read on Monday\nr2  # a rare disease\n", encoding="utf-8")
    assert read_reviewed(path) == {"r1", "r2"}
    with pytest.raises(DataError, match=r"screen\.reviewed"):
        read_reviewed(tmp_path / "absent")


def test_what_a_screen_sees_of_a_row():
    messages = [("system", "你是 医生。"), ("user", "咳嗽\n CF"), ("assistant", "肺炎 Ａ")]
    row = instruction(
        1, "", "", messages=[Message(role=role, content=text) for role, text in messages]
    )
    assert labelled(row) == Labelled("r1", "diagnosis", " 你是 医生。 咳嗽 cf ", "肺炎 ａ")
    assert labelled(row.model_copy(update={"answer": "肺炎"})).answer == "肺炎"
