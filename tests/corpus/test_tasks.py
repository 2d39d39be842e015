"""Results of tasks in the order of their calls."""

from medray.corpus.tasks import in_order


def test_early_results_wait_for_their_place():
    results = iter([(1, "b"), (0, "a"), (2, "c"), (4, "e"), (3, "d")])
    seen = in_order(results)
    assert next(seen) == "a"
    assert next(results) == (2, "c")  # the two that it took are "b" and "a"
    assert list(in_order([(2, "c"), (1, "b"), (0, "a")])) == ["a", "b", "c"]
    assert list(in_order([])) == []
