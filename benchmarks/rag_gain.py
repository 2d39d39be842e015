"""What retrieval does to the answers that are served: each question with passages and without.

Policy, encoder, index, threshold, prompts and citation check are those of a finished pipeline
(--root DIR) as serve_configs/laptop.yaml serves them, in this process and without HTTP.

facts         held-out questions of the sample hospital that did not tune the index; the reference
              is the clause that states the fact, with which the passage that answers begins
none          the same, the documents that answer them taken out of what the search found
consultation  held-out scenarios and records of the fine-tuning rows, whose answers stand in no
diagnosis     passage: what retrieval costs where nothing is looked up
public        with --data DIR, held-out questions of patients (retrieval_zh), an index of the
              doctors' answers, its weight and threshold measured as the index job does
public none   the same without the answers that are taken for right

With retrieval means as the service decides: from passages, by saying that there is no answer, or
by the model alone (`alone`), whose notice is not judged.
The value is the difference of character F1 on `facts`. A citation counts by the words it quotes,
not by its head. What does not fit into the context is refused and counts as an empty answer
(`too_long`). Citation precision: cited passages that answer, of an answer's citations; recall:
passages that answer and are cited. Abstention precision: questions without an answer, of those that
were answered by `所给资料中没有答案。`, the two sets being equally large; recall: those of `none`.
Intervals are 95 %, of differences by paired bootstrap. Source: EVALUATION.md 1.
"""

import asyncio
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from frame import argument_parser, print_result
from rag_cases import facts, public, scenarios, write_public
from rag_scores import Case, Reply, abstention, compare

from medray.generation.prompts import NO_ANSWER
from medray.retrieval.embed import Embedder
from medray.retrieval.filters import PassageFilter
from medray.retrieval.search import Searcher, open_index
from medray.serving.answering.answer import UNSOURCED, Outcome, plan_answer, write_answer
from medray.serving.answering.evidence import AnswerConfig
from medray.serving.app import ServingConfig
from medray.serving.artefacts import newest
from medray.serving.messages import Found, QuestionVectors
from medray.serving.policy import Policy
from medray.serving.retrieval import hit_fields
from medray.serving.schema.base import ApiError
from medray.serving.schema.chat import ChatRequest
from medray.serving.up import read_config

CONFIG = Path(__file__).parents[1] / "serve_configs" / "laptop.yaml"
SCENARIOS = ("consultation", "diagnosis")
LONGEST = 40
"""Passages that a document has at most."""


class Served:
    """One policy over one index: the handles that `answering.answer` asks for."""

    def __init__(
        self, policy: Policy, embedder: Embedder, searcher: Searcher, config: ServingConfig
    ) -> None:
        self._policy, self._embedder, self._searcher = policy, embedder, searcher
        self._config: AnswerConfig = config.gateway.answer
        self.num_slots = config.batching.max_requests

    def stream(self, *arguments: Any) -> Any:
        """See `Policy.stream`."""
        return self._policy.stream(*arguments)

    async def embed(self, question: str) -> QuestionVectors:
        """As the deployment makes them."""
        made = self._embedder.encode_queries([question])
        weights = dict(made.weights_N[0]) if made.weights_N else {}
        return QuestionVectors(made.vectors_ND[0].tolist(), weights)

    async def answer(self, case: Case, retrieval: bool | None) -> Reply:
        """One answer, as the gateway gives it; None as the service decides."""

        async def search(
            question: str, vectors: QuestionVectors, top_k: int, where: PassageFilter
        ) -> Found:
            # A document has fewer passages than LONGEST, so that top_k others are left.
            num = top_k + LONGEST * len(case.without)
            vector_D = np.asarray(vectors.vector, dtype=np.float32)
            hits = self._searcher.search(question, vector_D, num, where, vectors.weights)
            kept = [hit for hit in hits if hit.passage.doc_id not in case.without][:top_k]
            fields = list(map(hit_fields, kept))
            looked_up = self._searcher.looks_up(vector_D)
            return Found(fields, self._searcher.min_cosine, looked_up=looked_up)

        request = ChatRequest.model_validate(
            {
                "model": "medray", "retrieval": retrieval,
                "messages": [{"role": "user", "content": case.question}],
            }
        )  # fmt: skip
        try:
            plan = await plan_answer(request, self._config, self.embed, search, self)
        except ApiError as error:
            if error.code != "context_length_exceeded":
                raise
            return Reply("", [], False, too_long=True)
        text, cited, basis = "", [], ""
        async for item in write_answer(plan):
            if isinstance(item, Outcome):
                shown = [one for one in item.grounding.citations if one.ok]
                cited = [one.passage_id for one in shown if one.passage_id]
                basis = item.grounding.basis
            else:
                text += item.text
        said = text.removeprefix(UNSOURCED[0]).removeprefix(UNSOURCED[1])
        return Reply(said, cited, NO_ANSWER in text, alone=basis == "model")


@contextmanager
def open_policy(root: str, config: ServingConfig) -> Iterator[Policy]:
    """The policy that is served; its thread ends with it."""
    policy = Policy(newest(root, ("ppo", "sft"), part="model"), config.batching)
    try:
        yield policy
    finally:
        policy.__del__()


async def both(served: Served, cases: Sequence[Case]) -> tuple[list[Reply], list[Reply]]:
    """Answers with retrieval and without, in turn by question."""
    slots = asyncio.Semaphore(served.num_slots)

    async def one(case: Case, retrieval: bool | None) -> Reply:
        async with slots:
            return await served.answer(case, retrieval)

    asked = [one(case, retrieval) for case in cases for retrieval in (None, False)]
    replies = await asyncio.gather(*asked)
    return list(replies[::2]), list(replies[1::2])


def with_and_without_answer(served: Served, cases: Sequence[Case]) -> dict[str, Any]:
    """Figures of questions that the index answers, and of the same without what answers them."""
    answerable = [case._replace(without=frozenset()) for case in cases]
    unanswerable = [case._replace(gold=()) for case in cases]

    async def run() -> Any:
        return await both(served, answerable), await both(served, unanswerable)

    first, second = asyncio.run(run())
    return {
        "answerable": compare(answerable, first),
        "none": compare(unanswerable, second),
        "abstention": abstention(first[0], second[0]),
        "abstention alone": abstention(first[1], second[1]),
    }


def main() -> int:
    """Prints the result line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--root", required=True, help="a finished pipeline")
    parser.add_argument("--data", type=Path, help="directory of the public sets")
    parser.add_argument("--questions", type=int, default=300, help="of each set at most")
    parser.add_argument("--passages", type=int, default=20_000, help="of the public set at most")
    parser.add_argument("--quick", action="store_true", help="20 questions, 500 public passages")
    arguments = parser.parse_args()
    most, num_passages = arguments.questions, arguments.passages
    if arguments.quick:
        most, num_passages = 20, 500
    config = read_config(CONFIG, [f"storage_root={arguments.root}"])[1]
    embedder = Embedder(newest(arguments.root, ("encoder",), part="model").fetch())
    index = newest(arguments.root, ("index",)).fetch()
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        policy = stack.enter_context(open_policy(arguments.root, config))
        searcher = stack.enter_context(open_index(index))
        found["min_cosine"] = round(searcher.min_cosine, 4)
        served = Served(policy, embedder, searcher, config)
        found["facts"] = with_and_without_answer(served, facts(arguments.root, index, most))
        for task in SCENARIOS:
            if cases := scenarios(arguments.root, task, most):
                found[task] = compare(cases, asyncio.run(both(served, cases)))
        sys.stderr.write(f"{found}\n")
        if arguments.data is not None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            write_public(arguments.data, directory, embedder, num_passages)
            searcher = stack.enter_context(open_index(directory))
            cases = public(arguments.data, directory, embedder, searcher, most)
            served = Served(policy, embedder, searcher, config)
            found["public"] = with_and_without_answer(served, cases) | {
                "min_cosine": round(searcher.min_cosine, 4),
                "hybrid": searcher.hybrid.model_dump(),
            }  # fmt: skip
    gain = found["facts"]["answerable"]["f1"]["difference"]
    print_result(
        "rag_gain",
        gain[0],
        unit="character F1 with retrieval less that without, facts of the sample hospital",
        goal="> 0, the interval too",
        ours=found,
        other=None,
        n=found["facts"]["answerable"]["n"],
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
