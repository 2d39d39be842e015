"""Growing instructions through an endpoint, over HTTP. The endpoint here answers from a list."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from medray.common.errors import DataError, ServiceError
from medray.instructions.growth.grow import GrowConfig, Grown, grow
from medray.instructions.growth.novelty import NoveltyConfig, choose, fault

SEEDS = [
    {"instruction": f"说明{name}的常见病因", "input": "", "output": f"{name}多由感染引起。"}
    for name in ("肺炎", "胃溃疡", "缺铁性贫血", "偏头痛", "肾结石", "子宫肌瘤")
]
TASKS = [
    "列出高血压患者的饮食禁忌", "解释什么是心电图ST段抬高", "为糖尿病患者设计一周运动计划",
    "比较布洛芬和对乙酰氨基酚", "怎样教老人正确使用吸入装置", "写一份发热待查的鉴别思路",
    "孕期补充叶酸到哪一周为止", "什么情况下需要复查甲状腺功能",
]  # fmt: skip


def line(instruction: str, output: str = "按指南处理即可。", given: str = "") -> str:
    row = {"instruction": instruction, "input": given, "output": output}
    return json.dumps(row, ensure_ascii=False)


class Endpoint(ThreadingHTTPServer):
    """Answers request n with the n-th reply, or with an error where that is None."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: list[str | None] = []
        self.prompts: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        reply = self.server.replies[body["seed"]]
        if reply is None:
            return self.send(400, {"error": {"message": "no", "type": "bad", "code": None}})
        self.server.prompts.append(body["messages"][0]["content"])
        self.send(200, {
            "id": "1", "object": "chat.completion", "created": 0, "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "stop",
                         "message": {"role": "assistant", "content": reply}}] if reply else [],
            "usage": {"prompt_tokens": 60, "completion_tokens": 40, "total_tokens": 100},
        })  # fmt: skip

    def send(self, status: int, value: dict[str, Any]) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    path = tmp_path / "seeds.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in SEEDS), encoding="utf-8")
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]


def test_new_tasks_are_let_in_and_others_counted(endpoint, seeds, tmp_path) -> None:
    endpoint.replies = [
        "\n".join(["好的：", line(TASKS[0]), f"2. {line(TASKS[1])}", '{"instruction": 3}', "{oh"]),
        "\n".join([line(TASKS[0] + "吧"), line("说明肺炎的常见病因"), line(TASKS[2])]),
    ]
    out = tmp_path / "grown.jsonl"
    totals = grow(GrowConfig(max_rows=3), seeds, out, endpoint.url, "m")
    # Of the first reply two rows, one object whose instruction is a number; "{oh" has no end.
    assert totals == {"accepted": 3, "unparsed": 1, "similar": 2}
    assert [(r["id"], r["instruction"]) for r in rows(out)] == [
        ("grown-0-0", TASKS[0]), ("grown-0-1", TASKS[1]), ("grown-1-0", TASKS[2]),
    ]  # fmt: skip
    assert all(seed["instruction"] in endpoint.prompts[0] for seed in SEEDS)
    assert any(task in endpoint.prompts[1] for task in TASKS[:2])


def test_the_budget_bounds_the_requests(endpoint, seeds, tmp_path) -> None:
    endpoint.replies = [line(task) for task in TASKS]
    config = GrowConfig(max_rows=8, max_tokens=250)
    grow(config, seeds, tmp_path / "grown.jsonl", endpoint.url, "m")
    # 100 tokens a request: the third begins at 200, the fourth would at 300.
    assert len(endpoint.prompts) == len(rows(tmp_path / "grown.jsonl")) == 3


def test_a_run_that_failed_goes_on_to_the_same_rows(endpoint, seeds, tmp_path) -> None:
    endpoint.replies = [line(task) for task in TASKS]
    config = GrowConfig(max_rows=6)
    straight, broken = tmp_path / "straight.jsonl", tmp_path / "broken.jsonl"
    grow(config, seeds, straight, endpoint.url, "m")
    endpoint.replies[3] = None
    with pytest.raises(
        ServiceError, match=r"failed at request 3 \(BadRequestError\); 3 rows are in"
    ):
        grow(config, seeds, broken, endpoint.url, "m")
    with broken.open("a", encoding="utf-8") as file:  # as a kill between the two files leaves it
        file.write(line("写了一半的任务").replace("{", '{"request": 3, ', 1) + '\n{"instr')
    endpoint.replies[3] = line(TASKS[3])
    grow(config, seeds, broken, endpoint.url, "m")
    assert broken.read_bytes() == straight.read_bytes()
    assert Grown(broken).tokens == 600


def test_a_model_that_repeats_itself_ends_the_run(endpoint, seeds, tmp_path) -> None:
    endpoint.replies = [line(TASKS[0])] * 9
    config = GrowConfig(max_rows=50, max_fruitless=4)
    totals = grow(config, seeds, tmp_path / "grown.jsonl", endpoint.url, "m")
    assert totals == {"accepted": 1, "similar": 4}


def test_an_answer_without_a_choice_brings_nothing(endpoint, seeds, tmp_path) -> None:
    endpoint.replies = ["", line(TASKS[0])]
    out = tmp_path / "grown.jsonl"
    assert grow(GrowConfig(max_rows=1), seeds, out, endpoint.url, "m") == {"accepted": 1}
    assert [row["id"] for row in rows(out)] == ["grown-1-0"]


@pytest.mark.parametrize(
    ("instruction", "output", "reason"),
    [
        ("解释", "好。", "too_short"),
        ("解释什么是心电图", "", "too_short"),
        ("解释什么是心电图", "好" * 601, "too_long"),
        ("看图片说出诊断是什么", "肺炎。", "not_text"),
        ("解释什么是心电图", "抱歉，我无法回答。", "refusal"),
        ("解释什么是心电图", "解释什么是心电图", "echo"),
        ("解释什么是心电图", "记录心脏电活动" * 5, "repetitive"),
        ("解释什么是心电图", "请联系王建国医生，电话13800138000。", "identifier"),
        ("解释什么是心电图", "记录心脏电活动的检查。", None),
    ],
)
def test_why_a_task_is_not_let_in(instruction: str, output: str, reason: str | None) -> None:
    row = {"instruction": instruction, "input": "", "output": output}
    assert fault(row, NoveltyConfig()) == reason


def test_similarity_is_rouge_l_of_characters() -> None:
    # The longest common subsequence of the two has 7 characters of 10 and 10: F1 = 14 / 20 = 0.7.
    known, new = "甲乙丙丁戊己庚辛壬癸", "甲乙丙丁戊己庚子丑寅"
    assert choose(NoveltyConfig(), line(new), [known]) == ([], {"similar": 1})
    less = "甲乙丙丁戊己申子丑寅"  # 6 of 10: 0.6
    assert choose(NoveltyConfig(), line(less), [known])[1] == {}


def test_bad_seeds_say_what_to_mend(tmp_path) -> None:
    def attempt(text: str | None) -> None:
        path = tmp_path / "seeds.jsonl"
        if text is not None:
            path.write_text(text, encoding="utf-8")
        grow(GrowConfig(), path, tmp_path / "out.jsonl", "http://127.0.0.1:9/v1", "m")

    for text, message in (
        (None, "no seeds at"),
        ("", "holds 0 seeds, 6 are shown"),
        ('{"instruction": "a", "output": 1}\n', "row 1: instruction and output must be texts"),
        ("{\n", "line 1 is no JSON"),
        (line("甲") + "\n[1]\n", "line 2 is no JSON object"),
    ):
        with pytest.raises(DataError, match=message):
            attempt(text)
    assert [path.name for path in tmp_path.iterdir()] == ["seeds.jsonl"]
