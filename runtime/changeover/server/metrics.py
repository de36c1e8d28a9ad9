"""Numbers for Prometheus, read when they are asked for; a registry for each application."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from changeover.manager import GraphVersionManager
from changeover.versions.lifecycle import Status


@dataclass(frozen=True)
class Numbers:
    runs_in_flight: Mapping[str, int]
    versions: Mapping[str, int]
    events: Mapping[str, int]
    loaded: int
    revision: int


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
            await store.journal.count_events(("version_ready", "version_rejected", "routing_changed")),
            len(self._manager.loader.loaded),
            routing.revision if routing else 0,
        )
        return generate_latest(self._registry)


class _Ours(Collector):
    def __init__(self) -> None:
        self.numbers = Numbers({}, {}, {}, 0, 0)

    def collect(self) -> Iterable[Metric]:
        numbers = self.numbers
        flights = GaugeMetricFamily("changeover_runs_in_flight", "Runs in flight by version", labels=["version"])
        for version, count in numbers.runs_in_flight.items():
            flights.add_metric([version], count)
        versions = GaugeMetricFamily("changeover_versions", "Versions known by status", labels=["status"])
        for status in Status:
            versions.add_metric([status.value], numbers.versions.get(status.value, 0))
        yield flights
        yield versions
        yield GaugeMetricFamily("changeover_versions_loaded", "Compiled versions in memory", numbers.loaded)
        yield GaugeMetricFamily("changeover_routing_revision", "Revision of the routing", numbers.revision)
        yield _counter("changeover_routing_changes", "Switches and rollbacks", numbers.events.get("routing_changed", 0))
        yield _counter("changeover_versions_built", "Versions that were built", numbers.events.get("version_ready", 0))
        yield _counter("changeover_versions_rejected", "Builds that failed", numbers.events.get("version_rejected", 0))


def _counter(name: str, text: str, value: int) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, value)
