"""Which pairs and prompts TRL is given: none that leaves an answer no room, and enough of them."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medray.common.errors import ConfigError, DataError
from medray.common.records import PreferencePair, Scenario
from medray.common.rows import write_rows
from medray.training.preference.config import PreferenceConfig
from medray.training.preference.data import count_tokens, read_examples

SHORT, LONG = "咳嗽", "咳嗽三天" * 20
CONTEXT = 128


@pytest.fixture
def model() -> Any:
    """As much of a decoder as is asked: its context."""
    return SimpleNamespace(config=SimpleNamespace(max_position_embeddings=CONTEXT))


def write(directory: Path, rows: list[tuple[str, str, str, str]]) -> Path:
    """Pairs of (split, prompt, chosen, rejected), and their prompts."""
    pairs = [
        PreferencePair(id=f"{k}", prompt=prompt, chosen=chosen, rejected=rejected, split=split)  # type: ignore[arg-type]
        for k, (split, prompt, chosen, rejected) in enumerate(rows)
    ]
    write_rows(directory / "preferences", PreferencePair, pairs)
    prompts = [Scenario(id=row.id, prompt=row.prompt, split=row.split) for row in pairs]
    write_rows(directory / "prompts", Scenario, prompts)
    return directory


def settings(method: str, **values: Any) -> PreferenceConfig:
    sizes = {"batch_size": 4, "micro_batch_size": 2, "num_generations": 2, "max_tokens": 64,
             "max_new_tokens": CONTEXT - 63}  # fmt: skip
    return PreferenceConfig.model_validate({"method": method, **sizes, **values})


ROWS = [
    ("train", SHORT, "是肺炎", "不知道"),
    ("train", LONG, "是肺炎", "不知道"),
    ("train", SHORT, "是肺炎" * 30, "不知道"),
    ("dev", SHORT, "是哮喘", "不知道"),
]


@pytest.mark.parametrize("method", ["dpo", "kto", "grpo"])
def test_what_leaves_no_room_for_an_answer_is_left_out_and_counted(
    tmp_path: Path, tokenizer: Any, model: Any, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = settings(method)
    with caplog.at_level(logging.INFO, "medray"):
        train, heldout = read_examples(config, write(tmp_path, ROWS), model, tokenizer)
    per_pair = 2 if method == "kto" else 1
    assert (len(train), len(heldout)) == (2 * per_pair, per_pair)
    assert all(row["prompt"][0]["content"] == SHORT for row in train + heldout)
    if method == "kto":
        assert sorted(row["label"] for row in train) == [False, False, True, True]
    assert "rows_in=4 rows_out=3 rejected={'too_long': 1}" in caplog.text
    assert f"{0 if method == 'grpo' else 1} with an answer cut" in caplog.text
    assert SHORT not in caplog.text


def test_room_is_counted_to_the_token(
    tmp_path: Path, tokenizer: Any, model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A prompt of n tokens fits in max_tokens n + 1, and in a context of n + max_new_tokens."""
    turns = [{"role": "user", "content": SHORT}, {"role": "assistant", "content": "是"}]
    n = count_tokens(tokenizer, turns[:1], is_asked=True)
    whole = count_tokens(tokenizer, turns, is_asked=False)
    rows = [(split, SHORT, "是", "是") for split in ("train", "train", "dev")]
    directory = write(tmp_path, rows)
    for max_tokens, cut in ((whole, 0), (whole - 1, 3), (n + 1, 3)):
        caplog.clear()
        with caplog.at_level(logging.INFO, "medray"):
            read_examples(settings("dpo", max_tokens=max_tokens), directory, model, tokenizer)
        assert f"rejected={{}}, {cut} with an answer cut" in caplog.text
    with pytest.raises(DataError, match=rf"3 of 3 prompts are longer than the {n - 1} tokens"):
        read_examples(settings("dpo", max_tokens=n), directory, model, tokenizer)
    fits = settings("rloo", max_new_tokens=CONTEXT - n)
    assert len(read_examples(fits, directory, model, tokenizer)[0]) == 2
    longer = settings("rloo", max_new_tokens=CONTEXT - n + 1)
    with pytest.raises(DataError, match=r"that preference\.max_new_tokens leaves; .* or change"):
        read_examples(longer, directory, model, tokenizer)
    model.config = SimpleNamespace()  # ALiBi: no end to the context
    assert len(read_examples(longer, directory, model, tokenizer)[0]) == 2


@pytest.mark.parametrize(
    ("method", "values", "message"),
    [
        ("dpo", {"max_tokens": 129}, r"preference\.max_tokens gives .* 129 .* reads 128"),
        ("kto", {"max_tokens": 129}, r"preference\.max_tokens gives .* 129 .* reads 128"),
        ("grpo", {"max_new_tokens": 128}, r"max_new_tokens 128 leaves no room .* 128 tokens"),
        ("rloo", {"max_new_tokens": 300}, r"max_new_tokens 300 leaves no room .* 128 tokens"),
    ],
)
def test_settings_longer_than_the_model(
    tmp_path: Path, tokenizer: Any, model: Any, method: str, values: dict[str, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_examples(settings(method, **values), write(tmp_path, ROWS), model, tokenizer)


@pytest.mark.parametrize(
    ("method", "rows", "message"),
    [
        ("dpo", ROWS[3:], "needs 1 training pairs .* 0 train and 1 dev"),
        ("kto", ROWS[:3], "some held-out ones, found 4 train and 0 dev"),
        ("rloo", [], "found 0 train and 0 dev; 0 of 0"),
        # A step takes 4 answers, 2 to a prompt: 2 prompts.
        ("grpo", [ROWS[0], ROWS[3]], "needs 2 training prompts .* 1 train and 1 dev"),
    ],
)
def test_splits_with_too_little(
    tmp_path: Path, tokenizer: Any, model: Any, method: str, rows: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_examples(settings(method), write(tmp_path, rows), model, tokenizer)
