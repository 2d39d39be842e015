"""Written terms linked to the standard name, against exact lookup; speed of the matcher.

The value is the share of written terms that are linked to the right name. `ours` is the character
n-gram linker of the corpus job, `other` looks the written term up as it is. Thresholds are tuned on
one half of the terms (the most links with at least nine of ten right) and measured on the other.
`with_list` adds the first half to the dictionary as the list that a hospital would keep.

--data DIR reads procedure names, written ones and ICD-10 from a data folder laid out as NAMES,
WRITTEN, CODES and NOTES say; without it names and wordings of the sample hospital are taken.
"""

import gzip
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from frame import argument_parser, print_result

from medray.corpus.terms.dictionaries import Dictionary
from medray.corpus.terms.linker import Link, LinkConfig, Linker, is_linked
from medray.corpus.terms.matcher import Matcher
from medray.corpus.terms.vocabulary import AMBIGUOUS, Vocabulary, build_vocabulary, fold
from medray.sample.hospital import SampleConfig, make_record
from medray.sample.model import shipped_model
from medray.sample.text import Speller

NAMES = "terminology/procedure_codes_zh.jsonl.gz"
WRITTEN = "terminology/term_normalization.jsonl.gz"
CODES = "terminology/icd10_zh.jsonl.gz"
NOTES = {"emr_zh/cmb_cases.jsonl.gz": "case", "emr_zh/yidu_notes.jsonl.gz": "text"}
MIN_PRECISION = 0.9
THRESHOLDS = [LinkConfig(min_similarity=s / 20, min_margin=m / 100)
              for s in range(8, 20) for m in (0, 2, 5, 10, 15, 20)]  # fmt: skip


class Term(NamedTuple):
    """A term as it was written, and the standard names that are right for it."""

    written: str
    standard: frozenset[str]


class Inputs(NamedTuple):
    """What is measured on."""

    names: list[str]
    terms: list[Term]
    codes: list[tuple[str, str]]
    """(code, name) of the dictionary for running text."""
    notes: list[str]


def real_inputs(data: Path) -> Inputs:
    """Of a data folder."""
    return Inputs(
        [row["name"] for row in rows(data / NAMES)],
        [Term(row["raw"], frozenset(row["standard"])) for row in rows(data / WRITTEN)],
        [(row["code"], row["name"]) for row in rows(data / CODES)],
        [row[field] for name, field in NOTES.items() for row in rows(data / name)],
    )


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """JSON Lines."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def sample_inputs() -> Inputs:
    """Diseases, symptoms and signs of the sample hospital; their wordings are what is written."""
    config, model = SampleConfig(num_records=300), shipped_model()
    knowledge = model.knowledge
    wordings = {disease.name: disease.aliases for disease in knowledge.diseases}
    wordings |= {**knowledge.symptoms, **knowledge.signs, **knowledge.history}
    terms = [
        Term(other, frozenset([name])) for name, others in wordings.items() for other in others
    ]
    speller = Speller(knowledge.misspellings, config.misspelling_rate)
    records = [make_record(config, model, speller, number)[0] for number in range(300)]
    codes = [(disease.icd10, disease.name) for disease in knowledge.diseases]
    notes = ["\n".join(section["text"] for section in record["sections"]) for record in records]
    return Inputs(list(wordings), terms, codes, notes)


def vocabulary(lists: dict[str, Sequence[tuple[str, str]]], work: Path) -> Vocabulary:
    """Of lists of (concept, term), as the corpus job reads them."""
    dictionaries = []
    for name, terms in lists.items():
        path = work / f"{name}.jsonl"
        lines = [json.dumps({"concept": concept, "term": term}) for concept, term in terms]
        path.write_text("\n".join(lines), encoding="utf-8")
        dictionaries.append(Dictionary(name=name, path=path.name, format="terms", link=True))
    return build_vocabulary(dictionaries, work, min_chars=2, min_latin_chars=4)


def linked(terms: list[Term], known: Vocabulary) -> tuple[list[Link | None], np.ndarray]:
    """The nearest name of each term, and whether it is a right one."""
    linker, concepts = Linker(known), known.concepts.column("id").to_pylist()
    links = [linker.nearest(term.written) for term in terms]
    right = [
        link is not None and link.concept != AMBIGUOUS and concepts[link.concept] in term.standard
        for link, term in zip(links, terms, strict=True)
    ]
    return links, np.array(right)


def figures(is_linked_N: np.ndarray, is_right_N: np.ndarray) -> dict[str, float]:
    """Shares of terms that were linked and of links that are right."""
    right = int((is_linked_N & is_right_N).sum())
    return {
        "coverage": round(float(is_linked_N.mean()), 4),
        "precision": round(right / max(1, int(is_linked_N.sum())), 4),
        "right": round(right / len(is_linked_N), 4),
    }


def chosen(links: list[Link | None], config: LinkConfig) -> np.ndarray:
    """Which links are good enough."""
    return np.array([is_linked(link, config) for link in links])


def tuned(links: list[Link | None], is_right_N: np.ndarray) -> LinkConfig:
    """The thresholds with the most links of which MIN_PRECISION are right; else the strictest."""
    results = [(figures(chosen(links, config), is_right_N), config) for config in THRESHOLDS]
    passed = [item for item in results if item[0]["precision"] >= MIN_PRECISION]
    return max(passed, key=lambda item: item[0]["coverage"], default=results[-1])[1]


def exact(terms: list[Term], names: list[str]) -> dict[str, float]:
    """The written term is looked up without case and width."""
    by_form = {fold(name): name for name in names}
    found = [by_form.get(fold(term.written)) for term in terms]
    hits = [name is not None for name in found]
    right = [name in term.standard for name, term in zip(found, terms, strict=True)]
    return figures(np.array(hits), np.array(right))


def matcher_speed(codes: list[tuple[str, str]], notes: list[str], work: Path) -> dict[str, float]:
    """How fast notes are read, in UTF-8 bytes by time of the processor."""
    started = time.process_time()
    matcher = Matcher(vocabulary({"codes": codes}, work))
    built_s, started = time.process_time() - started, time.process_time()
    num_matches = sum(1 for note in notes for _ in matcher.find(note))
    seconds = time.process_time() - started
    megabytes = sum(len(note.encode()) for note in notes) / 1e6
    return {
        "dictionary_terms": len(codes), "build_s": round(built_s, 2), "mb": round(megabytes, 2),
        "matches": num_matches, "mb_per_s": round(megabytes / seconds, 2),
    }  # fmt: skip


def main() -> int:
    """Prints what was measured, then the result line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--data", type=Path, help="data folder with real terms")
    parser.add_argument("--quick", action="store_true", help="1 000 written terms")
    arguments = parser.parse_args()
    names, terms, codes, notes = real_inputs(arguments.data) if arguments.data else sample_inputs()
    by_hash = sorted(set(terms), key=lambda term: hashlib.sha256(term.written.encode()).digest())
    terms = by_hash[: 1_000 if arguments.quick else None]
    first, second = terms[::2], terms[1::2]
    names = list(dict.fromkeys(names))
    own = [(name, name) for name in names]
    kept = [(min(term.standard), term.written) for term in first if len(term.standard) == 1]

    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        public = vocabulary({"public": own}, work)
        config = tuned(*linked(first, public))
        started = time.process_time()
        links, is_right_N = linked(second, public)
        seconds = time.process_time() - started
        more_links, is_more_right_N = linked(second, vocabulary({"own": [*own, *kept]}, work))
        speed = matcher_speed(codes, notes, work)
    known = frozenset(names)
    lookup, ours = exact(second, names), figures(chosen(links, config), is_right_N)
    print(f"tuned on {len(first)} terms: {config}", flush=True)
    print_result(
        "term_linking",
        ours["right"],
        unit="share of written terms linked to the right name",
        goal=f"> exact lookup, at precision >= {MIN_PRECISION}",
        ours={
            **ours, "min_similarity": config.min_similarity, "min_margin": config.min_margin,
            "at_the_defaults": figures(chosen(links, LinkConfig()), is_right_N),
            "nearest_is_right": round(float(is_right_N.mean()), 4),
            "with_list": figures(chosen(more_links, LinkConfig()), is_more_right_N),
            "terms_per_s": round(len(second) / seconds), "matcher": speed,
        },
        other=lookup | {
            "right_name_in_dictionary": round(
                sum(bool(term.standard & known) for term in second) / len(second), 4),
        },
        n=len(second),
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
