"""Airflow's side of a task, for tests in one process: contexts, task state, reschedules, tries, clears."""

from __future__ import annotations

import asyncio
import json
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pkgutil import resolve_name
from typing import Any

import pendulum
import pytest
from airflow.sdk import BaseOperator
from airflow.sdk.bases.operator import TriggerFailureReason
from airflow.sdk.exceptions import (
    AirflowRescheduleException,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
)

from airflow_provider_exa.waiting.poller import MonitorPoller

POKE_INTERVAL = 77.0


@dataclass
class Store:
    """The task's state as Airflow 3.3 keeps it: JSON under a key, through tries and clears."""

    kept: dict[str, str] = field(default_factory=dict)

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self.kept[key]) if key in self.kept else default

    def set(self, key: str, value: Any) -> None:
        self.kept[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        self.kept.pop(key, None)


@dataclass
class TaskInstance:
    """What an operator asks of its task instance, and the XComs it was given but the return value."""

    start_date: datetime = field(default_factory=partial(pendulum.now, "UTC"))
    max_tries: int = 0
    first_reschedule: datetime | None = None
    xcoms: dict[str, Any] = field(default_factory=dict)

    def get_first_reschedule_date(self, context: Any) -> datetime | None:
        return self.first_reschedule

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = json.loads(json.dumps(value))


@dataclass
class Ended:
    """How a try ended: its state, what it pushed to XCom, and the exception that ended it."""

    state: str
    xcom: Any = None
    error: BaseException | None = None

    @property
    def reason(self) -> BaseException | None:
        """The exception that ended it, or that was turned into a skip."""
        return self.error.__cause__ or self.error if self.error and self.state == "skipped" else self.error


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
        ti = TaskInstance(max_tries=self.max_tries)
        context: dict[str, Any] = {"ti": ti}
        if self.store is not None:
            context["task_state_store"] = self.store

        def sleep(seconds: float) -> None:
            if seconds == POKE_INTERVAL:
                self.passes()
            elif seconds < 0.3:
                threading.Event().wait(seconds)

        async def rest(poller: MonitorPoller, began: float) -> None:
            await asyncio.sleep(0.01)
            while poller._asked:  # no poll is due before the last one has all its answers
                await asyncio.sleep(0.001)
            self.passes()

        monkeypatch.setattr("time.sleep", sleep)
        monkeypatch.setattr(MonitorPoller, "_rest", rest)
        method, arguments = "execute", None
        try:
            while True:
                try:
                    operator = self.make()
                    if method == "execute":
                        return Ended("success", operator.execute(context))
                    return Ended("success", operator.resume_execution(method, arguments, context))
                except AirflowRescheduleException:
                    ti.first_reschedule = ti.first_reschedule or ti.start_date
                    self.passes()
                except TaskDeferred as deferred:
                    method, arguments = defer(deferred)
        except AirflowSkipException as error:
            return Ended("skipped", error=error)
        except (Exception, AirflowTaskTimeout) as error:
            return Ended("failed", error=error)

    def clear(self) -> None:
        """What a user does who wants the task to run anew."""
        self.max_tries += 1


def defer(deferred: TaskDeferred) -> tuple[str, dict[str, Any]]:
    """What the triggerer does: make the trigger anew of its arguments, and run it to its first event."""
    assert type(deferred.timeout) in (timedelta, type(None)), "Airflow can send no subclass of timedelta"
    path, arguments = deferred.trigger.serialize()
    trigger = resolve_name(path)(**json.loads(json.dumps(arguments)))

    async def first_event() -> Any:
        timeout = None if deferred.timeout is None else deferred.timeout.total_seconds()
        return (await asyncio.wait_for(anext(trigger.run()), timeout)).payload

    try:
        event = asyncio.run(first_event())
    except TimeoutError:
        return "__fail__", {"error": TriggerFailureReason.TRIGGER_TIMEOUT}
    except Exception:
        failure = {
            "error": TriggerFailureReason.TRIGGER_FAILURE,
            "traceback": traceback.format_exc().splitlines(),
        }
        return "__fail__", failure
    return deferred.method_name, {**(deferred.kwargs or {}), "event": json.loads(json.dumps(event))}
