"""Usage as people read it: sums and quantiles by version, over time. Pure: takes rows, gives JSON."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from changeover.errors import InvalidRequest
from changeover.store.records.times import timestamp
from changeover.store.usage import EDGES_S, HOUR_S, MINUTE_S, MINUTES_KEPT_S, UsageRow

POINTS_LIMIT = 1_000
POINTS_WANTED = 120
SERIES_LIMIT = 100
NAMES_LISTED = 50
STEPS_S = (60, 120, 300, 600, 900, 1800, HOUR_S, 2 * HOUR_S, 6 * HOUR_S, 12 * HOUR_S, 24 * HOUR_S, 7 * 24 * HOUR_S)
_LOWER = dict(zip(EDGES_S, (0.0, *EDGES_S), strict=False))

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Window:
    """A time in steps: the first begins at `since`, a multiple of the step; `until` lies in the last, or ends it."""

    since: int
    until: int
    step_s: int

    @property
    def starts(self) -> range:
        return range(self.since, self.until, self.step_s)


def window(now: float, keep_s: float, since: float | None, until: float | None, step_s: float | None) -> Window:
    """The window that is asked for; the last hour where nothing is. Raises `InvalidRequest`.

    Usage is known by the minute, and by the hour where it is older than two days: a step is a multiple of that.
    """
    end = min(math.ceil(until if until is not None else now), math.ceil(now))
    begin = max(math.floor(since if since is not None else end - HOUR_S), math.floor(now - keep_s))
    if begin >= end:
        raise InvalidRequest("since is not before until", code="invalid-since", hint="such as since=6h")
    finest = HOUR_S if begin < now - MINUTES_KEPT_S else MINUTE_S
    if step_s is None:
        chosen = next(
            (step for step in STEPS_S if step >= finest and (end - begin) / step <= POINTS_WANTED), STEPS_S[-1]
        )
    elif step_s <= 0:
        raise InvalidRequest("step is not longer than nothing", code="invalid-step", hint="such as step=5m")
    else:
        chosen = math.ceil(step_s / finest) * finest
    first = begin // chosen * chosen
    points = math.ceil((end - first) / chosen)
    if points > POINTS_LIMIT:
        least_s = math.ceil((end - begin) / (POINTS_LIMIT - 1) / finest) * finest
        raise InvalidRequest(
            f"{points} points are more than {POINTS_LIMIT}",
            code="too-many-points",
            hint=f"step={least_s}s, or a later since",
        )
    return Window(first, end, chosen)


class Tally:
    """Sums of runs, models and tools, and the latencies of runs."""

    def __init__(self) -> None:
        self.runs = self.errors = self.timeouts = self.interrupts = self.cancelled = 0
        self.seconds = 0.0
        self.models, self.tools = _Calls(), _Calls()
        self.latencies: dict[float, int] = {}

    def add(self, row: UsageRow) -> None:
        if row.kind == "run":
            self.runs += row.calls
            self.errors += row.errors
            self.timeouts += row.timeouts
            self.interrupts += row.interrupts
            self.cancelled += row.cancelled
            self.seconds += row.seconds
        elif row.kind == "latency":
            edge = float(row.name)
            self.latencies[edge] = self.latencies.get(edge, 0) + row.calls
        else:
            (self.models if row.kind == "model" else self.tools).add(row)

    def to_json(self) -> Json:
        return {
            "runs": self.runs,
            "errors": self.errors,
            "timeouts": self.timeouts,
            "interrupts": self.interrupts,
            "cancelled": self.cancelled,
            "seconds": round(self.seconds, 3),
            "p50_s": quantile(self.latencies, 0.5),
            "p95_s": quantile(self.latencies, 0.95),
            "tokens_in": self.models.tokens_in,
            "tokens_out": self.models.tokens_out,
            "model_calls": self.models.calls,
            "model_errors": self.models.errors,
            "tool_calls": self.tools.calls,
            "tool_errors": self.tools.errors,
        }


class _Calls:
    def __init__(self) -> None:
        self.calls = self.errors = self.tokens_in = self.tokens_out = 0

    def add(self, row: UsageRow) -> None:
        self.calls += row.calls
        self.errors += row.errors
        self.tokens_in += row.tokens_in
        self.tokens_out += row.tokens_out


def by_version(rows: Iterable[UsageRow]) -> dict[str, Json]:
    """The sums of each version over its graphs."""
    tallies: defaultdict[str, Tally] = defaultdict(Tally)
    for row in rows:
        tallies[row.version].add(row)
    return {version: tally.to_json() for version, tally in tallies.items()}


def over_graphs(rows: Iterable[UsageRow]) -> list[UsageRow]:
    """The same as of one nameless graph for each version."""
    return [replace(row, graph="") for row in rows]


def series(window: Window, points: Iterable[UsageRow], named: Sequence[UsageRow]) -> Json:
    """What each graph of each version used, over time and in all, that with most runs first.

    `points` are sums by step, `named` sums of the whole by agent, model and tool. A step in which nothing was used is
    there with zeros, and without quantiles.
    """
    whole: defaultdict[tuple[str, str], Tally] = defaultdict(Tally)
    for row in named:
        whole[row.version, row.graph].add(row)
    shown = sorted(whole, key=lambda key: (-whole[key].runs, key))[:SERIES_LIMIT]
    steps: dict[tuple[str, str], dict[int, Tally]] = {key: defaultdict(Tally) for key in shown}
    for row in points:
        if (row.version, row.graph) in steps:
            steps[row.version, row.graph][row.at].add(row)
    calls: defaultdict[tuple[str, str, str], list[UsageRow]] = defaultdict(list)
    for row in named:
        calls[row.kind, row.version, row.graph].append(row)
    return {
        "since": timestamp(window.since),
        "until": timestamp(window.until),
        "step_s": window.step_s,
        "times": [timestamp(start) for start in window.starts],
        "usage": [
            {
                "version": key[0],
                "graph": key[1] or None,
                "totals": whole[key].to_json(),
                "points": _columns(window, steps[key]),
                "models": _listed(calls["model", *key]),
                "tools": _listed(calls["tool", *key]),
            }
            for key in shown
        ],
        "left_out": len(whole) - len(shown),
    }


def quantile(latencies: Mapping[float, int], share: float) -> float | None:
    """The latency that this share of runs did not exceed, from the counts of buckets by their upper edges."""
    total = sum(latencies.values())
    if not total:
        return None
    rank = share * total
    below = 0
    for edge in sorted(latencies):
        count = latencies[edge]
        if below + count >= rank:
            lower = _LOWER.get(edge, 0.0)
            return float(f"{lower + (edge - lower) * (rank - below) / count:.3g}")
        below += count
    raise AssertionError("the last bucket holds what is left")


NOTHING_USED = Tally().to_json()


def _columns(window: Window, steps: Mapping[int, Tally]) -> Json:
    """One list for each number, in the order of the times."""
    told = [steps[start].to_json() if start in steps else NOTHING_USED for start in window.starts]
    return {name: [each[name] for each in told] for name in NOTHING_USED}


def _listed(rows: Sequence[UsageRow]) -> list[Json]:
    """Models or tools, those with most calls first."""
    most = sorted(rows, key=lambda row: (-row.calls, row.agent, row.name))
    return [_call_json(row) for row in most[:NAMES_LISTED]]


def _call_json(row: UsageRow) -> Json:
    told: Json = {
        "agent": row.agent or None,
        row.kind: row.name,
        "calls": row.calls,
        "errors": row.errors,
        "seconds": round(row.seconds, 3),
    }
    return {**told, "tokens_in": row.tokens_in, "tokens_out": row.tokens_out} if row.kind == "model" else told
