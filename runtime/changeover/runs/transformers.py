"""What a graph does to its own stream of content events: its stream transformers, as LangGraph runs them.

Middleware brings transformers along that take personal data out of what is streamed, or hide the calls of models that
nobody should see; a project's own give further channels, `custom:NAME`. They belong to LangGraph's protocol of events,
so that only runs that stream content events pass through them.

LangGraph has no public way to run them without its own stream of a run, which ends before what it runs has ended. So
its dispatcher is used by hand, here alone.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Collection, Iterator, Sequence
from contextlib import aclosing
from typing import Any, Self

from langgraph.stream._mux import StreamMux

from changeover.runs.request import Part

INTERRUPT = "__interrupt__"


class Transformers:
    """The transformers of one graph in one run. Used once."""

    def __init__(self, mux: StreamMux) -> None:
        self._mux = mux
        self._log = mux._events
        aiter(self._log)  # from here on it keeps what it is given

    @classmethod
    def of(cls, graph: Any) -> Self | None:
        """Those that a graph was compiled with, if any."""
        factories: Sequence[Any] = getattr(graph, "stream_transformers", ())
        return cls(StreamMux(factories=list(factories), is_async=True)) if factories else None

    @property
    def modes(self) -> Collection[str]:
        """What they need to see of the stream."""
        return {mode for transformer in self._mux._transformers for mode in transformer.required_stream_modes}

    async def parts(self, stream: AsyncGenerator[Any, None]) -> AsyncGenerator[Part, None]:
        """LangGraph's stream, as its transformers leave it. An error of theirs is one of the run."""
        try:
            async with aclosing(stream) as chunks:
                async for chunk in chunks:
                    for part in await self._passed(chunk):
                        yield part
            await self._mux.aclose()
        except BaseException as error:
            await self._mux.afail(error)
            raise
        for part in self._logged():
            yield part

    async def _passed(self, chunk: dict[str, Any]) -> list[Part]:
        params = {"namespace": list(chunk["ns"]), "timestamp": time.time_ns() // 1_000_000, "data": chunk["data"]}
        if "interrupts" in chunk:
            params["interrupts"] = chunk["interrupts"]
        event: Any = {"type": "event", "method": chunk["type"], "params": params}
        await self._mux.apush(event)
        parts = list(self._logged())
        if _is_needed(chunk):
            needed = Part(tuple(chunk["ns"]), chunk["type"], chunk["data"])
            parts = [needed, *(part for part in parts if part.mode != chunk["type"])]
        return parts

    def _logged(self) -> Iterator[Part]:
        while self._log._items:
            _, event = self._log._items.popleft()
            yield Part(tuple(event["params"]["namespace"]), event["method"], event["params"]["data"])


def _is_needed(chunk: dict[str, Any]) -> bool:
    """What tells how a run stands is not theirs to take away: tasks, which some keep to themselves, and interrupts."""
    return chunk["type"] == "tasks" or (chunk["type"] == "updates" and INTERRUPT in (chunk["data"] or ()))
