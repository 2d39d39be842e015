"""How many requests may be in flight at one gateway."""

from medray.serving.schema.base import ApiError


class InFlight:
    """Counts requests; one too many is refused at once, never queued."""

    def __init__(self, limit: int, retry_after_s: int) -> None:
        self.limit, self.retry_after_s = limit, retry_after_s
        self.count = 0

    def take(self) -> "Slot":
        """A slot for one request.

        Raises:
            ApiError: 429 if all are taken.
        """
        if self.count >= self.limit:
            raise ApiError(
                429, f"{self.limit} requests are in flight; try again shortly",
                code="overloaded", retry_after_s=self.retry_after_s,
            )  # fmt: skip
        self.count += 1
        return Slot(self)


class Slot:
    """One request in flight; without a counter, one that takes nobody's place."""

    def __init__(self, counter: InFlight | None) -> None:
        self._counter = counter

    def free(self) -> None:
        """Gives the slot back; once is enough, twice does no harm."""
        if self._counter is not None:
            self._counter.count -= 1
            self._counter = None
