"""What a person or a script gets to read.

Results go to stdout, everything else to stderr. Text that came from elsewhere is shown without its
control characters: a message must not be able to steer a terminal.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LONG = frozenset({"message", "changed", "reason", "detail", "hint", "what", "fate", "which"})
_STYLES = {
    "current": "green",
    "draining": "yellow",
    "rejected": "red",
    "retired": "dim",
    "ok": "green",
    "warning": "yellow",
    "problem": "red",
}


def clean(value: object) -> str:
    return _CONTROL.sub("�", "" if value is None else str(value))


def say(text: str) -> None:
    """One line for people, on stderr."""
    print(clean(text), file=sys.stderr, flush=True)


def line(text: str = "") -> None:
    """One line of a result, on stdout."""
    print(clean(text), flush=True)


def piece(text: str) -> None:
    """A part of a line that is still growing, on stdout."""
    print(clean(text), end="", flush=True)


def document(value: object) -> None:
    """The one JSON document of a verb."""
    print(json.dumps(value, ensure_ascii=False, indent=2, default=str), flush=True)


def document_line(value: object) -> None:
    """One of the documents of a verb that follows: each on a line of its own."""
    print(json.dumps(value, ensure_ascii=False, default=str), flush=True)


def json_is_wanted(arguments: Sequence[str]) -> bool:
    """Did the command line ask for JSON? For errors that come before, or instead of, a verb's own output."""
    joined = " ".join(arguments)
    return re.search(r"(?:^|\s)(?:-o[ =]?|--output[ =])json(?:\s|$)", joined) is not None


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table: in colour on a terminal, else aligned columns that grep and awk can read."""
    if sys.stdout.isatty():
        _rich_table(columns, rows)
        return
    for text in aligned(columns, rows):
        print(text)
    sys.stdout.flush()


def aligned(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    cells = [[column.upper() for column in columns], *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
    for row in cells:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


@contextmanager
def progress(text: str | None) -> Iterator[None]:
    """A spinner on a terminal while something takes long; nothing elsewhere."""
    if text is None or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(clean(text)):
        yield


def ago(moment: str | None) -> str:
    """How long ago an ISO time was: 12s, 5m, 3h, 8d."""
    if not moment:
        return ""
    try:
        seconds = max(0, (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())
    except (TypeError, ValueError):
        return clean(moment)
    return span(seconds)


def span(seconds: float) -> str:
    for unit, size_s in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size_s:
            return f"{int(seconds // size_s)}{unit}"
    return f"{int(seconds)}s"


def listed(values: Sequence[object], shown: int = 4) -> str:
    names = ", ".join(str(value) for value in values[:shown])
    return f"{names} and {len(values) - shown} more" if len(values) > shown else names


def fields(pairs: Sequence[tuple[str, object]]) -> None:
    """One thing, a line for each of its facts; empty ones are left out."""
    told = [(name, text) for name, value in pairs if (text := clean(value))]
    width = max((len(name) for name, _ in told), default=0)
    for name, text in told:
        print(f"{name.ljust(width)}  {text}")
    sys.stdout.flush()


def _cell(value: object) -> str:
    text = " ".join(clean(value).split())
    return text or "-"


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        drawn.add_column(column, overflow="fold", no_wrap=column not in _LONG)
    for row in rows:
        drawn.add_row(*(Text(_cell(value), style=_STYLES.get(_cell(value), "")) for value in row))
    Console().print(drawn)


def short(value: Any, limit: int = 80) -> str:
    """Any JSON value in one line."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
