"""Every kind of change meets threads in every condition: none goes wrong in silence, and most of them simply work.

A cell is right if the thread ends, two turns later, with what the new version would have made of the whole
conversation, to the last value and with nothing done outside too often or too seldom; or it is refused, and then the
thread is exactly as it was and goes on where it is. What is refused although a step covers it is listed in
docs/limits.md.
`-s` prints a line for each kind.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from matrix_cells import Bench, Cell, Expected, Outcome, Verdict, cells_of
from matrix_conditions import AGENT, DESK, FUNCTIONAL, MEMORY, Family
from matrix_kinds import DATACLASS, KINDS, PYDANTIC, Kind

LIMITS = Path(__file__).resolve().parents[2] / "docs" / "limits.md"
MARKS = "<!-- refusals -->"
RIGHT_OF_ALL, RIGHT_OF_EACH = 0.95, 0.80
FAMILIES = (DESK, AGENT, FUNCTIONAL, PYDANTIC, DATACLASS, MEMORY)
LETTERS = {Verdict.RIGHT: ".", Verdict.REFUSED: "r", Verdict.RAISED: "E", Verdict.WRONG: "W"}

# what is next and what is asked, in the graphs that nothing has changed
WAITS: dict[str, tuple[list[str], list[str]]] = {
    "finished": ([], []),
    "asked": (["ask"], ["ask?"]),
    "asked_twice": (["asks"], ["second?"]),
    "asked_in_parallel": (["left", "right"], ["left?", "right?"]),
    "half_answered": (["left"], ["left?"]),
    "breakpoint_before": (["work"], []),
    "breakpoint_after": (["close"], []),
    "failed": (["left"], []),
    "sends_half_done": (["worker"], ["item?"]),
    "in_subgraph": (["sub"], ["confirm?"]),
    "in_nested_subgraph": (["outer"], ["deep?"]),
    "forked": (["ask"], ["ask?"]),
    "agent_finished": ([], []),
    "agent_approval": (["HumanInTheLoopMiddleware.after_model"], ["approval"]),
    "agent_two_approvals": (["HumanInTheLoopMiddleware.after_model"], ["approval"]),
    "agent_tool_asks": (["tools"], ["tool?"]),
    "agent_calls_queued": (["tools"], []),
    "agent_inside_a_graph": (["agent"], ["approval"]),
    "functional_finished": ([], []),
    "functional_in_task": (["script"], ["task?"]),
    "functional_between_tasks": (["script"], ["between?"]),
    "model_finished": ([], []),
    "model_asked": (["ask"], ["model?"]),
    "model_in_subgraph": (["sub"], ["confirm?"]),
    "model_breakpoint": (["work"], []),
    "memory_finished": ([], []),
    "memory_asked": (["sub"], ["memory?"]),
}
GOES_WRONG = (
    ("reducer_key_renamed", "finished"),
    ("asking_node_renamed", "asked"),
    ("inner_node_renamed", "in_subgraph"),
    ("question_inserted_before", "asked"),
    ("finished_branch_renamed", "half_answered"),
    ("finished_branch_renamed", "failed"),
    ("send_target_renamed", "sends_half_done"),
    ("goto_target_renamed", "half_answered"),
    ("key_dropped", "breakpoint_before"),
    ("tool_argument_replaced", "agent_approval"),
    ("calls_exchanged", "functional_in_task"),
    ("memory_renamed", "memory_finished"),
)

Refusals = set[tuple[str, str]]
Found = tuple[Cell, Outcome]

each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
pytestmark = pytest.mark.asyncio(loop_scope="module")


def listed_refusals() -> Refusals:
    """Kind and condition of each row of the table in docs/limits.md."""
    text = LIMITS.read_text(encoding="utf-8")
    table = text.split(MARKS)[1] if text.count(MARKS) == 2 else ""
    return set(_rows(table))


def _rows(table: str) -> Iterator[tuple[str, str]]:
    for kinds, conditions in re.findall(r"^\| (`[^|]*) \| (`[^|]*) \|", table, re.MULTILINE):
        for kind in re.findall(r"`(\w+)`", kinds):
            for condition in re.findall(r"`(\w+)`", conditions):
                yield kind, condition


def covered_cells() -> list[Cell]:
    return [cell for kind in KINDS for cell in cells_of(kind) if cell.covered]


def _say(kind: Kind, found: list[Found]) -> None:
    def row(covered: bool) -> str:
        return "".join(LETTERS[outcome.verdict] for cell, outcome in found if cell.covered is covered) or "-"

    print(f"{kind.name:36} with its step {row(True):14} without {row(False)}")


def _all(found: list[Found], *verdicts: Verdict) -> list[str]:
    return [f"{cell}: {outcome.detail}" for cell, outcome in found if outcome.verdict in verdicts]


@each_kind
async def test_no_cell_is_silently_wrong_and_what_is_refused_is_listed(bench: Bench, kind: Kind) -> None:
    await bench.register(kind)
    wants = {condition.name: await bench.expected(kind, condition) for condition in kind.conditions}
    cells = cells_of(kind)
    outcomes = await asyncio.gather(*(bench.moved(cell, wants[cell.condition.name]) for cell in cells))
    found = list(zip(cells, outcomes, strict=True))
    _say(kind, found)
    assert _all(found, Verdict.WRONG, Verdict.RAISED) == []
    refused = {cell.condition.name for cell, outcome in found if cell.covered and outcome.verdict is Verdict.REFUSED}
    listed = {condition for of, condition in listed_refusals() if of == kind.name}
    assert refused == listed, _all([one for one in found if one[0].covered], Verdict.REFUSED)
    await _assert_staying_is_not_worse(bench, found, wants)


async def _assert_staying_is_not_worse(bench: Bench, found: list[Found], wants: dict[str, Expected]) -> None:
    """What LangGraph alone does right must not be refused for the want of a step."""
    for cell, outcome in found:
        kind, condition = cell.kind, cell.condition
        excused = cell.covered or kind.meaning or condition.name in kind.lucky
        if outcome.verdict is Verdict.REFUSED and not excused:
            plain = await bench.plainly(kind, condition, wants[condition.name])
            assert plain.verdict is not Verdict.RIGHT, f"{cell} is right in plain LangGraph: {outcome.detail}"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.chain], ids=lambda kind: kind.name)
async def test_there_and_back_a_thread_is_what_it_was_and_keeps_what_was_said(bench: Bench, kind: Kind) -> None:
    await bench.register(kind)
    listed = listed_refusals()
    tried = [one for one in kind.returning_conditions if (kind.name, one.name) not in listed]
    cells = [Cell(kind, condition, True) for condition in tried]
    outcomes = await asyncio.gather(*(bench.there_and_back(cell) for cell in cells))
    found = list(zip(cells, outcomes, strict=True))
    assert _all(found, Verdict.WRONG, Verdict.RAISED, Verdict.REFUSED) == []


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
async def test_each_condition_is_what_its_name_says(family: Family) -> None:
    bench, kind = Bench(), next(kind for kind in KINDS if kind.family is family)
    for condition in family.conditions:
        talk = bench.plain(kind, condition, family.spec)
        await condition.bring(talk, family.spec)
        seen = await talk.seen()
        asked = [question.asked if isinstance(question.asked, str) else "approval" for question in seen.questions]
        assert (sorted(seen.next), sorted(asked)) == WAITS[condition.name], condition.name


@pytest.mark.parametrize(("name", "condition"), GOES_WRONG)
async def test_what_goes_wrong_in_plain_langgraph_is_noticed(name: str, condition: str) -> None:
    bench, kind = Bench(), next(kind for kind in KINDS if kind.name == name)
    met = next(one for one in kind.family.conditions if one.name == condition)
    outcome = await bench.plainly(kind, met, await bench.expected(kind, met))
    assert outcome.verdict is Verdict.WRONG


async def test_with_its_step_nearly_every_cell_is_right() -> None:
    refusals, cells = listed_refusals(), covered_cells()
    assert {(kind, condition) for kind, condition in refusals} <= {
        (cell.kind.name, cell.condition.name) for cell in cells
    }
    assert len(refusals) <= (1 - RIGHT_OF_ALL) * len(cells)
    for of in ("kind", "condition"):
        tried = Counter(getattr(cell, of).name for cell in cells)
        refused = Counter(refusal[0 if of == "kind" else 1] for refusal in refusals)
        too_many = {name: times for name, times in refused.items() if times > (1 - RIGHT_OF_EACH) * tried[name]}
        assert too_many == {}, of


async def test_the_matrix_is_large_enough_to_mean_something() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS) >= 55
    assert sum(len(cells_of(kind)) for kind in KINDS) >= 500
