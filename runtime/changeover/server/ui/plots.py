"""Numbers over time as small drawings: what a template needs to draw them as SVG. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from changeover.server.ui.shown import number, seconds

WIDTH, HEIGHT = 300, 90
COLOURS = 8
METRICS = (
    ("Runs", ("runs",), number),
    ("Errors", ("errors", "timeouts"), number),
    ("Latency, median", ("p50_s",), seconds),
    ("Latency, 95th percentile", ("p95_s",), seconds),
    ("Tokens", ("tokens_in", "tokens_out"), number),
)


@dataclass(frozen=True, slots=True)
class Line:
    """`colour` is a number from 0; `path` is of SVG, with a gap where nothing is known."""

    name: str
    colour: int
    path: str
    last: str


@dataclass(frozen=True, slots=True)
class Plot:
    title: str
    top: str
    lines: tuple[Line, ...]


def plots(usage: dict[str, Any]) -> list[Plot]:
    """One for each number, with a line for each version, of an answer of `GET /admin/usage?by=version`."""
    rows = usage["usage"][:COLOURS]
    return [_plot(title, names, shown, rows) for title, names, shown in METRICS]


def colours(usage: dict[str, Any]) -> list[tuple[str, int]]:
    """The versions in the plots with their colours."""
    return [(row["version"], colour) for colour, row in enumerate(usage["usage"][:COLOURS])]


def _plot(title: str, names: Sequence[str], shown: Any, rows: Sequence[dict[str, Any]]) -> Plot:
    values = [_summed([row["points"][name] for name in names]) for row in rows]
    top = _round_up(max((value for line in values for value in line if value is not None), default=0))
    lines = tuple(
        Line(row["version"], colour, _path(line, top), shown(_last(line)))
        for colour, (row, line) in enumerate(zip(rows, values, strict=True))
    )
    return Plot(title, shown(top), lines)


def _summed(columns: Sequence[Sequence[float | None]]) -> list[float | None]:
    return [None if None in values else sum(value or 0 for value in values) for values in zip(*columns, strict=True)]


def _last(line: Sequence[float | None]) -> float | None:
    return next((value for value in reversed(line) if value is not None), None)


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20 ... so that scales stay the same while numbers move a little."""
    if value <= 0:
        return 1
    unit = 10.0 ** math.floor(math.log10(value))
    return float(next(unit * step for step in (1, 2, 5, 10) if value <= unit * step * 1.000001))


def _path(values: Sequence[float | None], top: float) -> str:
    """A line through what is known; a point alone is a short dash."""
    step = WIDTH / max(1, len(values) - 1)
    told: list[str] = []
    before: float | None = None
    for place, value in enumerate(values):
        if value is not None:
            x, y = place * step, HEIGHT - min(1.0, value / top) * HEIGHT
            alone = before is None and (place + 1 == len(values) or values[place + 1] is None)
            told.append(f"{'M' if before is None else 'L'}{x:.1f} {y:.1f}" + ("h1.5" if alone else ""))
        before = value
    return "".join(told)
