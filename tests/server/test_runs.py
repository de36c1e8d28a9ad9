"""Runs as LangGraph's own client makes, follows, joins and cancels them, over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import ConflictError, NotFoundError
from server_samples import DEADLINE_S, Serving, WriteProject, eventually

GATES = """
    import asyncio, operator, pathlib
    from typing import Annotated, TypedDict
    from langchain_core.runnables import RunnableConfig
    from langgraph.config import get_stream_writer
    from langgraph.graph import END, START, StateGraph
    from langgraph.types import interrupt

    HERE = pathlib.Path({folder!r})

    class State(TypedDict, total=False):
        name: str
        steps: Annotated[list[str], operator.add]
        answer: str

    async def gate(state):
        '''Waits until the file of its name is there, and says that it is inside.'''
        (HERE / (state["name"] + ".in")).touch()
        while not (HERE / state["name"]).exists():
            await asyncio.sleep(0.01)
        return {{"steps": [state["name"]]}}

    def count(state):
        write = get_stream_writer()
        for number in range(5):
            write(number)
        return {{"steps": ["counted"]}}

    def ask(state):
        return {{"answer": interrupt("which?"), "steps": ["asked"]}}

    def fail(state):
        raise ValueError("no such luck")

    def show(state, config: RunnableConfig):
        given = config["configurable"]
        return {{"steps": [str(given.get("model")), config["metadata"].get("purpose", ""), given["graph_id"]]}}

    def line(*nodes):
        graph = StateGraph(State)
        last = START
        for node in nodes:
            graph.add_node(node.__name__, node)
            graph.add_edge(last, node.__name__)
            last = node.__name__
        graph.add_edge(last, END)
        return graph
"""


@pytest.fixture
async def url(project: WriteProject, serving: Serving, tmp_path: Path) -> AsyncIterator[str]:
    graphs = {
        "gated": "count, gate",
        "asks": "count, ask",
        "asks_then_gate": "ask, gate",
        "fails": "fail",
        "shows": "show",
        "counts": "count",
    }
    folder = project(
        {
            "graphs/parts.py": "",
            **{
                f"graphs/{name}.py": f"from graphs.nodes import *\ngraph = line({nodes})\n"
                for name, nodes in graphs.items()
            },
        }
    )
    import textwrap

    (folder / "graphs/nodes.py").write_text(textwrap.dedent(GATES).format(folder=str(tmp_path)))
    (folder / "graphs/parts.py").unlink()
    async with serving(folder, watch_auto="off") as url:
        yield url


@pytest.fixture
async def sdk(url: str) -> AsyncIterator[LangGraphClient]:
    async with get_client(url=url) as client:
        yield client


class Gates:
    """Nodes that wait for a file of their name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, *names: str) -> None:
        for name in names:
            (self._folder / name).touch()

    async def entered(self, name: str) -> None:
        async def inside() -> bool:
            return (self._folder / f"{name}.in").exists()

        await eventually(inside)


@pytest.fixture
def gates(tmp_path: Path) -> Gates:
    return Gates(tmp_path)


async def steps(sdk: LangGraphClient, thread_id: str) -> Any:
    return (await sdk.threads.get_state(thread_id))["values"].get("steps")


async def status(sdk: LangGraphClient, run: Any, *wanted: str) -> Any:
    async def ended() -> Any:
        found = await sdk.runs.get(run["thread_id"], run["run_id"])
        return found if found["status"] in wanted else None

    return await eventually(ended)


# --- in the background --------------------------------------------------------------------------


async def test_a_run_in_the_background_is_found_followed_and_joined(sdk: LangGraphClient, gates: Gates) -> None:
    thread = await sdk.threads.create()
    told: list[Any] = []
    run = await sdk.runs.create(
        thread["thread_id"], "gated", input={"name": "a"}, metadata={"who": "me"}, on_run_created=told.append
    )
    assert told[0]["run_id"] == run["run_id"]
    assert (run["status"], run["metadata"]["who"], run["multitask_strategy"]) == ("running", "me", "enqueue")
    assert run["kwargs"]["input"] == {"name": "a"}
    await gates.entered("a")
    assert (await sdk.threads.get(thread["thread_id"]))["status"] == "busy"
    gates.open("a")
    assert (await sdk.runs.join(thread["thread_id"], run["run_id"]))["steps"] == ["counted", "a"]
    assert (await sdk.runs.get(thread["thread_id"], run["run_id"]))["status"] == "success"
    assert (await sdk.threads.get(thread["thread_id"]))["status"] == "idle"
    listed = await sdk.runs.list(thread["thread_id"], select=["run_id", "status"])
    assert listed == [{"run_id": run["run_id"], "status": "success"}]
    assert await sdk.runs.list(thread["thread_id"], status="error") == []
    await sdk.runs.delete(thread["thread_id"], run["run_id"])
    with pytest.raises(NotFoundError):
        await sdk.runs.get(thread["thread_id"], run["run_id"])


async def test_runs_are_listed_by_pages_newest_first(sdk: LangGraphClient) -> None:
    for number in range(3):
        await sdk.runs.wait("t", "counts", input={"name": str(number)}, if_not_exists="create", metadata={"n": number})
    assert [run["metadata"]["n"] for run in await sdk.runs.list("t", limit=2)] == [2, 1]
    assert [run["metadata"]["n"] for run in await sdk.runs.list("t", limit=2, offset=2)] == [0]


async def test_a_run_without_a_thread_is_found_by_a_thread_that_goes_with_it(
    sdk: LangGraphClient, gates: Gates
) -> None:
    run = await sdk.runs.create(None, "gated", input={"name": "b"})
    await gates.entered("b")
    joined = asyncio.create_task(sdk.runs.join(run["thread_id"], run["run_id"]))
    gates.open("b")
    assert (await joined)["steps"] == ["counted", "b"]

    async def gone() -> bool:
        try:
            await sdk.threads.get(run["thread_id"])
        except NotFoundError:
            return True
        return False

    await eventually(gone)
    kept = await sdk.runs.create(None, "counts", input={"name": "c"}, on_completion="keep")
    await sdk.runs.join(kept["thread_id"], kept["run_id"])
    assert await steps(sdk, kept["thread_id"]) == ["counted"]


async def test_a_batch_makes_a_run_of_each(sdk: LangGraphClient) -> None:
    await sdk.threads.create(thread_id="mine")
    runs = await sdk.runs.create_batch(
        [
            {"assistant_id": "counts", "input": {"name": "x"}, "thread_id": "mine"},
            {"assistant_id": "counts", "input": {"name": "y"}},
        ]  # type: ignore[list-item]
    )
    assert runs[0]["thread_id"] == "mine"
    assert runs[1]["thread_id"] != "mine"


async def test_a_run_that_is_to_begin_later_lets_others_go_first(sdk: LangGraphClient) -> None:
    await sdk.threads.create(thread_id="t")
    later = await sdk.runs.create("t", "counts", input={"name": "later"}, after_seconds=1)
    assert later["status"] == "pending"
    now = await sdk.runs.create("t", "counts", input={"name": "now"}, multitask_strategy="reject")
    await sdk.runs.join("t", now["run_id"])
    assert (await sdk.runs.get("t", later["run_id"]))["status"] == "pending"
    await sdk.runs.join("t", later["run_id"])
    assert (await sdk.threads.get_state("t"))["values"]["name"] == "later"


# --- several on one thread -----------------------------------------------------------------------


async def test_enqueue_runs_them_in_their_order(sdk: LangGraphClient, gates: Gates) -> None:
    await sdk.threads.create(thread_id="t")
    names = ["one", "two", "three"]
    runs = [await sdk.runs.create("t", "gated", input={"name": name}) for name in names]
    assert [run["status"] for run in runs] == ["running", "pending", "pending"]
    gates.open(*reversed(names))
    await sdk.runs.join("t", runs[-1]["run_id"])
    assert [step for step in await steps(sdk, "t") if step != "counted"] == names


async def test_reject_leaves_a_busy_thread_alone(sdk: LangGraphClient, gates: Gates) -> None:
    await sdk.threads.create(thread_id="t")
    first = await sdk.runs.create("t", "gated", input={"name": "one"})
    with pytest.raises(ConflictError):
        await sdk.runs.create("t", "gated", input={"name": "two"}, multitask_strategy="reject")
    gates.open("one")
    await sdk.runs.join("t", first["run_id"])
    assert len(await sdk.runs.list("t")) == 1


async def test_interrupt_stops_the_others_and_goes_on_from_where_they_were(sdk: LangGraphClient, gates: Gates) -> None:
    await sdk.threads.create(thread_id="t")
    first = await sdk.runs.create("t", "gated", input={"name": "one"})
    await gates.entered("one")
    waiting = await sdk.runs.create("t", "gated", input={"name": "two"})
    gates.open("three")
    last = await sdk.runs.create("t", "gated", input={"name": "three"}, multitask_strategy="interrupt")
    assert (await sdk.runs.join("t", last["run_id"]))["steps"] == ["counted", "counted", "three"]
    for run in (first, waiting):
        ended = await status(sdk, run, "interrupted")
        assert last["run_id"] in ended["cancel_reason"]


async def test_rollback_takes_back_what_the_others_did(sdk: LangGraphClient, gates: Gates) -> None:
    await sdk.runs.wait("t", "counts", input={"name": "zero"}, if_not_exists="create")
    first = await sdk.runs.create("t", "gated", input={"name": "one"})
    await gates.entered("one")
    waiting = await sdk.runs.create("t", "gated", input={"name": "two"})
    gates.open("three")
    last = await sdk.runs.create("t", "gated", input={"name": "three"}, multitask_strategy="rollback")
    assert (await sdk.runs.join("t", last["run_id"]))["steps"] == ["counted", "counted", "three"]
    for run in (first, waiting):
        with pytest.raises(NotFoundError):
            await sdk.runs.get("t", run["run_id"])
    seen = {state["metadata"].get("run_id") for state in await sdk.threads.get_history("t", limit=100)}
    assert first["run_id"] not in seen
    assert last["run_id"] in seen


# --- cancelling ------------------------------------------------------------------------------------


async def test_cancel_stops_a_run_and_keeps_what_it_did(sdk: LangGraphClient, gates: Gates) -> None:
    await sdk.threads.create(thread_id="t")
    run = await sdk.runs.create("t", "gated", input={"name": "one"})
    await gates.entered("one")
    await sdk.runs.cancel("t", run["run_id"], wait=True)
    assert (await sdk.runs.get("t", run["run_id"]))["status"] == "interrupted"
    assert await steps(sdk, "t") == ["counted"]
    with pytest.raises(ConflictError):
        await sdk.runs.cancel("t", run["run_id"])


async def test_cancel_with_rollback_forgets_the_run(sdk: LangGraphClient, gates: Gates) -> None:
    await sdk.threads.create(thread_id="u")
    first = await sdk.runs.create("u", "gated", input={"name": "two"})
    await gates.entered("two")
    await sdk.runs.cancel("u", first["run_id"], wait=True, action="rollback")
    with pytest.raises(NotFoundError):
        await sdk.runs.get("u", first["run_id"])
    thread = await sdk.threads.get("u")
    assert (thread["status"], (await sdk.threads.get_state("u"))["values"]) == ("idle", {})


async def test_rolling_back_an_answer_leaves_the_question_open(sdk: LangGraphClient, gates: Gates) -> None:
    await sdk.runs.wait("t", "asks_then_gate", input={"name": "q"}, if_not_exists="create")
    before = await sdk.threads.get_state("t")
    run = await sdk.runs.create("t", "asks_then_gate", command={"resume": "this"})
    await gates.entered("q")
    await sdk.runs.cancel("t", run["run_id"], wait=True, action="rollback")
    assert await sdk.threads.get_state("t") == before
    assert (await sdk.threads.get("t"))["status"] == "interrupted"
    gates.open("q")
    answered: Any = await sdk.runs.wait("t", "asks_then_gate", command={"resume": "that"})
    assert answered["answer"] == "that"


async def test_many_are_cancelled_at_once(sdk: LangGraphClient, gates: Gates) -> None:
    await sdk.threads.create(thread_id="t")
    runs = [await sdk.runs.create("t", "gated", input={"name": name}) for name in ("one", "two", "three")]
    await gates.entered("one")
    await sdk.runs.cancel_many(thread_id="t", run_ids=[runs[2]["run_id"]])
    await status(sdk, runs[2], "interrupted")
    await sdk.runs.cancel_many(status="pending")
    await status(sdk, runs[1], "interrupted")
    assert (await sdk.runs.get("t", runs[0]["run_id"]))["status"] == "running"
    await sdk.runs.cancel_many(status="all")
    await status(sdk, runs[0], "interrupted")


# --- streams ---------------------------------------------------------------------------------------


async def test_a_resumable_stream_is_read_again_from_any_event(sdk: LangGraphClient) -> None:
    await sdk.threads.create(thread_id="t")
    modes = ["updates", "custom", "values"]
    whole = [
        part
        async for part in sdk.runs.stream(
            "t",
            "counts",
            input={"name": "x"},
            stream_mode=modes,
            stream_resumable=True,  # type: ignore[arg-type]
        )
    ]
    assert whole[0].event == "metadata"
    run_id = whole[0].data["run_id"]
    for seen in range(len(whole)):
        again = [part async for part in sdk.runs.join_stream("t", run_id, last_event_id=whole[seen].id)]
        assert again == whole[seen + 1 :]
    assert [part async for part in sdk.runs.join_stream("t", run_id, last_event_id="-1")] == whole
    only = [part.event async for part in sdk.runs.join_stream("t", run_id, last_event_id="-1", stream_mode="custom")]
    assert only == ["metadata", *["custom"] * 5]


@pytest.mark.parametrize("resumable", [True, False])
async def test_the_client_goes_on_by_itself_when_its_connection_is_cut(url: str, gates: Gates, resumable: bool) -> None:
    """A proxy that cuts the stream after each piece of it, and a client that never notices."""
    async with Cutting(url) as proxy, get_client(url=proxy.url) as sdk:
        gates.open("x")
        events = [
            part
            async for part in sdk.runs.stream(
                None, "gated", input={"name": "x"}, stream_mode=["custom", "values"], stream_resumable=resumable
            )
        ]
    assert proxy.cuts > 0
    assert [part.data for part in events if part.event == "custom"] == [0, 1, 2, 3, 4]
    assert [part.data["steps"] for part in events if part.event == "values"][-1] == ["counted", "x"]
    assert [int(part.id or 0) for part in events] == list(range(1, len(events) + 1))


class Cutting:
    """A proxy over TCP that closes each answer which streams after a few hundred bytes, three times."""

    def __init__(self, url: str) -> None:
        self._to = httpx.URL(url)
        self.cuts = 0

    async def __aenter__(self) -> Cutting:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        out_reader, out = await asyncio.open_connection(self._to.host, self._to.port)
        there = asyncio.create_task(self._pump(reader, out, None))
        await self._pump(out_reader, writer, 700)
        there.cancel()
        for end in (out, writer):
            end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None) -> None:
        passed = 0
        is_stream = False
        while data := await reader.read(200):
            is_stream = is_stream or b"text/event-stream" in data
            passed += len(data)
            writer.write(data)
            await writer.drain()
            if limit is not None and is_stream and passed > limit and self.cuts < 3:
                self.cuts += 1
                return


async def test_the_stream_of_a_run_that_fails_ends_with_its_error(sdk: LangGraphClient) -> None:
    run = await sdk.runs.create(None, "fails", input={"name": "x"}, on_completion="keep", stream_resumable=True)
    ended = await status(sdk, run, "error")
    parts = [part async for part in sdk.runs.join_stream(run["thread_id"], ended["run_id"], last_event_id="-1")]
    assert parts[-1].event == "error"
    assert parts[-1].data == {"error": "ValueError", "message": "no such luck"}


async def test_two_answers_to_one_interrupt(url: str, sdk: LangGraphClient) -> None:
    for number in range(5):
        thread = f"t{number}"
        await sdk.runs.wait(thread, "asks", input={"name": "q"}, if_not_exists="create")
        async with httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as http:
            bodies = [{"assistant_id": "asks", "command": {"resume": answer}} for answer in ("left", "right")]
            answers = await asyncio.gather(*(http.post(f"/threads/{thread}/runs/wait", json=body) for body in bodies))
        assert sorted(answer.status_code for answer in answers) == [200, 409]
        won = next(answer for answer in answers if answer.status_code == 200)
        assert won.json()["answer"] == ("left" if won is answers[0] else "right")


async def test_an_answer_that_names_another_interrupt_is_refused_when_asked_to_be_strict(sdk: LangGraphClient) -> None:
    await sdk.runs.wait("t", "asks", input={"name": "q"}, if_not_exists="create")
    answer: Any = await sdk.runs.wait(
        "t", "asks", command={"resume": {"0" * 32: "x"}}, strict_resume=True, raise_error=False
    )
    assert answer["__error__"]["error"] == "UnknownInterruptError"
    assert (await sdk.threads.get("t"))["status"] in ("interrupted", "error")


async def test_a_run_goes_on_from_an_earlier_checkpoint(sdk: LangGraphClient) -> None:
    await sdk.runs.wait("t", "counts", input={"name": "one"}, if_not_exists="create")
    first = await sdk.threads.get_state("t")
    await sdk.runs.wait("t", "counts", input={"name": "two"})
    forked: Any = await sdk.runs.wait("t", "counts", input={"name": "three"}, checkpoint=first["checkpoint"])
    assert (forked["name"], forked["steps"]) == ("three", ["counted", "counted"])
    by_id: Any = await sdk.runs.wait(
        "t", "counts", input={"name": "four"}, checkpoint_id=first["checkpoint"]["checkpoint_id"]
    )
    assert by_id["steps"] == ["counted", "counted"]
    with pytest.raises(NotFoundError):
        await sdk.runs.create("t", "counts", input={}, checkpoint_id="1ef00000-0000-6000-8000-000000000000")


async def test_settings_of_a_run_reach_its_nodes(sdk: LangGraphClient) -> None:
    shown: Any = await sdk.runs.wait(
        None, "shows", input={"name": "x"}, config={"configurable": {"model": "big"}}, metadata={"purpose": "test"}
    )
    assert shown["steps"] == ["big", "test", "shows"]


async def test_breakpoints_and_modes_are_those_of_the_request(sdk: LangGraphClient) -> None:
    stopped: Any = await sdk.runs.wait(
        "t", "gated", input={"name": "x"}, interrupt_before=["gate"], if_not_exists="create"
    )
    assert stopped["steps"] == ["counted"]
    assert (await sdk.threads.get_state("t"))["next"] == ["gate"]
    modes = ["values", "updates", "custom", "tasks", "checkpoints", "debug", "events"]
    seen = {
        part.event
        async for part in sdk.runs.stream("u", "counts", input={"name": "x"}, stream_mode=modes, if_not_exists="create")  # type: ignore[arg-type]
    }
    assert seen == {"metadata", *modes}
