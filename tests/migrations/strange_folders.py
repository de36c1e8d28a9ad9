"""One folder in two versions: classes whose checks or fields change, and a graph that leaves YAML for Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

HEAD = """
import operator
from typing import Annotated, Any

from langgraph.graph import START, StateGraph
from langgraph.types import Send, interrupt
from pydantic import BaseModel, Field, field_validator
from typing_extensions import TypedDict

"""

# A ticket is made, then the thread waits.
KEPT = (
    HEAD
    + """
class Ticket(BaseModel):
    number: int = FIELD
CHECK

class State(TypedDict, total=False):
    ticket: Ticket
    log: Annotated[list[str], operator.add]


def make(state: State) -> dict:
    return {"ticket": Ticket(number=state["log"][0])}


def ask(state: State) -> dict:
    return {"log": [f"{interrupt('well?')} {state['ticket'].number}"]}


def graph():
    made = StateGraph(State)
    made.add_node("make", make)
    made.add_node("ask", ask)
    made.add_edge(START, "make")
    made.add_edge("make", "ask")
    return made
"""
)
CHECK = """
    @field_validator("number")
    @classmethod
    def is_large(cls, value: int) -> int:
        if value < 10:
            raise ValueError("too small")
        return value
"""

# Tickets are sent to a node which waits.
SENT = (
    HEAD
    + """
class Ticket(BaseModel):
    number: int


class State(TypedDict, total=False):
    note: str
    log: Annotated[list[str], operator.add]


def begin(state: State) -> dict:
    return {}


def each(state: State) -> list[Send]:
    return [Send("work", Ticket(number=number)) for number in (1, 2)]


def work(ticket: Ticket) -> dict:
    return {"log": [f"{interrupt('well?')} {ticket.number}"]}


def graph():
    made = StateGraph(State)
    made.add_node("begin", begin)
    made.add_node("work", work, input_schema=Ticket)
    made.add_edge(START, "begin")
    made.add_conditional_edges("begin", each, ["work"])
    return made
"""
)
CONVERSIONS = """
from graphs.converted import Ticket


def ticket(older):
    return Ticket(label=str(older.number))
"""

IN_YAML = """
state:
  log: {type: list, reducer: append}
  decision: any
nodes:
  first: {python: graphs.lib.parts:first}
  ask: {interrupt: "well?", save: decision}
  end: {python: graphs.lib.parts:end}
edges:
  - {from: START, to: first}
  - {from: first, to: ask}
  - {from: ask, to: end}
  - {from: end, to: END}
"""
PARTS = """
def first(state):
    return {"log": ["first"]}


def end(state):
    return {"log": [f"end {state['decision']}"]}
"""
IN_PYTHON = (
    HEAD
    + """
from graphs.lib.parts import end, first


class State(TypedDict, total=False):
    log: Annotated[list, operator.add]
    decision: Any


def ask(state):
    return {"decision": interrupt("well?")}


def graph():
    made = StateGraph(State)
    made.add_node("first", first)
    made.add_node("ask", ask)
    made.add_node("end", end)
    made.add_edge(START, "first")
    made.add_edge("first", "ask")
    made.add_edge("ask", "end")
    return made
"""
)

PLAIN = KEPT.replace("FIELD", "0").replace("CHECK", "")
LABELLED = SENT.replace("number: int", "label: str").replace("ticket.number", "ticket.label")
LABELLED = LABELLED.replace("number=number", "label=str(number)")
OLDER = {
    "graphs/limited.py": PLAIN,
    "graphs/checked.py": PLAIN,
    "graphs/sent.py": SENT,
    "graphs/converted.py": SENT,
    "graphs/rewritten.yaml": IN_YAML,
    "graphs/lib/__init__.py": "",
    "graphs/lib/parts.py": PARTS,
}
NEWER = {
    "graphs/limited.py": KEPT.replace("FIELD", "Field(0, ge=10)").replace("CHECK", ""),
    "graphs/checked.py": KEPT.replace("FIELD", "0").replace("CHECK", CHECK),
    "graphs/sent.py": LABELLED,
    "graphs/converted.py": LABELLED,
    "graphs/lib/tickets.py": CONVERSIONS,
    "graphs/rewritten.yaml": None,
    "graphs/rewritten.py": IN_PYTHON,
    "migrations/0001_tickets.yaml": 'graph: converted\nsends: {convert: {work: "graphs.lib.tickets:ticket"}}\n',
    "migrations/0002_python.yaml": "graph: rewritten\ninterrupts: {same: [ask]}\n",
}


def write(path: Path, files: Mapping[str, str | None]) -> None:
    for name, text in files.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            target.unlink()
        else:
            target.write_text(text, encoding="utf-8")
