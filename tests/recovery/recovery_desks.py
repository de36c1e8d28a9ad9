"""Servers in processes of their own that are killed, stopped and started again, and graphs that say what they did.

A node writes `begin NAME` and `end NAME` into a file outside: that file knows how often it ran, whatever the database
says. While a file `hold-NAME` is there the node waits, after its first line; with `die-NAME` it kills its own process.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

REPOSITORY = Path(__file__).resolve().parents[2]
SERVER = Path(__file__).with_name("recovery_server.py")
WAIT_S = 30.0
POLL_S = 0.01
T = TypeVar("T")

NOTES = """
import asyncio
import operator
import os
import signal
import time
from typing import Annotated

from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt
from typing_extensions import TypedDict

FOLDER = os.environ["DESK_FOLDER"]


class State(TypedDict, total=False):
    parts: Annotated[list[str], operator.add]


def note(line: str) -> None:
    file = os.open(os.path.join(FOLDER, "ran.txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(file, f"{line} {os.getpid()}\\n".encode())
    os.close(file)


def asked(what: str) -> bool:
    return os.path.exists(os.path.join(FOLDER, what))


async def passed(name: str) -> None:
    if asked(f"die-{name}"):
        os.kill(os.getpid(), signal.SIGKILL)
    while asked(f"hold-{name}"):
        await asyncio.sleep(0.005)


def step(name: str):
    async def work(state: State) -> dict:
        note(f"begin {name}")
        await passed(name)
        note(f"end {name}")
        return {"parts": [name]}

    return work


def asking(name: str, *questions: str):
    async def work(state: State) -> dict:
        note(f"begin {name}")
        said = []
        for question in questions:
            answer = interrupt(question)
            note(f"told {name} {question} {answer}")
            await passed(f"{name}-{question}")
            said.append(f"{name}:{question}={answer}")
        note(f"end {name}")
        return {"parts": said}

    return work


def line(*names: str, prefix: str = "") -> StateGraph:
    builder = StateGraph(State)
    before = START
    for name in names:
        builder.add_node(name, step(prefix + name))
        builder.add_edge(before, name)
        before = name
    return builder
"""

GRAPHS = {
    "steps": 'graph = line("a", "b", "c")\n',
    "fan": """
async def work(part: dict) -> dict:
    name = part["name"]
    note(f"begin {name}")
    await passed(name)
    note(f"end {name}")
    return {"parts": [name]}

graph = StateGraph(State)
graph.add_node("plan", step("plan"))
graph.add_node("work", work)
graph.add_node("join", step("join"))
graph.add_edge(START, "plan")
graph.add_conditional_edges("plan", lambda state: [Send("work", {"name": f"w{n}"}) for n in range(3)], ["work"])
graph.add_edge("work", "join")
""",
    "deep": """
graph = line("first")
graph.add_node("inner", line("one", "two", "three").compile())
graph.add_node("last", step("last"))
graph.add_edge("first", "inner")
graph.add_edge("inner", "last")
""",
    "asks": """
graph = line("begin")
graph.add_node("ask", asking("ask", "first", "second"))
graph.add_node("last", step("last"))
graph.add_edge("begin", "ask")
graph.add_edge("ask", "last")
""",
    "deepasks": """
inner = StateGraph(State)
inner.add_node("ask", asking("ask", "first", "second"))
inner.add_edge(START, "ask")
graph = line("begin")
graph.add_node("inner", inner.compile())
graph.add_node("last", step("last"))
graph.add_edge("begin", "inner")
graph.add_edge("inner", "last")
""",
    "pair": """
graph = line("begin")
for name in ("left", "right"):
    graph.add_node(name, asking(name, "first", "second"))
    graph.add_edge("begin", name)
graph.add_node("last", step("last"))
graph.add_edge(["left", "right"], "last")
""",
    "jumps": """
graph = line("begin")
graph.add_node("ask", asking("ask", "first"))
graph.add_node("aside", step("aside"))
graph.add_node("last", step("last"))
graph.add_edge("begin", "ask")
graph.add_edge("ask", "last")
graph.add_edge("aside", "last")
""",
    "before": 'graph = line("a", "b", "c").compile(interrupt_before=["b"])\n',
    "after": 'graph = line("a", "b", "c").compile(interrupt_after=["a"])\n',
    "deepbefore": """
graph = line("first")
graph.add_node("inner", line("one", "two", "three").compile(interrupt_before=["two"]))
graph.add_edge("first", "inner")
""",
    "deepafter": """
graph = line("first")
graph.add_node("inner", line("one", "two", "three").compile(interrupt_after=["one"]))
graph.add_edge("first", "inner")
""",
    "twice": 'graph = line("a", "b", "c").compile(interrupt_before=["b", "c"])\n',
    "deeptwice": """
graph = line("first")
graph.add_node("inner", line("one", "two", "three").compile(interrupt_before=["two", "three"]))
graph.add_edge("first", "inner")
""",
    "blocks": """
def block(state: State) -> dict:
    note("begin b")
    while asked("hold-b"):
        time.sleep(0.005)
    return {"parts": ["b"]}

graph = line("a")
graph.add_node("b", block)
graph.add_edge("a", "b")
""",
    "stubborn": """
async def stay(state: State) -> dict:
    note("begin b")
    try:
        await passed("b")
    except asyncio.CancelledError:
        note("stops")
        await passed("stop")
        raise
    return {"parts": ["b"]}

graph = line("a")
graph.add_node("b", stay)
graph.add_edge("a", "b")
""",
    "talks": """
async def talk(state: State) -> dict:
    write = get_stream_writer()
    note("begin talk")
    for n in range(40):
        write(n)
        await asyncio.sleep(0.002)
        if n == 20:
            await passed("talk")
    note("end talk")
    return {"parts": ["talk"]}

graph = line("a")
graph.add_node("talk", talk)
graph.add_node("last", step("last"))
graph.add_edge("a", "talk")
graph.add_edge("talk", "last")
""",
}


def project_files() -> dict[str, str]:
    """Every graph in a file of its own."""
    return {f"graphs/{name}.py": NOTES + text for name, text in GRAPHS.items()}


class Gone(Exception):
    """The server did not answer: it is dead, or closed the connection."""


class Nursery:
    """Starts servers, from one process that has imported everything."""

    def __init__(self) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CHANGEOVER_")}
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(SERVER)],
            env={**kept, "PYTHONPATH": str(REPOSITORY / "runtime")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, order: Mapping[str, Any]) -> int:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(WAIT_S)
        self._process.stdout.close()


class Server:
    """A server in a process, and a client of it."""

    def __init__(self, folder: Path, pid: int) -> None:
        self.folder = folder
        self.pid = pid
        self.url = ""
        self._http: httpx.Client | None = None

    @property
    def lives(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except OSError:
            return False
        return True

    def wait_until_ready(self) -> Server:
        place = self.folder / ".changeover" / "server.json"

        def ready() -> bool:
            assert self.lives, self.said()
            try:
                told = json.loads(place.read_text())
                if told["pid"] != self.pid:
                    return False
                self.url = told["url"]
                self._http = self._http or httpx.Client(base_url=self.url, timeout=WAIT_S)
                return self._http.get("/readyz").status_code == 200
            except (OSError, ValueError, httpx.TransportError):
                return False

        wait(ready, self.said)
        return self

    def said(self) -> str:
        return (self.folder / "said.txt").read_text()[-4000:] if (self.folder / "said.txt").exists() else ""

    @property
    def http(self) -> httpx.Client:
        assert self._http is not None
        return self._http

    def ask(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """What it answers with 2xx. Raises `Gone`."""
        try:
            answer = self.http.request(method, path, json=body, **options)
        except httpx.TransportError as error:
            raise Gone from error
        assert answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text}\n{self.said()}"
        return answer.json() if answer.content else None

    def thread(self) -> str:
        return str(self.ask("POST", "/threads", {})["thread_id"])

    def submit(self, graph: str, thread: str | None = None, **body: Any) -> dict[str, Any]:
        """Start a run in the background, with an empty input unless it has a command."""
        if "command" not in body:
            body.setdefault("input", {"parts": []})
        place = f"/threads/{thread}/runs" if thread else "/runs"
        answer: dict[str, Any] = self.ask("POST", place, {"assistant_id": graph, **body})
        return answer

    def join(self, run: Mapping[str, Any]) -> Any:
        return self.ask("GET", f"{place_of(run)}/join")

    def run(self, run: Mapping[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self.ask("GET", place_of(run))
        return answer

    def state(self, thread: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.ask("GET", f"/threads/{thread}/state?subgraphs=true")
        return answer

    def status_of_thread(self, thread: str) -> str:
        return str(self.ask("GET", f"/threads/{thread}")["status"])

    def ended(self, run: Mapping[str, Any]) -> dict[str, Any]:
        """The run's row, once it is active no more."""

        def row() -> dict[str, Any] | None:
            found = self.run(run)
            return found if found["status"] not in ("pending", "running") else None

        return wait(row, lambda: f"{self.run(run)}\n{self.said()}")

    def events(self, type_: str) -> list[dict[str, Any]]:
        found = self.ask("GET", "/admin/events?limit=1000")
        return [event for event in found["events"] if event["type"] == type_]

    def follow(self, run: Mapping[str, Any], after: int | None = 0, **query: Any) -> list[tuple[int, str, Any]]:
        """The stream of a run to its end: number, event, data."""
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        with self.http.stream("GET", f"{place_of(run)}/stream", headers=headers, params=query) as answer:
            assert answer.status_code == 200, answer.read()
            return list(events_of(answer.iter_lines()))

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait_for_end()

    def wait_for_end(self) -> None:
        wait(lambda: not self.lives, self.said)
        self.close()

    def close(self) -> None:
        if self._http is not None:
            self._http.close()


class Strikes:
    """At which changes of the database to kill: each of them (`make faults`), or by default one, another each time.

    Who loops over them says when there was `nothing` left to strike at; then an earlier change is taken.
    """

    def __init__(self, changes: int) -> None:
        self._changes = changes  # more or less
        self._was_nothing = False

    def __iter__(self) -> Iterator[int]:
        is_sweep = os.environ.get("CHANGEOVER_FAULTS") == "all"
        at = 1 if is_sweep else random.randint(1, self._changes)
        while True:
            self._was_nothing = False
            yield at
            if is_sweep == self._was_nothing:
                return
            at = at + 1 if is_sweep else random.randint(1, at - 1)

    def nothing(self, at: int) -> None:
        assert at > 1, "nothing was changed"
        self._was_nothing = True


def place_of(run: Mapping[str, Any]) -> str:
    return f"/threads/{run['thread_id']}/runs/{run['run_id']}" if run["thread_id"] else f"/runs/{run['run_id']}"


def events_of(lines: Iterable[str]) -> Iterator[tuple[int, str, Any]]:
    """Server-sent events as number, name, data; an event without a number has -1."""
    number, name, data = -1, "", ""
    for text in lines:
        field, _, value = text.partition(": ")
        if field == "id":
            number = int(value)
        elif field == "event":
            name = value
        elif field == "data":
            data += value
        elif not text and name:
            yield number, name, json.loads(data) if data else None
            number, name, data = -1, "", ""


def wait(condition: Callable[[], T], said: Callable[[], object] = lambda: "", within_s: float = WAIT_S) -> T:
    """What a condition gives, once that is something true."""
    ends = time.monotonic() + within_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < ends, f"not within {within_s:g} s: {said()}"
        time.sleep(POLL_S)


@dataclass
class Desk:
    """A project in a folder, its servers one after the other, and what its nodes did."""

    nursery: Nursery
    folder: Path
    work: Path  # where nodes write and look
    database: str | None = None
    servers: list[Server] | None = None

    def start(self, **order: Any) -> Server:
        """A server that is ready. `order` is that of `recovery_server`; `environment` adds variables."""
        return self.begin(**order).wait_until_ready()

    def begin(self, **order: Any) -> Server:
        """A server that is on its way; it may be dead before it is ready."""
        environment = {"DESK_FOLDER": str(self.work), **order.pop("environment", {})}
        if self.database is not None:
            environment["CHANGEOVER_DATABASE"] = self.database
        told = {
            "folder": str(self.folder),
            "output": str(self.folder / "said.txt"),
            "environment": environment,
            **order,
        }
        server = Server(self.folder, self.nursery.start(told))
        self.servers = [*(self.servers or ()), server]
        return server

    def close(self) -> None:
        for server in self.servers or ():
            if server.lives:
                server.signal(signal.SIGCONT)
                server.kill()
            server.close()

    # --- what nodes do ---------------------------------------------------------------------------

    def hold(self, *names: str) -> None:
        for name in names:
            (self.work / f"hold-{name}").touch()

    def let_go(self, *names: str) -> None:
        for name in names:
            (self.work / f"hold-{name}").unlink()

    @contextmanager
    def holding(self, *names: str) -> Iterator[None]:
        self.hold(*names)
        yield
        self.let_go(*names)

    def lines(self) -> list[str]:
        """What was written, without the process that wrote it."""
        try:
            return [line.rpartition(" ")[0] for line in (self.work / "ran.txt").read_text().splitlines()]
        except FileNotFoundError:
            return []

    def forget(self) -> None:
        (self.work / "ran.txt").unlink(missing_ok=True)

    def wait_for(self, *lines: str) -> None:
        wait(lambda: set(lines) <= set(self.lines()), self.lines)

    def ran(self) -> Counter[str]:
        """How often each node began."""
        return Counter(line.removeprefix("begin ") for line in self.lines() if line.startswith("begin "))
