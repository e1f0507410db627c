"""Airflow's side of a task, for tests in one process: contexts, task state, reschedules, tries, clears."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pendulum
import pytest
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowRescheduleException, AirflowSkipException

POKE_INTERVAL = 77.0


@dataclass
class Store:
    """The task's state as Airflow 3.3 keeps it: JSON under a key, through tries and clears."""

    kept: dict[str, str] = field(default_factory=dict)

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self.kept[key]) if key in self.kept else default

    def set(self, key: str, value: Any) -> None:
        self.kept[key] = json.dumps(value)


@dataclass
class TaskInstance:
    """What an operator asks of its task instance."""

    start_date: datetime
    max_tries: int
    first_reschedule: datetime | None = None

    def get_first_reschedule_date(self, context: Any) -> datetime | None:
        return self.first_reschedule


@dataclass
class Ended:
    """How a try ended: its state, what it pushed to XCom, and the exception that ended it."""

    state: str
    xcom: Any = None
    error: BaseException | None = None

    @property
    def reason(self) -> BaseException | None:
        """The exception below a skip."""
        return self.error.__cause__ or self.error if self.error else None


class Task:
    """
    One task instance; ``make`` is called anew for each process, as a worker parses the DAG file anew.

    :param passes: called whenever the task has nothing to do for a while
    :param store: None for an Airflow without task state
    """

    def __init__(
        self,
        make: Callable[[], BaseOperator],
        passes: Callable[[], None] = lambda: None,
        store: Store | None = None,
    ) -> None:
        self.make = make
        self.passes = passes
        self.store = store
        self.max_tries = 0

    def run(self, monkeypatch: pytest.MonkeyPatch) -> Ended:
        """One try, from its start to its end."""
        ti = TaskInstance(pendulum.now("UTC"), self.max_tries)
        context: dict[str, Any] = {"ti": ti}
        if self.store is not None:
            context["task_state_store"] = self.store

        def sleep(seconds: float) -> None:
            if seconds == POKE_INTERVAL:
                self.passes()

        monkeypatch.setattr("time.sleep", sleep)
        try:
            while True:
                try:
                    return Ended("success", self.make().execute(context))
                except AirflowRescheduleException:
                    ti.first_reschedule = ti.first_reschedule or ti.start_date
                    self.passes()
        except AirflowSkipException as error:
            return Ended("skipped", error=error)
        except Exception as error:
            return Ended("failed", error=error)

    def clear(self) -> None:
        """What a user does who wants the task to run anew."""
        self.max_tries += 1
