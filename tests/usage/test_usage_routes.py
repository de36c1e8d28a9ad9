"""GET /admin/usage, /admin/status and /metrics: exact numbers, bounded answers, the same on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from usage_desks import READ, STEADY, WRITTEN, Words, of, serve, support

from changeover import GraphVersionManager, create_app

LOCAL = "http://127.0.0.1:2024"
SAID = {"input": {"messages": [{"role": "user", "content": "look up"}]}, "assistant_id": "support"}


async def steady(state: Words) -> Words:
    await STEADY.ainvoke("x")
    return {}


async def broken(state: Words) -> Words:
    raise ValueError("no")


@pytest.fixture
async def client(manager: GraphVersionManager) -> AsyncIterator[httpx.AsyncClient]:
    await serve(manager, "one", support=support(), steady=of(steady), broken=of(broken))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(manager)), base_url=LOCAL) as opened:
        yield opened


async def run(client: httpx.AsyncClient, graph: str) -> None:
    body = SAID if graph == "support" else {"input": {"word": "x"}, "assistant_id": graph}
    await client.post("/runs/wait", json=body)


async def test_usage_is_told_over_time_by_version_and_graph(
    client: httpx.AsyncClient, manager: GraphVersionManager
) -> None:
    for graph in ("support", "steady", "steady", "broken"):
        await run(client, graph)
    await manager.register("two", {"steady": of(steady)})
    await manager.switch("two", graphs=["steady"])
    await run(client, "steady")
    told = (await client.get("/admin/usage", params={"since": "30m", "step": "5m"})).json()
    assert told["step_s"] == 300
    assert 6 <= len(told["times"]) <= 7
    by_key = {(each["version"], each["graph"]): each for each in told["usage"]}
    assert by_key.keys() == {("one", "support"), ("one", "steady"), ("one", "broken"), ("two", "steady")}
    steady_one = by_key["one", "steady"]
    assert (steady_one["totals"]["runs"], steady_one["totals"]["tokens_in"]) == (2, 2 * READ)
    assert by_key["one", "broken"]["totals"]["errors"] == 1
    for each in by_key.values():
        assert {len(column) for column in each["points"].values()} == {len(told["times"])}
        for name in ("runs", "errors", "tokens_in", "tokens_out", "model_calls", "tool_calls"):
            assert sum(each["points"][name]) == each["totals"][name]
    assert {"p50_s", "p95_s", "interrupts", "tokens_in", "tokens_out"} <= steady_one["points"].keys()
    assert steady_one["points"]["p95_s"][0] is None  # nothing ran that early
    assert steady_one["points"]["runs"][0] == 0
    (model,) = steady_one["models"]
    assert (model["model"], model["agent"], model["tokens_out"]) == ("steady-1", None, 2 * WRITTEN)
    assert [tool["tool"] for tool in by_key["one", "support"]["tools"]] == ["lookup"]
    one = (await client.get("/admin/usage?version=two&graph=steady")).json()["usage"]
    assert [(each["version"], each["graph"]) for each in one] == [("two", "steady")]


async def test_what_cannot_be_asked_is_refused_with_what_can(client: httpx.AsyncClient) -> None:
    asked = {
        "since=yesterday": "invalid-since",
        "since=2999-01-01": "invalid-since",
        "until=2001-01-01": "invalid-since",
        "until=x": "invalid-until",
        "step=fast": "invalid-step",
        "step=0": "invalid-step",
        "since=47h&step=1m": "too-many-points",
    }
    for query, code in asked.items():
        answer = await client.get(f"/admin/usage?{query}")
        assert (answer.status_code, answer.json()["code"]) == (422, code), query
        assert answer.json()["hint"]
    for query in ("since=2026-01-01T00:00:00Z", "since=2026-01-01T00:00:00+00:00", "since=900d", "since=3d&step=1m"):
        told = (await client.get(f"/admin/usage?{query}")).json()
        assert told["usage"] == []
        assert told["step_s"] % 3600 == 0
        assert len(told["times"]) <= 1000


async def test_the_status_says_what_each_version_used(client: httpx.AsyncClient, manager: GraphVersionManager) -> None:
    await manager.register("two", {"steady": of(steady)})
    await manager.ramp("two", 1)
    await run(client, "support")
    await run(client, "broken")
    versions = {each["id"]: each for each in (await client.get("/admin/status")).json()["versions"]}
    used = versions["one"]["usage"]
    assert (used["runs"], used["errors"], used["tool_calls"], used["model_calls"]) == (2, 1, 1, 2)
    assert used["p50_s"] <= used["p95_s"]
    nothing = versions["two"]["usage"]
    assert nothing.keys() == used.keys()
    assert (nothing["runs"], nothing["p95_s"]) == (0, None)


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metrics_count_by_version_graph_agent_model_and_tool(
    client: httpx.AsyncClient, manager: GraphVersionManager
) -> None:
    for graph in ("support", "steady", "broken"):
        await run(client, graph)
    with pytest.raises(ValueError, match="no"):
        await manager.invoke("broken", {"word": "x"})
    found = samples((await client.get("/metrics")).text)

    def value(name: str, **labels: str) -> float | None:
        return found.get((name, frozenset(labels.items())))

    desk = {"version": "one", "graph": "support"}
    assert value("changeover_runs_total", **desk, status="success") == 1
    assert value("changeover_runs_total", version="one", graph="broken", status="error") == 2
    assert value("changeover_run_seconds_count", **desk) == 1
    assert value("changeover_run_seconds_bucket", **desk, le="+Inf") == 1
    demo = {**desk, "agent": "support", "model": "demo:rules"}
    assert value("changeover_model_calls_total", **demo) == 2
    assert (value("changeover_tokens_total", **demo, direction="in") or 0) > 0
    mine = {"version": "one", "graph": "steady", "agent": "", "model": "steady-1"}
    assert value("changeover_tokens_total", **mine, direction="out") == WRITTEN
    assert value("changeover_tool_calls_total", **desk, agent="support", tool="lookup") == 1
    assert value("changeover_tool_errors_total", **desk, agent="support", tool="lookup") == 0
    assert value("changeover_builds_total", result="ok") == 1
    assert value("changeover_switches_total", action="start") == 1
    assert value("changeover_operations_total", kind="switch", status="done") == 1


async def test_buckets_of_latency_rise_to_the_count(client: httpx.AsyncClient) -> None:
    for _ in range(3):
        await run(client, "steady")
    found = samples((await client.get("/metrics")).text)
    buckets = sorted(
        (float(dict(labels)["le"]), count)
        for (name, labels), count in found.items()
        if name == "changeover_run_seconds_bucket"
    )
    counts = [count for _, count in buckets]
    assert counts == sorted(counts)
    assert buckets[-1] == (float("inf"), 3)
