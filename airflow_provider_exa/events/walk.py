"""An asset's way through the part of a listing that lies too far back for its polls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pendulum

from airflow_provider_exa.events.cursor import Cursor
from airflow_provider_exa.events.subscriber import warn_truncated
from airflow_provider_exa.protocol.errors import ExaEndlessListingError, ExaError, ExaTransientError
from airflow_provider_exa.protocol.models import MonitorRun
from airflow_provider_exa.protocol.paging import Listing, Page, fetch_page
from airflow_provider_exa.timing import timing

if TYPE_CHECKING:
    from airflow_provider_exa.client.async_client import AsyncClient

log = logging.getLogger(__name__)

#: The statuses of an answer to a cursor that has expired, say.
UNKNOWN_PAGE = (400, 404, 410, 422)


@dataclass
class Walk:
    """
    Reads page after page whatever a cursor is owed, one page in memory at a time.

    A page that fails is asked for again, less and less often, so a walk goes on where it stopped. A listing
    that cannot be read to its end, or whose cursor Exa knows no more, is walked again from its beginning.

    :param asset: its name, for the triggerer's log
    :param statuses: how a run must have ended to be reported
    :param first_page: the listing
    :param interval: seconds between polls of the asset
    :param on_page: called after each page
    :ivar wanted: set this where the cursor may be owed runs
    :ivar is_troubled: whether a page has failed or was missing
    :ivar is_done: whether it has come to an end once
    :ivar history: how many runs had ended before the cursor's start, as far as the walk has come
    """

    asset: str
    cursor: Cursor
    statuses: Collection[str]
    first_page: Listing[MonitorRun]
    interval: float
    on_page: Callable[[], None]
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    is_troubled: bool = False
    is_done: bool = False
    history: int = 0

    @property
    def is_under_way(self) -> bool:
        """Whether it makes progress, so that older runs may come soon."""
        return self.cursor.owed is not None and not self.is_troubled

    async def run(self, client: AsyncClient) -> None:
        """Walk whenever the cursor is owed runs."""
        pause = self.interval
        while True:
            owed = self.cursor.owed
            if owed is None:
                pause = self.interval
                self.wanted.clear()
                await self.wanted.wait()
            elif await self._walk(client, replace(self.first_page, since=owed[0])):
                self.cursor.pay(owed)
                self.is_troubled, self.is_done = False, True
                self.on_page()
            else:
                self.is_troubled = True
                warn_truncated(self.asset)
                self.on_page()
                pause = min(pause * 2, timing().max_walk_interval)
                await asyncio.sleep(pause)

    async def _walk(self, client: AsyncClient, listing: Listing[MonitorRun]) -> bool:
        """Read the listing; return whether nothing on it was left out."""
        self.history = 0
        is_whole = True
        next_page: Listing[MonitorRun] | None = listing
        while next_page:
            try:
                page = await self._fetch(client, next_page)
            except ExaError as error:
                log.warning("%s It is listed again later (asset %s).", error, self.asset)
                return False
            if isinstance(page.truncated, ExaEndlessListingError) and next_page.number > next_page.max_pages:
                await asyncio.sleep(timing().max_trouble_interval)
                next_page = replace(
                    next_page, number=3
                )  # the first that is neither with nor without a cursor
                continue
            self._observe(page.items)
            is_whole = is_whole and page.truncated is None
            next_page = page.next_page
        return is_whole

    async def _fetch(self, client: AsyncClient, listing: Listing[MonitorRun]) -> Page[MonitorRun]:
        """
        Fetch a page; trouble at Exa or with the key is waited out.

        :raises ExaError: Exa does not know the page
        """
        pause = self.interval
        while True:
            try:
                return await client.call(fetch_page(listing))
            except ExaError as error:
                if error.status in UNKNOWN_PAGE:
                    raise
                is_transient = isinstance(error, ExaTransientError)
                longest = timing().max_trouble_interval if is_transient else timing().permanent_error_interval
                self.is_troubled = True
                self.on_page()
                pause = min(pause * 2, longest)
                log.warning("%s It is asked again in %.0f seconds (asset %s).", error, pause, self.asset)
                await asyncio.sleep(pause)

    def _observe(self, runs: Collection[MonitorRun]) -> None:
        self.cursor.observe(runs, self.statuses, pendulum.now("UTC"))
        self.history += self.cursor.count_history(runs)
        self.on_page()
