"""How a run ended, and what it used until then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from changeover.store.records.ids import VersionId
from changeover.store.records.run import RunStatus
from changeover.store.records.thread import Thread, Waiting


@dataclass(frozen=True, slots=True)
class Used:
    """Calls of one model, or one tool, that a run made while it was on a version. `agent`: whose; '' is no agent's."""

    version: VersionId
    kind: Literal["model", "tool"]
    agent: str
    name: str
    calls: int
    errors: int
    seconds: float
    tokens_in: int = 0
    tokens_out: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended, and what its thread waits for now. One that never `began` leaves that as it was.

    One that is `undone` is forgotten, and its thread is again as it was `before`.
    """

    status: RunStatus
    reason: str = ""
    waiting: Waiting | None = None
    began: bool = True
    undone: bool = False
    before: Thread | None = None
    values: bytes | None = None  # its last values as JSON, where somebody is to be told of them
    waits: str | None = None  # the waiting set as text, where something waits and it is known
    used: tuple[Used, ...] = ()  # by its process, and not counted yet
