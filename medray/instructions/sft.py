"""sft/: the examples of all fine-tuning tasks together.

In: a `Step`. Out: `Instruction` shards. Records and documents are read once, raw sources once per
output; nothing but ids is held in memory.
"""

from collections.abc import Callable, Iterator

from medray.common.manifest import Counts
from medray.common.records import Document, Instruction
from medray.common.spool import Spool, hash_key
from medray.instructions.aligned import aligned
from medray.instructions.alignment import is_chosen, multi_task_based
from medray.instructions.audit import audit_pairs, record_documents
from medray.instructions.conversations import consultation, dialogue, instruction
from medray.instructions.examples import Skipped, Task
from medray.instructions.exams import exam
from medray.instructions.grounded import grounded
from medray.instructions.knowledge_graph import knowledge_graph, load_templates
from medray.instructions.labelled import labelled
from medray.instructions.outputs import exam_questions
from medray.instructions.partial import partial_copies
from medray.instructions.quality import load_sub_tasks, on_one_record, quality
from medray.instructions.raw import Consultation, Dialogue, Generic, Grounded, Labelled, Triple
from medray.instructions.records import FINDINGS, diagnosis, differential, treatment
from medray.instructions.screen.run import read_reviewed, screened
from medray.instructions.settle import Share
from medray.instructions.step import Step


def make_sft(step: Step) -> None:
    """Writes sft/: the examples of every task that the sampling does not leave out."""

    def rows() -> Iterator[Instruction]:
        yield from _records(step)
        for task, make in FROM_SOURCES.items():
            if _is_wanted(step, task):
                yield from make(step)

    def share(row: Instruction) -> Share:
        sampling = step.config.sampling_of(row.task)  # pyright: ignore[reportArgumentType]
        if row.split == "dev":
            return Share(f"{row.task}_dev", sampling.max_dev_rows)
        return Share(f"{row.task}_train", sampling.max_rows, sampling.weight_of(row.group))

    def prompt(row: Instruction) -> str:
        return "\n".join(message.content for message in row.messages[:-1])

    screened_rows = _screened(step, rows())
    step.write("sft", Instruction, aligned(step, screened_rows), prompt, share)


def _screened(step: Step, rows: Iterator[Instruction]) -> Iterator[Instruction]:
    """The rows without those that wait for a person's review."""
    config = step.config.screen
    reviewed = frozenset[str]()
    if config.reviewed:
        reviewed = read_reviewed(step.reader.data / config.reviewed)
    counts = step.counts["screen"] = Counts()
    yield from screened(rows, config, counts, step.directory, reviewed, step.losses)


def _is_wanted(step: Step, task: Task) -> bool:
    return step.config.sampling_of(task).max_rows != 0


def _records(step: Step) -> Iterator[Instruction]:
    """Diagnosis, treatment and differential of every record, in one pass over the corpus."""
    limits = step.config.max_prompt_chars, step.config.max_answer_chars
    makes: dict[Task, Callable[[Document], Instruction | Skipped]] = {
        "diagnosis": lambda record: diagnosis(record, limits[0]),
        "treatment": lambda record: treatment(record, *limits),
        "differential": lambda record: differential(record, *limits),
    }
    makes = {task: make for task, make in makes.items() if _is_wanted(step, task)}
    for task in makes:
        step.counts[task] = Counts()
    step.counts["partial_records"] = Counts()
    share = step.config.alignment.multi_task
    if share:
        step.counts["alignment_multi_task"] = Counts()
    for record in record_documents(step, audit=False) if makes else ():
        on_findings: list[Instruction] = []
        for task, make in makes.items():
            made = step.count(task, make(record))
            if made is not None:
                yield made
                if task != "treatment":  # whose prompt names the diagnosis
                    on_findings.append(made)
        if record.split == "train" and is_chosen(share, "multi_task", record.doc_id):
            together = multi_task_based(on_findings, limits[0])
            if (made := step.count("alignment_multi_task", together)) is not None:
                yield made
        if "diagnosis" in makes and record.split == "train":
            partials = partial_copies(record, FINDINGS, step.config.partial_records)
            for copy, partial in enumerate(partials, 1):
                made = step.count("partial_records", makes["diagnosis"](partial))
                if made is not None:
                    yield made.model_copy(update={"id": f"{made.id}~{copy}", "partial": copy})


def _consultation(step: Step) -> Iterator[Instruction]:
    limits = step.config.max_prompt_chars, step.config.max_answer_chars

    def make(row: Consultation) -> Instruction | Skipped:
        return consultation(row, step.reader.split(row.split, row.scenario), step.mask, *limits)

    return step.each("consultation", step.reader.rows(Consultation, "consultation"), make)


def _dialogue(step: Step) -> Iterator[Instruction]:
    limits = step.config.max_prompt_chars, step.config.max_answer_chars

    def make(row: Dialogue) -> Instruction | Skipped:
        return dialogue(row, step.reader.split(row.split, row.id), step.mask, *limits)

    return step.each("dialogue", step.reader.rows(Dialogue, "dialogue"), make)


def _instruction(step: Step) -> Iterator[Instruction]:
    limits = step.config.max_prompt_chars, step.config.max_answer_chars

    def make(row: Generic) -> Instruction | Skipped:
        return instruction(row, step.reader.split(row.split, row.instruction), step.mask, *limits)

    return step.each("instruction", step.reader.rows(Generic, "instruction"), make)


def _labelled(step: Step) -> Iterator[Instruction]:
    limits = step.config.max_prompt_chars, step.config.max_answer_chars
    step.counts["labelled"] = Counts()
    for source in step.config.sources:
        if source.kind != "labelled":
            continue
        for row in step.reader.rows_of(source, Labelled):
            split = step.reader.split(row.split, str(row.text))
            made = labelled(row, source.task, source.choices, split, step.mask, *limits)
            if (example := step.count("labelled", made)) is not None:
                yield example


def _grounded(step: Step) -> Iterator[Instruction]:
    def make(row: Grounded) -> Instruction | Skipped:
        return grounded(row, step.reader.split(row.split, row.question), step.mask)

    return step.each("grounded", step.reader.rows(Grounded, "grounded"), make)


def _exam(step: Step) -> Iterator[Instruction]:
    limit = step.config.max_prompt_chars
    questions = exam_questions(step, "exam_questions")
    return step.each("exam", questions, lambda question: exam(question, limit))


def _knowledge_graph(step: Step) -> Iterator[Instruction]:
    config = step.config.knowledge_graph
    counts = step.counts["knowledge_graph"] = Counts()
    with Spool(step.directory) as spool:
        for row in step.reader.rows(Triple, "triple"):
            counts.rows_in += 1
            if config.relations is not None and row.relation not in config.relations:
                counts.reject("relation_not_chosen")
            elif row.relation in load_templates():
                counts.rows_out += 1
                spool.add(hash_key(row.head, row.relation), [row.head, row.relation, row.tail])
            else:
                counts.reject("no_template")
        for _, triples in spool.groups():
            head, relation, _ = triples[0]
            yield from knowledge_graph(head, relation, [tail for _, _, tail in triples], config)


def _quality(step: Step) -> Iterator[Instruction]:
    if not any(source.kind == "quality_label" for source in step.config.sources):
        return
    sub_tasks = load_sub_tasks(step.config.quality.indicators)
    step.counts["quality"] = Counts()
    cited = 0
    for record, labels in audit_pairs(step, "quality_labels"):
        rows = quality(record, labels, sub_tasks, step.config.max_prompt_chars)
        made = [step.count("quality", row) for _, row in rows]
        examples = [example for example in made if example is not None]
        cited += sum(example.answer.startswith("“") for example in examples)
        yield from on_one_record(examples)
    step.metrics["quality/with_evidence_rows"] = cited


FROM_SOURCES: dict[Task, Callable[[Step], Iterator[Instruction]]] = {
    "consultation": _consultation,
    "dialogue": _dialogue,
    "knowledge_graph": _knowledge_graph,
    "exam": _exam,
    "grounded": _grounded,
    "quality": _quality,
    "instruction": _instruction,
    "labelled": _labelled,
}
