"""Differences of texts as rows, and graphs as pictures: pure."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from changeover.server.ui.contract import type_words
from changeover.server.ui.picture import compared, differs, picture
from changeover.server.ui.sidebyside import LINE_CHARS, Line, Section, side_by_side, words
from changeover.versions.diff import diff

WORDS = ("refund", "order", "the", "client:", "  ", "\t", "never", "{a}", "@@ -1 +1 @@", "--- a", "+++ b", "\\ no", "ü")


def _diff(old: str, new: str) -> str:
    (change,) = diff({"a.md": old.encode()}, {"a.md": new.encode()})
    return change.diff


def _text(line: Line | None) -> str:
    return "".join(text for text, _ in line.parts) if line else ""


def _sides(sections: list[Section]) -> tuple[list[str], list[str]]:
    rows = [row for section in sections for row in section.rows]
    return [_text(row.old) for row in rows if row.old], [_text(row.new) for row in rows if row.new]


def _pages(chance: random.Random) -> Iterator[tuple[str, str]]:
    for _ in range(200):
        old = [" ".join(chance.choices(WORDS, k=chance.randrange(6))) for _ in range(chance.randrange(40))]
        new = list(old)
        for _ in range(chance.randrange(1, 8)):
            at = chance.randrange(len(new) + 1)
            new[at : at + chance.randrange(3)] = [" ".join(chance.choices(WORDS, k=4))] * chance.randrange(3)
        yield "\n".join(old), "\n".join(new) + "\n" * chance.randrange(2)


def test_no_line_is_lost_or_moved_and_numbers_count_up() -> None:
    for old, new in _pages(random.Random(7)):
        if old == new:
            continue
        sections, left_out = side_by_side(_diff(old, new), 10_000, new)
        mine, theirs = _sides(sections)
        assert left_out == 0
        assert mine == _lines(old)
        assert theirs == _lines(new)
        rows = [row for section in sections for row in section.rows]
        assert [row.old.number for row in rows if row.old] == list(range(1, len(mine) + 1))
        assert [row.new.number for row in rows if row.new] == list(range(1, len(theirs) + 1))


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    return lines if lines[-1] else lines[:-1]


def test_words_that_changed_are_marked_and_no_others() -> None:
    old, new = words("Refund what the customer asked for", "Refund what the client asked for")
    assert [text for text, is_marked in old if is_marked] == ["customer"]
    assert [text for text, is_marked in new if is_marked] == ["client"]
    assert "".join(text for text, _ in new) == "Refund what the client asked for"


def test_line_that_came_between_does_not_shift_those_that_changed() -> None:
    old = "topic: {type: str}\ndecision: any # said\n"
    new = "topic: {type: int}\nmood: {type: str}\ndecision: all # said\n"
    (section,), _ = side_by_side(_diff(old, new), 100)
    assert [(row.kind, _text(row.old)[:5], _text(row.new)[:5]) for row in section.rows] == [
        ("changed", "topic", "topic"),
        ("added", "", "mood:"),
        ("changed", "decis", "decis"),
    ]


def test_unchanged_lines_are_folded_and_known_only_with_the_text() -> None:
    old = "".join(f"line {n}\n" for n in range(100))
    new = old.replace("line 50\n", "line fifty\n")
    blind, _ = side_by_side(_diff(old, new), 100)
    assert [(section.folded, section.count, len(section.rows)) for section in blind] == [(True, 47, 0), (False, 0, 7)]
    seen, _ = side_by_side(_diff(old, new), 100, new)
    assert [(section.folded, len(section.rows)) for section in seen] == [(True, 47), (False, 7), (True, 46)]


def test_difference_is_cut_at_so_many_lines_and_so_many_characters() -> None:
    sections, left_out = side_by_side(_diff("", "x\n" * 500 + "y" * 100_000 + "\n"), 50)
    assert sum(len(section.rows) for section in sections) == 49  # and the line that says where they are
    assert left_out == 452
    (section,), _ = side_by_side(_diff("", "y" * 100_000), 50)
    assert len(_text(section.rows[0].new)) == LINE_CHARS + 1


@pytest.mark.parametrize("text", ["", "--- a/x\n+++ b/x\n"])
def test_difference_without_lines_has_no_sections(text: str) -> None:
    assert side_by_side(text, 10) == ([], 0)


def _graph(nodes: dict[str, str], *edges: tuple[str, str]) -> dict[str, Any]:
    return {
        "graph": {
            "nodes": [{"id": "__start__"}, *({"id": name} for name in nodes)],
            "edges": [{"source": a, "target": b, "conditional": True} for a, b in edges],
        },
        "contract": {"nodes": {name: {"kind": kind} for name, kind in nodes.items() if ":" not in name}},
    }


def test_two_graphs_in_one_picture_with_what_came_and_went() -> None:
    old = _graph({"a": "function", "b": "function"}, ("__start__", "a"), ("a", "b"))
    new = _graph({"a": "interrupt", "c": "function"}, ("__start__", "a"), ("a", "c"))
    drawn = compared(old, new)
    assert {node["id"]: node["change"] for node in drawn["nodes"]} == {
        "__start__": "",
        "a": "changed",
        "b": "removed",
        "c": "added",
    }
    assert {(edge["from"], edge["to"]): edge["change"] for edge in drawn["edges"]} == {
        ("__start__", "a"): "",
        ("a", "b"): "removed",
        ("a", "c"): "added",
    }
    assert differs(drawn)
    assert not differs(compared(old, old))


def test_graph_that_only_one_version_has_is_all_new_or_all_gone() -> None:
    told = _graph({"a": "function"}, ("__start__", "a"))
    assert {node["change"] for node in compared(None, told)["nodes"]} == {"added"}
    assert {node["change"] for node in compared(told, None)["nodes"]} == {"removed"}


def test_nodes_of_a_graph_within_lie_in_a_box() -> None:
    told = _graph({"desk:__start__": "", "desk:model": "", "ask": "interrupt"})
    told["contract"]["nodes"]["desk"] = {"kind": "subgraph", "subgraph": {"nodes": {"model": {"kind": "function"}}}}
    drawn = picture(told)
    assert drawn["boxes"] == [{"id": "desk", "name": "desk", "kind": "agent", "change": ""}]
    kinds = {node["id"]: (node["name"], node["box"], node["kind"]) for node in drawn["nodes"]}
    assert kinds["desk:model"] == ("model", "desk", "function")
    assert kinds["desk:__start__"] == ("START", "desk", "start")
    assert kinds["ask"] == ("ask", "", "interrupt")


def test_types_of_a_contract_are_told_in_words() -> None:
    told = {"of": "builtins.dict", "args": ["builtins.str", {"of": "typing.Union", "args": ["builtins.int", "None"]}]}
    assert type_words(told) == "dict[str, int | None]"
    assert type_words({"literal": ["'a'", "'b'"]}) == "'a' | 'b'"
    assert type_words({"class": "graphs.types.Ticket", "fields": {"topic": "builtins.str"}}) == "Ticket {topic: str}"
