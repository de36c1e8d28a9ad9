"""The code of steps: run among the modules of its version, refused where it cannot be called, kept with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from changeover import GraphVersionManager, migration
from changeover.build.modules import CodeTree, CodeTrees
from changeover.build.step_code import LoadedSteps, load_steps
from changeover.contracts.chain import Chain, chain_of, chains_of
from changeover.errors import Conflict, InvalidRequest, NotFound, ProjectError
from changeover.project.check import analyse
from changeover.project.load import Project
from changeover.rollout.registration import registration
from changeover.store.records.ids import VersionId

Load = Callable[[dict[str, str]], tuple[LoadedSteps, Chain, CodeTree]]

FILES = {
    "agents.yaml": "agents: {}\n",
    "graphs/desk.yaml": """\
        state: {note: str}
        nodes: {ask: {interrupt: "Well?", save: note}}
        edges: [{from: START, to: ask}, {from: ask, to: END}]
        """,
    "graphs/types.py": """\
        from dataclasses import dataclass
        @dataclass
        class Ticket:
            title: str = ""
        """,
    "graphs/conv.py": """\
        def up(value): return value + 1
        def down(value): return value - 1
        async def later(value): return value
        def two(a, b): return a
        word = "x"
        """,
}
STEP = """\
from dataclasses import dataclass
from changeover import migration
from graphs.types import Ticket

@dataclass
class Draft:
    title: str

@migration(graph="desk")
def up(state):
    return {**state, "ticket": Ticket(Draft("printed").title)}

def down(state):
    return {key: value for key, value in state.items() if key != "ticket"}
"""


def project_of(files: dict[str, str]) -> Project:
    content = {path: dedent(text).encode() for path, text in {**FILES, **files}.items()}
    project, problems = analyse(content, {})
    assert not [problem.render() for problem in problems if problem.severity == "error"]
    return project


@pytest.fixture
def load_code(tmp_path: Path) -> Iterator[Load]:
    trees = CodeTrees(tmp_path / "trees")
    acquired: list[CodeTree] = []

    def load(files: dict[str, str]) -> tuple[LoadedSteps, Chain, CodeTree]:
        project = project_of(files)
        tree = trees.acquire(project.files)
        acquired.append(tree)
        return load_steps(project, tree), chains_of(project.migrations).get("desk", ()), tree

    yield load
    for tree in acquired:
        trees.release(tree)


def test_a_python_step_makes_objects_of_its_own_version(load_code: Load) -> None:
    steps, (step,), tree = load_code({"migrations/0001_ticket.py": STEP})
    after = steps.up(step)({"note": "a"})
    assert type(after["ticket"]) is tree.resolve("graphs.types:Ticket")
    assert after["ticket"].title == "printed"
    assert steps.down(step)(after) == {"note": "a"}


def test_named_functions_are_those_of_the_version(load_code: Load) -> None:
    text = "graph: desk\nstate: {convert: {n: {up: 'graphs.conv:up', down: 'graphs.conv:down'}, m: str}}\n"
    steps, _, tree = load_code({"migrations/0001_a.yaml": text})
    assert steps.function("graphs.conv:up") is tree.resolve("graphs.conv:up")
    assert steps.function("graphs.conv:down")(2) == 1


def test_a_step_of_another_version_is_not_known(load_code: Load) -> None:
    _, (step,), _ = load_code({"migrations/0001_ticket.py": STEP})
    with pytest.raises(NotFound):
        LoadedSteps().up(step)
    with pytest.raises(NotFound):
        LoadedSteps().function("graphs.conv:up")


def test_steps_are_no_part_of_the_code_of_graphs(load_code: Load) -> None:
    _, _, without = load_code({})
    _, _, with_step = load_code({"migrations/0001_ticket.py": STEP})
    assert without is with_step


@pytest.mark.parametrize(
    ("ref", "said", "place"),
    [
        ("graphs.conv:later", "async function", (2, 22)),
        ("graphs.conv:two", "does not take one argument", (2, 22)),
        ("graphs.conv:word", "is no function but str", (2, 22)),
        ("graphs.types:Ticket.nothing", "cannot load", (2, 22)),
    ],
)
def test_a_function_that_cannot_be_called_is_found_where_it_is_named(
    load_code: Load, ref: str, said: str, place: tuple[int, int]
) -> None:
    with pytest.raises(ProjectError) as caught:
        load_code({"migrations/0001_a.yaml": f"graph: desk\nstate: {{convert: {{n: '{ref}'}}}}\n"})
    (problem,) = caught.value.problems
    assert said in problem.message
    assert (problem.path, problem.line, problem.column) == ("migrations/0001_a.yaml", *place)


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        (STEP.replace("import Ticket", "import Tickets"), "import", 3),
        (STEP + "\nraise ValueError('no')\n", "import", 16),
        (STEP + "\nraise SystemExit(1)\n", "import", 16),
        (STEP + "\nup = lambda state: state\n", "migration-code", 9),
        (STEP + "\ndown = 1\n", "migration-code", 9),
    ],
)
def test_a_step_that_cannot_be_loaded_says_where(load_code: Load, text: str, code: str, line: int) -> None:
    with pytest.raises(ProjectError) as caught:
        load_code({"migrations/0001_ticket.py": text})
    (problem,) = caught.value.problems
    assert (problem.code, problem.path, problem.line) == (code, "migrations/0001_ticket.py", line)


def write(folder: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(dedent(text))


async def test_a_step_makes_a_new_version_of_the_same_graph(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    async with GraphVersionManager.open(tmp_path) as manager:
        before = await manager.build()
        write(tmp_path, {"migrations/0001_ticket.py": STEP})
        after = await manager.build()
        assert before.id != after.id
        assert before.graphs["desk"].digest == after.graphs["desk"].digest
        assert chain_of(before.graphs["desk"].chain) == ()
        (step,) = chain_of((await manager.version(after.id)).graphs["desk"].chain)
        assert (step.title, step.one_way) == ("migrations/0001_ticket.py", False)
        loaded = await manager.loader.load(after.id)
        assert set(loaded.steps.up(step)({})) == {"ticket"}


async def test_a_broken_step_rejects_the_version(tmp_path: Path) -> None:
    write(tmp_path, {**FILES, "migrations/0001_ticket.py": STEP.replace("import Ticket", "import Tickets")})
    async with GraphVersionManager.open(tmp_path) as manager:
        with pytest.raises(ProjectError) as caught:
            await manager.build()
        assert [problem.path for problem in caught.value.problems] == ["migrations/0001_ticket.py"]


# --- versions made in code -------------------------------------------------------------------------


class State(TypedDict):
    note: str


def desk() -> StateGraph[Any, Any, Any, Any]:
    builder = StateGraph(State)
    builder.add_node("ask", lambda state: {"note": "asked"})
    builder.add_edge(START, "ask")
    builder.add_edge("ask", END)
    return builder


@migration(graph="desk", state={"rename": {"a": "b"}})
def renamed(state: dict[str, Any]) -> dict[str, Any]:
    """What a thread's note was before."""
    return {**state, "renamed": True}


def undone(state: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key != "renamed"}


def test_a_list_of_steps_is_a_chain() -> None:
    given = [{"graph": "desk", "state": {"drop": ["tmp"]}}, renamed, {"number": 7, "name": "x"}, (renamed, undone)]
    made = registration("spring", {"desk": desk()}, "", given)
    chain = chain_of(made.version.graphs["desk"].chain)
    assert [(step.number, step.name, step.one_way) for step in chain] == [
        (1, "step", False),
        (2, "renamed", True),
        (7, "x", False),
        (8, "renamed", False),
    ]
    assert made.steps.up(chain[1])({}) == {"renamed": True}
    assert made.steps.down(chain[3])({"renamed": True}) == {}
    assert chain[1].digest == chain[3].digest


def test_a_folder_of_steps_is_a_chain(tmp_path: Path) -> None:
    text = STEP.replace("from graphs.types import Ticket\n", "Ticket = str\n")
    write(tmp_path, {"0001_ticket.py": text, "0002_b.yaml": "graph: desk\nstate: {convert: {n: 'json:dumps'}}\n"})
    made = registration("spring", {"desk": desk()}, "", tmp_path)
    chain = chain_of(made.version.graphs["desk"].chain)
    assert made.steps.up(chain[0])({}) == {"ticket": "printed"}
    assert made.steps.function("json:dumps")(1) == "1"
    (tmp_path / "0004_c.yaml").write_text("graph: desk\n")
    with pytest.raises(ProjectError):
        registration("spring", {"desk": desk()}, "", tmp_path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (5, "migrations is a int"),
        ([undone], "is a function that is no step"),
        ([{"state": {"drops": []}}], "state.drops"),
        ([{"number": 2}, {"number": 2}], "is not above"),
        ([{"state": {"convert": {"n": "json:nothing"}}}], "cannot load 'json:nothing'"),
        ([{"state": {"set": {"n": object()}}}], "cannot be stored"),
        ("nowhere", "there is no folder"),
    ],
)
def test_what_is_no_step_is_refused(given: object, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        registration("spring", {"desk": desk()}, "", given)


def test_an_async_function_is_no_step() -> None:
    async def up(state: dict[str, Any]) -> dict[str, Any]:
        return state

    with pytest.raises(TypeError, match="plain function"):
        migration(graph="desk")(up)


def test_steps_change_the_digest_of_a_registered_version_and_not_of_its_graph() -> None:
    one = registration("spring", {"desk": desk()}, "").version
    other = registration("spring", {"desk": desk()}, "", [{"state": {"drop": ["tmp"]}}]).version
    assert one.digest != other.digest
    assert dataclasses.replace(other.graphs["desk"], chain="[]") == one.graphs["desk"]


async def test_a_registered_version_keeps_its_steps(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    async with GraphVersionManager.open(tmp_path) as manager:
        version = await manager.register("spring", {"desk": desk()}, migrations=[(renamed, undone)])
        (step,) = chain_of(version.graphs["desk"].chain)
        loaded = await manager.loader.load(VersionId("spring"))
        assert loaded.steps.down(step)({"renamed": True}) == {}
        with pytest.raises(Conflict):
            await manager.register("spring", {"desk": desk()})
