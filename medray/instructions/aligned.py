"""Adds alignment prompts to the rows of fine-tuning. In: rows as they come, triples and pairs of
the sources. Out: the rows, each followed by what it is asked once more. Several tasks on one record
are put together where the records are read, in sft.py.
"""

from collections import deque
from collections.abc import Iterator

import ahocorasick

from medray.common.manifest import Counts
from medray.common.records import Instruction
from medray.instructions.alignment import (
    contrast_based,
    example_based,
    facts_of,
    is_chosen,
    knowledge_based,
)
from medray.instructions.examples import Skipped
from medray.instructions.knowledge_graph import (
    KnowledgeGraphConfig,
    knowledge_graph,
    load_templates,
)
from medray.instructions.outputs import preference_pairs
from medray.instructions.raw import Triple
from medray.instructions.step import Step


def aligned(step: Step, rows: Iterator[Instruction]) -> Iterator[Instruction]:
    """Yields `rows` and their alignment prompts.

    Memory: the facts of the knowledge graph, if they are wanted, and a few rows of each task.
    """
    config, limit = step.config.alignment, step.config.max_prompt_chars
    heads, graph = _facts(step) if config.knowledge else (None, {})
    examples: dict[str, deque[Instruction]] = {}

    def count(way: str, made: Instruction | Skipped) -> Iterator[Instruction]:
        name = f"alignment_{way}"
        step.counts.setdefault(name, Counts())
        if (row := step.count(name, made)) is not None:
            yield row

    for row in rows:
        yield row
        if row.split != "train" or row.partial or row.shared_chars or len(row.messages) != 2:
            continue
        seen = examples.setdefault(row.task, deque(maxlen=config.num_examples))
        if is_chosen(config.example, "example", row.id):
            yield from count("example", example_based(row, list(seen), limit))
        if heads is not None and is_chosen(config.knowledge, "knowledge", row.id):
            named = [head for _, head in heads.iter_long(row.messages[0].content)]
            facts = facts_of(graph, named, config.max_facts)
            yield from count("knowledge", knowledge_based(row, facts, limit))
        seen.append(row)
    if config.contrast:
        for pair in preference_pairs(step, "alignment_pairs"):
            if pair.split == "train" and is_chosen(config.contrast, "contrast", pair.id):
                yield from count("contrast", contrast_based(pair, limit))


def _facts(step: Step) -> tuple[ahocorasick.Automaton | None, dict[str, list[str]]]:
    """Finds the heads of the graph in a text; head → what its triples say, one sentence a
    relation."""
    tails: dict[tuple[str, str], list[str]] = {}
    for row in step.reader.rows(Triple, "triple"):
        if row.relation in load_templates():
            tails.setdefault((row.head, row.relation), []).append(row.tail)
    graph: dict[str, list[str]] = {}
    wording = KnowledgeGraphConfig(language=step.config.knowledge_graph.language)
    for (head, relation), named in tails.items():
        for example in knowledge_graph(head, relation, named, wording):
            graph.setdefault(head, []).append(example.messages[-1].content)
    if not graph:
        return None, {}
    automaton = ahocorasick.Automaton()
    for head in graph:
        automaton.add_word(head, head)
    automaton.make_automaton()
    return automaton, graph
