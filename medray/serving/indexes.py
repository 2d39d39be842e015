"""The versions of the index that one retrieval replica holds open.

The version that the alias names is opened beside the one that is searched, which goes on answering
until then; the one before stays open, so that a roll-back takes effect at the next search. A search
keeps the version that it began with.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from medray.common.errors import ConfigError
from medray.retrieval.search import open_index
from medray.serving.alias import IndexAlias
from medray.serving.artefacts import Location

logger = logging.getLogger(__name__)
KEPT = 2
RETRY_S = 30.0
"""After which a version that could not be opened is tried again."""


class OpenIndex:
    """One version, with a private copy of its vectors."""

    def __init__(self, index: Location) -> None:
        self.version, self.num_searches = index.version, 0
        with ExitStack() as stack:
            self.searcher = stack.enter_context(open_index(index.fetch()))
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Removes the copy."""
        self._stack.close()


class OpenIndexes:
    """What is open, the version that is searched last. For one event loop."""

    def __init__(self, alias: IndexAlias) -> None:
        """Opens the version that the alias names."""
        self._alias = alias
        first = alias.named().index
        self._open: dict[Location, OpenIndex] = {}
        self._open[first] = OpenIndex(first)
        self._opening: asyncio.Task[None] | None = None
        self._failed: dict[Location, float] = {}

    @property
    def current(self) -> OpenIndex:
        """The version that is searched."""
        return next(reversed(self._open.values()))

    @property
    def versions(self) -> list[str]:
        """Of all that is open, the one that is searched first."""
        return [index.version for index in reversed(self._open.values())]

    @contextmanager
    def use(self) -> Iterator[OpenIndex]:
        """The version to search, which stays open meanwhile."""
        self.follow()
        index = self.current
        index.num_searches += 1
        try:
            yield index
        finally:
            index.num_searches -= 1
            self._close_spare()

    def follow(self) -> None:
        """Goes over to the version that the alias names; one that is not open is opened first, in
        the background."""
        try:
            wanted = self._alias.named().index
        except (ConfigError, OSError) as error:
            logger.error("the index alias cannot be read: %s", type(error).__name__)
            return
        if wanted in self._open:
            self._open[wanted] = self._open.pop(wanted)
        elif self._opening is None and self._may_try(wanted):
            self._opening = asyncio.create_task(self._bring(wanted))

    def close(self) -> None:
        """Closes all."""
        while self._open:
            self._open.popitem()[1].close()

    def _may_try(self, wanted: Location) -> bool:
        return time.monotonic() - self._failed.get(wanted, -RETRY_S) >= RETRY_S

    async def _bring(self, wanted: Location) -> None:
        try:
            self._open[wanted] = await asyncio.to_thread(OpenIndex, wanted)
            self._failed.pop(wanted, None)
            logger.warning("index %s is searched from now on", wanted.version)
        except Exception as error:  # whatever is wrong with it, the version before goes on
            self._failed[wanted] = time.monotonic()
            logger.error("index %s cannot be opened: %s", wanted.version, type(error).__name__)
        finally:
            self._opening = None
        self.follow()  # the alias may have moved on meanwhile
        self._close_spare()

    def _close_spare(self) -> None:
        for index in list(self._open)[:-KEPT]:
            if not self._open[index].num_searches:
                spare = self._open.pop(index)
                asyncio.get_running_loop().run_in_executor(None, spare.close)
