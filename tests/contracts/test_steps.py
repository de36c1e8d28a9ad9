"""A step as a value: stored and read back, told apart by what it does, and whether it can be undone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from changeover.contracts.chain import chains_of
from changeover.contracts.steps import Step, declared, down_of, up_of
from changeover.project.check import analyse

EVERYTHING: dict[str, Any] = {
    "state": {
        "rename": {"note": "notes", "support/draft": "text"},
        "drop": ["tmp"],
        "set": {"lang": "en"},
        "convert": {"count": "str", "ticket": {"up": "graphs.conv:up", "down": "graphs.conv:down"}},
    },
    "nodes": {
        "rename": {"triage": "router", "support/model": "llm"},
        "remove": {"approve": {"goto": "support"}},
        "split": {"work": {"into": ["prepare", "perform"], "at": "prepare"}},
        "move": {"ask": "review/ask"},
    },
    "sends": {"convert": {"worker": {"rename": {"a": "b"}, "drop": [], "set": {}}}},
    "tools": {"rename": {"refund": "pay_back"}, "arguments": {"pay_back": {"rename": {"amt": "amount"}}}},
    "types": {"rename": {"graphs.types:Ticket": "graphs.model:Ticket"}},
    "interrupts": {"same": ["approve", "support/ask"]},
    "tasks": {"rename": {"fetch": "load"}, "same": True},
    "store": {"namespace": ["memories"], "rename": {"text": "content"}},
}


def python(source: str) -> Step:
    files = {"agents.yaml": b"agents: {}\n", "migrations/0001_code.py": source.encode()}
    project, problems = analyse(files, {})
    assert not [each for each in problems if each.path.startswith("migrations/") and each.severity == "error"]
    (chain,) = chains_of(project.migrations).values()
    return chain[0]


UP = """from changeover import migration


@migration(graph="desk")
def up(state):
    return {**state, "n": 1}
"""


def test_a_step_that_says_everything_is_stored_and_read_back() -> None:
    step = declared("desk", 2, "notes", EVERYTHING, file="migrations/0002_notes.yaml")
    assert Step.from_json(json.loads(json.dumps(step.to_json()))) == step
    assert not step.one_way


def test_keys_that_no_step_has_are_refused() -> None:
    with pytest.raises(ValidationError):
        declared("desk", 1, "x", {"state": {"renames": {}}})


def test_the_digest_is_of_the_meaning() -> None:
    one = declared("desk", 1, "a", {"state": {"drop": ["a", "b"], "rename": {}}})
    same = declared("desk", 1, "b", {"state": {"drop": ["b", "a"]}, "nodes": {}})
    other = declared("desk", 1, "a", {"state": {"drop": ["a", "c"]}})
    assert one.digest == same.digest != other.digest


def test_comments_and_docstrings_of_python_do_not_count_and_code_does() -> None:
    commented = UP.replace("    return", '    """Says more."""\n    # and more\n\n    return')
    assert python(UP).digest == python(commented).digest
    assert python(UP).digest != python(UP.replace("1", "2")).digest
    assert python(UP).digest != python(UP.replace('"desk"', '"desk", state={"drop": ["x"]}')).digest


def test_a_way_back_can_be_written_later() -> None:
    later = python(UP + "\n\ndef down(state):\n    return state\n")
    assert python(UP).digest == later.digest
    assert (python(UP).one_way, later.one_way) == (True, False)
    said_so = UP.replace('"desk"', '"desk", one_way=True')
    assert (python(said_so).digest, python(said_so).one_way) == (later.digest, True)
    one_way = declared("desk", 1, "a", {"state": {"convert": {"t": "graphs.conv:up"}}})
    back = declared("desk", 1, "a", {"state": {"convert": {"t": {"up": "graphs.conv:up", "down": "graphs.conv:down"}}}})
    assert one_way.digest == back.digest
    assert (one_way.one_way, back.one_way) == (True, False)


@pytest.mark.parametrize(
    ("parts", "one_way"),
    [
        ({"state": {"convert": {"n": "str"}}}, False),
        ({"state": {"convert": {"n": "int"}}}, True),
        ({"state": {"convert": {"n": {"up": "int", "down": "str"}}}}, False),
        ({"state": {"convert": {"n": "graphs.conv:up"}}}, True),
        ({"sends": {"convert": {"w": "graphs.conv:up"}}}, True),
        ({"sends": {"convert": {"w": {"rename": {"a": "b"}}}}}, False),
        ({"state": {"drop": ["n"]}}, False),
        ({"state": {"drop": ["n"]}, "one_way": True}, True),
    ],
)
def test_a_step_is_one_way_where_something_cannot_be_undone(parts: dict[str, Any], one_way: bool) -> None:
    assert declared("desk", 1, "a", parts).one_way is one_way


def test_both_ways_of_a_conversion_are_told() -> None:
    conversions = declared("desk", 1, "a", EVERYTHING).parts.state.convert
    assert (up_of(conversions["ticket"]), down_of(conversions["ticket"])) == ("graphs.conv:up", "graphs.conv:down")
    assert (up_of(conversions["count"]), down_of(conversions["count"])) == ("str", None)
