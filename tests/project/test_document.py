"""Reading YAML and JSON: what they mean here, and what hostile files do."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from changeover.project.check import analyse
from changeover.project.document import read

FILES = ("agents.yaml", "agents.json", "tools.yaml", "changeover.yaml", "graphs/g.yaml", "prompts/p.md", "graphs/n.py")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("no", "no"),
        ("true", True),
        ("2020-01-01", "2020-01-01"),
        ("1:30", "1:30"),
        ("010", 10),
        ("1e3", 1000.0),
        ("1e999", "1e999"),
        (".nan", ".nan"),
        ("~", None),
        ("'5'", "5"),
        ("!!str 5", "5"),
        ("list[str]", "list[str]"),
        ("{type: dict[str,list[int]], x: 1}", {"type": "dict[str,list[int]]", "x": 1}),
        ("{true: a, 1: b}", {"true": "a", "1": "b"}),
    ],
)
def test_a_plain_value_means_what_it_says(text: str, value: Any) -> None:
    document = read("a.yaml", f"k: {text}\n".encode())
    assert document.problems == ()
    assert document.data == {"k": value}


def test_own_keys_come_before_merged_ones() -> None:
    document = read("a.yaml", b"d: &d {a: 1, b: 2}\ne: {<<: *d, a: 3}\nf: {a: 4, <<: *d}\n")
    assert document.problems == ()
    assert document.data["e"] == {"a": 3, "b": 2}
    assert document.data["f"] == {"a": 4, "b": 2}


def test_places_are_those_of_the_text() -> None:
    document = read("a.yaml", "é: {😀: [x, 'y z']}\n".encode())
    assert document.locate("é", "😀", 1) == (1, 12, 5, "é: {😀: [x, 'y z']}")
    assert document.locate("é", "😀", on_key=True)[:3] == (1, 5, 1)
    assert document.locate("é", "gone")[:3] == (1, 1, 1)


@pytest.mark.parametrize(
    ("content", "code", "line", "column"),
    [
        (b"a: 1\nb: \xff", "encoding", 2, 4),
        (b"a: \x00", "encoding", 1, 4),
        ("a: b".encode("utf-16"), "encoding", 1, 1),
        (b"a: 1\n---\nb: 1", "yaml-syntax", 2, 1),
        (b"a: 1\na: 2", "duplicate-key", 2, 1),
        (b"a: *b", "yaml-syntax", 1, 4),
        (b"a: &a [*a]", "alias-limit", 1, 8),
        (b"[a]: b", "yaml-syntax", 1, 1),
        (b"- " * 200_000, "yaml-syntax", 1, 129),
        (b"[" * 200_000, "yaml-syntax", 1, 65),
        (b"{a: " * 200_000, "yaml-syntax", 1, 257),
    ],
)
def test_what_cannot_be_read_is_a_problem(content: bytes, code: str, line: int, column: int) -> None:
    (problem,) = read("a.yaml", content).problems
    assert (problem.code, problem.line, problem.column) == (code, line, column)


def test_an_alias_bomb_is_refused_at_once() -> None:
    rows = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    rows += [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)]
    start = time.perf_counter()
    (problem,) = read("agents.yaml", "\n".join(rows).encode()).problems
    assert problem.code == "alias-limit"
    assert time.perf_counter() - start < 1


def test_a_bomb_of_merges_is_refused() -> None:
    wide = "w: &w {" + ", ".join(f"k{i}: 1" for i in range(1_000)) + "}\n"
    text = wide + "".join(f"m{i}: {{<<: *w}}\n" for i in range(1_000))
    assert [each.code for each in read("a.yaml", text.encode()).problems] == ["alias-limit"]


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(FILES), st.binary(max_size=200), max_size=4))
def test_random_bytes_are_never_an_exception(files: dict[str, bytes]) -> None:
    analyse(files, {})


WORDS = st.sampled_from(
    (
        "models",
        "agents",
        "tools",
        "mcp_servers",
        "nodes",
        "edges",
        "state",
        "from",
        "to",
        "switch",
        "route",
        "START",
        "END",
        "a",
        "b",
        "m",
        "model",
        "prompt",
        "text",
        "python",
        "agent",
        "graph",
        "interrupt",
        "handoffs",
        "graphs.n:f",
        "${X}",
        "${Y:-z}",
        "{{x}}",
        "{%include'p.md'%}",
        "list[str]",
        "prompts",
        "plugins",
        "include",
        "middleware",
        "model_call_limit",
        "variables",
        "default",
        "context",
        "fallbacks",
        "input",
        "output",
        "save",
        "destinations",
        "else",
    )
)
SCALARS = st.one_of(WORDS, st.none(), st.booleans(), st.integers(), st.text(max_size=5))
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4), max_leaves=25
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from((*FILES[2:5], "agents.yaml")), VALUES, max_size=4), st.text(max_size=30))
def test_random_structures_are_never_an_exception(values: dict[str, Any], prompt: str) -> None:
    import yaml

    files = {path: yaml.safe_dump(value, allow_unicode=True).encode() for path, value in values.items()}
    files |= {"prompts/p.md": prompt.encode("utf-8", "replace"), "graphs/n.py": b"async def f(s): ...\n"}
    for problem in analyse(files, {})[1]:
        assert problem.render()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["{{", "}}", "{%", "%}", "x", " ", "if", "include", "'p.md'", "|", "(", "\n", "--- "])))
def test_random_templates_are_never_an_exception(parts: list[str]) -> None:
    analyse({"prompts/p.md": "".join(parts).encode(), "agents.yaml": b"agents: {a: {model: 'x:y', prompt: p}}"}, {})
