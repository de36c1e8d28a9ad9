"""Two contracts differ for every edit that a waiting or a finished thread can feel, and for no other."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from changeover.contracts.contract import contract_of

LoadContract = Callable[..., dict[str, Any]]
FLOW = '''
from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any

from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt
from pydantic import BaseModel
from typing_extensions import TypedDict

PROMPT = "Be kind."
LIMIT = 3
QUESTION = "Refund it?"


class Mood(Enum):
    CALM = "calm"


class Ticket(BaseModel):
    """A ticket."""

    number: int
    parent: Ticket | None = None


class Outer:
    class Ticket(BaseModel):
        name: str


@dataclass
class Line:
    price: float
    mood: Mood = Mood.CALM


class State(TypedDict, total=False):
    notes: Annotated[list[str], lambda old, new: (old + new)[-LIMIT:]]
    ticket: Ticket
    other: Outer.Ticket
    both: tuple[Ticket, Outer.Ticket] | None
    lines: list[Line]
    draft: str


def route(state: State) -> Any:
    print(PROMPT)
    return {}


def decide(text: str) -> Any:
    return interrupt({"question": text})


def ask(state: State) -> Any:
    answer = interrupt("first")
    return {"draft": f"{answer} {decide(QUESTION)} {interrupt(QUESTION)}"}


def work(state: State) -> Any:
    return {}


def inner() -> Any:
    builder = StateGraph(State)
    builder.add_node("deep", lambda state: decide("deep"))
    builder.add_edge(START, "deep")
    return builder.compile()


builder = StateGraph(State)
builder.add_node("route", route)
builder.add_node("ask", ask)
builder.add_node("work", work)
builder.add_node("part", inner())
builder.add_edge(START, "route")
builder.add_edge("route", "ask")
builder.add_edge("route", "work")
builder.add_edge(["ask", "work"], "part")
graph = builder.compile(interrupt_before=["work"])


@task
def fetch(url: str) -> str:
    return url


@task
def load(url: str) -> str:
    return url


@entrypoint()
def flow(url: str) -> str:
    first = fetch(url).result()
    second = load(first).result()
    return str(interrupt(second))
'''


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadContract:
    """The contract of a graph in a module's text, loaded under a private name of its own every time."""

    def load(text: str, name: str = "graph") -> dict[str, Any]:
        package = f"_changeover_{len(list(tmp_path.iterdir())):020x}"
        file = tmp_path / package / "flow.py"
        file.parent.mkdir()
        file.write_text(text)
        spec = importlib.util.spec_from_file_location(f"{package}.graphs.flow", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return contract_of(
            getattr(module, name),
            lambda private: private.removeprefix(f"{package}.") if private.startswith(package) else None,
        )

    return load


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"Be kind."', '"Be short, and kind."'),
        ("print(PROMPT)", "print(PROMPT, len(state))"),
        ('"""A ticket."""', '"""What a customer wants."""'),
        ('    answer = interrupt("first")', "    # the first\n    answer = interrupt('first')"),
        ("import TypedDict\n", "import TypedDict\n\n\n# more lines\n"),
        ('answer = interrupt("first")\n', 'answer = interrupt("first")\n    print(answer)\n'),
        ("def work(state: State) -> Any:\n    return {}", "def work(state: State) -> Any:\n    return dict(draft='x')"),
    ],
    ids=["prompt", "body", "docstring of a class", "comment and quotes", "lines", "log line", "body without questions"],
)
def test_what_no_thread_can_feel_leaves_the_contract_equal(loaded: LoadContract, old: str, new: str) -> None:
    assert old in FLOW
    assert loaded(FLOW) == loaded(FLOW.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"ask"', '"approve"'),
        ('"deep"', '"deeper"'),
        ('"deep", lambda state: decide("deep")', '"deep", lambda state: interrupt("deep")'),
        ('    answer = interrupt("first")', '    interrupt("even before")\n    answer = interrupt("first")'),
        ('interrupt("first")', 'interrupt("another")'),
        ('interrupt({"question": text})', 'interrupt({"asked": text})'),
        ('"Refund it?"', '"Delete it?"'),
        ("(old + new)[-LIMIT:]", "(new + old)[-LIMIT:]"),
        ("LIMIT = 3", "LIMIT = 4"),
        ("Annotated[list[str], lambda old, new: (old + new)[-LIMIT:]]", "list[str]"),
        ("draft: str", "text: str"),
        ("draft: str", "draft: int"),
        ("    number: int", "    number: int\n    urgent: bool"),
        ("    number: int", "    number: str"),
        ("    price: float", "    price: float\n    amount: int = 1"),
        ('CALM = "calm"', 'CALM = "quiet"'),
        ('builder.add_node("work", work)', 'builder.add_node("work", work, defer=True)'),
        ('add_edge(["ask", "work"], "part")', 'add_edge(["ask", "work", "route"], "part")'),
        ('interrupt_before=["work"]', 'interrupt_before=["ask"]'),
        ('interrupt_before=["work"]', 'interrupt_after=["work"]'),
        ('add_node("work", work)', 'add_node("work", work, error_handler=lambda state: {})'),
        ("return builder.compile()", "return builder.compile(checkpointer=True)"),
        ("return builder.compile()", "return builder.compile(checkpointer=False)"),
    ],
)
def test_what_a_thread_can_feel_changes_the_contract(loaded: LoadContract, old: str, new: str) -> None:
    assert old in FLOW
    assert loaded(FLOW) != loaded(FLOW.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("first = fetch(url)", "first = load(url)"),
        ("first = fetch(url).result()", "first = fetch(fetch(url).result()).result()"),
        ("interrupt(second)", "interrupt(first)"),
        ("def flow(url: str) -> str:", "def flow(url: str) -> int:"),
    ],
    ids=["swapped", "inserted", "question", "what is kept"],
)
def test_the_calls_of_a_functional_graph_are_its_contract(loaded: LoadContract, old: str, new: str) -> None:
    assert old in FLOW
    assert loaded(FLOW, "flow") != loaded(FLOW.replace(old, new), "flow")
    assert loaded(FLOW, "flow") == loaded(FLOW.replace("Be kind", "Be short"), "flow")


def test_a_contract_names_no_place_of_this_process(loaded: LoadContract) -> None:
    for name in ("graph", "flow"):
        text = json.dumps(loaded(FLOW, name))
        assert "_changeover_" not in text
        assert "0x" not in text


def test_schemas_say_what_values_look_like_and_are_left_out_for_what_is_installed(loaded: LoadContract) -> None:
    channels = loaded(FLOW.replace("draft: str", "draft: str\n    message: Command"))["channels"]
    assert channels["draft"]["schema"] == {"type": "string"}
    assert channels["ticket"]["schema"]["$defs"]["Ticket"]["required"] == ["number"]
    assert channels["both"]["schema"]["anyOf"][0]["minItems"] == 2
    assert channels["message"]["schema"] is None


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        ("class Other(BaseModel):\n    b: int\n    a: int = 1\n", {"kind": "model", "required": ["b"]}),
        ("@dataclass\nclass Other:\n    b: int\n    a: int = 1\n", {"kind": "dataclass", "required": ["b"]}),
        ("class Other(TypedDict):\n    b: int\n", {"kind": "dict", "required": []}),
    ],
)
def test_the_state_class_says_which_keys_it_demands(loaded: LoadContract, cls: str, expected: dict[str, Any]) -> None:
    text = f"{FLOW}\n\n{cls}\n\nsmall = StateGraph(Other)\nsmall.add_node('a', lambda state: {{}})\n"
    found = loaded(f"{text}small.add_edge(START, 'a')\nsmall = small.compile()\n", "small")
    assert found["state"] == expected
