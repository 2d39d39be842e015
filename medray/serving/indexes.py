"""The versions of the index that one retrieval replica holds open.

The version that the alias names is opened beside the one that is searched, which goes on answering
until then; the one before stays open, so that a roll-back takes effect at the next search. A search
keeps the version that it began with. A version whose files were rewritten in place, as an erasure
does, is opened anew and gone over to in the same way; the copy with what was erased closes with its
last search.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from medray.common.errors import ConfigError, ServiceError
from medray.retrieval.search import open_index
from medray.serving.alias import IndexAlias
from medray.serving.artefacts import Location

logger = logging.getLogger(__name__)
KEPT = 2
LOOK_S = 1.0
"""Between two looks at whether what is open was rewritten."""
RETRY_S = 30.0
"""After which a version that could not be opened is tried again."""


class OpenIndex:
    """One version, with a private copy of its vectors."""

    def __init__(self, index: Location) -> None:
        self.version, self.num_searches = index.version, 0
        self.stamp = index.stamp()  # before it is read, so that no later change goes unnoticed
        with ExitStack() as stack:
            place = index.fetch()
            unchanged = partial(self._is_of, index)
            self.searcher = stack.enter_context(open_index(place, unchanged))
            self._stack = stack.pop_all()

    def _is_of(self, index: Location) -> bool:
        return index.stamp() == self.stamp

    def close(self) -> None:
        """Removes the copy."""
        self._stack.close()


class OpenIndexes:
    """What is open, the version that is searched last. For one event loop."""

    def __init__(self, alias: IndexAlias) -> None:
        """Opens the version that the alias names; where that cannot be opened the one before it,
        then the newest when the application was built, until `follow` gets at the named one.

        Raises:
            Exception: of the version that was tried last, if none of them can be opened.
        """
        self._alias = alias
        self._open: dict[Location, OpenIndex] = {}
        self._retired: list[OpenIndex] = []
        self._opening: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._look_at = time.monotonic() + LOOK_S
        self._failed: dict[Location, float] = {}
        self._open_first()

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
        self._look()
        index = self.current
        index.num_searches += 1
        try:
            yield index
        except ServiceError:
            self._renew(index)
            raise
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
        while self._retired:
            self._retired.pop().close()

    def _open_first(self) -> None:
        choices = [self._alias.first]
        try:
            named = self._alias.named()
            choices = [named.index, *filter(None, [named.previous]), *choices]
        except (ConfigError, OSError) as error:
            logger.error("the index alias cannot be read: %s", type(error).__name__)
        *others, last = dict.fromkeys(choices)
        for index in others:
            try:
                self._open[index] = OpenIndex(index)
                return
            except Exception as error:  # whatever is wrong with it, another may answer
                self._note_failure(index, error)
        self._open[last] = OpenIndex(last)

    def _look(self) -> None:
        if self._looking is None and time.monotonic() >= self._look_at:
            self._looking = asyncio.create_task(self._find_rewritten())

    async def _find_rewritten(self) -> None:
        """The one that is searched is opened anew; others when they are wanted again."""
        pause_s = LOOK_S
        try:
            for index, opened in list(self._open.items()):
                if await asyncio.to_thread(index.stamp) == opened.stamp:
                    continue
                if opened is not self.current:
                    self._retire(index, opened)
                elif self._opening is None and self._may_try(index):
                    self._opening = asyncio.create_task(self._bring(index))
        except Exception as error:  # an artefact that was removed is searched as before
            pause_s = RETRY_S
            logger.error("an open index cannot be looked at: %s", type(error).__name__)
        finally:
            self._looking, self._look_at = None, time.monotonic() + pause_s
        self._close_spare()

    def _renew(self, failed: OpenIndex) -> None:
        """Later builds may have dropped its collection; one that is opened anew is filled anew."""
        wanted = next((index for index, opened in self._open.items() if opened is failed), None)
        if wanted is not None and self._opening is None and self._may_try(wanted):
            self._opening = asyncio.create_task(self._bring(wanted))

    def _retire(self, index: Location, opened: OpenIndex) -> None:
        if self._open.get(index) is opened:
            self._retired.append(self._open.pop(index))

    def _note_failure(self, index: Location, error: Exception) -> None:
        self._failed[index] = time.monotonic()
        logger.error("index %s cannot be opened: %s", index.version, type(error).__name__)

    def _may_try(self, wanted: Location) -> bool:
        return time.monotonic() - self._failed.get(wanted, -RETRY_S) >= RETRY_S

    async def _bring(self, wanted: Location) -> None:
        try:
            opened = await asyncio.to_thread(OpenIndex, wanted)
            if wanted in self._open:
                self._retire(wanted, self._open[wanted])
            self._open[wanted] = opened
            self._failed.pop(wanted, None)
            logger.warning("index %s is searched from now on", wanted.version)
        except Exception as error:  # whatever is wrong with it, the version before goes on
            self._note_failure(wanted, error)
        finally:
            self._opening = None
        self.follow()  # the alias may have moved on meanwhile
        self._close_spare()

    def _close_spare(self) -> None:
        for index in list(self._open)[:-KEPT]:
            self._retire(index, self._open[index])
        for spare in [index for index in self._retired if not index.num_searches]:
            self._retired.remove(spare)
            asyncio.get_running_loop().run_in_executor(None, spare.close)
