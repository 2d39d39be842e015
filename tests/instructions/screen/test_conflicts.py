"""Near-identical inputs with different labels, against hand-made groups."""

import random

import pytest

from medray.instructions.screen.config import ScreenConfig
from medray.instructions.screen.conflicts import find_conflicts, near_identical
from medray.instructions.screen.flags import Flag, Labelled

SETTINGS = ScreenConfig(similarity=0.9)
HAN = [chr(0x4E00 + i) for i in range(2_000)]


def text(number: int, edits: int = 0) -> str:
    """200 characters of `number`, the last `edits` of them other ones.

    Of its 197 n-grams of four, `edits` at the end change as many; so the Jaccard similarity to the
    text without edits is (197 - edits) / (197 + edits).
    """
    letters = random.Random(number).choices(HAN, k=200)
    return "".join(letters[: 200 - edits]) + "".join(random.Random(edits).choices("abc", k=edits))


def row(number: int, answer: str, group: int, edits: int = 0) -> Labelled:
    return Labelled(str(number), "a", text(group, edits), answer)


def test_near_identical_prompts_share_a_label():
    assert near_identical([], SETTINGS) == []
    prompts = [text(1), text(2), text(1, 5), text(2, 5), text(3), "", text(1)]
    first, second, *rest = near_identical(prompts, SETTINGS)
    assert rest == [first, second, rest[2], rest[3], first]
    assert len({first, second, rest[2], rest[3]}) == 4
    # (197 - 10) / 207 = 0.903 and (197 - 11) / 208 = 0.894, on either side of 0.9.
    assert len(set(near_identical([text(1), text(1, 10)], SETTINGS))) == 1
    assert len(set(near_identical([text(1), text(1, 11)], SETTINGS))) == 2


def test_pairs_are_found_with_the_recall_that_is_planned():
    prompts = [text(n, edits) for n in range(300) for edits in (0, 8)]
    labels = near_identical(prompts, SETTINGS)
    assert sum(a == b for a, b in zip(labels[::2], labels[1::2], strict=True)) >= 297
    assert len(set(labels)) >= 300


def test_the_minority_is_flagged_and_all_where_none_leads():
    rows = [
        row(0, "肺炎", 0), row(1, "肺炎", 0, 2), row(2, "感冒", 0, 4),  # one against two
        row(3, "哮喘", 3), row(4, "感冒", 3, 1),  # one against one
        row(5, "胃炎", 5), row(6, "胃炎", 5, 3),  # agreed
        row(7, "胃炎", 7),  # alone
        row(8, "长" * 41, 8), row(9, "别" * 41, 8),  # free text
    ]  # fmt: skip
    flags = find_conflicts(rows, ScreenConfig(similarity=0.9, max_conflicts=0.7))
    assert sorted(flags) == [
        Flag("2", "label_conflict", "a/conflict-0", 0.667),
        Flag("3", "label_conflict", "a/conflict-1", 0.5),
        Flag("4", "label_conflict", "a/conflict-1", 0.5),
    ]
    # Five of eight labels in conflict: in such a task near-identical inputs differ by nature.
    assert find_conflicts(rows, ScreenConfig(similarity=0.9, max_conflicts=0.6)) == []


@pytest.mark.parametrize("rows", [[], [row(0, "肺炎", 0)]])
def test_too_few_rows_have_no_conflict(rows):
    assert find_conflicts(rows, SETTINGS) == []
