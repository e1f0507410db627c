"""What became of each run on its way to a DAG, told from Airflow's database."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median, quantiles

#: How a run must have ended for a DAG to start.
WANTED: Mapping[str, Sequence[str]] = {
    "chaos_completed": ("completed",),
    "chaos_ended_badly": ("failed", "canceled"),
}
POLL = 2


@dataclass(frozen=True)
class Finished:
    """A run that has finished at the stand-in.

    :param at: when the stand-in first showed it so.
    """

    run_id: str
    status: str
    at: datetime


@dataclass(frozen=True)
class Event:
    """An asset event in Airflow's database, with the DAG that its asset starts.

    :param statuses: how a run must have ended for this asset, which may be more than the DAG wants.
    """

    id: int
    consumer: str
    at: datetime
    run_ids: tuple[str, ...]
    statuses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outage:
    """A time in which Airflow could not queue a DAG, or any DAG (None)."""

    consumer: str | None
    since: datetime
    until: datetime


@dataclass(frozen=True)
class Round:
    number: int
    kind: str
    since: datetime
    until: datetime


@dataclass(frozen=True)
class Accident:
    """What happened to a run on its way to a consumer.

    :param at: when it happened: the run finished (lost), or an event with it was stored (stranded, doubled).
    """

    consumer: str
    run_id: str
    at: datetime
    excused: bool = False


@dataclass(frozen=True)
class Count:
    lost: list[Accident]
    stranded: list[Accident]
    doubled: list[Accident]
    strange: list[Accident]
    """Runs that were reported to a consumer that does not want them, or have not finished."""


def account(
    finished: Iterable[Finished],
    events: Iterable[Event],
    consumed: Collection[tuple[str, int]],
    outages: Iterable[Outage] = (),
    wanted: Mapping[str, Sequence[str]] = WANTED,
) -> Count:
    """Say what became of each run on its way to each consumer.

    :param consumed: a DAG and the id of an event that a run of it has consumed, for each such pair.
    :param wanted: how a run must have ended for a DAG to start.
    """
    holding: dict[tuple[str, str], list[Event]] = defaultdict(list)
    for event in sorted(events, key=lambda event: event.id):
        for run_id in event.run_ids:
            holding[event.consumer, run_id].append(event)
    count = Count([], [], [], [])
    ended: dict[str, str] = {}
    for run in finished:
        ended[run.run_id] = run.status
        for consumer, statuses in wanted.items():
            if run.status not in statuses:
                continue
            held = holding.pop((consumer, run.run_id), [])
            if not held:
                count.lost.append(Accident(consumer, run.run_id, run.at))
            elif not any((consumer, event.id) in consumed for event in held):
                excused = all(excuses(outages, event) for event in held)
                count.stranded.append(Accident(consumer, run.run_id, held[0].at, excused))
            count.doubled.extend(Accident(consumer, run.run_id, again.at) for again in held[1:2])
    count.strange.extend(
        Accident(consumer, run_id, held[0].at)
        for (consumer, run_id), held in holding.items()
        if any(ended.get(run_id) not in event.statuses for event in held)
    )
    return count


def excuses(outages: Iterable[Outage], event: Event) -> bool:
    return any(
        outage.consumer in (None, event.consumer) and outage.since <= event.at <= outage.until
        for outage in outages
    )


@dataclass(frozen=True)
class Report:
    """What a chaos test has found.

    :param stranded: those that no DAG run had consumed when their round was over.
    :param rescued: how many of the stranded a later event took along.
    :param latencies: of runs in undisturbed times, in seconds: from the end of a run to its event, and to the
        start of its DAG run.
    """

    lost: list[Accident]
    stranded: list[Accident]
    doubled: list[Accident]
    strange: list[Accident]
    rounds: list[Round]
    finished: list[Finished]
    rescued: int = 0
    latencies: list[tuple[float, float]] = field(default_factory=list)

    @property
    def unexcused(self) -> list[Accident]:
        return [each for each in self.stranded if not each.excused]

    @property
    def ok(self) -> bool:
        return not self.lost and not self.unexcused

    @property
    def line(self) -> str:
        disturbed = sum(each.number > 0 for each in self.rounds)
        return (
            f"lost {len(self.lost)}, stranded {len(self.stranded)}, doubled {len(self.doubled)}, "
            f"rounds {disturbed}, runs {len(self.finished)}"
        )

    def lines(self) -> Iterator[str]:
        """The whole report as text, from the latencies to the line that sums it up."""
        yield from self._latency()
        yield from self._table()
        for what, accidents in (("lost", self.lost), ("stranded", self.stranded), ("doubled", self.doubled)):
            yield from self._by_kind(what, accidents)
        if self.stranded:
            yield f"{self.rescued} of the stranded were consumed later, with the next event"
        for each in self.strange:
            yield f"strange: {each.run_id} was reported to {each.consumer} at {each.at:%H:%M:%S}"
        yield self.line

    def _latency(self) -> Iterator[str]:
        ways = ("asset event", "DAG run's start")
        for way, seconds in zip(ways, zip(*self.latencies, strict=True), strict=False):
            p90 = quantiles(seconds, n=10, method="inclusive")[-1] if len(seconds) > 1 else seconds[0]
            yield (
                f"finished -> {way}: median {median(seconds):.1f} s, p90 {p90:.1f} s, "
                f"max {max(seconds):.1f} s ({len(seconds)} runs, poll interval {POLL} s)"
            )

    def _table(self) -> Iterator[str]:
        rounds = Counter(each.kind for each in self.rounds)
        runs = Counter(self._round(each.at).kind for each in self.finished)
        accidents = [
            Counter(self._round(each.at).kind for each in some)
            for some in (self.lost, self.stranded, self.unexcused, self.doubled)
        ]
        columns = ("rounds", "runs", "lost", "stranded", "unexcused", "doubled")
        yield " ".join([f"{'kind':16}", *(f"{name:>9}" for name in columns)])
        for kind in sorted(rounds):
            yield " ".join([f"{kind:16}", *(f"{some[kind]:9}" for some in (rounds, runs, *accidents))])

    def _by_kind(self, what: str, accidents: Sequence[Accident]) -> Iterator[str]:
        found: dict[tuple[int, str, bool], list[str]] = defaultdict(list)
        for each in sorted(accidents, key=lambda each: each.at):
            at = self._round(each.at)
            where = f"{at.kind}, {each.consumer}"
            found[at.number, where, each.excused].append(f"{each.run_id} at {each.at:%H:%M:%S}")
        for (number, where, excused), run_ids in sorted(found.items()):
            some = ", ".join(run_ids[:6]) + (f" and {len(run_ids) - 6} more" if len(run_ids) > 6 else "")
            yield f"{what}{' (excused)' if excused else ''}: round {number}, {where}: {some}"

    def _round(self, at: datetime) -> Round:
        return max((each for each in self.rounds if each.since <= at), key=lambda each: each.since)
