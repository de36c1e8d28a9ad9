"""Results as a table for people and as JSON for machines. Measures nothing."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One line: ours, the plain thing, how they compare, and what was wanted. `met` is None where nothing was."""

    what: str
    ours: str
    plain: str = ""
    compared: str = ""
    target: str = ""
    met: bool | None = None
    numbers: dict[str, Any] = field(default_factory=dict)


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` of the values are not above (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(len(ordered) * percent / 100 + 0.5) - 1))]


def show(measurements: dict[str, list[Row]]) -> None:
    table = Table(title="changeover: medians of paired rounds", title_justify="left")
    for heading in ("measurement", "ours", "plain", "compared", "target", ""):
        table.add_column(heading, overflow="fold")
    for rows in measurements.values():
        for row in rows:
            verdict = {True: "met", False: "MISSED", None: ""}[row.met]
            table.add_row(row.what, row.ours, row.plain, row.compared, row.target, verdict)
        table.add_section()
    Console(width=150).print(table)


def write(measurements: dict[str, list[Row]], quick: bool) -> Path:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    found = {name: [asdict(row) for row in rows] for name, rows in measurements.items()}
    about = {"at": time.time(), "quick": quick, "python": platform.python_version(), "machine": platform.platform()}
    path.write_text(json.dumps({**about, "measurements": found}, indent=1, default=str) + "\n", "utf-8")
    return path
