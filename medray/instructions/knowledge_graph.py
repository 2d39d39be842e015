"""Questions and answers from a knowledge graph, through templates.

In: all tails of one (head, relation). Out: `Instruction`s, training only.
Source: [ClinicalGPT 2.2, appendix B table 8]; "used exclusively for training" [ClinicalGPT 2.1].
Differs: the tails of one head and relation share one answer, as the plural wording of the
templates asks for.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from typing import Literal

import yaml

from medray.common.config import Config
from medray.common.records import Instruction
from medray.common.spool import hash_key
from medray.instructions.examples import exchange

Language = Literal["zh", "en"]


class KnowledgeGraphConfig(Config):
    """How triples become questions."""

    language: Language = "zh"
    relations: tuple[str, ...] | None = None
    """Relations to use, under the names of the graph; None: all that have templates."""
    templates_per_group: int = 1
    """Wordings asked per head and relation, chosen by hash.
    Source: not given; 1 because 100 k pairs came of several hundred thousand triples."""
    max_tails: int = 10
    """Tails named in one answer, at most. Source: not given; keeps answers under 100 tokens."""


class Template(Config):
    """One wording: a question with {head}, an answer with {head} and {tails}."""

    ask: str
    answer: str


class Relation(Config):
    """The wordings of one relation and its names in other graphs."""

    aliases: list[str]
    zh: list[Template]
    en: list[Template]


@cache
def load_templates() -> dict[str, Relation]:
    """Relation or alias → its templates."""
    text = resources.files("medray.instructions").joinpath("templates.yaml").read_text("utf-8")
    named = {name: Relation.model_validate(value) for name, value in yaml.safe_load(text).items()}
    aliases = {alias: relation for relation in named.values() for alias in relation.aliases}
    return {**aliases, **named}


def knowledge_graph(
    head: str, relation: str, tails: Sequence[str], config: KnowledgeGraphConfig
) -> Iterator[Instruction]:
    """Yields one example per chosen wording. Tails stand in the order of their text.

    Raises:
        KeyError: if there is no template for `relation`; `load_templates` names those there are.
    """
    templates = getattr(load_templates()[relation], config.language)
    order = sorted(range(len(templates)), key=lambda k: hash_key(head, relation, str(k)))
    named = sorted(set(tails))[: config.max_tails]
    listed = ("、" if config.language == "zh" else ", ").join(named)
    for k in order[: config.templates_per_group]:
        answer = templates[k].answer.format(head=head, tails=listed)
        yield Instruction(
            id=f"knowledge_graph-{hash_key(head, relation)[:12]}-{k}",
            task="knowledge_graph",
            messages=exchange(templates[k].ask.format(head=head), answer),
            split="train",
            answer=listed,
            group=relation,
        )
