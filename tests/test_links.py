"""The link from a task in Airflow's UI to the webset that its monitor belongs to."""

from __future__ import annotations

import importlib
import pkgutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pendulum
import pytest
from airflow.providers_manager import ProvidersManager
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.exceptions import AirflowNotFoundException, TaskDeferred
from airflow.serialization.serialized_objects import DagSerialization

import airflow_provider_exa
from airflow_provider_exa.links import ExaWebsetLink
from airflow_provider_exa.operators import (
    ExaListMonitorRunResultsOperator,
    ExaListMonitorRunsOperator,
    ExaListMonitorsOperator,
    ExaWaitForMonitorRunsOperator,
)
from airflow_provider_exa.standin import Fault, StandIn
from tests.tasks import POKE_INTERVAL, Ended, Store, Task, TaskInstance
from tests.test_waiting import IDLE, MODES, POKING_MODES, SENSOR_MODES, make_task

SINCE = "2026-01-01"
URL = "https://websets.exa.ai/websets/webset_a"

Make = Callable[..., BaseOperator]


def operator_classes() -> dict[str, type[BaseOperator]]:
    """Every operator and sensor of the package, by its name."""
    path, prefix = airflow_provider_exa.__path__, "airflow_provider_exa."
    names = [each.name for each in pkgutil.walk_packages(path, prefix) if ".standin" not in each.name]
    return {
        name: it
        for module in map(importlib.import_module, names)
        for name, it in vars(module).items()
        if isinstance(it, type) and issubclass(it, BaseOperator) and it.__module__.startswith(prefix)
    }


def link_of(operator: BaseOperator) -> str:
    """What Airflow keeps as the task's link when a process of it ends."""
    (link,) = operator.operator_extra_links
    return link.get_link(operator=operator, ti_key=None)


class Processes:
    """The task's links at the ends of its processes, as Airflow would ask for them."""

    def __init__(self, make: Callable[[], BaseOperator]) -> None:
        self.operators: list[BaseOperator] = []
        self._make = make

    def __call__(self) -> BaseOperator:
        self.operators.append(self._make())
        return self.operators[-1]

    @property
    def links(self) -> list[str]:
        return [link_of(operator) for operator in self.operators]


def waits(
    monkeypatch: pytest.MonkeyPatch, mode: str, story: Iterator[None] | None = None, **arguments: Any
) -> tuple[Ended, list[str]]:
    """How a wait ended, and the link of each of its processes."""
    processes = Processes(lambda: make_task(mode, {"created_after": SINCE, **arguments}))
    ended = Task(processes, passes=lambda: story and next(story, None), store=Store()).run(monkeypatch)
    return ended, processes.links


@pytest.fixture
def webset(exa: StandIn) -> str:
    """The webset of ``mon_a``, in which ``run_1`` has completed."""
    exa.add_monitor("mon_a", webset_id="webset_a")
    exa.add_run("mon_a", run_id="run_1", results=[{"url": "https://example.com"}])
    return "webset_a"


@pytest.fixture
def fail_monitor(exa: StandIn, monkeypatch: pytest.MonkeyPatch) -> Callable[[Fault], None]:
    """Lets only those requests go wrong that ask for monitors themselves, and not for their runs."""

    def fail_monitor(fault: Fault) -> None:
        paths = ("/monitors", "/monitors/mon_a")
        monkeypatch.setattr(
            exa, "next_fault", lambda path: fault if path.partition("?")[0].endswith(paths) else None
        )

    return fail_monitor


# --- Airflow's side -------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", operator_classes().values(), ids=operator_classes())
def test_every_operator_has_the_link(operator: type[BaseOperator]) -> None:
    """One that is new cannot be without it."""
    assert [type(link) for link in operator.operator_extra_links] == [ExaWebsetLink]


def test_all_operators_are_looked_at() -> None:
    """Or the test before would prove little."""
    from airflow_provider_exa import operators, sensors

    names = {name for module in (operators, sensors) for name in vars(module) if name.startswith("Exa")}
    assert {name for name in names if name.endswith(("Operator", "Sensor"))} == operator_classes().keys()


def test_airflow_knows_the_link() -> None:
    """What the provider does not name the UI does not show; the link's name is what the button says."""
    path = f"{ExaWebsetLink.__module__}.{ExaWebsetLink.__qualname__}"
    assert path in ProvidersManager().extra_links_class_names
    with DAG("links", start_date=pendulum.datetime(2026, 1, 1)) as dag:
        ExaListMonitorsOperator(task_id="list")
    task = DagSerialization.from_dict(DagSerialization.to_dict(dag)).get_task("list")
    assert [link.name for link in task.operator_extra_links] == ["Exa"]


@pytest.mark.parametrize(
    ("webset_id", "end"),
    [
        ("webset_a", "webset_a"),
        ("a/../b?c=d#e", "a%2F..%2Fb%3Fc%3Dd%23e"),
        ("ü %2F", "%C3%BC%20%252F"),
        ("", None),
        (None, None),
    ],
)
def test_a_link_leads_nowhere_else(webset_id: str | None, end: str | None) -> None:
    """An odd id stays one segment of the path; where none is known, no link is what Airflow is to show."""
    operator = ExaListMonitorsOperator(task_id="list")
    operator.webset_id = webset_id
    assert link_of(operator) == (f"https://websets.exa.ai/websets/{end}" if end else "")


# --- waits ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("webset")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("arguments", [{}, IDLE], ids=["run", "idle"])
def test_a_wait_links_to_the_webset(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str, arguments: dict[str, Any]
) -> None:
    """However it waits, also where a later process than the one that learned of the webset ends it."""

    def story() -> Iterator[None]:
        yield
        exa.move("run_1", "completed")

    exa.move("run_1", "running")
    ended, links = waits(monkeypatch, mode, story(), **arguments)
    assert ended.state == "success"
    # A process of its own each: that which defers, and each poke that is rescheduled.
    first = {"deferred": [URL], "operator_deferred": links[:1], "reschedule": [URL, URL]}.get(mode, [])
    assert links == [*first, URL]


@pytest.mark.usefixtures("webset")
@pytest.mark.parametrize("mode", MODES)
def test_a_wait_for_a_run_that_failed_links_to_the_webset(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Whoever looks for the reason is who needs it most."""
    exa.move("run_1", "failed")
    ended, links = waits(monkeypatch, mode)
    assert (ended.state, links[-1]) == ("failed", URL)


@pytest.mark.usefixtures("webset")
@pytest.mark.parametrize("mode", SENSOR_MODES)
def test_the_link_is_there_while_a_pinned_run_goes_on(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Also while the task is deferred."""

    def story() -> Iterator[None]:
        yield from [None] * 9
        exa.move("run_1", "completed")

    exa.move("run_1", "running")
    _, links = waits(monkeypatch, mode, story(), created_after=None, pick="latest")
    assert links == [URL] * {"poke": 1, "reschedule": 11, "deferred": 2}[mode]


@pytest.mark.usefixtures("webset")
@pytest.mark.parametrize("mode", POKING_MODES)
def test_a_retry_links_to_the_webset(exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """It goes on where the first try was, so the monitor is not asked for again."""

    def dies() -> Iterator[None]:
        raise MemoryError
        yield

    exa.move("run_1", "running")
    story = dies()
    processes = Processes(lambda: make_task(mode, {"created_after": SINCE}))
    task = Task(processes, passes=lambda: next(story, None), store=Store())
    assert task.run(monkeypatch).state == "failed"
    exa.move("run_1", "completed")
    assert task.run(monkeypatch).state == "success"
    assert processes.links == [URL, URL]
    assert [each.path[-6:] for each in exa.requests] == ["a/runs", "/mon_a", "/run_1"]


@pytest.mark.usefixtures("webset")
@pytest.mark.parametrize("mode", MODES)
def test_a_search_monitor_has_no_link(exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """No page of it is known, and nothing is asked for to find one."""
    ended, links = waits(monkeypatch, mode, api="search")
    assert (ended.state, set(links)) == ("success", {""})
    assert {each.path for each in exa.requests} == {"/monitors/mon_a/runs"}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "fault",
    [Fault(status=503), Fault(status=404), Fault(status=429), Fault(status=200, body=b"{}")],
    ids=repr,
)
@pytest.mark.usefixtures("webset")
def test_no_wait_fails_for_its_link(
    *,
    exa: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    fail_monitor: Callable[[Fault], None],
    mode: str,
    fault: Fault,
) -> None:
    """The run is waited for: trouble with the monitor alone is neither told nor waited out."""
    monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection(retries=0))
    fail_monitor(fault)

    def story() -> Iterator[None]:
        yield
        exa.move("run_1", "completed")

    exa.move("run_1", "running")
    ended, links = waits(monkeypatch, mode, story())
    assert (ended.state, set(links)) == ("success", {""})
    paths = [each.path.removeprefix("/websets/v0/monitors") for each in exa.requests]
    asked = [path for path in paths if "/runs" not in path]
    assert set(asked) == {"/mon_a"}
    assert len(asked) <= len(links)


@pytest.mark.parametrize("deferrable", [True, False])
@pytest.mark.parametrize(
    ("websets", "status", "state", "url"),
    [
        (("webset_a", "webset_a"), "completed", "success", URL),
        (("webset_a", "webset_b"), "completed", "success", ""),
        (("webset_a", "webset_a"), "running", "failed", URL),
    ],
)
def test_a_wait_for_several_links_to_the_webset_that_they_share(
    *,
    exa: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    deferrable: bool,
    websets: tuple[str, str],
    status: str,
    state: str,
    url: str,
) -> None:
    """A button leads to one page; that is known also where one failure ends the wait for all."""
    for monitor_id, webset_id in zip(("mon_a", "mon_b"), websets, strict=True):
        exa.add_monitor(monitor_id, webset_id=webset_id)
    exa.add_run("mon_a", status="completed" if state == "success" else "failed")
    exa.add_run("mon_b", status=status)
    processes = Processes(
        lambda: ExaWaitForMonitorRunsOperator(
            task_id="wait",
            monitor_ids=["mon_a", "mon_b"],
            created_after=SINCE,
            deferrable=deferrable,
            poll_interval=POKE_INTERVAL,
        )
    )
    assert Task(processes).run(monkeypatch).state == state
    assert processes.links == [url]
    asked = [each.path.removeprefix("/websets/v0") for each in exa.requests if "/runs" not in each.path]
    # Where one failure decides it, only that run's monitor is known to matter.
    assert asked == ["/monitors" if state == "success" else "/monitors/mon_a"]


@pytest.mark.usefixtures("webset")
@pytest.mark.parametrize("mode", MODES)
def test_the_link_is_sought_after_the_result(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """A run that has ended is returned without a request for its monitor; the link then costs one."""
    task = make_task(mode, {"created_after": SINCE})
    task.execute({"ti": TaskInstance(), "task_state_store": Store()})
    assert [each.path[-6:] for each in exa.requests] == ["a/runs"]
    assert [link_of(task) for _ in range(3)] == [URL] * 3
    assert [each.path[-6:] for each in exa.requests] == ["a/runs", "/mon_a"]


@pytest.mark.usefixtures("webset")
def test_a_link_that_cannot_be_found_is_sought_once(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, fail_monitor: Callable[[Fault], None]
) -> None:
    """Not again in the same process."""
    monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection(retries=0))
    fail_monitor(Fault(status=503))
    task = make_task("poke", {"created_after": SINCE})
    task.execute({"ti": TaskInstance(), "task_state_store": Store()})
    assert [link_of(task) for _ in range(3)] == [""] * 3
    assert len(exa.requests) == 2


@pytest.mark.usefixtures("webset")
def test_a_webset_that_a_wait_has_learned_of_is_not_asked_for(exa: StandIn) -> None:
    """A wait for an idle webset knows it."""
    task = make_task("poke", {"created_after": SINCE, **IDLE})
    task.execute({"ti": TaskInstance(), "task_state_store": Store()})
    before = len(exa.requests)
    assert link_of(task) == URL
    assert len(exa.requests) == before


@pytest.mark.usefixtures("webset")
@pytest.mark.parametrize("mode", ["poke", "deferred"])
def test_a_monitor_that_does_not_answer_costs_a_few_seconds(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, fail_monitor: Callable[[Fault], None], mode: str
) -> None:
    """Before a deferral or after the result, and whatever the connection allows other requests."""
    monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection(timeout=5, retries=1))
    fail_monitor(Fault(kind="hang"))
    if mode == "deferred":
        exa.move("run_1", "running")
    task = make_task(mode, {"created_after": SINCE})
    began = time.monotonic()
    with suppress(TaskDeferred):
        task.execute({"ti": TaskInstance(), "task_state_store": Store()})
    assert link_of(task) == ""
    assert time.monotonic() - began < 3.5


@pytest.mark.usefixtures("webset")
@pytest.mark.parametrize(
    "error", [RuntimeError("a bug"), AirflowNotFoundException("no connection")], ids=repr
)
def test_a_task_defers_whatever_goes_wrong_with_its_link(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Also an error that is not Exa's."""
    exa.move("run_1", "running")
    task = make_task("deferred", {"created_after": SINCE})

    def broken(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(task, "_ask_for_webset", broken)
    with pytest.raises(TaskDeferred):
        task.execute({"ti": TaskInstance(), "task_state_store": Store()})
    assert link_of(task) == ""


# --- listings -------------------------------------------------------------------------------------

LISTINGS: dict[str, Make] = {
    "runs": lambda **given: ExaListMonitorRunsOperator(task_id="list", monitor_id="mon_a", **given),
    "results": lambda **given: ExaListMonitorRunResultsOperator(
        task_id="list", monitor_id="mon_a", run_id="run_1", **given
    ),
    "monitors": lambda **given: ExaListMonitorsOperator(task_id="list", **given),
}


@pytest.mark.usefixtures("webset")
@pytest.mark.parametrize(
    ("make", "arguments", "before", "after"),
    [
        ("runs", {}, "", URL),
        ("runs", {"statuses": ["failed"]}, "", URL),
        ("runs", {"api": "search"}, "", ""),
        ("results", {}, "", URL),
        ("results", {"api": "search"}, "", ""),
        ("monitors", {"webset_id": "webset_a"}, URL, URL),
        ("monitors", {}, "", ""),
        ("monitors", {"api": "search"}, "", ""),
    ],
    ids=str,
)
def test_a_listing_links_to_the_webset(make: str, arguments: dict[str, Any], before: str, after: str) -> None:
    """Also where it is empty; what is asked for by its webset has the link from the start."""
    operator = LISTINGS[make](**arguments)
    assert link_of(operator) == before
    operator.execute({"ti": TaskInstance()})
    assert link_of(operator) == after


@pytest.mark.usefixtures("webset")
@pytest.mark.parametrize("status", [404, 503])
def test_no_list_of_runs_fails_for_its_link(
    exa: StandIn, monkeypatch: pytest.MonkeyPatch, fail_monitor: Callable[[Fault], None], status: int
) -> None:
    """The runs are there, and trouble with the monitor alone is neither told nor waited out."""
    monkeypatch.setenv("AIRFLOW_CONN_EXA_DEFAULT", exa.connection(retries=0))
    fail_monitor(Fault(status=status))
    operator = LISTINGS["runs"]()
    assert [run["id"] for run in operator.execute({})] == ["run_1"]
    assert link_of(operator) == ""
    assert len(exa.requests) == 2


@pytest.mark.usefixtures("webset")
def test_a_list_of_results_that_fails_links_to_the_webset(exa: StandIn) -> None:
    """What is wrong with the run can be seen there."""
    exa.move("run_1", "running")
    operator = LISTINGS["results"]()
    with pytest.raises(ValueError, match="has no results yet"):
        operator.execute({})
    assert link_of(operator) == URL
