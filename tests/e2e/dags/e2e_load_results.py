"""The sample DAG that loads what runs found, under another name, for a search monitor in Airflow."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

SAMPLE = Path(__file__).parents[3] / "dags" / "exa_load_results.py"

with patch.dict("os.environ", EXA_API="search", EXA_MONITOR_ID="e2e_search"):
    exec(compile(SAMPLE.read_text().replace("exa_load_results", "e2e_load_results"), __file__, "exec"))  # noqa: S102
