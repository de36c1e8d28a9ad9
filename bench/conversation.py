"""A conversation of the switches' measurement: turns on one thread, and whether each answer is whole."""

from __future__ import annotations

import json
import re
import time
import uuid
from dataclasses import dataclass, field

from bench import servers
from bench.numbered import number_of

BODY = json.dumps(
    {"assistant_id": "numbered", "input": {"text": "hello"}, "stream_mode": ["values"], "if_not_exists": "create"}
).encode()


@dataclass
class Tally:
    """What became of the requests of a slice."""

    latencies_ms: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)


class Conversation:
    """One thread over one connection."""

    def __init__(self, port: int, editions: dict[str, int]) -> None:
        self._connection = servers.Connection(port)
        self._path = f"/threads/{uuid.uuid4()}/runs/stream"
        self._editions = editions

    async def turn(self, due: float, tally: Tally) -> None:
        try:
            answer = await self._connection.post(self._path, BODY)
        except (OSError, EOFError) as error:
            tally.failed.append(repr(error))
            return self.close()
        tally.latencies_ms.append((time.perf_counter() - due) * 1000)
        values = last_values(answer)
        if values is None:
            tally.failed.append(f"{answer.status}: {answer.body[:500]!r}")
            return None
        version = re.search(rb"changeover-version: (\w+)", answer.head)
        number = number_of(values)
        if version is None or number is None or self._editions.get(version[1].decode(), number) != number:
            tally.mixed.append(f"{version and version[1]!r}: {values}")
        return None

    def close(self) -> None:
        self._connection.close()


def last_values(answer: servers.Answer) -> dict[str, str] | None:
    """The values that a stream ended with; None if it is not the stream of a run that succeeded."""
    events = answer.body.replace(b"\r\n", b"\n").split(b"\n\n")
    if answer.status != 200 or any(event.startswith(b"event: error") for event in events):
        return None
    data = [
        line
        for event in events
        if event.startswith(b"event: values")
        for line in event.split(b"\n")
        if line[:5] == b"data:"
    ]
    found: dict[str, str] | None = json.loads(data[-1][5:]) if data else None
    return found
