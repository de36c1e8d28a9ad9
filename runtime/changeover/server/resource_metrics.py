"""What is live in this process, as metrics by kind and status; by name only whether it is well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

NAMES_LIMIT = 500
STATUSES = ("opening", "healthy", "degraded", "stopped")
COUNTED = {
    "opens": "Openings of resources, also those that failed",
    "closes": "Closings of resources, one for each opening",
    "errors": "Errors of resources",
    "restarts": "Openings after the first of a resource",
}


def of_resources(live: Sequence[Mapping[str, Any]], counts: Mapping[tuple[str, str], int]) -> Iterable[Metric]:
    """`live` as `GET /admin/resources` lists it; `counts` by kind and what is counted, of closed ones too."""
    yield _by_status(live)
    yield _well(live)
    for counted, text in COUNTED.items():
        family = CounterMetricFamily(f"changeover_resource_{counted}", text, labels=["kind"])
        for (kind, what), count in sorted(counts.items()):
            if what == counted:
                family.add_metric([kind], count)
        yield family


def _by_status(live: Sequence[Mapping[str, Any]]) -> Metric:
    """Of each kind every status, also those that none is in: an alert needs the zero."""
    family = GaugeMetricFamily("changeover_resources", "Resources of this process", labels=["kind", "status"])
    found = Counter((each["kind"], each["status"]) for each in live)
    for kind in sorted({kind for kind, _ in found}):
        for status in STATUSES:
            family.add_metric([kind, status], found[kind, status])
    return family


def _well(live: Sequence[Mapping[str, Any]]) -> Metric:
    """Of several with one name, which versions use side by side, all have to be well."""
    family = GaugeMetricFamily(
        "changeover_resource_healthy", "1 where a resource of this process is well", labels=["kind", "name"]
    )
    well: dict[tuple[str, str], bool] = {}
    for each in live:
        key = each["kind"], each["name"]
        well[key] = well.get(key, True) and each["status"] == "healthy"
    for (kind, name), is_well in sorted(well.items())[:NAMES_LIMIT]:
        family.add_metric([kind, name], is_well)
    return family
