"""A folder that is served on a real socket, with a graph in three versions and the steps between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from changeover import GraphVersionManager
from changeover.server.serve import serve

DEADLINE_S = 20.0
POLL_S = 0.02

FLOW = """
import operator
from pathlib import Path
from typing import Annotated

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict

HERE = Path(__file__).parent


class State(TypedDict, total=False):
    mode: str
    log: Annotated[list[str], operator.add]
    KEY: str
    OTHER: str


def begin(state: State) -> dict:
    return {"log": ["VERSION begin"], "KEY": state.get("KEY") or "kept", "OTHER": state.get("OTHER") or "VERSION"}


def ask(state: State) -> dict:
    if state["mode"] == "fail":
        raise ValueError("not today")
    answer = interrupt("well?") if state["mode"] == "ask" else "nothing"
    return {"log": [f"VERSION told {answer}"]}


def end(state: State) -> dict:
    return {"log": [f"VERSION end {state.get('KEY')} {state.get('OTHER')}"], "mode": "go"}


def graph():
    made = StateGraph(State)
    made.add_node("begin", begin)
    made.add_node("ASK", ask)
    made.add_node("end", end)
    made.add_edge(START, "begin")
    made.add_edge("begin", "ASK")
    made.add_edge("ASK", "end")
    made.add_edge("end", END)
    return made
"""
FIRST_STEP = """
graph: flow
state: {rename: {note: notes}, drop: [tmp], set: {lang: en}}
nodes: {rename: {ask: approve}}
"""
SECOND_STEP = """
graph: flow
nodes: {rename: {approve: confirm}}
"""


def flow(version: str, key: str, other: str, node: str) -> str:
    text = FLOW.replace("VERSION", version).replace("OTHER", other)
    return text.replace('"ASK"', f'"{node}"').replace("KEY", key)


ONE = {"graphs/flow.py": flow("one", "note", "tmp", "ask")}
TWO = {"graphs/flow.py": flow("two", "notes", "lang", "approve"), "migrations/0001_notes.yaml": FIRST_STEP}
THREE = {"graphs/flow.py": flow("three", "notes", "lang", "confirm"), "migrations/0002_confirm.yaml": SECOND_STEP}


@dataclass(frozen=True)
class Answer:
    values: Any
    version: str | None
    status: int

    @property
    def said(self) -> list[str]:
        assert "log" in self.values, self.values
        return list(self.values["log"])


@dataclass
class Desk:
    """The served folder and its clients."""

    folder: Path
    http: httpx.AsyncClient
    sdk: LangGraphClient

    async def save(self, files: Mapping[str, str], version: str, remove: tuple[str, ...] = ()) -> None:
        """Write files, as an editor does, and wait until they are served."""
        for path in remove:
            (self.folder / path).unlink()
        for path, text in files.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_text(text)
        async with asyncio.timeout(DEADLINE_S):
            while (await self.get("/admin/routing"))["current"] != version:  # noqa: ASYNC110 - beyond a socket
                await asyncio.sleep(POLL_S)

    async def get(self, path: str) -> Any:
        answer = await self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, body: Any = None) -> Any:
        answer = await self.http.post(path, json=body if body is not None else {})
        assert answer.status_code < 300, answer.text
        return answer.json()

    async def run(self, thread: str, given: Any = None, graph: str = "flow", **more: Any) -> Answer:
        body = {"assistant_id": graph, "if_not_exists": "create", **more}
        if given is not None:
            body["input"] = given
        answer = await self.http.post(f"/threads/{thread}/runs/wait", json=body)
        return Answer(answer.json(), answer.headers.get("changeover-version"), answer.status_code)

    async def turn(self, thread: str, mode: str = "go", **more: Any) -> Answer:
        answer = await self.run(thread, {"mode": mode, "log": [f"{mode}!"]}, **more)
        assert answer.status == 200, answer.values
        return answer

    async def question(self, thread: str) -> str:
        """The id of what the thread asks."""
        [one] = (await self.about(thread))["waits_for"]["interrupts"]
        return str(one["id"])

    async def about(self, thread: str) -> Any:
        return await self.get(f"/admin/threads/{thread}")

    async def state(self, thread: str) -> Any:
        return await self.get(f"/threads/{thread}/state")

    async def history(self, thread: str) -> list[Any]:
        return list(await self.post(f"/threads/{thread}/history", {"limit": 100}))

    async def reaches(self, thread: str, node: str) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while (await self.state(thread))["next"] != [node]:  # noqa: ASYNC110 - beyond a socket
                await asyncio.sleep(POLL_S)

    async def move(self, thread: str, to: str) -> None:
        """Move one thread by hand, and wait until that is done."""
        begun = await self.post("/admin/migrations", {"to": to, "threads": [thread]})
        place = f"/admin/operations/{begun['operation']}"
        async with asyncio.timeout(DEADLINE_S):
            while (await self.get(place))["status"] == "running":  # noqa: ASYNC110 - beyond a socket
                await asyncio.sleep(POLL_S)
        assert (await self.get(place))["status"] == "done"

    async def values(self, thread: str) -> Any:
        return (await self.state(thread))["values"]

    async def policy(self, thread: str, policy: str | None) -> None:
        answer = await self.http.patch(f"/admin/threads/{thread}", json={"policy": policy})
        assert answer.status_code == 200, answer.text


@asynccontextmanager
async def served(folder: Path, files: Mapping[str, str], **settings: Any) -> AsyncIterator[Desk]:
    """Serves a folder on a free port until the block ends."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    said: asyncio.Queue[str] = asyncio.Queue()
    stop = asyncio.Event()
    manager = GraphVersionManager.open(folder, port=0, watch_quiet_s="20ms", **settings)
    task = asyncio.create_task(serve(manager, said.put_nowait, stop))
    try:
        text = ""
        while " at http" not in text:  # what is wrong with the folder comes first
            heard = asyncio.create_task(said.get())
            await asyncio.wait({task, heard}, timeout=DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
            if not heard.done():
                heard.cancel()
                await task  # raises why it ended
            text = heard.result()
        url = text.rsplit(" at ", 1)[1]
        async with httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as http:
            yield Desk(folder, http, get_client(url=url))
    finally:
        stop.set()
        await asyncio.gather(task, return_exceptions=True)
