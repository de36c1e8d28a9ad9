"""How values are shown: times, sizes, long texts, counts. Filters of the templates, all of them pure."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

FOLDED_FROM_CHARS = 300
UNITS = ((86_400 * 2, 86_400, "d"), (7_200, 3_600, "h"), (120, 60, "min"))
SHOWN_CHARS = 20_000  # of one value on a page; the whole is in the API


def moment(told: str | None) -> str:
    """`2027-01-31 12:00:05` in UTC, of a time in ISO 8601; anything else as it is."""
    if not told:
        return ""
    try:
        return datetime.fromisoformat(told).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (TypeError, ValueError, OverflowError):
        return str(told)[:40]


def seconds(value: float | None) -> str:
    """`3 ms`, `1.2 s`, `5 min`, `3 h`, `2 d`."""
    if value is None:
        return "–"
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    for least, unit, word in UNITS:
        if value >= least:
            return f"{value / unit:.0f} {word}"
    return f"{value:.3g} s"


def number(value: float | None) -> str:
    """`12,345`, `1.2 M`."""
    if value is None:
        return "–"
    for least, word in ((10**9, "G"), (10**6, "M")):
        if abs(value) >= least:
            return f"{value / least:.3g} {word}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.3g}"


def size(value: int | None) -> str:
    """`12 B`, `3.4 kB`, `1.2 MB`."""
    if value is None:
        return "–"
    for least, word in ((10**6, "MB"), (10**3, "kB")):
        if value >= least:
            return f"{value / least:.3g} {word}"
    return f"{value} B"


def text(value: Any) -> str:
    """A value as people read it: text as it is, all else as JSON. What cannot be sent is replaced."""
    if isinstance(value, str):
        told = value
    else:
        try:
            told = json.dumps(value, ensure_ascii=False, indent=1, default=str)
        except RecursionError:
            told = "It is nested too deeply to be shown."
    return told.encode(errors="replace").decode()


def cut(value: str) -> str:
    """A text that is too long for a page, without its end."""
    return value[:SHOWN_CHARS]


def is_long(value: str) -> bool:
    return len(value) > FOLDED_FROM_CHARS or value.count("\n") > 6


def first(value: str) -> str:
    """The beginning of a long text, in one line."""
    return " ".join(value[:160].split())


def segment(value: str) -> str:
    """A text as one segment of a path; one that is `.` or `..` leads nowhere else."""
    return quote(value, safe="") if value not in (".", "..") else value.replace(".", "%2E")


def thread_page(id_: str) -> str:
    """The address of a thread's page below `/ui`. Browsers take `.` and `..` away from paths, however written."""
    return f"thread?id={segment(id_)}" if set(id_.split("/")) & {"", ".", ".."} else f"threads/{segment(id_)}"


def path(value: str) -> str:
    """A text as a path of several segments."""
    return quote(value, safe="/")


def words(value: str) -> str:
    """`thread_moved` as `thread moved`."""
    return value.replace("_", " ")


def given(query: dict[str, Any]) -> dict[str, Any]:
    """What of a query says something."""
    return {name: value for name, value in query.items() if value}


def listed(values: Any) -> str:
    return ", ".join(str(value) for value in values)


FILTERS: dict[str, Callable[..., Any]] = {
    "cut": cut,
    "first_line": first,
    "given": given,
    "is_long": is_long,
    "listed": listed,
    "moment": moment,
    "number": number,
    "path": path,
    "seconds": seconds,
    "segment": segment,
    "size": size,
    "as_text": text,
    "thread_page": thread_page,
    "words": words,
}
