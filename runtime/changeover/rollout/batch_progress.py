"""How far a batch of migrations has come, as it is kept in the journal: enough to go on from after a crash.

A page is written down when it is done. Where the process ended within one, its threads are looked at again: those
that had moved are not counted twice, nor moved twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from changeover.migrations.moving import Fate, Fated
from changeover.rollout.forecast import LISTED, Tally

COUNTED: tuple[Fate, ...] = ("moved", "current", "stays", "busy", "failed")
BUSY_REMEMBERED = 10_000


@dataclass
class BatchProgress:
    """`graph` and `after` are where to go on; `busy` are threads to try once more."""

    total: int = 0
    graph: str = ""
    after: str = ""
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))
    busy: list[str] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    sources: dict[str, list[str]] = field(default_factory=dict)  # versions that items come from, by graph

    @property
    def done(self) -> int:
        return sum(self.counts.values())

    def note(self, fates: Sequence[Fated], *, puts_off: bool = False) -> None:
        """Count what became of threads. With `puts_off` those that are busy are tried again, where there is room."""
        for fated in fates:
            if puts_off and fated.fate == "busy" and len(self.busy) < BUSY_REMEMBERED:
                self.busy.append(fated.thread_id)
                continue
            self.counts[fated.fate] += 1
            if fated.fate not in ("moved", "current"):
                self.tally.add(fated.fate, _reason(fated), fated.hint, 1, [fated.thread_id])

    def to_json(self) -> dict[str, Any]:
        return {
            "total": max(self.total, self.done + len(self.busy)),
            "done": self.done,
            **self.counts,
            "cursor": {"graph": self.graph, "after": self.after},
            "put_off": list(self.busy),
            "threads": self.tally.to_json(),
            "sources": self.sources,
        }

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> BatchProgress:
        """As it was written down; from the start where nothing was."""
        if "cursor" not in told:
            return cls()
        progress = cls(told["total"], told["cursor"]["graph"], told["cursor"]["after"])
        progress.counts = {fate: told[fate] for fate in COUNTED}
        progress.busy = list(told["put_off"])
        progress.sources = dict(told.get("sources") or {})
        for fate, counted in told["threads"].items():
            for each in counted["reasons"]:
                progress.tally.add(fate, each["reason"], each["hint"], each["count"], each["ids"][:LISTED])
        return progress

    def result(self) -> dict[str, Any]:
        return {"total": self.done, "done": self.done, **self.counts, "threads": self.tally.to_json()}


def _reason(fated: Fated) -> str:
    """Without the thread's own name, so that threads that stay for one reason are told together."""
    return fated.reason.replace(f"thread {fated.thread_id}", "the thread")
