"""Watching runs: counts always, spans where they are asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager, Callbacks
from langchain_core.runnables import RunnableConfig

from changeover.store.records.ids import VersionId
from changeover.store.records.outcome import Outcome, Used
from changeover.store.records.run import Run
from changeover.store.usage import Usage
from changeover.usage.counting import Meter
from changeover.usage.keeping import Keeping
from changeover.usage.labels import Labels
from changeover.usage.tracing import Tracing

if TYPE_CHECKING:
    from changeover.usage.spans import RunSpan


class Watch:
    """What is seen of one run that this process executes."""

    def __init__(self, meter: Meter, span: RunSpan | None) -> None:
        self._meter = meter
        self._span = span

    def on(self, version: VersionId, config: RunnableConfig) -> RunnableConfig:
        """The config of a run while it is on a version, with our callbacks beside those of its caller."""
        ours = [self._meter.on(version)]
        if self._span is not None:
            ours.append(self._span.on(version))
        return {**config, "callbacks": _with(config.get("callbacks"), ours)}

    def take(self) -> tuple[Used, ...]:
        """What it used, and nobody took yet."""
        return self._meter.take()

    def ended(self, outcome: Outcome, *, released: bool) -> None:
        """This process does nothing more for it."""
        span, self._span = self._span, None
        if span is not None:
            span.end(outcome, released=released)


class Watching:
    """Watches the runs of a process."""

    def __init__(self, labels: Labels, tracing: Tracing | None) -> None:
        self._labels = labels
        self._tracing = tracing

    def watch(self, run: Run, *, taken_up: bool) -> Watch:
        """A run that begins, or is gone on with, now; it belongs to the span that its caller is in."""
        return Watch(Meter(run.graph, self._labels), self._span(run, taken_up))

    def _span(self, run: Run, taken_up: bool) -> RunSpan | None:
        if self._tracing is None:
            return None
        from opentelemetry.context import Context

        from changeover.usage.spans import RunSpan

        parent = Context() if taken_up else self._tracing.caller()  # who asked for it is gone with its process
        return RunSpan(self._tracing.tracer, parent, run)


@asynccontextmanager
async def watching_runs(usage: Usage, keep_s: float, environ: Mapping[str, str]) -> AsyncIterator[Watching]:
    """Watches the runs of a process, and keeps what was counted of them as long as it is to be."""
    labels = Labels()
    labels.remember(await usage.labels())
    tracing = Tracing.of(environ)
    keeping = Keeping(usage, keep_s)
    keeping.start()
    try:
        yield Watching(labels, tracing)
    finally:
        await keeping.close()
        if tracing is not None:
            await tracing.close()


def _with(given: Callbacks, ours: Sequence[BaseCallbackHandler]) -> Callbacks:
    if isinstance(given, BaseCallbackManager):
        manager = given.copy()
        for handler in ours:
            manager.add_handler(handler, inherit=True)
        return manager
    return [*(given or ()), *ours]
