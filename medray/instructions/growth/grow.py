"""Grows instructions from a few written ones, through any OpenAI-compatible endpoint.

In: seeds, JSON Lines of {instruction, input, output}. Out: grown rows of the same form with an id,
which a profile names as a source of kind `instruction`; beside them a log of the requests.

    tasks     a few seeds and grown ones → the model writes new ones
    novelty   ROUGE-L with every task there is < 0.7
    answers   no refusal, no loop, no identifier, within the lengths

Source: [EMR-LLM 1.3]; Self-Instruct (Wang et al. 2023), 2.2. Differs: task and answer come in one
request, for models that follow instructions need no second one; ROUGE-L is of characters.
"""

import json
import logging
import os
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openai
from pydantic import Field
from tqdm import tqdm

from medray.common.config import Config
from medray.common.errors import DataError, ServiceError
from medray.instructions.growth.novelty import NoveltyConfig, choose

logger = logging.getLogger(__name__)
KEY_ENV = "MEDRAY_GROW_KEY"
PROMPT = """\
下面是一些医学任务，每行一个JSON对象，字段为instruction、input、output。
{examples}
请再写{number}个新的医学任务，格式相同，每行一个JSON对象，不写别的。要求：
1. 与上面的任务在问法、科室和类型上都不同；
2. 任务只用文字就能完成，不涉及图片、附件和链接；
3. input可以为空字符串；output直接、正确、完整；
4. 不出现真实的人名、电话、地址和证件号。"""


class GrowConfig(Config):
    """How far, and how."""

    max_rows: int = Field(default=1000, ge=1)
    """Grown rows to end with."""
    max_tokens: int = Field(default=2_000_000, ge=1)
    """Tokens of all requests together, prompts included, as the endpoint counts them; no request
    begins once they are spent."""
    num_seeds: int = Field(default=6, ge=1)
    """Seeds shown in a request. Source: Self-Instruct 2.2."""
    num_grown: int = Field(default=2, ge=0)
    """Grown tasks shown in a request. Source: Self-Instruct 2.2."""
    per_request: int = Field(default=8, ge=1)
    """New tasks asked for."""
    novelty: NoveltyConfig = NoveltyConfig()
    temperature: float = Field(default=0.9, ge=0)
    max_reply_tokens: int = Field(default=2048, ge=1)
    max_fruitless: int = Field(default=20, ge=1)
    """Requests in a row without a row, after which growing stops: the model repeats itself."""
    timeout_s: float = Field(default=120, gt=0)
    seed: int = 0


class Grown:
    """The grown rows and the log of requests, as two files that only grow.

    A request counts once it is in the log; rows of one that is not, left by a kill, are dropped.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.log_path = path, path.with_name(f"{path.name}.requests.jsonl")
        self.requests = _read(self.log_path)
        done = {request["request"] for request in self.requests}
        kept = [row for row in _read(path) if row.get("request") in done]
        path.parent.mkdir(parents=True, exist_ok=True)
        for file, rows in ((self.log_path, self.requests), (path, kept)):
            temporary = file.with_name(f".{file.name}.tmp")
            temporary.write_text("".join(map(_line, rows)), encoding="utf-8")
            temporary.replace(file)
        self.rows: list[dict[str, Any]] = kept

    @property
    def tokens(self) -> int:
        """Tokens of all requests so far."""
        return sum(request["tokens"] for request in self.requests)

    def add(self, rows: Sequence[dict[str, Any]], request: dict[str, Any]) -> None:
        """Appends what a request brought, the log last."""
        for path, lines in ((self.path, rows), (self.log_path, [request])):
            with path.open("a", encoding="utf-8") as file:
                file.writelines(map(_line, lines))
                file.flush()
                os.fsync(file.fileno())
        self.rows += rows
        self.requests.append(request)


def grow(config: GrowConfig, seeds: Path, out: Path, url: str, model: str) -> dict[str, int]:
    """Grows rows into `out` until there are `max_rows` or the budget is spent.

    Returns:
        rows by reason for rejecting them, and `accepted`, over all runs.
    Raises:
        DataError: if the seeds are missing, malformed or fewer than `num_seeds`.
        ServiceError: if the endpoint fails; what was grown stays, and a rerun goes on.
    """
    known = _seeds(seeds, config.num_seeds)
    grown = Grown(out)
    key = os.environ.get(KEY_ENV, "none")
    fruitless = 0
    with (
        openai.OpenAI(base_url=url, api_key=key, timeout=config.timeout_s, max_retries=3) as client,
        tqdm(desc="grown", total=config.max_rows, initial=len(grown.rows), unit=" rows") as bar,
    ):
        while len(grown.rows) < config.max_rows and fruitless < config.max_fruitless:
            if grown.tokens >= config.max_tokens:
                logger.info("the budget of %d tokens is spent", config.max_tokens)
                break
            number = len(grown.requests)
            prompt = _prompt(config, known, grown.rows, number)
            try:
                reply = client.chat.completions.create(
                    model=model,
                    messages=[{"role": "user", "content": prompt}],
                    temperature=config.temperature,
                    max_tokens=config.max_reply_tokens,
                    seed=config.seed + number,
                )
            except openai.OpenAIError as error:
                raise ServiceError(
                    f"{url} failed at request {number} ({type(error).__name__}); {len(grown.rows)} "
                    f"rows are in {out}, the same command goes on"
                ) from None
            # Some endpoints answer what they filter with no choice, or one without text.
            text = (reply.choices[0].message.content or "") if reply.choices else ""
            # An endpoint that does not count is taken at a token a character.
            tokens = reply.usage.total_tokens if reply.usage else len(prompt) + len(text)
            room = config.max_rows - len(grown.rows)
            rows, rejected = choose(
                config.novelty, text, [row["instruction"] for row in (*known, *grown.rows)]
            )
            rows = [
                {"id": f"grown-{number}-{k}", **row, "request": number}
                for k, row in enumerate(rows[:room])
            ]
            entry = {"request": number, "tokens": tokens, "accepted": len(rows), **rejected}
            grown.add(rows, entry)
            fruitless = 0 if rows else fruitless + 1
            bar.update(len(rows))
    totals: Counter[str] = Counter()
    for request in grown.requests:
        totals.update({k: v for k, v in request.items() if k not in ("request", "tokens")})
    logger.info("grown: %d rows, %d tokens, %s", len(grown.rows), grown.tokens, dict(totals))
    return dict(totals)


def _prompt(
    config: GrowConfig,
    seeds: Sequence[dict[str, Any]],
    grown: Sequence[dict[str, Any]],
    number: int,
) -> str:
    """The prompt of a request: the same for the same rows, so that a rerun repeats nothing."""
    rng = random.Random(f"{config.seed}/{number}")
    shown = rng.sample(list(seeds), config.num_seeds)
    shown += rng.sample(list(grown), min(config.num_grown, len(grown)))
    rng.shuffle(shown)
    names = ("instruction", "input", "output")
    examples = "\n".join(_line({name: row[name] for name in names}).strip() for row in shown)
    return PROMPT.format(examples=examples, number=config.per_request)


def _seeds(path: Path, least: int) -> list[dict[str, Any]]:
    if not path.is_file():
        raise DataError(f"no seeds at {path}; give JSON Lines of instruction, input and output")
    rows = _read(path)
    for number, row in enumerate(rows, 1):
        if not all(isinstance(row.get(name), str) for name in ("instruction", "output")):
            raise DataError(f"{path}, row {number}: instruction and output must be texts")
        row["input"] = row.get("input") or ""
    if len(rows) < least:
        raise DataError(f"{path} holds {len(rows)} seeds, {least} are shown in a request; add some")
    return rows


def _read(path: Path) -> list[dict[str, Any]]:
    """The rows of JSON Lines; none if there is no file. A last line cut by a kill is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise DataError(f"{path}, line {number} is no JSON; mend or remove it") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number} is no JSON object")
        rows.append(row)
    return rows


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
