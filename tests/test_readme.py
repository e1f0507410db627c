"""What the README shows can be done word for word."""

from __future__ import annotations

import re
from pathlib import Path

from airflow.sdk import DAG

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_first_dag_of_the_readme_is_a_dag() -> None:
    """A new user pastes it into the DAG folder."""
    code = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)[0]
    names: dict[str, object] = {"__name__": "pasted"}
    exec(compile(code.replace("\nafter_exa()\n", "\ndag_made = after_exa()\n"), "README.md", "exec"), names)  # noqa: S102 (our own README)
    dag = names["dag_made"]
    assert isinstance(dag, DAG)
    assert [task.task_id for task in dag.topological_sort()] == ["wait_for_run", "load"]
