"""Fine-tuning tasks from texts of patients and doctors: consultations, dialogues, generic
instructions.

In: raw rows, whose free text is masked here. Out: an `Instruction`, or why there is none.
Source: [ClinicalGPT 2.1] cMedQA2 (question → answer) and MedDialog (turns); [EMR-LLM 1.3] general
medical instructions.
"""

from itertools import groupby

from medray.common.records import Instruction, Message
from medray.common.split import Split
from medray.instructions.examples import Mask, Skipped, clip, exchange
from medray.instructions.raw import Consultation, Dialogue, Generic, Turn


def consultation(
    row: Consultation, split: Split, mask: Mask, max_prompt_chars: int, max_answer_chars: int
) -> Instruction | Skipped:
    """Scenario → response."""
    return _single(
        "consultation", row.id, split, mask(row.scenario), mask(row.response), row.department,
        max_prompt_chars, max_answer_chars,
    )  # fmt: skip


def instruction(
    row: Generic, split: Split, mask: Mask, max_prompt_chars: int, max_answer_chars: int
) -> Instruction | Skipped:
    """Instruction and input → output."""
    prompt = f"{row.instruction}\n{row.input}" if row.input else row.instruction
    return _single(
        "instruction", row.id, split, mask(prompt), mask(row.output), row.department,
        max_prompt_chars, max_answer_chars,
    )  # fmt: skip


def dialogue(
    row: Dialogue, split: Split, mask: Mask, max_prompt_chars: int, max_answer_chars: int
) -> Instruction | Skipped:
    """Turns → chat, the doctor as assistant, from the patient's first turn to a doctor's last.

    Turns past `max_prompt_chars` are left out in whole pairs, so that the last turn stays an
    answer; a dialogue whose first pair is longer than that is skipped.
    """
    messages: list[Message] = []
    used = 0
    for patient, doctor in _pairs(row.turns):
        question, answer = mask(patient), clip(mask(doctor), max_answer_chars)
        used += len(question) + len(answer)
        if used > max_prompt_chars:
            break
        messages += exchange(question, answer)
    if not messages:
        return Skipped("prompt_too_long" if used else "no_exchange")
    return Instruction(
        id=f"dialogue-{row.id}",
        task="dialogue",
        messages=messages,
        split=split,
        answer=row.diagnosis or "",
        group=row.department or "",
    )


def doctor_text(response: str | list[Turn]) -> str:
    """A response as one text: of a whole consultation, what the doctor said."""
    if isinstance(response, str):
        return response
    return "\n".join(turn.text for turn in response if turn.role == "doctor")


def _pairs(turns: list[Turn]) -> list[tuple[str, str]]:
    """(patient, doctor) pairs; consecutive turns of one role are joined, what the doctor says
    before the patient's first turn and the patient after the doctor's last is left out."""
    joined = [
        (role, "\n".join(turn.text for turn in same))
        for role, same in groupby(turns, key=lambda turn: turn.role)
    ]
    if joined and joined[0][0] == "doctor":
        joined = joined[1:]
    return [(joined[k][1], joined[k + 1][1]) for k in range(0, len(joined) - 1, 2)]


def _single(
    task: str, row_id: str, split: Split, prompt: str, answer: str, group: str | None,
    max_prompt_chars: int, max_answer_chars: int,
) -> Instruction | Skipped:  # fmt: skip
    if len(prompt) > max_prompt_chars:
        return Skipped("prompt_too_long")
    answer = clip(answer, max_answer_chars)
    if not answer or not prompt.strip():
        return Skipped("empty_text")
    return Instruction(
        id=f"{task}-{row_id}",
        task=task,
        messages=exchange(prompt.strip(), answer),
        split=split,
        group=group or "",
    )
