"""Numbers for Prometheus, read when they are asked for; a registry for each application.

What the database counts is the same from every process on it; what only a process knows is of the one that answers:
docs/operations.md lists both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from changeover.manager import GraphVersionManager
from changeover.server.resource_metrics import of_resources
from changeover.server.usage_metrics import of_usage
from changeover.store.tallies import Tallies, tallies
from changeover.store.usage import UsageRow
from changeover.versions.lifecycle import Status

VERSIONS_SHOWN = 50  # that serve, or are the newest; what others used is asked of GET /admin/usage


@dataclass(frozen=True)
class Numbers:
    runs_in_flight: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, int] = field(default_factory=dict)
    tallies: Tallies = field(default_factory=Tallies)
    usage: Sequence[UsageRow] = ()
    resources: Sequence[Mapping[str, Any]] = ()
    resource_counts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    loaded: int = 0
    revision: int = 0


class Metrics:
    """Turns what the manager and its database know into Prometheus' text."""

    def __init__(self, manager: GraphVersionManager) -> None:
        self._manager = manager
        self._registry = CollectorRegistry()
        self._ours = _Ours()
        self._registry.register(self._ours)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    async def text(self) -> bytes:
        store = self._manager.store
        routing = self._manager.routing
        self._ours.numbers = Numbers(
            {str(version): count for version, count in self._manager.in_flight.count().items()},
            await store.versions.count(),
            await tallies(store.database),
            await store.usage.of_newest(VERSIONS_SHOWN),
            self._manager.resources.report(),
            self._manager.resources.counts(),
            len(self._manager.loader.loaded),
            routing.revision if routing else 0,
        )
        return await asyncio.to_thread(generate_latest, self._registry)  # it may be long


class _Ours(Collector):
    def __init__(self) -> None:
        self.numbers = Numbers()

    def collect(self) -> Iterable[Metric]:
        numbers = self.numbers
        yield _gauge("changeover_runs_in_flight", "Runs in flight here by version", ["version"], numbers.runs_in_flight)
        versions = {status.value: numbers.versions.get(status.value, 0) for status in Status}
        yield _gauge("changeover_versions", "Versions known by status", ["status"], versions)
        yield GaugeMetricFamily("changeover_versions_loaded", "Compiled versions in memory", numbers.loaded)
        yield GaugeMetricFamily("changeover_routing_revision", "Revision of the routing", numbers.revision)
        yield from _of_tallies(numbers.tallies)
        yield from of_usage(numbers.usage)
        yield from of_resources(numbers.resources, numbers.resource_counts)


def _of_tallies(told: Tallies) -> Iterable[Metric]:
    events = told.events
    built, rejected = events.get("version_ready", 0), events.get("version_rejected", 0)
    yield _gauge("changeover_runs_active", "Runs that wait or execute", ["version", "status"], told.runs)
    yield _counter("changeover_routing_changes", "Switches and rollbacks", [], {"": events.get("routing_changed", 0)})
    yield _counter("changeover_versions_built", "Versions that were built", [], {"": built})
    yield _counter("changeover_versions_rejected", "Builds that failed", [], {"": rejected})
    yield _counter("changeover_builds", "Builds by result", ["result"], {"ok": built, "rejected": rejected})
    yield _counter("changeover_switches", "Changes of the routing by action", ["action"], told.routing)
    yield _counter("changeover_operations", "Operations by kind and status", ["kind", "status"], told.operations)
    drains = {"drained": events.get("version_drained", 0), "stalled": events.get("drain_stalled", 0)}
    yield _counter(
        "changeover_drains", "Versions that nothing needs any more, and drains that ran out", ["result"], drains
    )
    migrations = {
        "moved": events.get("thread_migrated", 0),
        "refused": events.get("migration_refused", 0) + told.not_moved.get("stays", 0),
        "busy": told.not_moved.get("busy", 0),
        "failed": told.not_moved.get("failed", 0),
    }
    yield _counter("changeover_thread_migrations", "Threads whose state was to be migrated", ["result"], migrations)
    handovers = {"moved": events.get("run_handed_over", 0), "refused": events.get("handover_refused", 0)}
    yield _counter("changeover_handovers", "Running runs that were to be handed over", ["result"], handovers)
    yield _counter(
        "changeover_runs_dead", "Runs given up after losing their processes", [], {"": events.get("run_dead", 0)}
    )


Values = Mapping[str, int] | Mapping[tuple[str, str], int]


def _gauge(name: str, text: str, labels: list[str], values: Values) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(_labels(key), value)
    return family


def _counter(name: str, text: str, labels: list[str], values: Values) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(_labels(key) if labels else [], value)
    return family


def _labels(key: str | tuple[str, ...]) -> list[str]:
    return [key] if isinstance(key, str) else list(key)
