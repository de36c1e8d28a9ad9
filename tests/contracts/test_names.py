"""Where things are after some moves: what renames, removals and moves say, together and back again."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from changeover.contracts.chain import Move
from changeover.contracts.names import Names
from changeover.contracts.renaming import Place
from changeover.contracts.steps import Step, declared
from changeover.project.migration_models import StepParts


def step(number: int, **parts: Any) -> Step:
    return declared("desk", number, f"s{number}", parts)


def python(number: int, subgraph: str, **parts: Any) -> Step:
    return Step("desk", number, "p", "", "d", True, True, StepParts.model_validate(parts), subgraph)


def forward(*steps: Step) -> Names:
    return Names.of([Move(each, True) for each in steps])


def back(*steps: Step) -> Names:
    return Names.of([Move(each, False) for each in reversed(steps)])


def test_without_moves_everything_is_where_it_was() -> None:
    names = Names.of([])
    assert names.node("support/model") == Place("support/model")
    assert (names.key("note"), names.tool("refund"), names.task("fetch")) == ("note", "refund", "fetch")
    assert names.node_from("support") == "support"


def test_a_renamed_subgraph_takes_its_nodes_and_keys_along() -> None:
    names = forward(step(1, nodes={"rename": {"support": "desk"}}))
    assert names.key("support/note") == "desk/note"
    assert names.node("support/model") == Place("desk/model", "renamed")
    assert names.key_from("desk/note") == "support/note"
    assert names.key("note") == "note"


def test_names_below_a_renamed_node_are_renamed_in_their_place() -> None:
    parts = {"nodes": {"rename": {"support": "desk", "support/model": "llm"}}, "state": {"rename": {"support/a": "b"}}}
    names = forward(step(1, **parts))
    assert names.node("support/model") == Place("desk/llm", "renamed")
    assert names.key("support/a") == "desk/b"
    assert names.node_from("desk/llm") == "support/model"
    assert names.node_from("desk/model") is None, "a new node that has an old name is another node"


def test_renames_of_several_steps_add_up_and_come_back() -> None:
    steps = (step(1, state={"rename": {"a": "b"}}), step(2, state={"rename": {"b": "c"}, "drop": ["tmp"]}))
    assert forward(*steps).key("a") == "c"
    assert forward(*steps).key("tmp") is None
    assert forward(*steps).key_from("c") == "a"
    assert back(*steps).key("c") == "a"
    assert back(*steps).key_from("a") == "c"


def test_two_keys_can_change_their_names_with_each_other() -> None:
    names = forward(step(1, state={"rename": {"a": "b", "b": "a"}}))
    assert (names.key("a"), names.key("b")) == ("b", "a")
    assert (names.key_from("a"), names.key_from("b")) == ("b", "a")


def test_a_removed_node_says_where_its_threads_go_on() -> None:
    removal = step(1, nodes={"remove": {"approve": {"goto": "support"}, "desk/ask": {"goto": "END"}}})
    names = forward(removal, step(2, nodes={"rename": {"support": "help"}}))
    assert names.node("approve") == Place("help", "removed")
    assert names.node("desk/ask") == Place("desk/END", "removed")
    assert names.node("desk/ask").is_end  # type: ignore[union-attr]
    assert names.node_from("approve") is None


def test_what_is_inside_of_a_removed_node_goes_with_it() -> None:
    names = forward(step(1, nodes={"remove": {"support": {"goto": "END"}}}))
    assert names.node("support/model") == Place("END", "removed")
    assert names.key("support/note") is None


def test_a_split_node_waits_at_one_of_its_parts_and_is_one_again_on_the_way_back() -> None:
    split = step(1, nodes={"split": {"work": {"into": ["prepare", "perform"], "at": "prepare"}}})
    assert forward(split).node("work") == Place("prepare", "split", ("prepare", "perform"))
    assert forward(split).node_from("perform") == "work"
    assert back(split).node("perform") == Place("work", "merged")
    assert back(split).node("prepare") == Place("work", "merged")


def test_a_node_moves_into_a_subgraph_and_out_again() -> None:
    move = step(1, nodes={"move": {"approve": "review/approve"}})
    assert forward(move).node("approve") == Place("review/approve", "moved")
    assert forward(move).node_from("approve") is None
    assert back(move).node("review/approve") == Place("approve", "moved")


def test_arguments_go_by_the_tool_after_its_rename() -> None:
    tools = {
        "rename": {"refund": "pay_back"},
        "arguments": {"pay_back": {"rename": {"amt": "amount"}, "drop": ["note"], "set": {"to": "desk"}}},
    }
    names = forward(step(1, tools=tools))
    assert (names.tool("refund"), names.tool_from("pay_back")) == ("pay_back", "refund")
    assert (names.argument("refund", "amt"), names.argument("refund", "note")) == ("amount", None)
    assert names.arguments("refund", ["amt", "note", "id"]) == {"amount", "id", "to"}
    assert back(step(1, tools=tools)).arguments("pay_back", ["amount", "id", "to"]) == {"amt", "id"}


def test_sets_are_in_the_names_that_the_new_side_uses() -> None:
    steps = (
        step(1, state={"convert": {"count": "str"}, "set": {"lang": "en"}}, interrupts={"same": ["ask"]}),
        step(2, state={"rename": {"count": "total"}}, nodes={"rename": {"ask": "approve"}}),
    )
    names = forward(*steps)
    assert names.converted == {"total"}
    assert names.set == {"lang"}
    assert names.same_interrupts == {"approve"}
    assert back(*steps).converted == {"count"}
    assert back(*steps).same_interrupts == {"ask"}


def test_a_python_step_may_have_touched_every_key_of_its_graph_and_of_no_other() -> None:
    names = forward(python(1, "support"), step(2, nodes={"rename": {"support": "desk"}}))
    assert names.touched("desk/note")
    assert not names.touched("note")
    assert not names.touched("desk/inner/note")
    assert forward(python(1, "")).touched("note")


def test_types_and_tasks_have_new_names() -> None:
    names = forward(step(1, types={"rename": {"a.b:C": "a.c:D"}}, tasks={"rename": {"fetch": "load"}, "same": True}))
    assert (names.type("a.b:C"), names.type("x:Y"), names.type_from("a.c:D")) == ("a.c:D", "x:Y", "a.b:C")
    assert (names.task("fetch"), names.same_tasks) == ("load", True)


leaves = st.sampled_from(["a", "b", "c", "d", "s", "t"])


@given(st.permutations(["a", "b", "c", "d"]), st.sampled_from(["s", "t", "u"]), leaves, st.booleans())
def test_the_way_back_undoes_every_rename(shuffled: list[str], sub: str, leaf: str, inside: bool) -> None:
    renames = {old: new for old, new in zip("abcd", shuffled, strict=True) if old != new}
    parts = {"state": {"rename": {**renames, **{f"s/{old}": new for old, new in renames.items()}}}}
    one = step(1, nodes={"rename": {"s": sub}} if sub != "s" else {}, **parts)
    path = f"s/{leaf}" if inside else leaf
    there = forward(one).key(path)
    assert there is not None
    assert back(one).key(there) == path
    assert forward(one).key_from(there) == path
