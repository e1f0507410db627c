"""The plot: rows of bar charts as SVG, drawn by hand so that nothing has to be installed for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, BAR, LABEL, ROOM = 380, 24, 96, 84
OURS_COLOR, PEER_COLOR = "#3b5bdb", "#adb5bd"


@dataclass(frozen=True)
class Chart:
    """
    One bar for each value.

    :param ours: the labels whose bars stand out
    """

    title: str
    values: Mapping[str, float]
    ours: frozenset[str]


def draw(rows: Sequence[tuple[str, Sequence[Chart]]]) -> str:
    """An SVG document: each row has a heading and its charts, two beside each other."""
    parts: list[str] = []
    y = 0
    for heading, charts in rows:
        parts.append(_text(16, y + 32, heading, "font-weight='bold' font-size='16'"))
        y += 48
        for first in range(0, len(charts), 2):
            pair = charts[first : first + 2]
            parts += [_chart(16 + column * (WIDTH + 20), y, chart) for column, chart in enumerate(pair)]
            y += 40 + BAR * max(len(chart.values) for chart in pair)
    width = 2 * WIDTH + 52
    head = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {y}' width='{width}' height='{y}'"
    style = "font-family='sans-serif' font-size='13' fill='#212529'"
    ground = f"<rect width='{width}' height='{y}' fill='white'/>"
    return "\n".join([f"{head} {style}>", ground, *parts, "</svg>"]) + "\n"


def _chart(x: int, y: int, chart: Chart) -> str:
    parts = [_text(x, y + 14, chart.title, "font-weight='bold'")]
    most = max(chart.values.values()) or 1
    for number, (label, value) in enumerate(chart.values.items()):
        top = y + 24 + number * BAR
        length = max(1.0, value / most * (WIDTH - LABEL - ROOM))
        color = OURS_COLOR if label in chart.ours else PEER_COLOR
        parts += [
            _text(x + LABEL - 8, top + 14, label, "text-anchor='end'"),
            f"<rect x='{x + LABEL}' y='{top}' width='{length:.1f}' height='{BAR - 6}' fill='{color}'/>",
            _text(round(x + LABEL + length + 6), top + 14, number_text(value)),
        ]
    return "\n".join(parts)


def _text(x: int, y: int, text: str, style: str = "") -> str:
    return f"<text x='{x}' y='{y}' {style}>{escape(text)}</text>"


def number_text(value: float) -> str:
    """A number with three digits that say something."""
    if abs(value) >= 100 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:.{1 if abs(value) >= 10 else 2}f}"
