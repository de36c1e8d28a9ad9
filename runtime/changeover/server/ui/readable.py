"""Data of any shape as a person reads it: names with values, links where they name something of ours. Pure.

What comes here may be of a later release, or from anybody: no key is counted on, no length, no type. Invariant: how
much is shown is bounded, and what is left out is counted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from changeover.server.ui.shown import moment
from changeover.server.ui.shown import text as as_text

ROWS = 40  # of a mapping, and of a table
COLUMNS = 7
NAME_CHARS = 80
LINE_CHARS = 200
ID_CHARS = 255
BRIEF_CHARS = 140

Kind = str
KINDS: Mapping[str, Kind] = {
    "version": "version",
    "from": "version",
    "to": "version",
    "current": "version",
    "previous": "version",
    "ramping": "version",
    "left_version": "version",
    "thread_id": "thread",
    "thread": "thread",
    "operation": "operation",
    "run_id": "run",
    "run": "run",
    "at": "time",
    "until": "time",
    "since": "time",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One value. `kind` says how it is shown: version, thread, operation, run, time, text or data."""

    kind: Kind
    value: Any
    thread: str = ""  # of a run, where its thread is known


@dataclass(frozen=True, slots=True)
class Table:
    """A list of alike things: `left` of them are not among the `lines`."""

    columns: Sequence[str]
    lines: Sequence[Sequence[Cell | None]]
    left: int


@dataclass(frozen=True, slots=True)
class Row:
    """A name, and a value or a table of them."""

    name: str
    cell: Cell
    table: Table | None = None
    items: Sequence[Cell] = field(default=())
    left: int = 0


def rows(data: Any, without: Collection[str] = ()) -> list[Row]:
    """The members of a mapping; those that say nothing are left out."""
    given = {str(name): value for name, value in mapping(data).items() if name not in without}
    told = [(name, value) for name, value in given.items() if value not in (None, "", [], {})]
    found = [_row(name, value, given) for name, value in told[:ROWS]]
    if len(told) > ROWS:
        found.append(Row("and further", Cell("text", f"{len(told) - ROWS:,} more")))
    return found


def brief(data: Any, without: Collection[str] = ()) -> str:
    """The members of a mapping that are short, in one line."""
    parts: list[str] = []
    for name, value in list(mapping(data).items())[:ROWS]:
        if name in without or not value:
            continue
        parts.append(f"{_short(name)}: {_in_brief(value)}".replace("_", " "))
        if sum(map(len, parts)) > BRIEF_CHARS:
            break
    told = " · ".join(parts)
    return told if len(told) <= BRIEF_CHARS else told[:BRIEF_CHARS] + "…"


def link(name: str, value: Any, around: Mapping[str, Any]) -> Cell:
    """A value by the name that it has, among its neighbours."""
    kind = KINDS.get(name) or ("time" if name.endswith("_at") else "data")
    if kind == "time":
        return Cell("time", value) if is_time(value) else Cell("data", value)
    if kind != "data" and not (isinstance(value, str) and 0 < len(value) <= ID_CHARS):
        kind = "data"
    thread = around.get("thread_id")
    return Cell(kind, value, thread if kind == "run" and isinstance(thread, str) else "")


def is_time(value: Any) -> bool:
    if not isinstance(value, str) or len(value) > 40:
        return False
    try:
        datetime.fromisoformat(value).timestamp()
    except (ValueError, OverflowError, OSError):
        return False
    return True


def mapping(value: Any) -> Mapping[str, Any]:
    """A mapping, an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def sequence(value: Any) -> Sequence[Any]:
    """A list, an empty one for anything else."""
    return value if isinstance(value, list) else []


def count(value: Any) -> int:
    """A count, 0 for anything else."""
    return int(value) if isinstance(value, int | float) and 0 <= value < 1e15 else 0


def text(value: Any) -> str:
    """A text, an empty one for anything else."""
    return value if isinstance(value, str) else ""


def _row(name: str, value: Any, around: Mapping[str, Any]) -> Row:
    if isinstance(value, list) and all(isinstance(one, Mapping) for one in value):
        if (table := _table(value)) is not None:
            return Row(_short(name), Cell("data", None), table)
    elif isinstance(value, list) and all(isinstance(one, str | int | float) for one in value):
        singular = "thread_id" if name in ("threads", "thread_ids") else "version" if name == "versions" else ""
        items = [_in_line(link(singular, one, {})) or Cell("text", one) for one in value[:ROWS]]
        return Row(_short(name), Cell("data", None), None, items, len(value) - len(items))
    return Row(_short(name), link(name, value, around))


def _table(found: Sequence[Mapping[str, Any]]) -> Table | None:
    """None where they have too many members for a table, or none."""
    shown = found[:ROWS]
    columns = list(dict.fromkeys(str(name) for one in shown for name, value in one.items() if value is not None))
    if not columns or len(columns) > COLUMNS or any(isinstance(v, Mapping) for one in shown for v in one.values()):
        return None
    lines = [[_in_line(link(name, one.get(name), one)) for name in columns] for one in shown]
    return Table([_short(name) for name in columns], lines, len(found) - len(shown))


def _in_line(cell: Cell) -> Cell | None:
    """A value among many others, without the end of a long one; None of nothing."""
    value = cell.value
    if cell.kind == "data" and value is not None:
        told = value if isinstance(value, str | int | float) else as_text(value)
        return Cell("text", told[:LINE_CHARS] + "…") if isinstance(told, str) and len(told) > LINE_CHARS else cell
    return None if value is None else cell


def _short(name: str) -> str:
    return name if len(name) <= NAME_CHARS else name[:NAME_CHARS] + "…"


def _in_brief(value: Any) -> str:
    if isinstance(value, Mapping | list):
        return f"{len(value):,}"
    if isinstance(value, bool):
        return "yes"
    told = moment(value) + " UTC" if is_time(value) else " ".join(str(value)[: BRIEF_CHARS + 1].split())
    return told if len(told) <= BRIEF_CHARS // 2 else told[: BRIEF_CHARS // 4] + "…"
