"""Each difference between two contracts is safe, covered by a step, or breaks threads, and says which and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest
import version_pairs as pairs
from langgraph.func import entrypoint, task
from langgraph.types import interrupt
from pydantic import BaseModel
from version_pairs import LOG, ask, ask_before, ask_other, ask_twice, contract, graph, plain, state

from changeover.contracts.chain import Move
from changeover.contracts.comparing import compare
from changeover.contracts.differences import Difference
from changeover.contracts.names import Names
from changeover.contracts.steps import Step, declared
from changeover.project.migration_models import StepParts


def compared(old: Any, new: Any, *, back: bool = False, **parts: Any) -> list[Difference]:
    moves = [Move(declared("desk", 1, "step", parts), not back)] if parts else []
    return compare(contract(old), contract(new), Names.of(moves))


def told(found: list[Difference]) -> list[tuple[str, str, str]]:
    return [(each.grade, each.what, each.where) for each in found]


def keys(**types: Any) -> Any:
    return graph(schema=state(**types), work=plain)


def test_equal_contracts_have_no_differences() -> None:
    assert compared(keys(note=str), keys(note=str)) == []


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        (keys(note=str), keys(note=str, more=int), "key-added"),
        (keys(note=str, more=int), keys(note=str), "key-removed"),
        (keys(note=int), keys(note=float), "key-retyped"),
        (keys(note=int), keys(note=int | None), "key-retyped"),
        (keys(note=list[int]), keys(note=list[int | str]), "key-retyped"),
        (keys(note=Literal["a"]), keys(note=Literal["a", "b"]), "key-retyped"),
        (keys(note=Literal["a"]), keys(note=str), "key-retyped"),
        (keys(note=list[str]), keys(note=LOG), "reducer-changed"),
        (graph(work=plain), graph(work=plain, after=plain), "node-added"),
        (graph(work=plain, defer="work"), graph(work=plain), "defer-removed"),
    ],
)
def test_what_plain_langgraph_does_right_is_safe(old: Any, new: Any, what: str) -> None:
    found = compared(old, new)
    assert {each.grade for each in found} == {"safe"}
    assert what in {each.what for each in found}


def test_breakpoints_and_context_are_safe_and_leave_the_saved_state_alone() -> None:
    old, new = contract(graph(work=plain)), contract(graph(work=plain), interrupt_before=["work"])
    (found,) = compare(old, new | {"context": "graphs.Context"}, Names.of([]))[:1]
    assert {each.grade for each in compare(old, new, Names.of([]))} == {"safe"}
    assert not found.rewrites


@pytest.mark.parametrize(
    ("old", "new", "suggestion"),
    [
        (keys(note=str), keys(notes=str), {"state": {"rename": {"note": "notes"}}}),
        (keys(alpha=str), keys(omega=str), {"state": {"rename": {"alpha": "omega"}}}),
        (keys(count=int), keys(counts=str), {"state": {"rename": {"count": "counts"}}}),
        (keys(note=int), keys(note=str), {"state": {"convert": {"note": "str"}}}),
        (keys(note=Literal["a", "b"]), keys(note=Literal["a"]), None),
        (keys(note=LOG), keys(note=list[str]), {"state": {"convert": {"note": "list"}}}),
    ],
)
def test_a_value_that_would_be_lost_breaks_every_thread_and_names_the_step(old: Any, new: Any, suggestion: Any) -> None:
    worst = compared(old, new)[0]
    assert (worst.grade, worst.touches.scope) == ("breaks", "always")
    assert worst.suggestion == suggestion
    assert worst.hint is not None
    assert worst.hint.startswith("write a step")


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        (keys(note=str), keys(notes=str), {"state": {"rename": {"note": "notes"}}}),
        (keys(alpha=str), keys(omega=str), {"state": {"drop": ["alpha"]}}),
        (keys(note=int), keys(note=str), {"state": {"convert": {"note": "str"}}}),
        (keys(note=LOG), keys(note=list[str]), {"state": {"convert": {"note": "list"}}}),
        (graph(ask=ask), graph(approve=ask), {"nodes": {"rename": {"ask": "approve"}}}),
        (graph(ask=ask, work=plain), graph(work=plain), {"nodes": {"remove": {"ask": {"goto": "work"}}}}),
        (graph(ask=ask), graph(ask=ask_other), {"interrupts": {"same": ["ask"]}}),
        (
            graph(work=plain),
            graph(one=plain, two=plain),
            {"nodes": {"split": {"work": {"into": ["one", "two"], "at": "one"}}}},
        ),
    ],
)
def test_a_step_covers_it_in_both_directions(old: Any, new: Any, parts: dict[str, Any]) -> None:
    assert [each for each in compared(old, new, **parts) if each.grade == "breaks"] == []
    assert any(each.grade == "migrates" for each in compared(old, new, **parts))
    back = [each for each in compared(new, old, back=True, **parts) if each.grade == "breaks"]
    assert back == []


def test_a_value_that_a_step_set_and_a_key_that_it_dropped_come_back() -> None:
    parts: Any = {"state": {"set": {"lang": "en"}, "drop": ["tmp"]}}
    found = compared(keys(lang=str), keys(tmp=str), back=True, **parts)
    assert "breaks" not in {each.grade for each in found}


def test_a_step_that_leads_to_something_that_is_not_there_is_found() -> None:
    assert ("breaks", "key-missing", "note") in told(
        compared(keys(note=str), keys(more=int), state={"rename": {"note": "nope"}})
    )
    parts: Any = {"rename": {"ask": "nope"}}
    assert ("breaks", "node-missing", "ask") in told(compared(graph(ask=ask), graph(work=plain), nodes=parts))
    gone: Any = {"remove": {"ask": {"goto": "nope"}}}
    assert ("breaks", "node-removed", "ask") in told(compared(graph(ask=ask), graph(work=plain), nodes=gone))


def test_a_python_step_answers_for_the_keys_of_its_graph() -> None:
    step = Step("desk", 1, "p", "", "d", False, True, StepParts())
    found = compare(contract(keys(note=int)), contract(keys(notes=str)), Names.of([Move(step, True)]))
    assert "breaks" not in {each.grade for each in found}


class Ticket(BaseModel):
    title: str


class Wider(BaseModel):
    title: str
    urgent: bool = False


class Stricter(BaseModel):
    title: str
    owner: str


@dataclass
class Desk:
    note: str


@dataclass
class DeskWithDefault:
    note: str
    lang: str = "en"


@dataclass
class DeskWithout:
    note: str
    lang: str


@pytest.mark.parametrize(
    ("old", "new", "grade"),
    [
        (Ticket, Wider, "safe"),
        (Ticket, Stricter, "breaks"),
        (Desk, DeskWithDefault, "safe"),
        (Desk, DeskWithout, "breaks"),
    ],
)
def test_a_class_with_a_field_more_fits_if_the_field_has_a_default(old: type, new: type, grade: str) -> None:
    before, after = contract(keys(held=old)), contract(keys(held=new))
    after["channels"]["held"]["type"]["class"] = before["channels"]["held"]["type"]["class"]
    assert [each.grade for each in compare(before, after, Names.of([]))] == [grade]


def test_a_class_that_has_moved_needs_a_step() -> None:
    before, after = contract(keys(held=Ticket)), contract(keys(held=Ticket))
    after["channels"]["held"]["type"]["class"] = "models.Ticket"
    (found,) = compare(before, after, Names.of([]))
    assert found.suggestion == {"types": {"rename": {"graphs:Ticket": "models:Ticket"}}}
    step = declared("desk", 1, "s", found.suggestion)
    assert [each.grade for each in compare(before, after, Names.of([Move(step, True)]))] == ["safe"]


@pytest.mark.parametrize(("old", "new"), [(Ticket, Stricter), (Desk, DeskWithout)])
def test_a_state_class_that_demands_more_needs_a_value(old: type, new: type) -> None:
    before, after = graph(schema=old, work=plain), graph(schema=new, work=plain)
    key = "owner" if new is Stricter else "lang"
    (broken,) = [each for each in compared(before, after) if each.grade == "breaks"]
    assert (broken.what, broken.suggestion) == ("key-added", {"state": {"set": {key: ""}}})
    assert "breaks" not in {each.grade for each in compared(before, after, state={"set": {key: "x"}})}


def test_keys_and_nodes_of_subgraphs_have_paths_and_touch_what_waits_there() -> None:
    old = graph(desk=graph(schema=state(draft=str), ask=ask).compile())
    new = graph(desk=graph(schema=state(text=str), approve=ask).compile())
    broken = {each.where: each for each in compared(old, new) if each.grade == "breaks"}
    assert set(broken) == {"desk/draft", "desk/ask"}
    assert (broken["desk/draft"].touches.scope, broken["desk/draft"].touches.path) == ("inside", "desk")
    assert broken["desk/draft"].suggestion == {"state": {"rename": {"desk/draft": "text"}}}
    assert broken["desk/ask"].suggestion == {"nodes": {"rename": {"desk/ask": "approve"}}}
    steps: Any = {"state": broken["desk/draft"].suggestion["state"], "nodes": broken["desk/ask"].suggestion["nodes"]}
    assert "breaks" not in {each.grade for each in compared(old, new, **steps)}


def test_what_a_subgraph_remembers_is_touched_in_every_thread() -> None:
    old = graph(desk=graph(schema=state(draft=str), work=plain).compile(checkpointer=True))
    renamed_key = graph(desk=graph(schema=state(text=str), work=plain).compile(checkpointer=True))
    renamed_node = graph(office=graph(schema=state(draft=str), work=plain).compile(checkpointer=True))
    assert compared(old, renamed_key)[0].touches.scope == "always"
    found = compared(old, renamed_node)[0]
    assert (found.grade, found.touches.scope) == ("breaks", "always")
    assert "forget" in found.reason


@pytest.mark.parametrize(
    ("new", "what", "after"),
    [(ask_before, "interrupt-added", 0), (ask_other, "interrupt-changed", 0), (plain, "interrupt-removed", 0)],
)
def test_a_question_that_is_another_one_touches_those_who_were_asked(new: Any, what: str, after: int) -> None:
    found = compared(graph(ask=ask), graph(ask=new))[0]
    assert (found.grade, found.what, found.touches.scope, found.touches.after) == ("breaks", what, "question", after)


def test_a_question_after_those_that_there_were_is_safe_unless_one_was_asked_again_and_again() -> None:
    found = compared(graph(ask=ask), graph(ask=ask_twice))
    assert ("safe", "interrupt-added", "ask") in told(found)
    (repeated,) = [each for each in found if each.grade == "breaks"]
    assert (repeated.what, repeated.touches.after) == ("interrupt-repeated", 1)


def test_joins_are_found_under_their_new_names_and_break_with_another_source() -> None:
    old = graph(a=plain, b=plain, c=plain, joins=[(["a", "b"], "c")])
    renamed = graph(x=plain, b=plain, c=plain, joins=[(["x", "b"], "c")])
    wider = graph(a=plain, b=plain, d=plain, c=plain, joins=[(["a", "b", "d"], "c")])
    assert ("migrates", "join-renamed", "join:a+b:c") in told(compared(old, renamed, nodes={"rename": {"a": "x"}}))
    assert ("breaks", "join-changed", "join:a+b:c") in told(compared(old, renamed))
    assert ("breaks", "join-changed", "join:a+b:c") in told(compared(old, wider))


def test_a_deferred_node_needs_its_state_written_anew_and_no_step() -> None:
    (found,) = compared(graph(work=plain), graph(work=plain, defer="work"))
    assert (found.grade, found.rewrites) == ("migrates", True)


def tool_differences(old: dict[str, Any], new: dict[str, Any], **parts: Any) -> list[tuple[str, str]]:
    found = compared(pairs.agent(pairs.refund_tool(**old)), pairs.agent(pairs.refund_tool(**new)), **parts)
    return [(each.grade, each.what) for each in found]


@pytest.mark.parametrize(
    ("new", "parts", "expected"),
    [
        ({"order": int}, {}, []),
        ({"order": float}, {}, []),
        ({"order": str}, {}, [("breaks", "argument-retyped")]),
        ({"order": int, "to": (str, "all")}, {}, [("breaks", "argument-added")]),
        ({"order": int, "to": str}, {"refund": {"set": {"to": "desk"}}}, [("migrates", "argument-added")]),
        ({"number": int}, {"refund": {"rename": {"order": "number"}}}, [("migrates", "argument-renamed")]),
        ({"number": int}, {}, [("breaks", "argument-added"), ("breaks", "argument-removed")]),
    ],
)
def test_arguments_of_a_call_that_waits_must_mean_the_same(new: Any, parts: Any, expected: Any) -> None:
    assert (
        sorted(tool_differences({"order": int}, new, **({"tools": {"arguments": parts}} if parts else {}))) == expected
    )


def test_another_default_changes_what_was_approved() -> None:
    old, new = {"to": (str, "desk")}, {"to": (str, "all")}
    assert tool_differences(old, new) == [("breaks", "argument-default")]
    covered = tool_differences(old, new, tools={"arguments": {"refund": {"set": {"to": "desk"}}}})
    assert covered == [("migrates", "argument-default")]


def test_a_renamed_tool_is_the_one_that_needs_approval() -> None:
    old = pairs.agent(pairs.refund_tool("refund"), approve={"refund": True})
    new = pairs.agent(pairs.refund_tool("pay_back"), approve={"pay_back": True})
    assert "tool-removed" in {each.what for each in compared(old, new) if each.grade == "breaks"}
    assert told(compared(old, new, tools={"rename": {"refund": "pay_back"}})) == [
        ("migrates", "tool-renamed", "refund")
    ]


def test_an_approval_that_is_gone_or_decides_otherwise_breaks() -> None:
    def desk(approve: Any) -> Any:
        return pairs.agent(pairs.refund_tool(), approve=approve)

    gone = compared(desk({"refund": True}), desk(None))[0]
    assert (gone.grade, gone.what) == ("breaks", "node-removed")
    assert "orphaned" in gone.reason
    narrower = compared(desk({"refund": True}), desk({"refund": {"allowed_decisions": ["approve"]}}))
    assert [(each.grade, each.what) for each in narrower] == [("breaks", "approval-changed")]


@task
def fetch(value: int) -> int:
    return value


@task
def load(value: int) -> int:
    return value


@entrypoint()
def flow(value: int) -> Any:
    return fetch(value).result(), interrupt("sure?")


def renamed_flow() -> Any:
    def flow(value: int) -> Any:
        return load(value).result(), interrupt("sure?")

    return entrypoint()(flow)


def longer_flow() -> Any:
    def flow(value: int) -> Any:
        return fetch(value).result(), interrupt("sure?"), load(value).result()

    return entrypoint()(flow)


def test_calls_of_a_functional_graph_are_compared_in_order() -> None:
    assert ("breaks", "calls-changed", "") in told(compared(flow, renamed_flow()))
    assert told(compared(flow, renamed_flow(), tasks={"rename": {"fetch": "load"}})) == []
    assert ("migrates", "calls-changed", "") in told(compared(flow, renamed_flow(), tasks={"same": True}))
    assert ("safe", "calls-added", "") in told(compared(flow, longer_flow()))


def test_a_graph_of_another_kind_shares_nothing() -> None:
    (found,) = compared(flow, graph(work=plain))
    assert (found.grade, found.touches.scope) == ("breaks", "always")
