"""What runs used, by version, graph, agent, model and tool: rows that are added to in the transaction that ends a run.

Each end adds to the minute it falls in and to the row of all time (`at` 0), in one statement. A run's end is written
once, by its fence, so nothing is counted twice. Minutes are merged into hours when they are old, hours are discarded
when their time is over; all time is forgotten with its version. Nothing of what was said is here, only how much.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from changeover.store.connection import Connection
from changeover.store.database import Database
from changeover.store.records.outcome import Outcome, Used

MINUTE_S, HOUR_S = 60, 3600
MINUTES_KEPT_S = 48 * HOUR_S
MERGED_AT_ONCE = 24  # hours
LABELS_LIMIT = 10_000
ROWS_LIMIT = 20_000
ALL_TIME = 0

# Upper edges of the buckets of latency, from 1 ms on: twelve in a decade, each about a fifth above the one before.
EDGES_S = (
    *(
        float(f"{digits}e{power}")
        for power in range(-4, 2)
        for digits in (10, 12, 15, 18, 22, 27, 33, 39, 47, 56, 68, 82)
    ),
    1000.0,
    2000.0,
    5000.0,
    10_000.0,
    86_400.0,
)

COLUMNS = ("calls", "errors", "timeouts", "interrupts", "cancelled", "seconds", "tokens_in", "tokens_out")
KEY = ("at", "version", "graph", "kind", "agent", "name")
_ADD = ", ".join(f"{column} = usage.{column} + excluded.{column}" for column in COLUMNS)
_ROW = f"({', '.join('?' * (len(KEY) + len(COLUMNS)))})"
_ALL = ", ".join(KEY + COLUMNS)
_SERVES = "CASE WHEN status IN ('current', 'ramping', 'draining') THEN 0 ELSE 1 END"
_INSERT = f"INSERT INTO usage ({_ALL}) VALUES "
_SUMS = ", ".join(
    f"CAST(sum({column}) AS {'REAL' if column == 'seconds' else 'bigint'}) AS {column}" for column in COLUMNS
)


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Sums of one kind at one time. Of latency, `name` is the upper edge of the bucket in seconds."""

    at: int
    version: str
    graph: str
    kind: str
    agent: str
    name: str
    calls: int
    errors: int
    timeouts: int
    interrupts: int
    cancelled: int
    seconds: float
    tokens_in: int
    tokens_out: int


# --- in the transactions of runs ---------------------------------------------------------------


def add_end(
    connection: Connection, graph: str, version: str, outcome: Outcome, started_at: float | None, now: float
) -> None:
    """Count a run that ends now, on the version it is on, and what it used on whichever."""
    lasted_s = max(0.0, now - started_at) if started_at is not None else 0.0
    counts = _of_run(outcome)
    rows: list[tuple[Any, ...]] = [(version, graph, "run", "", "", *counts, lasted_s, 0, 0)]
    if started_at is not None:
        rows.append((version, graph, "latency", "", edge_of(lasted_s), 1, 0, 0, 0, 0, 0.0, 0, 0))
    _add(connection, [*rows, *_of_calls(graph, outcome.used)], now)


def add_used(connection: Connection, graph: str, used: Sequence[Used], now: float) -> None:
    """Count what a run used that goes on elsewhere."""
    if used:
        _add(connection, list(_of_calls(graph, used)), now)


def forget(connection: Connection, version: str) -> None:
    """A version is purged: its sums go with it, what it did over time does not."""
    connection.execute("DELETE FROM usage WHERE at = ? AND version = ?", (ALL_TIME, version))


def edge_of(seconds: float) -> str:
    """The bucket of a latency, by the longest that it holds."""
    return f"{EDGES_S[min(bisect_left(EDGES_S, seconds), len(EDGES_S) - 1)]:g}"


def _of_run(outcome: Outcome) -> tuple[int, int, int, int, int]:
    status = outcome.status
    waits = status == "interrupted" and outcome.waiting in ("interrupt", "breakpoint") and outcome.began
    return (
        1,
        int(status in ("error", "timeout")),
        int(status == "timeout"),
        int(waits),
        int(status == "interrupted" and not waits),
    )


def _of_calls(graph: str, used: Iterable[Used]) -> Iterable[tuple[Any, ...]]:
    for each in used:
        counts = (each.calls, each.errors, 0, 0, 0, each.seconds, each.tokens_in, each.tokens_out)
        yield (each.version, graph, each.kind, each.agent, each.name, *counts)


def _add(connection: Connection, rows: Sequence[tuple[Any, ...]], now: float) -> None:
    minute = max(1, int(now)) // MINUTE_S * MINUTE_S
    values = [value for at in (minute, ALL_TIME) for row in rows for value in (at, *row)]
    marks = ", ".join([_ROW] * (2 * len(rows)))
    connection.execute(f"{_INSERT}{marks} ON CONFLICT ({', '.join(KEY)}) DO UPDATE SET {_ADD}", values)


# --- asked for ---------------------------------------------------------------------------------


class Usage:
    """Reads of the rows, and their upkeep."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def now(self) -> float:
        return self._clock()

    async def all_time(self, versions: Sequence[str]) -> list[UsageRow]:
        """Sums since these versions were first used."""

        def job(connection: Connection) -> list[UsageRow]:
            if not versions:
                return []
            marks = ", ".join("?" * len(versions))
            found = connection.execute(f"SELECT {_ALL} FROM usage WHERE at = 0 AND version IN ({marks})", versions)
            return [UsageRow(*row) for row in found]

        return await self._database.read(job)

    async def of_newest(self, versions: int, rows_limit: int = ROWS_LIMIT) -> list[UsageRow]:
        """Sums since they were first used, of so many versions: those that serve, then the newest; no retired ones.

        Where there are more rows than `rows_limit`, the last versions are left out, each with all of its rows.
        """
        columns = ", ".join(f"usage.{column}" for column in KEY + COLUMNS)

        def job(connection: Connection) -> list[UsageRow]:
            found = connection.execute(
                f"SELECT {columns} FROM (SELECT id, number, {_SERVES} AS rank FROM versions"
                " WHERE status <> 'retired' ORDER BY rank, number DESC LIMIT ?) AS shown"
                " JOIN usage ON at = 0 AND version = shown.id"
                " ORDER BY shown.rank, shown.number DESC, graph, kind, agent, name LIMIT ?",
                (versions, rows_limit),
            ).fetchall()
            told = [UsageRow(*row) for row in found]
            if len(told) < rows_limit:
                return told
            whole = [row for row in told if row.version != told[-1].version]
            return whole or told

        return await self._database.read(job)

    async def over_time(
        self, since: int, until: int, step_s: int, version: str | None, graph: str | None
    ) -> list[UsageRow]:
        """Sums by steps of time from `since`, a multiple of the step; of models and tools without their names."""
        return await self._sums(
            since,
            until,
            version,
            graph,
            f"at - at % {int(step_s)} AS slot, version, graph, kind, '' AS agent,"
            " CASE WHEN kind = 'latency' THEN name ELSE '' END AS label",
            "slot, version, graph, kind, label",
        )

    async def by_name(self, since: int, until: int, version: str | None, graph: str | None) -> list[UsageRow]:
        """Sums of a time by agent, model and tool; of latency by bucket."""
        return await self._sums(
            since,
            until,
            version,
            graph,
            "0 AS slot, version, graph, kind, agent, name",
            "version, graph, kind, agent, name",
        )

    async def _sums(
        self, since: int, until: int, version: str | None, graph: str | None, key: str, group: str
    ) -> list[UsageRow]:
        where = ["at >= ?", "at < ?"]
        values: list[Any] = [max(1, since), until]
        for column, wanted in (("version", version), ("graph", graph)):
            if wanted is not None:
                where.append(f"{column} = ?")
                values.append(wanted)

        def job(connection: Connection) -> list[UsageRow]:
            found = connection.execute(
                f"SELECT {key}, {_SUMS} FROM usage WHERE {' AND '.join(where)} GROUP BY {group}", values
            )
            return [UsageRow(*row) for row in found]

        return await self._database.read(job)

    async def labels(self) -> list[tuple[str, str, str, str, str]]:
        """Version, graph, kind, agent and name of every model and tool that is counted."""

        def job(connection: Connection) -> list[tuple[str, str, str, str, str]]:
            found = connection.execute(
                "SELECT version, graph, kind, agent, name FROM usage WHERE at = 0"
                " AND kind IN ('model', 'tool') LIMIT ?",
                (LABELS_LIMIT,),
            )
            return [(version, graph, kind, agent, name) for version, graph, kind, agent, name in found]

        return await self._database.read(job)

    # --- upkeep ----------------------------------------------------------------------------------

    async def tidy(self, keep_s: float, merged_before: int) -> int:
        """Merge old minutes into hours, discard what is older than `keep_s`.

        `merged_before`: what this returned last, 0 at first; hours before it are merged already.
        """
        now = self._clock()
        upto = int(now - MINUTES_KEPT_S) // HOUR_S * HOUR_S

        def job(connection: Connection) -> int:
            connection.execute("DELETE FROM usage WHERE at > 0 AND at < ?", (int(now - keep_s),))
            hour = merged_before
            for _ in range(MERGED_AT_ONCE):
                (first,) = connection.execute(
                    "SELECT min(at) FROM usage WHERE at >= ? AND at < ?", (max(1, hour), upto)
                ).fetchone()
                if first is None:
                    return upto
                hour = _merge(connection, first // HOUR_S * HOUR_S)
            return hour

        return await self._database.write(job, durable=False)


def _merge(connection: Connection, hour: int) -> int:
    """Make the rows of an hour one of each key; returns where the next hour begins."""
    end = hour + HOUR_S
    within = "at >= ? AND at < ?"
    keys = ", ".join(KEY[1:])
    # where each key is there once already, at the start, nothing is written
    merged = connection.execute(f"SELECT 1 FROM usage WHERE {within} LIMIT 1", (hour + 1, end)).fetchone()
    if merged is None:
        return end
    rows = connection.execute(
        f"SELECT CAST(? AS bigint), {keys}, {_SUMS} FROM usage WHERE {within} GROUP BY {keys}",
        (hour, max(1, hour), end),
    ).fetchall()
    connection.execute(f"DELETE FROM usage WHERE {within}", (max(1, hour), end))
    connection.executemany(f"{_INSERT}{_ROW}", [tuple(row) for row in rows])
    return end
