"""What LangGraph streams of a run, as the protocol's events: the same events in the same order as LangGraph's own."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
from langchain_core._api import LangChainBetaWarning
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.stream import CheckpointsTransformer, CustomTransformer, UpdatesTransformer
from langgraph.types import Command
from v3_desks import asking, asking_within, chatting, failing, parallel, said, sending, working

from changeover.runs.encoding import dumps
from changeover.runs.live import CONTENT_EVENTS
from changeover.runs.request import Part
from changeover.server.langgraph.v3.events import RUN_MODES, ProtocolEvent, ProtocolEvents
from changeover.server.langgraph.v3.messages import message_events

CONFIG = {"configurable": {"thread_id": "t"}}
Shape = tuple[str, tuple[str, ...], Any]


class Tools(CustomTransformer):
    """Makes LangGraph stream its tools; their events go to the main log as they are."""

    required_stream_modes = ("tools",)

    def init(self) -> dict[str, Any]:
        return {"tools_log": self._log}

    def process(self, event: Any) -> bool:
        return True


async def langgraphs(graph: Any, *inputs: Any) -> list[Shape]:
    """What LangGraph's own protocol gives."""
    compiled = graph.compile(checkpointer=InMemorySaver())
    found: list[Shape] = []
    for given in inputs:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LangChainBetaWarning)
            transformers = [UpdatesTransformer, CustomTransformer, CheckpointsTransformer, Tools]
            stream = await compiled.astream_events(given, CONFIG, version="v3", transformers=transformers)
            try:
                async for event in stream:
                    found.append(_of_langgraph(event))
            except RuntimeError:
                continue
    return found


async def ours(graph: Any, *inputs: Any) -> list[ProtocolEvent]:
    compiled = graph.compile(checkpointer=InMemorySaver())
    found: list[ProtocolEvent] = []
    config = {"configurable": {**CONFIG["configurable"], CONTENT_EVENTS: True}}
    for given in inputs:
        events = ProtocolEvents()
        try:
            stream = compiled.astream(given, config, version="v2", subgraphs=True, stream_mode=list(RUN_MODES))
            async for chunk in stream:
                found += map(_sent, events.of(Part(tuple(chunk["ns"]), chunk["type"], chunk["data"])))
        except RuntimeError as error:
            found += map(_sent, events.end("failed", str(error)))
        else:
            found += map(_sent, events.end("completed"))
    return found


def _sent(event: ProtocolEvent) -> ProtocolEvent:
    """As it is at that moment: LangGraph goes on to change what it streams."""
    return replace(event, data=orjson.loads(dumps(event.data)))


def _of_langgraph(event: Any) -> Shape:
    method, params = event["method"], event["params"]
    data, namespace = params["data"], params["namespace"]
    if method == "lifecycle":
        namespace = data["namespace"]
    if method == "messages":
        data = data[0] if isinstance(data[0], dict) else {"whole": data[0].content}
    if method == "checkpoints":
        data = {"id": "*", "step": data["metadata"]["step"]}
    return method, _stable(namespace), _plain(data)


def _of_ours(event: ProtocolEvent) -> Shape:
    data = event.data
    if event.method == "messages":
        data = {key: value for key, value in data.items() if key not in ("run_id", "message_id")}
    if event.method == "checkpoints":
        data = {"id": "*", "step": data["step"]}
    return event.method, _stable(event.namespace), _plain(data)


def _stable(namespace: Any) -> tuple[str, ...]:
    return tuple(segment.partition(":")[0] for segment in namespace)


def _plain(data: Any) -> Any:
    """JSON without what is made anew in each run."""
    text = dumps(data).decode()
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "*", text)
    plain = orjson.loads(re.sub(r"[0-9a-f]{32}", "*", text))
    if isinstance(plain, dict) and plain.get("event") == "tool-finished":
        del plain["output"]["id"]  # given a moment later, by the node that keeps it
    return plain


def _comparable(shapes: list[Shape]) -> list[Shape]:
    """Without the order of a checkpoint and its values, and what only one of the two tells."""
    kept = [shape for shape in shapes if shape[0] not in ("tasks", "input.requested")]
    for index, shape in enumerate(kept[1:], 1):
        before = kept[index - 1]
        if shape[0] == "checkpoints" and before[0] == "values" and shape[1] == before[1]:
            kept[index - 1 : index + 1] = [shape, before]
    return kept


@pytest.mark.parametrize(
    ("graph", "inputs"),
    [
        (chatting, [said("hi")]),
        (asking, [said("hi")]),
        (asking_within, [said("hi"), Command(resume="yes")]),
        (failing, [said("hi")]),
    ],
)
async def test_events_are_langgraphs_in_its_order(graph: Callable[[], Any], inputs: list[Any]) -> None:
    theirs = _comparable(await langgraphs(graph(), *inputs))
    assert _comparable([_of_ours(event) for event in await ours(graph(), *inputs)]) == theirs


async def test_events_of_tools_subgraphs_and_custom_are_langgraphs() -> None:
    theirs = _comparable(await langgraphs(working(), said("hi")))
    mine = _comparable([_of_ours(event) for event in await ours(working(), said("hi"))])
    whole = [index for index, shape in enumerate(theirs) if "whole" in str(shape[2])[:12]]
    assert [shape for shape in mine if shape[1]] == [shape for shape in theirs if shape[1]]
    assert len(whole) == 2  # LangGraph leaves whole messages to who reads; the protocol tells them as if streamed
    before = whole[0]
    assert mine[:before] == theirs[:before]
    after = len(theirs) - whole[-1] - 1
    assert mine[-after:] == theirs[-after:]
    told = [data for method, _, data in mine[before:-after] if method == "messages"]
    assert [data["event"] for data in told].count("message-start") == 2
    assert [data["delta"]["text"] for data in told if data["event"] == "content-block-delta"] == ["bye", "note"]


async def test_each_subgraph_starts_and_ends_once() -> None:
    events = [event for event in await ours(sending(), {"log": []}) if event.method == "lifecycle"]
    by_namespace: dict[tuple[str, ...], list[str]] = {}
    for event in events:
        by_namespace.setdefault(event.namespace, []).append(event.data["event"])
    assert list(by_namespace.values()) == [["started", "completed"]] * 2
    assert all(event.data["namespace"] == list(event.namespace) for event in events)


async def test_a_subgraph_that_fails_ends_with_its_run() -> None:
    lifecycle = [event.data for event in await ours(failing(), said("hi")) if event.method == "lifecycle"]
    assert [data["event"] for data in lifecycle] == ["started", "failed"]
    assert "no paper" in lifecycle[-1]["error"]


async def test_models_that_speak_at_once_are_told_apart() -> None:
    events = [event for event in await ours(parallel(), said("hi")) if event.method == "messages"]
    texts: dict[str, str] = {}
    nodes: dict[str, set[str | None]] = {}
    for event in events:
        id_ = event.data.get("id") or event.data["message_id"]
        nodes.setdefault(id_, set()).add(event.node)
        texts[id_] = texts.get(id_, "") + event.data.get("delta", {}).get("text", "")
    assert sorted(texts.values()) == ["left0left1left2left3", "right0right1right2right3"]
    assert sorted(map(sorted, nodes.values())) == [["left"], ["right"]]  # type: ignore[arg-type]
    assert len({event.data["run_id"] for event in events}) == 2


async def test_interrupts_are_told_once_where_they_were_raised() -> None:
    asked = [event for event in await ours(asking(), said("hi")) if event.method == "input.requested"]
    assert [event.data["payload"]["question"] for event in asked] == ["first", "second"]
    assert all(event.data["value"] == event.data["payload"] for event in asked)
    assert len({event.data["interrupt_id"] for event in asked}) == 2
    within = [event for event in await ours(asking_within(), said("hi")) if event.method == "input.requested"]
    assert [event.data["payload"] for event in within] == ["within?"]


async def test_values_come_after_their_checkpoint_and_without_interrupts() -> None:
    events = await ours(asking(), said("hi"))
    assert all("__interrupt__" not in event.data for event in events if event.method == "values")
    root = [event for event in await ours(chatting(), said("hi")) if event.method in ("values", "checkpoints")]
    assert [event.method for event in root] == ["checkpoints", "checkpoints", "values", "checkpoints", "values"]
    envelopes = [event.data for event in root if event.method == "checkpoints"]
    assert [data["source"] for data in envelopes] == ["input", "loop", "loop"]
    assert [data.get("parent_id") for data in envelopes] == [None, *(data["id"] for data in envelopes[:-1])]


def test_a_command_that_a_tool_gives_is_known_by_its_name() -> None:
    finished = {"event": "tool-finished", "tool_call_id": "c", "output": Command(update={"log": ["x"]})}
    (event,) = ProtocolEvents().of(Part((), "tools", finished))
    assert orjson.loads(dumps(event.data))["output"]["lg_name"] == "Command"
    assert event.data["output"]["update"] == {"log": ["x"]}


def test_a_message_that_came_whole_is_told_block_by_block() -> None:
    message = AIMessage(
        [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "yes"}],
        id="m",
        tool_calls=[{"name": "add", "args": {"a": 1}, "id": "c"}],
        usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
    )
    events = list(message_events(message))
    assert events[0] == {"event": "message-start", "role": "ai", "id": "m"}
    finished = [event["content"] for event in events if event["event"] == "content-block-finish"]
    assert [block["type"] for block in finished] == ["reasoning", "text", "tool_call"]
    assert finished[-1]["args"] == {"a": 1}
    assert [event["index"] for event in events if event["event"] == "content-block-start"] == [0, 1, 2]
    assert events[-1]["usage"]["total_tokens"] == 3
    assert next(message_events(HumanMessage("hi")))["role"] == "human"
