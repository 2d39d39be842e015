"""Connected components. In: pairs. Out: a label for every member."""

import numpy as np


class Forest:
    """Connected components (union-find). The root of a tree is its least member."""

    def __init__(self, size: int) -> None:
        self.parents_N = np.arange(size)

    def join(self, pairs_E2: np.ndarray) -> None:
        """Makes one component of the two members of each pair."""
        for left, right in pairs_E2.tolist():
            a, b = self._root(left), self._root(right)
            self.parents_N[max(a, b)] = min(a, b)

    def labels(self) -> np.ndarray:
        """The root of every member."""
        while True:
            grandparents_N = self.parents_N[self.parents_N]
            if np.array_equal(grandparents_N, self.parents_N):
                return grandparents_N
            self.parents_N = grandparents_N

    def _root(self, member: int) -> int:
        while (parent := int(self.parents_N[member])) != member:
            self.parents_N[member] = self.parents_N[parent]
            member = parent
        return member
