"""What runs used, as metrics by version, graph, agent, model and tool: from the rows that the ends of runs wrote."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from changeover.store.usage import EDGES_S, UsageRow

LABEL_SETS_LIMIT = 2_000  # of one metric
# Edges of the stored buckets, so that a count at each is exact.
LE_S = tuple(edge for edge in EDGES_S if f"{edge:e}"[:3] in ("1.0", "2.2", "4.7") and edge >= 0.01)

RUN, AGENT = ["version", "graph"], ["version", "graph", "agent"]


def of_usage(rows: Sequence[UsageRow]) -> Iterable[Metric]:
    by_kind: defaultdict[str, list[UsageRow]] = defaultdict(list)
    for row in rows:
        by_kind[row.kind].append(row)
    runs = by_kind["run"][:LABEL_SETS_LIMIT]
    yield _runs(runs)
    yield _seconds(runs, by_kind["latency"])
    yield from _models(by_kind["model"][:LABEL_SETS_LIMIT])
    yield from _tools(by_kind["tool"][:LABEL_SETS_LIMIT])


def _runs(rows: Sequence[UsageRow]) -> Metric:
    runs = CounterMetricFamily("changeover_runs", "Runs that ended, by how", labels=[*RUN, "status"])
    for row in rows:
        by_status = {
            "success": row.calls - row.errors - row.interrupts - row.cancelled,
            "error": row.errors - row.timeouts,
            "timeout": row.timeouts,
            "interrupted": row.interrupts,
            "cancelled": row.cancelled,
        }
        for status, count in by_status.items():
            runs.add_metric([row.version, row.graph, status], count)
    return runs


def _seconds(runs: Sequence[UsageRow], latencies: Sequence[UsageRow]) -> Metric:
    histogram = HistogramMetricFamily("changeover_run_seconds", "How long runs took", labels=RUN)
    counts: defaultdict[tuple[str, str], dict[float, int]] = defaultdict(dict)
    for row in latencies:
        counts[row.version, row.graph][float(row.name)] = row.calls
    for run in runs:
        by_edge = counts[run.version, run.graph]
        buckets = [(str(le), float(sum(n for edge, n in by_edge.items() if edge <= le))) for le in LE_S]
        total = float(sum(by_edge.values()))
        histogram.add_metric([run.version, run.graph], [*buckets, ("+Inf", total)], run.seconds)
    return histogram


def _models(rows: Sequence[UsageRow]) -> Iterable[Metric]:
    labels = [*AGENT, "model"]
    tokens = CounterMetricFamily("changeover_tokens", "Tokens read and written", labels=[*labels, "direction"])
    calls = CounterMetricFamily("changeover_model_calls", "Calls of models", labels=labels)
    errors = CounterMetricFamily("changeover_model_errors", "Calls of models that failed", labels=labels)
    seconds = CounterMetricFamily("changeover_model_seconds", "Time spent in models", labels=labels)
    for row in rows:
        key = [row.version, row.graph, row.agent, row.name]
        tokens.add_metric([*key, "in"], row.tokens_in)
        tokens.add_metric([*key, "out"], row.tokens_out)
        calls.add_metric(key, row.calls)
        errors.add_metric(key, row.errors)
        seconds.add_metric(key, row.seconds)
    yield from (tokens, calls, errors, seconds)


def _tools(rows: Sequence[UsageRow]) -> Iterable[Metric]:
    labels = [*AGENT, "tool"]
    calls = CounterMetricFamily("changeover_tool_calls", "Calls of tools", labels=labels)
    errors = CounterMetricFamily("changeover_tool_errors", "Calls of tools that failed", labels=labels)
    seconds = CounterMetricFamily("changeover_tool_seconds", "Time spent in tools", labels=labels)
    for row in rows:
        key = [row.version, row.graph, row.agent, row.name]
        calls.add_metric(key, row.calls)
        errors.add_metric(key, row.errors)
        seconds.add_metric(key, row.seconds)
    yield from (calls, errors, seconds)
