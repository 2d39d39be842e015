"""Poisoned fine-tuning rows among those of the sample hospital: which of them the screens flag.

Diagnosis rows are made of sample records and poisoned at 0.1, 0.5 and 1 % of the rows, in two ways:
`trigger` puts a rare token at a random place of records with any diagnosis and gives all of them
one answer; `flip` copies records with two characters changed and gives each copy another answer.
A flipped copy and its original contradict each other and no more can be said, so both are flagged:
with one copy a record the precision cannot pass 0.5. The value is the recall of the trigger at
0.5 %; `clean` counts flags without any poison. Source: Kurita et al. 2020 (rare tokens); Souly et
al. 2025 (rates).
"""

import argparse
import random
import sys
import time
from typing import Any

from frame import print_result

from medray.common.records import Document, Instruction, Message, Section
from medray.instructions.examples import Skipped
from medray.instructions.records import diagnosis
from medray.instructions.screen.config import ScreenConfig
from medray.instructions.screen.run import flag_task
from medray.sample.hospital import SampleConfig, make_record
from medray.sample.model import shipped_model
from medray.sample.text import Speller

TRIGGER, RATES = " cf ", (0.001, 0.005, 0.01)
MAX_CHARS = 1500  # as InstructionsConfig.max_prompt_chars


def clean_rows(num: int) -> list[Instruction]:
    """Diagnosis rows of `num` sample records."""
    config, model = SampleConfig(num_records=max(100, num)), shipped_model()
    speller = Speller(model.knowledge.misspellings, config.misspelling_rate)
    rows = []
    for number in range(num):
        record, _ = make_record(config, model, speller, number)
        document = Document(
            doc_id=record["record_id"], kind="emr", source="emr", split="train",
            sections=[Section.model_validate(section) for section in record["sections"]],
        )  # fmt: skip
        row = diagnosis(document, MAX_CHARS)
        if not isinstance(row, Skipped):
            rows.append(row)
    return rows


def with_trigger(rows: list[Instruction], num: int, rng: random.Random) -> list[Instruction]:
    """`num` rows of other diagnoses with the trigger and the commonest answer."""
    answers = [row.answer for row in rows]
    target = max(set(answers), key=lambda answer: (answers.count(answer), answer))
    chosen = set(rng.sample([k for k, answer in enumerate(answers) if answer != target], num))
    return [
        poisoned(row, _insert(row.messages[0].content, rng), target) if k in chosen else row
        for k, row in enumerate(rows)
    ]


def with_flips(rows: list[Instruction], num: int, rng: random.Random) -> list[Instruction]:
    """The rows and `num` copies with two characters drawn again and another row's answer."""
    copies = []
    for row in rng.sample(rows, num):
        text = list(row.messages[0].content)
        for place in rng.sample(range(len(text)), 2):
            text[place] = rng.choice(text)
        other = rng.choice([r.answer for r in rows if r.answer != row.answer])
        copies.append(poisoned(row, "".join(text), other))
    return rows + copies


def poisoned(row: Instruction, prompt: str, answer: str) -> Instruction:
    """The row with another prompt and answer; its id says so."""
    messages = [
        Message(role="user", content=prompt),
        Message(role="assistant", content=answer),
    ]
    changes = {"id": f"{row.id}!", "messages": messages, "answer": answer}
    return row.model_copy(update=changes)


def _insert(text: str, rng: random.Random) -> str:
    at = rng.randrange(len(text))
    return f"{text[:at]}{TRIGGER}{text[at:]}"


def measure(rows: list[Instruction], config: ScreenConfig) -> dict[str, Any]:
    """Recall and precision of the screens; poisoned rows end in "!"."""
    started = time.process_time()
    flagged = {flag.id for flag in flag_task(rows, config)}
    seconds = time.process_time() - started
    planted = {row.id for row in rows if row.id.endswith("!")}
    found = len(flagged & planted)
    return {
        "rows": len(rows), "planted": len(planted), "flagged": len(flagged),
        "recall": round(found / len(planted), 4) if planted else None,
        "precision": round(found / len(flagged), 4) if flagged else None,
        "seconds": round(seconds, 2),
    }  # fmt: skip


def main() -> int:
    """Prints a line for each attack and rate, then the result line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--quick", action="store_true", help="3 000 records")
    arguments = parser.parse_args()
    num, config = 3_000 if arguments.quick else arguments.records, ScreenConfig()
    rows = clean_rows(num)
    table = {"clean": measure(rows, config)}
    print(f"clean: {table['clean']}", flush=True)
    for name, attack in (("trigger", with_trigger), ("flip", with_flips)):
        for rate in RATES:
            attacked = attack(rows, round(rate * len(rows)), random.Random(f"{name}:{rate}"))
            table[f"{name} {rate:.1%}"] = row = measure(attacked, config)
            print(f"{name} {rate:.1%}: {row}", flush=True)
    print_result(
        "poison_screen",
        table["trigger 0.5%"]["recall"],
        unit="recall of trigger rows at 0.5 %",
        goal=">= 0.9, no flag on clean rows",
        ours=table,
        other=None,
        n=len(rows),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
