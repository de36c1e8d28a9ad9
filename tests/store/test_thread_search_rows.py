"""SQL and Python agree on what metadata holds, whatever it holds."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from changeover.store.containment import contains
from changeover.store.opening import Store
from changeover.store.records.ids import ThreadId
from changeover.store.thread_search import ThreadFilter
from changeover.store.threads import NewThread

KEYS = st.sampled_from(["a", "b", "a.b", 'q"', "back\\slash", "ü", "$", "", "graph_id", "x[0]", "\x00", "0"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.sampled_from([0, 1, -1, 1.0, 0.5, 2**53, 2**63 - 1, 2**70])
    | st.sampled_from(["", "0", "1", "true", "null", "a", "\x00", "a\x00b", "ü", "'"])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=3)


def parts_of(value: Any) -> st.SearchStrategy[Any]:
    """Something that the value holds, more or less."""
    if isinstance(value, dict) and value:
        return st.lists(st.sampled_from(sorted(value)), unique=True).flatmap(
            lambda keys: st.fixed_dictionaries({key: parts_of(value[key]) for key in keys})
        )
    if isinstance(value, list) and value:
        return st.lists(st.sampled_from(range(len(value))), max_size=2).flatmap(
            lambda indexes: st.tuples(*(parts_of(value[index]) for index in indexes)).map(list)
        )
    return st.just(value) | SCALARS


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(OBJECTS, min_size=1, max_size=4).flatmap(lambda have: st.tuples(st.just(have), parts_of(have[0]))))
def test_sql_finds_what_python_says_metadata_holds(address: str, drawn: tuple[list[dict[str, Any]], Any]) -> None:
    have, wanted = drawn
    if not isinstance(wanted, dict):
        wanted = {}
    found = asyncio.run(search(address, have, wanted))
    assert found == {f"t{n}" for n, metadata in enumerate(have) if contains(metadata, wanted)}


async def search(address: str, have: list[dict[str, Any]], wanted: dict[str, Any]) -> set[str]:
    store = Store.open(address)
    try:
        await store.database.write(lambda connection: connection.execute("DELETE FROM threads") and None)
        for number, metadata in enumerate(have):
            new = NewThread(ThreadId(f"t{number}"), metadata)
            await store.threads.put(new, lambda facts: None, lambda connection: None)  # type: ignore[arg-type, return-value]
        rows = await store.threads.search(ThreadFilter(wanted), "thread_id", False, 10, 0)
        assert await store.threads.count(ThreadFilter(wanted)) == len(rows)
        assert {row.thread.id: row.thread.metadata for row in rows} == {
            row.thread.id: have[int(row.thread.id[1:])] for row in rows
        }
        return {row.thread.id for row in rows}
    finally:
        await store.close()


def test_containment_is_that_of_json() -> None:
    assert contains({"a": [1, {"b": 2, "c": 3}]}, {"a": [{"b": 2}]})
    assert not contains({"a": [1]}, {"a": 1})
    assert not contains({"a": 1}, {"a": True})
    assert contains({"a": 1}, {"a": 1.0})
    assert contains([1, 2], [])
    assert not contains({}, [])
