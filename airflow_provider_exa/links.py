"""The link from a task in Airflow's UI to what it is about at Exa."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink

from airflow_provider_exa.client.client import drive
from airflow_provider_exa.hooks import ExaHook
from airflow_provider_exa.protocol.endpoints import get_monitor
from airflow_provider_exa.protocol.errors import ExaError
from airflow_provider_exa.protocol.models import Monitor

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


#: Source: Exa's documents; their OpenAPI calls it a webset's ``dashboardUrl``.
PAGE = "https://websets.exa.ai/websets/"


class ExaWebsetLink(BaseOperatorLink):
    """
    The page of the webset that the task's monitor belongs to.

    Airflow asks for it when a process of the task ends, so what has not been learned by then has no link, and
    neither has a search monitor, as there is no page that is known.
    """

    name = "Exa"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The URL, or an empty string, which Airflow shows as no link."""
        webset_id = getattr(operator, "webset_id", None)
        return PAGE + quote(webset_id, safe="") if webset_id else ""


def webset_of(hook: ExaHook, monitor: Monitor | str) -> str | None:
    """The webset of a monitor, or of one by its id; None if it has none, or Exa does not say at once."""
    if not hook.dialect.websets:
        return None
    try:
        if isinstance(monitor, str):
            monitor = drive(get_monitor(hook.dialect, monitor), hook.get_conn().send_once)
    except ExaError:
        return None
    return monitor.webset_id
