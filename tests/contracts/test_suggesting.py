"""A draft of a step holds what two contracts suggest, is valid as it stands, and leaves claims to its author."""

from __future__ import annotations

from typing import Any

import version_pairs as pairs
import yaml
from version_pairs import ask, ask_other, contract, graph, plain, state

from changeover.contracts.chain import Move
from changeover.contracts.comparing import compare
from changeover.contracts.names import Names
from changeover.contracts.steps import declared
from changeover.contracts.suggesting import step_file, suggested_step
from changeover.project.migration_models import MigrationFile


def suggested(old: Any, new: Any) -> dict[str, Any] | None:
    return suggested_step(contract(old), contract(new))


def still_broken(old: Any, new: Any, parts: dict[str, Any]) -> list[str]:
    names = Names.of([Move(declared("desk", 1, "draft", parts), True)])
    return [each.reason for each in compare(contract(old), contract(new), names) if each.grade == "breaks"]


def test_nothing_is_suggested_where_nothing_breaks() -> None:
    assert suggested(graph(work=plain), graph(work=plain, more=plain)) is None


def test_a_subgraph_is_found_under_its_new_name_with_all_that_was_renamed_inside() -> None:
    old = graph(desk=graph(schema=state(draft=str), ask=ask).compile())
    new = graph(front_desk=graph(schema=state(drafts=str), approve=ask).compile())
    parts = suggested(old, new)
    assert parts is not None
    assert parts["nodes"]["rename"]["desk"] == "front_desk"
    assert still_broken(old, new, parts) == []


def test_two_names_that_are_gone_do_not_become_one() -> None:
    old, new = graph(schema=state(note=str, tone=str), work=plain), graph(schema=state(notes=str), work=plain)
    assert suggested(old, new) == {"state": {"rename": {"note": "notes"}}}


def test_a_renamed_argument_is_not_given_a_value_as_well() -> None:
    old, new = pairs.agent(pairs.refund_tool(amt=int)), pairs.agent(pairs.refund_tool("pay", amount=int))
    parts = suggested(old, new)
    assert parts == {"tools": {"rename": {"refund": "pay"}, "arguments": {"pay": {"rename": {"amt": "amount"}}}}}
    assert still_broken(old, new, parts) == []


def test_it_is_never_claimed_that_a_changed_question_asks_the_same() -> None:
    assert suggested(graph(ask=ask), graph(ask=ask_other)) is None


def test_the_file_is_a_step_with_words_for_its_author() -> None:
    old, new = graph(schema=state(note=int), ask=ask), graph(schema=state(note=str), approve=ask)
    parts = suggested(old, new)
    text = step_file("desk", parts)
    read = MigrationFile.model_validate(yaml.safe_load(text))
    assert read.graph == "desk"
    assert (read.state.convert, read.nodes.rename) == ({"note": "str"}, {"ask": "approve"})
    assert "# A draft" in text
    assert "# Nodes, for threads that wait in them" in text


def test_an_empty_file_is_one_too() -> None:
    text = step_file("desk", None)
    assert MigrationFile.model_validate(yaml.safe_load(text)).graph == "desk"
    assert "# nodes: {rename" in text
