"""Runs the benchmarks, prints a table, draws ``docs/benchmarks.svg``; exits with 1 if a target is missed."""

from __future__ import annotations

import argparse
import sys
from importlib import metadata
from pathlib import Path

from benchmarks.contenders import CONTENDERS
from benchmarks.plot import Chart, draw, number_text
from benchmarks.scenarios import OURS, Figure, measure

PLOT = Path(__file__).parents[1] / "docs" / "benchmarks.svg"
NAMES = {OURS: "this package", "http": "http sensor"}


def installed(distribution: str) -> bool:
    """Whether a distribution is installed; looks without importing it."""
    return any(metadata.distributions(name=distribution))


def table(figures: list[Figure], judged: bool) -> str:
    """The figures as Markdown."""
    names = list(dict.fromkeys(name for figure in figures for name in figure.values))
    head = [
        "scenario",
        "figure",
        *(NAMES.get(name, name) for name in names),
        "best peer / ours",
        "target",
        "met",
    ]
    lines = [head, ["---"] * len(head)]
    for figure in figures:
        ours = figure.values[OURS]
        peers = [value for name, value in figure.values.items() if name != OURS]
        lines.append(
            [
                figure.scenario,
                f"{figure.name}{f' ({figure.unit})' if figure.unit else ''}",
                *(number_text(figure.values[name]) if name in figure.values else "" for name in names),
                number_text(min(peers) / ours) if peers and ours > 0 else "",
                "" if figure.target is None else f"≤ {number_text(figure.target)}",
                "" if figure.target is None or not judged else ("yes" if figure.met else "**no**"),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plot(figures: list[Figure]) -> str:
    """What is worth a picture: the crowd beside its peers, and how it grows."""
    growth = [figure for figure in figures if figure.scenario.startswith("growth")]
    crowd = [f for f in figures if f.scenario.endswith("on 10 monitors") and f not in growth]
    beside = [
        Chart(
            f"{figure.name}{f', {figure.unit}' if figure.unit else ''}",
            {NAMES.get(name, name): value for name, value in figure.values.items()},
            frozenset({NAMES[OURS]}),
        )
        for figure in crowd
    ]
    grown: dict[str, dict[str, float]] = {}
    for figure in growth:
        title = f"{figure.name}{f', {figure.unit}' if figure.unit else ''}"
        waits = figure.scenario.split()[1]
        grown.setdefault(title, {})[f"{waits} waits"] = figure.values[OURS]
    charts = [Chart(title, values, frozenset(values)) for title, values in grown.items()]
    title = f"{crowd[0].scenario}, one event loop, TLS; less is better"
    return draw([(title, beside), ("How this package's waits on 10 monitors grow", charts)])


def main() -> int:
    """Run them all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="small numbers, not judged: does it all still run?"
    )
    quick = parser.parse_args().quick
    names = [name for name, each in CONTENDERS.items() if installed(each.distribution)]
    figures = measure(names, quick)
    print(table(figures, judged=not quick))
    if quick:
        return 0
    PLOT.parent.mkdir(exist_ok=True)
    PLOT.write_text(plot(figures))
    missed = [figure for figure in figures if not figure.met]
    for figure in missed:
        print(f"Missed: {figure.scenario}: {figure.name}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
