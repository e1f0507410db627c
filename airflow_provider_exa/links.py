"""The link from a task in Airflow's UI to a webset's page at Exa."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

#: Source: Exa's documentation; its OpenAPI calls it a webset's ``dashboardUrl``.
PAGE = "https://websets.exa.ai/websets/"


class ExaWebsetLink(BaseOperatorLink):
    """
    The page of the webset that the task's monitor belongs to.

    Airflow asks for the link in the worker, after it has reported how the task's process ended. A search
    monitor has none: no page of it is known.
    """

    name = "Exa"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL, or an empty string, which Airflow shows as no link."""
        find_webset = getattr(operator, "find_webset", None)
        webset_id = find_webset() if find_webset else None
        return PAGE + quote(webset_id, safe="") if webset_id else ""
