"""Spans of runs reach a collector where OTEL_* names one, carry the version, and never keep a run from its work."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph.types import Command
from spans_collector import Collector, silent
from usage_desks import READ, SECRET, STEADY, WRITTEN, Steady, Words, desk, of, said, serve, support

from changeover import GraphVersionManager, create_app
from changeover.runs.kwargs import request_of

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
LOCAL = "http://127.0.0.1:2024"
BARE = """
import asyncio, sys, threading
from usage_desks import said, serve, support
from changeover import GraphVersionManager, create_app

async def main():
    async with GraphVersionManager.open(sys.argv[1]) as manager:
        create_app(manager)
        await serve(manager, "one", support=support())
        await manager.invoke("support", said("look up"))
        print([t.name for t in threading.enumerate() if "otel" in t.name.lower() or "span" in t.name.lower()])

asyncio.run(main())
ours = ("opentelemetry.exporter", "changeover.usage.spans")  # the SDK, where it is installed, langsmith imports
print([name for name in sys.modules if name.startswith(ours)])
"""


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    opened = Collector()
    monkeypatch.setenv(ENDPOINT, opened.url)
    yield opened
    opened.close()


async def test_a_run_is_a_tree_of_spans_that_carry_the_version(folder: Path, collector: Collector) -> None:
    async with GraphVersionManager.open(folder) as manager:
        await serve(manager, "one", desk=desk())
        await manager.invoke("desk", said("ask me"), thread_id="t")
    front = "node front < run desk"
    agent = f"invoke_agent support < {front}"
    tool = f"execute_tool ask_billing < node tools < {agent}"
    assert collector.tree() == sorted(
        [
            "run desk",
            "node triage < run desk",
            front,
            agent,
            f"node model < {agent}",
            f"node model < {agent}",
            f"chat demo:rules < node model < {agent}",
            f"chat demo:rules < node model < {agent}",
            f"node tools < {agent}",
            tool,
            f"invoke_agent billing < {tool}",
            f"node model < invoke_agent billing < {tool}",
            f"chat demo:rules < node model < invoke_agent billing < {tool}",
        ]
    )
    assert {span.attributes["changeover.version"] for span in collector.spans} == {"one"}
    assert {span.attributes["changeover.thread_id"] for span in collector.spans} == {"t"}
    assert {span.service for span in collector.spans} == {"changeover"}
    assert len({span.trace for span in collector.spans}) == 1
    for chat in collector.named("chat demo:rules"):
        assert chat.attributes["gen_ai.usage.input_tokens"] > 0
        assert chat.attributes["gen_ai.agent.name"] in ("support", "billing")
    assert not any(SECRET.encode() in span.bytes or b"ask me" in span.bytes for span in collector.spans)


async def test_errors_are_marked_and_questions_are_not(folder: Path, collector: Collector) -> None:
    bad = Steady(model="bad-1", fails=True)

    async def fall_back(state: Words) -> Words:
        await bad.with_fallbacks([STEADY]).ainvoke(SECRET)
        return {}

    async def fail(state: Words) -> Words:
        raise ValueError(SECRET)

    async with GraphVersionManager.open(folder) as manager:
        await serve(manager, "one", support=support(), fall_back=of(fall_back), fail=of(fail))
        await manager.invoke("support", said("person please"), thread_id="t")
        await manager.invoke("support", Command(resume="yes"), thread_id="t")
        await manager.invoke("fall_back", {"word": "x"})
        with pytest.raises(ValueError, match=SECRET):
            await manager.invoke("fail", {"word": "x"})
    asked, answered = collector.named("run support")
    assert (asked.attributes["changeover.waiting"], asked.is_error) == ("interrupt", False)
    assert "changeover.waiting" not in answered.attributes
    assert not any(span.is_error for span in collector.named("execute_tool ask_person"))
    (failed,), (steady,) = collector.named("chat bad-1"), collector.named("chat steady-1")
    assert (failed.is_error, failed.attributes["error.type"]) == (True, "ConnectionError")
    tokens = steady.attributes["gen_ai.usage.input_tokens"], steady.attributes["gen_ai.usage.output_tokens"]
    assert (steady.is_error, *tokens) == (False, READ, WRITTEN)
    (fell_back,), (run,) = collector.named("run fall_back"), collector.named("run fail")
    assert (fell_back.is_error, run.is_error) == (False, True)
    assert not any(SECRET.encode() in span.bytes for span in collector.spans)


async def test_a_handover_is_one_run_whose_later_spans_carry_the_new_version(
    folder: Path, collector: Collector, eventually: Any
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def one(state: Words) -> Words:
        begun.set()
        await go_on.wait()
        return {"word": "one"}

    async def two(state: Words) -> Words:
        return {"word": "two"}

    async with GraphVersionManager.open(folder) as manager:
        await manager.register("new", {"desk": of(one, then=two)})
        await serve(manager, "old", desk=of(one, then=two))
        run = manager.submit(request_of({"input": {"word": "x"}}, "desk", thread_id="t"))
        await asyncio.wait_for(begun.wait(), 10)
        moving = asyncio.create_task(manager.switch("new", in_flight="handover"))
        flight = manager.in_flight.on()[0]
        await eventually(lambda: flight.stops)
        go_on.set()
        await asyncio.wait_for(run.ended.wait(), 10)
        await moving
    (whole,) = collector.named("run desk")
    versions = {span.name: span.attributes["changeover.version"] for span in collector.spans}
    assert versions == {"run desk": "new", "node first": "old", "node second": "new"}
    assert {span.parent for span in collector.spans if span is not whole} == {whole.id}


async def test_a_run_belongs_to_the_trace_of_its_request(folder: Path, collector: Collector) -> None:
    async with GraphVersionManager.open(folder) as manager:
        await serve(manager, "one", support=support())
        app = httpx.ASGITransport(create_app(manager))
        async with httpx.AsyncClient(transport=app, base_url=LOCAL) as client:
            trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
            body = {"assistant_id": "support", "input": {"messages": [{"role": "user", "content": "hi"}]}}
            headers = {"traceparent": f"00-{trace}-{parent}-01"}
            assert (await client.post("/runs/wait", json=body, headers=headers)).status_code == 200
    (run,) = collector.named("run support")
    assert (run.trace.hex(), run.parent.hex()) == (trace, parent)


@pytest.mark.parametrize("kind", ["silent", "refusing"])
async def test_a_dead_collector_neither_slows_a_run_nor_holds_up_the_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("changeover.usage.tracing.CLOSE_WAIT_S", 0.5)
    with silent() as url:
        monkeypatch.setenv(ENDPOINT, url if kind == "silent" else "http://127.0.0.1:9")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")  # exports are under way while it runs
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "16")
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
        async with GraphVersionManager.open(folder) as manager:
            await serve(manager, "one", support=support())
            began = time.monotonic()
            for _ in range(10):
                await manager.invoke("support", said("look up"))
            assert time.monotonic() - began < 5
            began = time.monotonic()
        assert time.monotonic() - began < 4


async def test_an_exporter_that_is_not_installed_is_said_and_runs_go_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "nobody_has_this")
    async with GraphVersionManager.open(folder) as manager:
        await serve(manager, "one", support=support())
        await manager.invoke("support", said("look up"))
    assert "spans_need_a_package" in caplog.text


async def test_a_limit_that_cannot_be_is_said_and_runs_go_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_SPAN_LINK_COUNT_LIMIT", "-1")
    async with GraphVersionManager.open(folder) as manager:
        await serve(manager, "one", support=support())
        await manager.invoke("support", said("look up"))
    assert "spans_not_set_up" in caplog.text


async def test_spans_on_the_console_leave_the_answer_of_a_command_alone(project: Any) -> None:
    folder = project(
        {
            "agents.yaml": """
                models: {demo: {model: "demo:rules"}}
                agents: {echo: {model: demo, prompt: echo}}
                """,
            "prompts/echo.md": "First words.\n",
        }
    )
    async with GraphVersionManager.open(folder) as manager:
        await manager.serve_folder()
    run = ("-m", "changeover.cli", "run", "-o", "json", "echo", "-i", "hello")
    done = await asyncio.to_thread(partial(_python, *run, cwd=folder, OTEL_TRACES_EXPORTER="console"))
    assert done.returncode == 0, done.stderr[-2000:]
    json.loads(done.stdout)
    assert "run echo" in done.stderr


def test_without_the_variables_nothing_of_it_is_imported_or_started(folder: Path) -> None:
    done = _python("-c", BARE, str(folder))
    assert done.stdout.splitlines() == ["[]", "[]"], done.stderr[-2000:]


def _python(*arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    places = [str(Path(__file__).parent), *sys.path]
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={"PYTHONPATH": ":".join(filter(None, places)), "PATH": "", **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
