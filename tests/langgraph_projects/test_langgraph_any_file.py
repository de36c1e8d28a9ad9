"""Whatever stands in a langgraph.json, reading it ends in problems and never in an exception."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from changeover.project.check import analyse
from changeover.project.langgraph import environment_of_file, inside, versioned_part
from changeover.versions.layout import includes

KEYS = ("graphs", "dependencies", "env", "store", "index", "ttl", "embed", "dims", "fields", "path", "auth", "http")
WORDS = st.sampled_from((*KEYS, ".", "./a", "../a", "/", "a.py:b", "./desk.py:graph", "desk:graph", "langgraph>=1", ""))
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(), inner, max_size=4),
    max_leaves=12,
)
FILES = {"desk.py": b"graph = None\n", "a/b.py": b""}


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS) | st.text(), ANY, max_size=6) | ANY)
def test_any_json_is_read(data: Any) -> None:
    content = json.dumps(data).encode()
    _, problems = analyse({**FILES, "langgraph.json": content}, {})
    assert all(problem.message for problem in problems)
    for path in includes({"langgraph.json": content}).paths:
        assert not path.startswith(("/", ".."))
    kept = json.loads(versioned_part(content))
    assert "env" not in kept
    assert versioned_part(versioned_part(content)) == versioned_part(content) or "unreadable" in kept


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read(content: bytes) -> None:
    analyse({**FILES, "langgraph.json": content}, {})
    includes({"langgraph.json": content})
    versioned_part(content)
    environment_of_file(content)


@given(st.text(alphabet="./a~\\ ", max_size=12))
def test_a_path_stays_inside_or_is_refused(path: str) -> None:
    found = inside(path)
    assert found is None or not (found.startswith(("/", "..")) or "\\" in found)
