"""How much each key may ask: requests a minute, tokens a day.

In: keys and their limits. Out: seconds to wait, 0 to go on. One replica counts for all gateways, in
memory: a replica that is started anew counts from nothing. Serve runs plain methods in threads, so
that counting is one at a time.
"""

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable

MINUTE_S = 60.0
DAY_S = 86_400.0


class Budget:
    """Counts what was asked within the last minute and the last day."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._requests: dict[str, deque[float]] = defaultdict(deque)
        self._tokens: dict[str, deque[tuple[float, int]]] = defaultdict(deque)
        self._spent: dict[str, int] = defaultdict(int)

    def take(self, key: str, requests_per_minute: int | None, tokens_per_day: int | None) -> float:
        """Counts a request, unless a limit is reached: then seconds until it is not.

        The tokens of requests that are still being answered are not known yet, so that a key may
        pass its day's tokens by those.
        """
        with self._lock:
            return self._take(key, requests_per_minute, tokens_per_day)

    def _take(self, key: str, requests_per_minute: int | None, tokens_per_day: int | None) -> float:
        now = self._clock()
        if tokens_per_day is not None:
            entries = self._tokens[key]
            while entries and entries[0][0] <= now - DAY_S:
                self._spent[key] -= entries.popleft()[1]
            over = self._spent[key] - tokens_per_day
            if over >= 0:
                for when, count in entries:
                    over -= count
                    if over < 0:
                        return when + DAY_S - now
        if requests_per_minute is not None:
            times = self._requests[key]
            while times and times[0] <= now - MINUTE_S:
                times.popleft()
            if len(times) >= requests_per_minute:
                return times[0] + MINUTE_S - now
            times.append(now)
        return 0.0

    def spend(self, key: str, num_tokens: int) -> None:
        """Counts the tokens of a request that was answered."""
        with self._lock:
            now, entries = self._clock(), self._tokens[key]
            if entries and now - entries[-1][0] < MINUTE_S:  # an entry a minute at most
                now, before = entries.pop()
                entries.append((now, before + num_tokens))
            else:
                entries.append((now, num_tokens))
            self._spent[key] += num_tokens

    def status(self) -> dict[str, int]:
        """What /healthz shows."""
        return {"keys": len(self._requests.keys() | self._tokens.keys())}
