"""Statements of jobs as Postgres numbers their values."""

from __future__ import annotations

import pytest

from changeover.store.postgres_connection import numbered

STATEMENTS = [
    ("SELECT ?, ?", "SELECT $1, $2", (0, 1)),
    ("SELECT :a, :b, :a", "SELECT $1, $2, $1", ("a", "b")),
    ("SELECT '?' || ':a' || \"odd?:x\" || ?", "SELECT '?' || ':a' || \"odd?:x\" || $1", (0,)),
    ("SELECT 'it''s ?', :a::text", "SELECT 'it''s ?', $1::text", ("a",)),
    ("SELECT a -- what? :b\n, /* :c ? */ :d", "SELECT a -- what? :b\n, /* :c ? */ $1", ("d",)),
    ("SELECT 5 % 2, '%s', ?", "SELECT 5 % 2, '%s', $1", (0,)),
    ("SELECT 1", "SELECT 1", ()),
]


@pytest.mark.parametrize(("sql", "expected", "keys"), STATEMENTS)
def test_values_are_numbered_and_text_is_left_alone(sql: str, expected: str, keys: tuple[int | str, ...]) -> None:
    assert numbered(sql, frozenset()) == (expected, keys)


def test_null_is_written_out() -> None:
    assert numbered("SELECT :a IS NULL OR b = :a, :c", frozenset({"a"})) == (
        "SELECT NULL IS NULL OR b = NULL, $1",
        ("c",),
    )
    assert numbered("SELECT ?, ?, ?", frozenset({1})) == ("SELECT $1, NULL, $2", (0, 2))
