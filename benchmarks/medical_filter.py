"""The medical filter on documents, and on whole sources, that it was not trained on.

The value is the mean AUC over medical sources that were left out of training, each against general
documents that were left out too, of the same script: documents of a known source are told apart by
much more than medicine. `ours` lists every left-out source, medical and general, with the share
that is judged rightly at 0.5; `other` is a list of words, counted by the character, its threshold
set on the training documents.

--data DIR reads real texts from a data folder laid out as SETS below says. It holds no general text
in English: the reference of Python's language stands for it, so English specificity is measured on
one narrow source that was seen in training. The general texts were cleared of medicine with a list
of words, which favours the list.
"""

import gzip
import json
import pydoc_data.topics
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from frame import argument_parser, print_result

from medray.common.ngrams import canonical
from medray.common.split import unit_hash
from medray.corpus.medical.classifier import script
from medray.corpus.medical.figures import auc
from medray.corpus.medical.train import Example, FilterTraining, train_classifier

SETS: dict[str, tuple[str, Callable[[dict], Any]]] = {
    "consultations": ("emr_zh/imcs_reports.jsonl.gz", lambda r: list(r["record"].values())),
    "notes": ("emr_zh/yidu_notes.jsonl.gz", lambda r: r["text"]),
    "cases": ("emr_zh/cmb_cases.jsonl.gz", lambda r: r["case"]),
    "encyclopaedia": ("pretrain_zh/encyclopedia.jsonl.gz", lambda r: r["text"]),
    "literature": ("pretrain_zh/literature.jsonl.gz", lambda r: r["text"]),
    "classics": ("pretrain_zh/tcm_classics.jsonl.gz", lambda r: r["text"]),
    "answers": ("retrieval_zh/corpus.jsonl.gz", lambda r: r["text"]),
    "dialogues": ("dialogue_zh/dialogues.jsonl.gz", lambda r: [t["text"] for t in r["turns"]]),
    "transcriptions_en": ("clinical_en/mtsamples.jsonl.gz", lambda r: r["text"]),
    "notes_en": ("clinical_en/aci_bench.jsonl.gz", lambda r: r["note"]),
    "abstracts_en": ("literature_en/pubmedqa.jsonl.gz", lambda r: r["contexts"]),
    "answers_en": ("retrieval_en/medquad.jsonl.gz", lambda r: r["answer"]),
}
GENERAL = "general_zh/text.jsonl.gz"  # the part of an id before the number names the source
INSTRUCTIONS = "general_zh/instructions.jsonl.gz"
WORDS = re.compile(
    r"患者|病人|病史|症状|疾病|诊断|治疗|手术|临床|药物|服用|医生|医院|检查|炎|癌|肿瘤|感染|疼痛|咳嗽|发热|"
    r"血压|patient|disease|symptom|diagnos|treatment|surg|clinical|drug|therapy|medic|pain|infect|"
    r"cancer|blood",
    re.IGNORECASE,
)
MIN_CHARS = 10  # as CleanConfig.min_chars


def rows(path: Path) -> Iterator[dict]:
    """The rows of a gzip-compressed JSON Lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def texts(data: Path) -> Iterator[tuple[str, bool, str]]:
    """(source, is medical, text) of every document."""
    for name, (path, text_of) in SETS.items():
        for row in rows(data / path):
            text = text_of(row)
            yield name, True, text if isinstance(text, str) else "\n".join(filter(None, text))
    for row in rows(data / GENERAL):
        yield row["id"].rsplit("-", 1)[0], False, row["text"]
    for row in rows(data / INSTRUCTIONS):
        yield "instructions", False, "\n".join(m["content"] for m in row["messages"])
    for text in pydoc_data.topics.topics.values():
        for at in range(0, len(text), 500):
            yield "python_en", False, text[at : at + 500]


def choose(data: Path, config: FilterTraining, max_chars: int) -> list[Example]:
    """Of each source the documents of least hash, the same number of characters at most."""
    found: dict[tuple[str, bool], list[str]] = defaultdict(list)
    for source, is_medical, text in texts(data):
        if len(text) >= MIN_CHARS:
            found[source, is_medical].append(text)
    examples = []
    for (source, is_medical), all_texts in found.items():
        chars = 0
        for text in sorted(set(all_texts), key=unit_hash):
            examples.append(Example(text[: config.piece_chars], is_medical, source, text[:200]))
            chars += len(examples[-1].text)
            if chars >= max_chars:
                break
    return examples


def leave_out(
    source: str, examples: list[Example], config: FilterTraining
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Trains without `source`; returns what the filter and the words make of it.

    A medical source is compared with general documents that were held out, of its script.
    """
    mine = [e for e in examples if e.source == source]
    rest = [e for e in examples if e.source != source]
    classifier, _ = train_classifier(rest, config, 0.5)
    held_out = [e for e in rest if unit_hash(f"held/{e.unit}") < config.held_out_fraction]
    scripts = {script(canonical(e.text)) for e in mine}
    others = [
        e
        for e in held_out
        if not e.is_medical and mine[0].is_medical and script(canonical(e.text)) in scripts
    ]
    is_medical_N = np.array([e.is_medical for e in mine + others])
    trained = [e for e in rest if unit_hash(f"held/{e.unit}") >= config.held_out_fraction]
    pairs = (
        (classifier.probabilities(e.text for e in mine + others), 0.5),
        (np.array([density(e.text) for e in mine + others]), word_threshold(trained)),
    )
    figures = []
    for scores_N, threshold in pairs:
        judged_N = ~np.isnan(scores_N)
        right_N = (scores_N >= threshold) == is_medical_N
        figures.append({
            "right": round(float(right_N[: len(mine)][judged_N[: len(mine)]].mean()), 4),
            "auc": auc(scores_N[judged_N], is_medical_N[judged_N])["value"],
            "n": int(judged_N[: len(mine)].sum()),
        })  # fmt: skip
    return figures[0], figures[1]


def summary(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Means over the left-out sources of each side, and all of them."""
    medical = [figures for source, figures in found.items() if source in SETS]
    general = [figures for source, figures in found.items() if source not in SETS]
    return {
        "auc_unseen_medical": round(float(np.mean([f["auc"] for f in medical])), 4),
        "right_unseen_medical": round(float(np.mean([f["right"] for f in medical])), 4),
        "right_unseen_general": round(float(np.mean([f["right"] for f in general])), 4),
        "sources": found,
    }


def density(text: str) -> float:
    """Medical words of the list to a character."""
    return len(WORDS.findall(text)) / len(text)


def word_threshold(examples: list[Example]) -> float:
    """The density that judges most of `examples` rightly, both sides weighing the same."""
    scores_N = np.array([density(e.text) for e in examples])
    is_medical_N = np.array([e.is_medical for e in examples])
    levels = np.unique(np.quantile(scores_N, np.linspace(0, 1, 201)))
    rates = [
        (scores_N[is_medical_N] >= t).mean() + (scores_N[~is_medical_N] < t).mean() for t in levels
    ]
    return float(levels[int(np.argmax(rates))])


def main() -> int:
    """Prints a line a source, then the result line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--data", type=Path, help="data folder with real texts")
    parser.add_argument("--chars", type=int, default=100_000, help="at most so many of a source")
    parser.add_argument("--quick", action="store_true", help="30 000 characters of a source")
    arguments = parser.parse_args()
    goal = "above the list of words"
    if arguments.data is None:
        print("no general text comes with the product; give --data DIR", flush=True)
        print_result("medical_filter", None, unit="AUC", goal=goal, ours=None, other=None, n=0)
        return 0
    config = FilterTraining(medical=["medical"], general=["general"])
    examples = choose(arguments.data, config, 30_000 if arguments.quick else arguments.chars)
    num_bytes = sum(len(e.text.encode()) for e in examples)
    print(f"{len(examples)} documents, {num_bytes / 1e6:.1f} MB", flush=True)

    started = time.monotonic()
    classifier, figures = train_classifier(examples, config, 0.5)
    train_s = time.monotonic() - started
    started = time.process_time()  # of this core, whatever else the machine does
    classifier.probabilities(e.text for e in examples)
    score_s = time.process_time() - started
    known = {name: figures["held_out"][name] for name in ("auc", "recall", "specificity")}
    print(f"trained in {train_s:.1f} s; held-out documents: {known}", flush=True)

    ours: dict[str, dict] = {}
    words: dict[str, dict] = {}
    for source in sorted({e.source for e in examples} - {"python_en"}):
        ours[source], words[source] = leave_out(source, examples, config)
        print(f"without {source}: {ours[source]}, words {words[source]}", flush=True)

    sides = [summary(found) for found in (ours, words)]
    print_result(
        "medical_filter",
        sides[0]["auc_unseen_medical"],
        unit="mean AUC over unseen medical sources",
        goal=goal,
        ours={
            **sides[0], "held_out_documents": known, "train_s": round(train_s, 1),
            "mb_per_s_per_core": round(num_bytes / 1e6 / score_s, 2),
        },
        other=sides[1],
        n=len(examples),
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
