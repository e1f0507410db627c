"""What the README shows can be done word for word."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from airflow.sdk import DAG

README = (Path(__file__).parent.parent / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "tasks"), [("after_exa", ["wait_for_run", "load"]), ("on_completed_run", ["load"])]
)
def test_the_dags_of_the_readme_are_dags(name: str, tasks: list[str]) -> None:
    """A new user pastes one into the DAG folder."""
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    (code,) = (block for block in blocks if f"def {name}()" in block)
    names: dict[str, object] = {"__name__": "pasted"}
    exec(compile(code.replace(f"\n{name}()\n", f"\ndag_made = {name}()\n"), "README.md", "exec"), names)  # noqa: S102 (our own README)
    dag = names["dag_made"]
    assert isinstance(dag, DAG)
    assert [task.task_id for task in dag.topological_sort()] == tasks
