"""Threads that wait, moved to another version in every way there is by a server that may die at any moment.

Before the server starts there are threads that two questions wait on, one of them in a subgraph, beside a node that has
finished. Whatever happens, each is either as it was or has moved as a whole, and hears the answers to the questions by
the ids that they were asked with.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fault_databases import Database
from fault_scenario import END_S, POLL_S, Acknowledged, Died, Server, ran
from langgraph.checkpoint.base import BaseCheckpointSaver

GRAPH = """
import asyncio
import operator
import os
from typing import Annotated

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict


class State(TypedDict, total=False):
    mode: str
    trail: Annotated[list[str], operator.add]
    inner: list[str]
    NOTE: str
    OTHER: str


class Inner(TypedDict, total=False):
    inner: Annotated[list[str], operator.add]
    TEXT: str


def note(config: RunnableConfig, node: str) -> None:
    line = f"{config['configurable']['thread_id']} {node} {os.getpid()}\\n"
    file = os.open(os.environ["FAULTS_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(file, line.encode())
    os.close(file)


def step(name: str):
    async def work(state: State, config: RunnableConfig) -> dict:
        note(config, name)
        while name == "slow1" and not os.path.exists(os.environ["FAULTS_LOG"] + ".gate"):
            await asyncio.sleep(0.005)
        return {"trail": [name], "NOTE": state.get("NOTE") or "kept"}

    return work


async def ask(state: State, config: RunnableConfig) -> dict:
    answer = interrupt("go on?")
    note(config, "ask")
    return {"trail": [f"ask {answer}"]}


async def deep_first(state: Inner, config: RunnableConfig) -> dict:
    note(config, "deep-first")
    return {"inner": ["deep-first"], "TEXT": "said before"}


async def deep_ask(state: Inner, config: RunnableConfig) -> dict:
    answer = interrupt("deeper?")
    note(config, "deep-ask")
    return {"inner": [f"deep-ask {answer} {state['TEXT']}"]}


def fan(state: State):
    return {"ask": ["ASK", "quick", "inside"], "slow": ["slow1"], "go": ["end"]}[state["mode"]]


def graph():
    inner = StateGraph(Inner)
    inner.add_node("first", deep_first)
    inner.add_node("DEEP", deep_ask)
    inner.add_edge(START, "first")
    inner.add_edge("first", "DEEP")
    made = StateGraph(State)
    made.add_node("begin", step("begin"))
    made.add_node("ASK", ask)
    made.add_node("quick", quick)
    made.add_node("inside", inner.compile())
    for name in ("slow1", "slow2", "slow3"):
        made.add_node(name, step(name))
    made.add_node("end", step("end"))
    made.add_edge(START, "begin")
    made.add_conditional_edges("begin", fan, ["ASK", "quick", "inside", "slow1", "end"])
    for source in ("ASK", "quick", "inside"):
        made.add_edge(source, "end")
    made.add_edge("slow1", "slow2")
    made.add_edge("slow2", "slow3")
    made.add_edge("slow3", "end")
    made.add_edge("end", END)
    return made


async def quick(state: State, config: RunnableConfig) -> dict:
    note(config, "quick")
    return {"trail": ["quick"]}
"""
STEP = """
graph: flow
state: {rename: {note: notes, inside/text: words}, set: {lang: en}}
nodes: {rename: {ask: approve, inside/ask: confirm}}
"""
ONE = {"NOTE": "note", "OTHER": "tmp", "TEXT": "text", "ASK": "ask", "DEEP": "ask"}
TWO = {"NOTE": "notes", "OTHER": "lang", "TEXT": "words", "ASK": "approve", "DEEP": "confirm"}
ASKED = ("lazy", "hand", "batch1", "batch2", "left")
THREADS = (*ASKED, "done")
ANSWERS = {"go on?": "yes", "deeper?": "down"}
WHOLE = ["ask yes", "begin", "end", "quick"]
DEEP = ["deep-ask down said before", "deep-first"]
SLOW = ["begin", "slow1", "slow2", "slow3", "end"]
SHORT = ["begin", "end"]


def files(names: Mapping[str, str]) -> dict[str, str]:
    text = GRAPH
    for old, new in names.items():
        text = text.replace(old, new)
    steps = {"migrations/0001_notes.yaml": STEP} if names is TWO else {}
    return {"graphs/flow.py": text, **steps}


def given(mode: str) -> dict[str, Any]:
    return {"mode": mode, "trail": [], "inner": []}


def converse(server: Server, seen: Acknowledged) -> None:
    """Everything that moves a thread. Raises `Died` where the server does."""
    seen.step("switch", lambda: server.ask("POST", "/admin/switch", {"to": "v2"}))
    seen.step("by hand", lambda: _migrated(server, {"to": "v2", "threads": ["hand"]}))
    seen.step("eager", lambda: server.ask("PATCH", "/admin/threads/lazy", {"policy": "eager"}))
    seen.step("answered lazy", lambda: answer(server, "lazy"))
    seen.step("batch", lambda: _migrated(server, {"to": "v2", "from": "v1"}))
    seen.step("answered batch1", lambda: answer(server, "batch1"))
    body = {"assistant_id": "flow", "input": given("slow"), "if_not_exists": "create"}
    run = seen.step("run slow", lambda: server.ask("POST", "/threads/slow/runs", body))
    seen.runs["slow"] = run["run_id"]
    _wait_until_at_work(server, ("slow", "slow1"))
    seen.step("rollback", lambda: server.ask("POST", "/admin/rollback", {"in_flight": "handover"}))
    _open_gate(server)
    seen.step("ended slow", lambda: server.ask("GET", f"/threads/slow/runs/{run['run_id']}/join"))
    seen.step("answered batch2", lambda: answer(server, "batch2"))


def _migrated(server: Server, body: dict[str, Any]) -> None:
    place = f"/admin/operations/{server.ask('POST', '/admin/migrations', body)['operation']}"
    ends = time.monotonic() + END_S
    while server.ask("GET", place)["status"] == "running":
        assert time.monotonic() < ends, f"{body} does not end"
        time.sleep(POLL_S / 4)


def _wait_until_at_work(server: Server, node: tuple[str, str]) -> None:
    ends = time.monotonic() + END_S
    while node not in ran(server.folder):
        if not server.lives:
            raise Died
        assert time.monotonic() < ends, f"{node} does not begin"
        time.sleep(POLL_S / 4)


def _open_gate(server: Server) -> None:
    """What is at work in the slow node may end: its run is there to be handed over until then."""
    (server.folder / "ran.txt.gate").touch()


def asked(folder: Path) -> dict[str, dict[str, str]]:
    """The ids of the questions as they were asked, by thread and what is asked."""
    found: dict[str, dict[str, str]] = json.loads((folder / "asked.json").read_text())
    return found


def answer(server: Server, thread: str) -> Any:
    resume = {id_: ANSWERS[question] for question, id_ in asked(server.folder)[thread].items()}
    body = {"assistant_id": "flow", "command": {"resume": resume}}
    return server.ask("POST", f"/threads/{thread}/runs/wait", body)


# --- what must be true ----------------------------------------------------------------------------------------------


def torn(database: Database, saver: BaseCheckpointSaver[Any]) -> list[str]:
    """Threads whose row and newest state are not of one version, or whose state is of none as a whole."""
    wrong = []
    rows = {id_: saved_by or version for id_, version, saved_by in database.rows(ROWS)}
    for thread in THREADS:
        head = saver.get_tuple({"configurable": {"thread_id": thread, "checkpoint_ns": ""}})
        assert head is not None
        names, others = (TWO, ONE) if rows[thread] == "v2" else (ONE, TWO)
        tag, values = head.metadata.get("changeover_version"), head.checkpoint["channel_values"]
        if tag != rows[thread]:
            wrong.append(f"thread {thread} is {rows[thread]} by its row, and its newest state was saved by {tag}")
        if names["NOTE"] not in values or others["NOTE"] in values:
            wrong.append(f"thread {thread} is {rows[thread]} and has the keys {sorted(values)}")
        if f"branch:to:{others['ASK']}" in head.checkpoint["channel_versions"]:
            wrong.append(f"thread {thread} is {rows[thread]} and knows {others['ASK']}")
    return wrong


ROWS = "SELECT id, version, saved_by FROM threads"


def check(server: Server, seen: Acknowledged) -> list[str]:
    """Everything that is wrong with the server that took over, and with what its threads give in the end."""
    _open_gate(server)
    _wait_for_quiet(server)
    wrong = []
    for thread in ASKED:
        if sorted(server.ask("GET", f"/threads/{thread}/state")["next"]) not in (
            [],
            ["ask", "inside"],
            ["approve", "inside"],
        ):
            wrong.append(f"thread {thread} neither waits nor is done")
            continue
        if server.ask("GET", f"/threads/{thread}/state")["next"]:
            if f"answered {thread}" in seen.told:
                wrong.append(f"thread {thread} was answered, and waits")
            answer(server, thread)
        wrong += _is_whole(server, thread, WHOLE, DEEP)
    server.ask("POST", "/threads/done/runs/wait", {"assistant_id": "flow", "input": given("go")})
    wrong += _is_whole(server, "done", [*SHORT, *SHORT], None)
    if "run slow" in seen.told:
        wrong += _is_whole(server, "slow", SLOW, None)
    return wrong


def _is_whole(server: Server, thread: str, trail: list[str], deep: list[str] | None) -> list[str]:
    state = server.ask("GET", f"/threads/{thread}/state")
    values = state["values"]
    wrong = []
    if state["next"] or sorted(values["trail"]) != sorted(trail):
        wrong.append(f"thread {thread}: next {state['next']}, trail {values['trail']}")
    if deep is not None and sorted(values["inner"]) != deep:
        wrong.append(f"thread {thread}: inner {values['inner']}")
    if {values.get("note"), values.get("notes")} != {None, "kept"}:
        wrong.append(f"thread {thread} has lost its note: {values}")
    return wrong


def _wait_for_quiet(server: Server) -> None:
    active = "SELECT 1 FROM runs WHERE status IN ('pending', 'running')"
    open_ = "SELECT 1 FROM operations WHERE status = 'running'"
    ends = time.monotonic() + END_S
    while (server.database.rows(active) or server.database.rows(open_)) and time.monotonic() < ends:
        time.sleep(POLL_S)
