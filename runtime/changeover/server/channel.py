"""What a server's processes say to each other: JSON, a line each, over a socket between parent and worker.

The parent says once what to serve. The worker says what happens: `opened`, `said` (a text for whoever watches the
server), `failed`. The end of the other side, however it came, is the end of the stream: a worker whose parent is gone
stops.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from changeover.settings import Settings, knobs

MESSAGE_LIMIT_BYTES = 1_000_000

Kind = Literal["opened", "said", "failed"]


@dataclass(frozen=True)
class Order:
    """What a worker is to serve: a project with settings that were read once, for all workers."""

    project: Path
    settings: Settings

    def encode(self) -> bytes:
        values = {knob.name: getattr(self.settings, knob.name) for knob in knobs()}
        return _line({"project": str(self.project), "settings": values, "sources": dict(self.settings.sources)})

    @classmethod
    def decode(cls, line: bytes) -> Order:
        given = json.loads(line)
        values: dict[str, Any] = given["settings"]
        lists = {knob.name: knob.metadata["parse"] for knob in knobs() if isinstance(values[knob.name], list)}
        values.update((name, parse(values[name])) for name, parse in lists.items())
        return cls(Path(given["project"]), Settings(**values, sources=given["sources"]))


@dataclass(frozen=True)
class Message:
    """What a worker tells. `text` is what it said or failed with, `status` what it would exit with."""

    kind: Kind
    text: str = ""
    serving: bool = False
    status: int = 0

    def encode(self) -> bytes:
        return _line(asdict(self))

    @classmethod
    def decode(cls, line: bytes) -> Message:
        return cls(**json.loads(line))


def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document, default=asdict).encode() + b"\n"
