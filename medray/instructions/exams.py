"""Multiple-choice questions. In: raw exam rows. Out: `ExamQuestion`s for evaluation and the same
as fine-tuning examples that answer with the letter.

Source: [ClinicalGPT 2.1] MEDQA-MCMLE. Exams are public text and are not masked.
"""

from medray.common.records import ExamQuestion, Instruction
from medray.common.split import Split
from medray.generation.prompts import exam_prompt
from medray.instructions.examples import Skipped, exchange
from medray.instructions.raw import Exam


def exam_question(row: Exam, split: Split) -> ExamQuestion | Skipped:
    """Checks that every letter of the answer is an option; letters in order, each once."""
    letters = "".join(sorted(set(row.answer.strip().upper())))
    options = {letter.strip().upper(): text for letter, text in row.options.items()}
    if not letters or not set(letters) <= set(options):
        return Skipped("answer_not_among_options")
    return ExamQuestion(
        id=row.id,
        question=row.question,
        options=dict(sorted(options.items())),
        answer=letters,
        subject=row.subject,
        split=split,
    )


def exam(question: ExamQuestion, max_prompt_chars: int) -> Instruction | Skipped:
    """Question and options → letters."""
    prompt = exam_prompt(question.question, question.options)
    if len(prompt) > max_prompt_chars:
        return Skipped("prompt_too_long")
    return Instruction(
        id=f"exam-{question.id}",
        task="exam",
        messages=exchange(prompt, question.answer),
        split=question.split,
        answer=question.answer,
        group=question.subject,
    )
