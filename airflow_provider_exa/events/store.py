"""
The Airflow Variable with an asset's cursor, and the takeover of another asset's place.

Airflow's own state of an asset is deleted when no DAG refers to the asset, such as while a DAG file is away.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import pendulum
from pendulum import DateTime

from airflow_provider_exa.events.cursor import Cursor, CursorRecord, combine, predecessors
from airflow_provider_exa.protocol.errors import ExaInputError
from airflow_provider_exa.protocol.validation import as_time
from airflow_provider_exa.timing import timing

log = logging.getLogger(__name__)

#: Airflow hides the value of a Variable if its key contains one of many words; these cover them.
SECRET_WORDS = re.compile("key|token|secret|pass|auth|bearer|dsn|prox|private|account|connection|webhook")

#: A key of an asset's state that nobody sets.
NO_KEY = "exa_no_such_key"

#: The Variables of the assets that this process watches, or has watched: whether it still does.
_is_watched: dict[str, bool] = {}


def family_of(api: str, monitor_id: str) -> str:
    """
    Return how the keys of a monitor's Variables begin: with its id, as far as a key can hold that.

    Airflow asks for a Variable by a URL, in which a segment must not begin with a dot.
    """
    segment = re.sub(r"[^\w.:-]|^\.", "_", monitor_id, flags=re.ASCII)[:100]
    if SECRET_WORDS.search(segment.lower()):
        segment = "monitor"
    if segment != monitor_id:
        segment += "-" + _digest(monitor_id)
    return f"exa_cursor/{api}/{segment}/"


def variable_of(api: str, monitor_id: str, asset_name: str) -> str:
    """Return the key of the Variable with the cursor of an asset."""
    return family_of(api, monitor_id) + _digest(asset_name)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class CursorStore:
    """
    The cursor of one asset in its Variable.

    An asset without one takes over the place of another asset of its monitor: it may be that asset, watched
    in another way. If that one turns out to be watched no more, and no DAG refers to it, its Variable is
    deleted; if it is deleted wrongly, the asset that is still watched writes it again.

    :param variables: ``airflow.sdk.Variable``
    :param asset_state: ``AssetStateStoreAccessor``
    :param start: where an asset starts that is the first of its monitor
    """

    def __init__(
        self,
        variables: Any,
        asset_state: Callable[..., Any],
        *,
        asset: str,
        statuses: Sequence[str],
        api: str,
        monitor_id: str,
        start: str,
    ) -> None:
        self.key = variable_of(api, monitor_id, asset)
        self.is_first_start = False
        self._variables = variables
        self._asset_state = asset_state
        self._family = family_of(api, monitor_id)
        self._description = f"Which runs of Exa monitor {monitor_id} the asset {asset} has reported"[:250]
        self._start = start
        self._record = CursorRecord(asset, statuses, Cursor(pendulum.now("UTC")), pendulum.now("UTC"))
        self._began = pendulum.now("UTC")
        self._kept: dict[str, Any] | None = None
        self._lock = asyncio.Lock()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Let other assets of this process know that this one is watched."""
        _is_watched[self.key] = True
        try:
            yield
        finally:
            _is_watched[self.key] = False

    async def load(self) -> Cursor:
        """
        Return the cursor; a new one is written before Exa is asked, so that no run ends in between.

        :raises Exception: the Variables cannot be read or written
        """
        texts = await asyncio.to_thread(self._read)
        if text := texts.get(self.key):
            record = self._parse(self.key, text)
            self._kept = _state_of(record)
            self._record = replace(record, asset=self._record.asset, statuses=self._record.statuses)
            return record.cursor
        records = {key: self._parse(key, each) for key, each in texts.items()}
        self._record = self._take_over(records)
        await self._write()
        return self._record.cursor

    def _take_over(self, records: Mapping[str, CursorRecord]) -> CursorRecord:
        now = pendulum.now("UTC")
        keys = predecessors(records, self._record.statuses)
        if not keys:
            self.is_first_start = True
            start = as_time("start", now if self._start == "now" else self._start)
            return replace(self._record, cursor=Cursor(start))
        names = ", ".join(records[key].asset or key for key in keys)
        log.info("Asset %s goes on from the place of %s.", self._record.asset, names)
        if any(_without_start(records[key].asset) == _without_start(self._record.asset) for key in keys):
            log.warning(
                "Asset %s differs only in its start from %s. A start is read once: give a fixed moment, as a "
                "computed one makes a new asset whenever the DAG file is read.",
                self._record.asset,
                names,
            )
        since = now.subtract(seconds=2 * timing().cursor_rewrite_interval)
        replaces = {
            key: records[key].polled_at
            for key in keys
            if records[key].is_like(self._record.statuses) and records[key].polled_at >= since
        }
        return replace(self._record, cursor=combine([records[key].cursor for key in keys]), replaces=replaces)

    async def keep(self) -> None:
        """Write the cursor if it has changed, or now and then; if Airflow cannot, the next poll does."""
        async with self._lock:
            try:
                overdue = _seconds_since(self._record.polled_at) > timing().cursor_rewrite_interval
                if overdue or _state_of(self._record) != self._kept:
                    await self._write()
                await self._clear_up()
            except Exception as error:
                log.warning("A cursor cannot be written: %s (Airflow Variable %r).", error, self.key)

    async def _clear_up(self) -> None:
        """Delete the Variables of assets that this one has replaced, once it is clear that it has."""
        for key, polled_at in self._record.replaces.items():
            text = await asyncio.to_thread(self._read_one, key) if self._may_be_replaced(key) else None
            if is_replaced := text is not None and await self._is_replaced(key, text, polled_at):
                await asyncio.to_thread(self._variables.delete, key)
                log.info("Variable %r is deleted: asset %s has replaced its own.", key, self._record.asset)
            if is_replaced or self._is_settled(key):
                replaces = {other: at for other, at in self._record.replaces.items() if other != key}
                self._record = replace(self._record, replaces=replaces)

    async def _is_replaced(self, key: str, text: str, polled_at: DateTime) -> bool:
        """Return whether an asset is watched no more since its place was taken over, nor paused."""
        record = self._parse(key, text)
        is_over = key in _is_watched or record.polled_at == polled_at
        return is_over and not await asyncio.to_thread(self._is_referred_to, record.asset)

    def _is_referred_to(self, asset: str) -> bool:
        """
        Return whether a DAG refers to an asset, paused or not.

        A triggerer cannot ask for an asset, only for its state. Airflow answers 404 for the state of an asset
        that no DAG refers to; for another one, to delete a key that is not there does nothing.
        """
        try:
            self._asset_state(name=asset).delete(NO_KEY)
        except Exception as error:
            detail = getattr(getattr(error, "error", None), "detail", None) or {}
            if detail.get("status_code") == HTTPStatus.NOT_FOUND:
                return False
            log.warning("Airflow does not say whether a DAG refers to asset %s: %s", asset, error)
        return True

    def _may_be_replaced(self, key: str) -> bool:
        """Return whether the asset of a Variable may be watched no more, as far as this process knows."""
        return not _is_watched.get(key, not self._is_settled(key))

    def _is_settled(self, key: str) -> bool:
        """Return whether an asset that is replaced would have ended by now, or be known not to be watched."""
        interval = timing().takeover_window if key in _is_watched else 3 * timing().cursor_rewrite_interval
        return _seconds_since(self._began) > interval

    async def _write(self) -> None:
        record = replace(self._record, polled_at=pendulum.now("UTC"))
        state = _state_of(record)
        await asyncio.to_thread(self._variables.set, self.key, record.as_json(), self._description)
        self._record, self._kept = record, state

    def _read(self) -> dict[str, str]:
        """
        Return the text of this Variable, or those of the monitor's other assets if there is none.

        ``Variable.get`` alone says that there is none, too, when the database could not be asked.
        """
        # On SQLite, whose LIKE ignores case, the prefix lets others pass.
        keys = [key for key in self._variables.keys(prefix=self._family) if key.startswith(self._family)]
        wanted = [self.key] if self.key in keys else keys
        return {key: str(self._variables.get(key)) for key in wanted}

    def _read_one(self, key: str) -> str | None:
        return str(self._variables.get(key)) if key in self._variables.keys(prefix=key) else None

    def _parse(self, key: str, text: str) -> CursorRecord:
        try:
            return CursorRecord.from_json(text)
        except ExaInputError as error:
            raise ExaInputError(f"{key!r}: {error} Mend it, or delete the Variable.") from None


def _state_of(record: CursorRecord) -> dict[str, Any]:
    """Return what is worth a write."""
    return {
        **record.cursor.as_dict(),
        "statuses": list(record.statuses),
        "replaces": dict(record.replaces),
    }


def _without_start(asset: str) -> str:
    return asset.partition("/start=")[0]


def _seconds_since(moment: DateTime) -> float:
    return float((pendulum.now("UTC") - moment).total_seconds())
