"""migrations/ as a person writes it: what is read, and every mistake at its place, without running anything."""

from __future__ import annotations

import pytest

from changeover.contracts.chain import Chain, chains_of
from changeover.project.check import analyse
from changeover.project.problems import Problem

BASE = {
    "agents.yaml": b"agents: {}\n",
    "graphs/desk.yaml": b"""state: {note: str}
nodes: {ask: {interrupt: "Well?", save: note}}
edges: [{from: START, to: ask}, {from: ask, to: END}]
""",
    "graphs/conv.py": b"import os\ndef up(value): return value\ndef down(value): return value\n",
}
PYTHON = """from changeover import migration
@migration(graph="desk")
def up(state):
    return state
"""


def read(files: dict[str, str]) -> tuple[dict[str, Chain], list[Problem]]:
    content = {f"migrations/{name}": text.encode() for name, text in files.items()}
    project, problems = analyse({**BASE, **content}, {})
    return chains_of(project.migrations), problems


def only(files: dict[str, str]) -> Problem:
    _, problems = read(files)
    assert len(problems) == 1, [problem.render() for problem in problems]
    return problems[0]


def test_yaml_json_and_python_are_one_chain() -> None:
    chains, problems = read(
        {
            "0001_a.yaml": "graph: desk\nstate: {rename: {note: notes}}\n",
            "0002_b.json": '{"graph": "desk", "state": {"set": {"lang": "en"}}}',
            "0003_c.py": PYTHON.replace('"desk"', '"desk", subgraph="ask", state={"drop": ["tmp"]}'),
            "0004_d.yml": "graph: desk\nstate: {convert: {note: {up: 'graphs.conv:up', down: 'graphs.conv:down'}}}\n",
            "README.md": "what they do",
            "__init__.py": "",
        }
    )
    assert problems == []
    steps = chains["desk"]
    assert [(step.number, step.name, step.one_way) for step in steps] == [
        (1, "a", False),
        (2, "b", False),
        (3, "c", True),
        (4, "d", False),
    ]
    assert steps[2].is_python
    assert (steps[2].subgraph, steps[2].parts.state.drop) == ("ask", ["tmp"])


def test_graphs_share_one_numbering() -> None:
    files = BASE | {"graphs/other.yaml": BASE["graphs/desk.yaml"]}
    steps = {f"migrations/000{n}_x.yaml": f"graph: {g}\n".encode() for n, g in ((1, "desk"), (2, "other"), (3, "desk"))}
    project, problems = analyse(files | steps, {})
    chains = chains_of(project.migrations)
    assert problems == []
    assert {graph: [step.number for step in chain] for graph, chain in chains.items()} == {"desk": [1, 3], "other": [2]}


@pytest.mark.parametrize(
    ("name", "text", "code", "place"),
    [
        ("x.yaml", "graph: desk\n", "migration-name", (0, 0)),
        ("0000_x.yaml", "graph: desk\n", "migration-name", (0, 0)),
        ("0001_x.yaml", "state: {}\n", "missing-key", (1, 1)),
        ("0001_x.yaml", "", "wrong-type", (0, 0)),
        ("0001_x.yaml", "graph: desk\nstates: {}\n", "unknown-key", (2, 1)),
        ("0001_x.yaml", "graph: desk\nstate: {renames: {a: b}}\n", "unknown-key", (2, 9)),
        ("0001_x.yaml", "graph: desk\nstate: {drop: note}\n", "wrong-type", (2, 15)),
        ("0001_x.yaml", "graph: desk\nstate: {convert: {a: txt}}\n", "wrong-type", (2, 22)),
        ("0001_x.yaml", "graph: desk\nstate: {convert: {a: 'os:system'}}\n", "forbidden-ref", (2, 22)),
        ("0001_x.yaml", "graph: desk\nstate: {convert: {a: {up: 'graphs.conv:os'}}}\n", "forbidden-ref", (2, 27)),
        ("0001_x.yaml", "graph: desk\nsends: {convert: {a: 'graphs.conv:no'}}\n", "import", (2, 22)),
        ("0001_x.yaml", "graph: desk\nstate: {rename: {a: b}, drop: [a]}\n", "migration-conflict", (2, 18)),
        ("0001_x.yaml", "graph: desk\nstate: {rename: {a: c, b: c}}\n", "migration-conflict", (2, 27)),
        ("0001_x.yaml", "graph: desk\nstate: {rename: {a: b}, convert: {a: str}}\n", "migration-conflict", (2, 35)),
        (
            "0001_x.yaml",
            "graph: desk\nnodes: {rename: {a: b}}\nstate: {set: {a/k: 1}}\n",
            "migration-conflict",
            (3, 15),
        ),
        ("0001_x.yaml", "graph: desk\nnodes: {split: {a: {into: [b], at: c}}}\n", "migration-conflict", (2, 36)),
        ("0001_x.yaml", "graph: desk\nnodes: {rename: {a: b}, move: {a: c/b}}\n", "migration-conflict", (2, 32)),
        ("0001_x.py", "def up(state: return\n", "import", (1, 15)),
        ("0001_x.py", "X = 1\n", "migration-code", (0, 0)),
        ("0001_x.py", "def up(state): return state\n", "migration-code", (1, 1)),
        ("0001_x.py", PYTHON.replace('graph="desk"', ""), "missing-key", (2, 2)),
        ("0001_x.py", PYTHON.replace('(graph="desk")', ""), "migration-code", (2, 2)),
        ("0001_x.py", PYTHON.replace('"desk"', "DESK"), "migration-code", (2, 18)),
        ("0001_x.py", PYTHON.replace('"desk"', '"desk", states={}'), "unknown-key", (2, 26)),
        ("0001_x.py", PYTHON.replace('"desk"', '"desk", state={"drop": "a"}'), "wrong-type", (2, 41)),
        ("0001_x.py", PYTHON.replace("def up", "async def up"), "migration-code", (3, 1)),
        ("0001_x.py", PYTHON.replace("(state)", "(state, more)"), "migration-code", (3, 1)),
        ("0001_x.py", PYTHON + "async def down(state): return state\n", "migration-code", (5, 1)),
    ],
)
def test_a_mistake_is_found_where_it_stands(name: str, text: str, code: str, place: tuple[int, int]) -> None:
    problem = only({name: text})
    assert (problem.code, problem.path, problem.severity) == (code, f"migrations/{name}", "error")
    assert (problem.line, problem.column) == place


def test_a_number_is_given_once_for_a_graph() -> None:
    problem = only({"0001_a.yaml": "graph: desk\n", "0001_b.yaml": "graph: desk\n"})
    assert (problem.code, problem.path) == ("migration-number", "migrations/0001_b.yaml")
    assert "migrations/0001_a.yaml" in problem.message


def test_a_gap_in_the_numbers_is_an_error() -> None:
    problem = only({"0001_a.yaml": "graph: desk\n", "0004_b.yaml": "graph: desk\n"})
    assert (problem.code, problem.severity) == ("migration-gap", "error")
    assert "0002 to 0003" in problem.message


def test_removed_early_files_are_said_and_do_not_reject_the_project() -> None:
    problem = only({"0003_a.yaml": "graph: desk\n", "0004_b.yaml": "graph: desk\n"})
    assert (problem.code, problem.severity) == ("migration-gap", "warning")


def test_a_step_of_a_graph_that_is_gone_does_not_reject_the_project() -> None:
    problem = only({"0001_a.yaml": "graph: dsk\n"})
    assert (problem.code, problem.severity, problem.line, problem.column) == ("unknown-graph", "warning", 1, 8)
    assert "did you mean 'desk'" in problem.hint


def test_a_name_for_the_decorator_and_the_package_are_understood() -> None:
    for text in (
        PYTHON.replace("import migration", "import migration as step").replace("@migration", "@step"),
        PYTHON.replace("from changeover import migration", "import changeover").replace("@m", "@changeover.m"),
    ):
        chains, problems = read({"0001_a.py": text})
        assert problems == []
        assert len(chains["desk"]) == 1


def test_nothing_of_a_step_is_run_to_read_it() -> None:
    chains, problems = read({"0001_a.py": "raise SystemExit\n" + PYTHON})
    assert problems == []
    assert len(chains["desk"]) == 1


def test_migrations_of_another_tool_beside_a_langgraph_json_are_left_alone() -> None:
    files = {
        "langgraph.json": b'{"dependencies": ["."], "graphs": {"desk": "./app.py:graph"}}',
        "app.py": b"def graph(): ...\n",
        "migrations/env.py": b"import alembic\n",
        "migrations/0001_initial.py": b"class Migration: ...\n",
        "migrations/0002_note.yaml": b"graph: desk\nstate: {rename: {a: b}}\n",
    }
    project, problems = analyse(files, {})
    assert [migration.path for migration in project.migrations] == ["migrations/0002_note.yaml"]
    assert {problem.code for problem in problems if problem.path.startswith("migrations/")} <= {"migration-gap"}


def test_a_secret_in_a_step_is_found() -> None:
    text = "graph: desk\nstate: {set: {api_key: sk-abcdefghijklmnopqrstuvwxyz}}\n"
    assert only({"0001_a.yaml": text}).code == "secret-literal"
