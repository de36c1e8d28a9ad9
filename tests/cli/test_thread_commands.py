"""Threads, pins, answers and ramps on the command line."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import textwrap
from pathlib import Path

import httpx
import pytest

from changeover import GraphVersionManager

ASKS = """\
    from typing import TypedDict

    from langgraph.graph import END, START, StateGraph
    from langgraph.types import Send, interrupt


    class State(TypedDict, total=False):
        answer: str


    class Both(TypedDict, total=False):
        first: str
        second: str


    def ask(state):
        return {"answer": interrupt("which order?")}


    def first(state):
        return {"first": interrupt("one?")}


    def second(state):
        return {"second": interrupt("two?")}


    graph = StateGraph(State).add_node("ask", ask).add_edge(START, "ask").add_edge("ask", END)
    """
BOTH = ASKS.replace(
    'graph = StateGraph(State).add_node("ask", ask).add_edge(START, "ask").add_edge("ask", END)',
    'graph = StateGraph(Both).add_node("first", first).add_node("second", second)\n'
    '    graph.add_edge(START, "first").add_edge(START, "second")',
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with v1, which is current, and v2; thread `t` ran on v1, `asks` and `both` wait on it."""
    folder = tmp_path_factory.mktemp("threads") / "project"
    agents = "agents: {support: {model: 'demo:rules', prompt: {text: One.}}}\n"
    (folder / "graphs").mkdir(parents=True)
    for name, text in (("agents.yaml", agents), ("graphs/asks.py", ASKS), ("graphs/both.py", BOTH)):
        (folder / name).write_text(textwrap.dedent(text))

    async def fill() -> None:
        async with GraphVersionManager.open(folder) as manager:
            await manager.serve_folder()
            await manager.invoke("support", {"messages": [{"role": "user", "content": "hi"}]}, thread_id="t")
            for graph in ("asks", "both"):
                await manager.invoke(graph, {}, thread_id=graph)
            (folder / "agents.yaml").write_text(agents.replace("One", "Two"))
            assert (await manager.build()).id == "v2"

    asyncio.run(fill())
    return folder


@pytest.fixture
def here(template: Path, tmp_path: Path) -> tuple[str, str]:
    shutil.copytree(template, tmp_path / "project")
    return ("--project", str(tmp_path / "project"))


def document(ended) -> dict:
    assert ended.status == 0, ended
    return json.loads(ended.out)


def test_threads_are_listed_and_shown(call, here) -> None:
    shown = call("threads", *here)
    assert shown.status == 0
    assert {"t", "asks", "both"} <= {line.split()[0] for line in shown.out.splitlines()[1:]}
    listed = document(call("threads", "--version", "v1", "--waiting", "--status", "interrupted", *here, "-o", "json"))
    assert {one["thread_id"] for one in listed["threads"]} == {"asks", "both"}
    assert call("threads", "--policy", "eager", *here).out == "no threads\n"
    first = call("threads", "-n", "2", *here)
    cursor = first.err.split("--after ")[1].split("`")[0]
    rest = document(call("threads", "-n", "2", "--after", cursor, *here, "-o", "json"))
    assert len(rest["threads"]) == 1
    one = call("thread", "asks", *here)
    assert "which order?" in one.out
    assert "goes to v1: continues what waits on it" in one.out
    assert document(call("thread", "asks", *here, "-o", "json"))["waits_for"]["kind"] == "interrupt"
    assert call("thread", "nobody", *here).status == 4


def test_a_thread_is_pinned_moved_and_let_go(call, here) -> None:
    assert call("pin", "t", *here, "--until", "2h", "--reason", "audit").out.startswith("t is pinned to v1 until ")
    assert "thread  t" in call("holders", "v1", *here).out.replace("   ", "  ")
    moved = call("pin", "t", "v2", *here)
    assert moved.out == "t is pinned to v2\n", moved
    assert document(call("holders", "v2", *here, "-o", "json"))["by_kind"] == {"thread": 1}
    told = call("thread", "t", *here)
    assert "thread_moved" in told.out
    assert "pinned (its own)" in told.out
    assert call("pin", "t", "--release", *here).out == "t is let go; it is on v2: auto\n"
    assert call("pin", "t", "v9", *here).status == 4
    assert call("pin", "t", "--until", "someday", *here).status == 2
    assert call("pin", "t", "--until", "2001-01-01T00:00:00Z", *here).status == 2
    assert call("pin", "t", "v1", "--release", *here).status == 2


def test_a_state_that_does_not_fit_is_a_conflict(call, here, project) -> None:
    project({"graphs/asks.py": ASKS.replace("answer", "reply")})
    built = document(call("build", *here, "-o", "json"))
    refused = call("pin", "asks", built["id"], *here, "-o", "json")
    assert refused.status == 5
    assert json.loads(refused.out)["error"]["code"] == "contract-differs"


def test_an_answer_is_given_once(call, here) -> None:
    done = call("approve", "asks", "A-1042", *here)
    assert done.status == 0, done
    assert "A-1042" in done.out
    assert "v1, thread asks" in done.err
    again = call("approve", "asks", "A-1042", *here, "-o", "json")
    assert again.status == 5
    assert json.loads(again.out)["error"]["code"] == "nothing-waits"


async def test_somebody_who_thinks_too_long_is_told_that_another_one_answered(call, here, serving) -> None:
    class Slow(io.StringIO):
        """A terminal at which somebody thinks for so long that another one answers first."""

        def isatty(self) -> bool:
            return True

        def readline(self, size: int = -1) -> str:
            answer = {"assistant_id": "asks", "command": {"resume": "first"}}
            httpx.post(f"{url}/threads/asks/runs/wait", json=answer).raise_for_status()
            return "late\n"

    async with serving(Path(here[1])) as url, httpx.AsyncClient(base_url=url) as http:
        refused = await asyncio.to_thread(call, "approve", "asks", "--url", url, typed=Slow())
        assert refused.status == 5, refused
        assert "thread asks was answered by someone else meanwhile" in refused.err
        assert (await http.get("/threads/asks/state")).json()["values"] == {"answer": "first"}
        assert len((await http.get("/threads/asks/runs")).json()) == 2


def test_of_several_questions_one_is_chosen(call, here) -> None:
    refused = call("approve", "both", "yes", *here)
    assert refused.status == 2
    ids = {line.split(": ")[1]: line.split(": ")[0] for line in refused.err.splitlines() if line.endswith("?")}
    assert set(ids) == {"one?", "two?"}
    assert call("approve", "both", "yes", "--interrupt", "nonsense", *here).status == 4
    first = document(call("approve", "both", '"yes"', "--interrupt", ids["one?"], *here, "-o", "json"))
    assert first["interrupt"] == ids["one?"]
    assert [one["value"] for one in first["output"]["__interrupt__"]] == ["two?"]
    last = document(call("approve", "both", '{"really": 1}', *here, "-o", "json"))
    assert last["output"] == {"first": "yes", "second": {"really": 1}}


def test_without_a_terminal_an_answer_must_be_given(call, here) -> None:
    refused = call("approve", "asks", *here)
    assert refused.status == 2
    assert "which order?" in refused.err


def test_an_approval_is_a_word(call, sample: Path) -> None:
    here = ("--project", str(sample))
    assert call("build", *here).status == 0
    assert call("switch", "v1", *here).status == 0
    for thread, word, said in [("a", "y", "approve"), ("b", "too much", "reject")]:
        assert call("run", "support", "-i", "refund 5 for A-1042", "--thread", thread, *here).status == 0
        done = call("approve", thread, word, *here, "-o", "json")
        assert done.status == 0, (said, done)
        assert "__interrupt__" not in json.loads(done.out)["output"]


def test_a_ramp_on_the_command_line(call, here) -> None:
    begun = call("ramp", "v2", "25", "--reason", "carefully", *here)
    assert begun.status == 0, begun
    assert begun.out.startswith("v2 gets 25 % of the threads, beside v1")
    assert "v2 at 25 %" in call("status", *here).out
    assert "v2 at 25 %" in call("history", *here).out
    assert document(call("ramp", "v2", "30", *here, "-o", "json"))["ramp"]["was"] == 25
    assert "gets no more threads" in call("ramp", "v2", "0", *here).out
    assert call("ramp", "v2", "0", *here).status == 5
    assert call("ramp", "v2", "101", *here).status == 2
    assert "switched from v1 to v2" in call("ramp", "v2", "100", *here).out
    assert call("switch", "v1", "--threads", "pinned", *here).status == 0
