"""A conversation of some clients with a server that may die at any moment, and what must be true afterwards.

The graph has what recovery can get wrong: a fan-out of Sends, a subgraph, a question. Each node writes a line into a
file outside, before it does its work: that file knows how often a node ran, whatever the database says.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from fault_databases import Database

SERVER = Path(__file__).with_name("faulty_server.py")
SOURCES = Path(__file__).resolve().parents[2] / "runtime"
START_S = 30.0
END_S = 30.0
POLL_S = 0.02
OPEN_OPERATIONS = "SELECT kind, id FROM operations WHERE status = 'running'"

GRAPH = """
import asyncio
import operator
import os
from typing import Annotated

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send, interrupt
from typing_extensions import TypedDict

EDITION = "EDITION_OF_FILE"


class State(TypedDict):
    trail: Annotated[list[str], operator.add]
    inner: list[str]
    answer: str


class Inner(TypedDict):
    inner: Annotated[list[str], operator.add]


def note(config: RunnableConfig, node: str) -> None:
    line = f"{config['configurable']['thread_id']} {node} {os.getpid()}\\n"
    file = os.open(os.environ["FAULTS_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(file, line.encode())
    os.close(file)


def step(name: str):
    async def work(state: State, config: RunnableConfig) -> dict:
        note(config, name)
        await asyncio.sleep(0.003)
        return {"trail": [name]}

    return work


def inner_step(name: str):
    async def work(state: Inner, config: RunnableConfig) -> dict:
        note(config, name)
        await asyncio.sleep(0.003)
        return {"inner": [name]}

    return work


async def part(state: dict, config: RunnableConfig) -> dict:
    name = f"part-{state['number']}"
    note(config, name)
    await asyncio.sleep(0.002 * state["number"])
    return {"trail": [name]}


async def ask(state: State, config: RunnableConfig) -> dict:
    answer = interrupt("go on?")
    note(config, "ask")
    return {"trail": ["ask"], "answer": answer}


def graph():
    inner = StateGraph(Inner)
    inner.add_node("first", inner_step("inner-first"))
    inner.add_node("second", inner_step("inner-second"))
    inner.add_edge(START, "first")
    inner.add_edge("first", "second")
    outer = StateGraph(State)
    outer.add_node("begin", step("begin"))
    outer.add_node("part", part)
    outer.add_node("join", step("join"))
    outer.add_node("inside", inner.compile())
    outer.add_node("ask", ask)
    outer.add_node("end", step("end"))
    outer.add_edge(START, "begin")
    outer.add_conditional_edges("begin", lambda state: [Send("part", {"number": n}) for n in range(3)], ["part"])
    outer.add_edge("part", "join")
    outer.add_edge("join", "inside")
    outer.add_edge("inside", "ask")
    outer.add_edge("ask", "end")
    outer.add_edge("end", END)
    return outer
"""
TRAIL = ["ask", "begin", "end", "join", "part-0", "part-1", "part-2"]
INNER = ["inner-first", "inner-second"]
SYNCED = ("one", "three")  # threads whose runs wait for each checkpoint before they go on
INPUT = {"trail": [], "inner": [], "answer": ""}


def files(edition: str) -> dict[str, str]:
    return {"graphs/flow.py": GRAPH.replace("EDITION_OF_FILE", edition)}


class Died(Exception):
    """The server is gone; what was asked for last is not acknowledged."""


class Nursery:
    """Starts servers, from one process that has imported everything."""

    def __init__(self) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CHANGEOVER_")}
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(SERVER)],
            env={**kept, "PYTHONPATH": str(SOURCES)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, folder: Path, database: Database, **order: Any) -> Server:
        """A server for the folder, once it is ready; or dead, if that was the order."""
        assert self._process.stdin
        assert self._process.stdout
        told = {
            "folder": str(folder),
            "output": str(folder / "said.txt"),
            "arguments": list(database.arguments),
            "environment": {"FAULTS_LOG": str(folder / "ran.txt"), **database.environment},
            **order,
        }
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        server = Server(folder, database, int(self._process.stdout.readline()))
        server.wait_until_ready()
        return server

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(START_S)
        if self._process.stdout:
            self._process.stdout.close()


class Server:
    """A server in a process, and a client of it."""

    def __init__(self, folder: Path, database: Database, pid: int) -> None:
        self.folder = folder
        self.database = database
        self.pid = pid
        self._http: httpx.Client | None = None

    @property
    def lives(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except OSError:
            return False
        return True

    def wait_until_ready(self) -> None:
        place = self.folder / ".changeover" / "server.json"
        ends = time.monotonic() + START_S
        while self.lives:
            assert time.monotonic() < ends, f"not ready: {(self.folder / 'said.txt').read_text()[-3000:]}"
            try:
                told = json.loads(place.read_text())
                if told["pid"] == self.pid:
                    self._http = self._http or httpx.Client(base_url=told["url"], timeout=END_S)
                    if self._http.get("/readyz").status_code == 200:
                        return
            except (OSError, ValueError, httpx.TransportError):
                pass
            time.sleep(POLL_S)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """An acknowledged answer. Raises `Died` when the server did."""
        if self._http is None:
            raise Died
        try:
            answer = self._http.request(method, path, json=body)
        except httpx.TransportError:
            self.wait_for_death()
            raise Died from None
        assert answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def wait_for_death(self) -> None:
        ends = time.monotonic() + START_S
        while self.lives:
            assert time.monotonic() < ends, "it does not end"
            time.sleep(POLL_S / 4)

    def dies_within(self, time_s: float) -> bool:
        ends = time.monotonic() + time_s
        while self.lives and time.monotonic() < ends:
            time.sleep(POLL_S)
        return not self.lives

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._http is not None:
            self._http.close()
        if self.lives:
            os.kill(self.pid, number)
        self.wait_for_death()


@dataclass
class Acknowledged:
    """What the clients were told, in the order that they asked. `asked`: sent; `told`: and answered with 2xx."""

    asked: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    runs: dict[str, str] = field(default_factory=dict)  # ids of runs, by their thread

    def step(self, name: str, call: Callable[[], Any]) -> Any:
        self.asked.append(name)
        answer = call()
        self.told.append(name)
        return answer


def converse(server: Server, seen: Acknowledged) -> None:
    """Everything that clients do. Raises `Died` where the server does."""
    for thread in ("one", "two", "three", "four"):
        seen.step(f"thread {thread}", lambda thread=thread: server.ask("POST", "/threads", {"thread_id": thread}))
    _submit(server, seen, "one", {"input": INPUT})
    first = seen.step("asked two", lambda: _wait(server, "two", {"input": INPUT}))
    assert "__interrupt__" in first, first
    _submit(server, seen, "three", {"input": INPUT, "stream_resumable": True})
    seen.step("switch", lambda: server.ask("POST", "/admin/switch", {"to": "v2"}))
    seen.step("asked one", lambda: _join(server, "one", seen.runs["one"]))
    last = seen.step("answered one", lambda: _wait(server, "one", {"command": {"resume": "yes"}}))
    assert sorted(last["trail"]) == TRAIL, last
    seen.step("asked three", lambda: _join(server, "three", seen.runs["three"]))
    _submit(server, seen, "two", {"command": {"resume": "yes"}})
    _submit(server, seen, "four", {"input": INPUT})
    seen.step("rollback", lambda: server.ask("POST", "/admin/rollback", {}))
    seen.step("answered two", lambda: _join(server, "two", seen.runs["two"]))
    seen.step("asked four", lambda: _join(server, "four", seen.runs["four"]))


def _submit(server: Server, seen: Acknowledged, thread: str, body: dict[str, Any]) -> None:
    run = seen.step(f"run {thread}", lambda: server.ask("POST", f"/threads/{thread}/runs", _body(thread, body)))
    seen.runs[thread] = run["run_id"]


def _wait(server: Server, thread: str, body: dict[str, Any]) -> Any:
    return server.ask("POST", f"/threads/{thread}/runs/wait", _body(thread, body))


def _body(thread: str, asked: dict[str, Any]) -> dict[str, Any]:
    return {"assistant_id": "flow", "durability": "sync" if thread in SYNCED else "async", **asked}


def _join(server: Server, thread: str, run: str) -> Any:
    return server.ask("GET", f"/threads/{thread}/runs/{run}/join")


# --- what must be true ----------------------------------------------------------------------------------------------


def ran(folder: Path) -> list[tuple[str, str]]:
    """Every time that a node began, with its thread."""
    try:
        lines = (folder / "ran.txt").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [(thread, node) for thread, node, _ in (line.split() for line in lines)]


@dataclass(frozen=True)
class Death:
    """What was in the database when a server had died: the work of which nodes, and how many had begun until then."""

    nodes: dict[str, set[str]]
    begun: int

    @classmethod
    def of(cls, folder: Path, database: Database, scratch: Path) -> Death:
        return cls(database.committed(scratch), len(ran(folder)))


def check(server: Server, seen: Acknowledged, deaths: Sequence[Death]) -> list[str]:
    """Everything that is wrong with the server that took over."""
    wrong = [*_runs(server, seen), *_routing(server, seen)]
    for thread in ("one", "two", "three", "four"):
        wrong += _thread(server, seen, thread)
    begun = ran(server.folder)
    for death in deaths:
        for thread, node in begun[death.begun :]:
            if node in death.nodes.get(thread, ()):
                wrong.append(f"node {node} of thread {thread} was committed and ran again")
    return wrong


def wait_for_operations(server: Server, database: Database) -> None:
    """Whoever took over an operation looks from time to time whether its runs have ended."""
    ends = time.monotonic() + START_S
    while server.lives and time.monotonic() < ends and database.rows(OPEN_OPERATIONS):
        time.sleep(POLL_S)


def check_database(database: Database) -> list[str]:
    current = database.rows("SELECT id FROM versions WHERE status = 'current'")
    routed = database.rows("SELECT current FROM routing ORDER BY revision DESC LIMIT 1")
    active = database.rows("SELECT id, status FROM runs WHERE status IN ('pending', 'running')")
    open_ = database.rows(OPEN_OPERATIONS)
    wrong = database.damages()
    wrong += [f"{len(current)} versions are current"] if len(current) != 1 else []
    wrong += [f"current is {current}, routed is {routed}"] if current != routed else []
    wrong += [f"active runs are left: {active}"] if active else []
    wrong += [f"operations are left running: {open_}"] if open_ else []
    return wrong


def _runs(server: Server, seen: Acknowledged) -> list[str]:
    """Every acknowledged run is there and has ended well; those that nobody was told of end well too."""
    wrong = []
    ends = time.monotonic() + END_S
    while True:
        rows = server.database.rows("SELECT id, thread_id, status, status_reason FROM runs")
        active = [row for row in rows if row[2] in ("pending", "running")]
        if not active or time.monotonic() > ends:
            break
        time.sleep(POLL_S)
    known = {row[0] for row in rows}
    wrong += [f"run of thread {t} was acknowledged and is gone" for t, id_ in seen.runs.items() if id_ not in known]
    for id_, thread, status, reason in rows:
        if status not in ("success", "interrupted") or "cancel" in reason:
            told = "acknowledged" if id_ in seen.runs.values() else "not acknowledged"
            wrong.append(f"run of thread {thread} ({told}) is {status}: {reason}")
    return wrong


def _routing(server: Server, seen: Acknowledged) -> list[str]:
    current = server.ask("GET", "/admin/status")["routing"]["current"]
    may = {"v1"}
    if "switch" in seen.asked:
        may = {"v2"} if "switch" in seen.told else {"v1", "v2"}
    if "rollback" in seen.asked:
        may = {"v1"} if "rollback" in seen.told else {"v1", "v2"}
    return [] if current in may else [f"{current} is current, which should be {sorted(may)}"]


def _thread(server: Server, seen: Acknowledged, thread: str) -> list[str]:
    """The thread is as far as its clients were told, and can be talked to until its end."""
    if f"thread {thread}" not in seen.told:
        return []
    state = server.ask("GET", f"/threads/{thread}/state")
    is_done, waits = _is_done(state), state["next"] == ["ask"]
    began = thread in seen.runs or f"asked {thread}" in seen.told
    answering = {"one": "answered one", "two": "run two"}.get(thread, "")
    wrong = []
    if began and not (is_done or waits):
        wrong.append(f"thread {thread} neither waits nor is done: next {state['next']}, values {state['values']}")
    if is_done and answering not in seen.asked:
        wrong.append(f"thread {thread} is done, and nobody answered it")
    if not is_done and answering in seen.told:
        wrong.append(f"thread {thread} was answered and is not done: {state['values']}")
    if waits:
        _wait(server, thread, {"command": {"resume": "yes"}})
        state = server.ask("GET", f"/threads/{thread}/state")
        if not _is_done(state):
            wrong.append(f"thread {thread} cannot be ended: next {state['next']}, values {state['values']}")
    return wrong


def _is_done(state: dict[str, Any]) -> bool:
    values = state["values"] or {}
    return (
        state["next"] == []
        and sorted(values.get("trail", ())) == TRAIL
        and sorted(values.get("inner", ())) == INNER
        and values.get("answer") == "yes"
    )
