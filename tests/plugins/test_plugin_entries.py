"""What is wrong with the entry of a plugin, told from the files alone, each at its place in the YAML."""

from __future__ import annotations

import pytest

from changeover.project.check import analyse
from changeover.project.problems import Problem

CODE = "class Kb:\n    pass\n\ndef make():\n    return Kb()\n"


def problems(entry: str, env: dict[str, str] | None = None) -> list[Problem]:
    files = {"agents.yaml": "agents: {a: {model: 'demo:rules'}}", "graphs/kb.py": CODE, "changeover.yaml": entry}
    return analyse({path: text.encode() for path, text in files.items()}, env or {})[1]


def entry(text: str) -> str:
    return f"plugins:\n  kb: {{{text}}}\n"


def test_a_sound_entry_has_no_problems() -> None:
    whole = "class: graphs.kb:Kb, config: {a: '${A}'}, scope: server, required: false, deadline: 2s"
    assert problems(entry(f"{whole}, health: {{every: 30s, timeout: 5s}}"), {"A": "1"}) == []


@pytest.mark.parametrize(
    ("text", "code", "at", "said"),
    [
        ("class: graphs.kb:Kbb", "import", "graphs.kb:Kbb", "graphs/kb.py does not define 'Kbb'"),
        ("class: graphs.nothing:Kb", "import", "graphs.nothing:Kb", "no module 'graphs.nothing'"),
        ("class: graphs.kb:make", "plugin", "graphs.kb:make", "is a function, not a class"),
        ("class: os:system", "forbidden-ref", "os:system", "leads out of the project"),
        ("class: graphs/kb.py", "wrong-type", "graphs/kb.py", "module:"),
        ("config: {a: 1}", "missing-key", "kb", "'class'"),
        ("class: graphs.kb:Kb, confg: {}", "unknown-key", "confg", "confg"),
        ("class: graphs.kb:Kb, scope: all", "wrong-type", "all", "version, server"),
        ("class: graphs.kb:Kb, required: 7", "wrong-type", "7", "true or false"),
        ("class: graphs.kb:Kb, config: [1]", "wrong-type", "[1]", "mapping"),
        ("class: graphs.kb:Kb, deadline: soon", "wrong-type", "soon", "duration"),
        ("class: graphs.kb:Kb, deadline: 0s", "wrong-type", "0s", "at least"),
        ("class: graphs.kb:Kb, health: {each: 3s}", "unknown-key", "each", "each"),
        ("class: graphs.kb:Kb, health: {every: -1}", "wrong-type", "-1", "at least"),
        ("class: graphs.kb:Kb, config: {a: '${NOT_SET}'}", "env-missing", "${NOT_SET}", "NOT_SET"),
        ("class: graphs.kb:Kb, config: {api_key: sk-abcdefghijklmnopqrstuvwx123456}", "secret-literal", "sk-", ""),
    ],
)
def test_each_mistake_is_a_problem_at_its_place(text: str, code: str, at: str, said: str) -> None:
    written = entry(text)
    (problem,) = problems(written)
    assert problem.code == code
    assert said in f"{problem.message} {problem.hint}"
    assert (problem.path, problem.line) == ("changeover.yaml", 2)
    assert problem.column == written.splitlines()[1].index(at) + 1


def test_a_bad_name_and_a_list_are_problems() -> None:
    assert [one.code for one in problems("plugins:\n  'a b': {class: graphs.kb:Kb}\n")] == ["bad-name"]
    assert [one.code for one in problems("plugins: [a]\n")] == ["wrong-type"]
