"""Graphs in the forms that versions have them in, on both databases: what is asked for, and each contract once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graded_desks import V1, V2, V3, V5, Noted, WithNotes, contract, put_versions

from changeover.store.opening import Store
from changeover.store.records.ids import VersionId


async def test_graphs_are_told_of_the_versions_that_are_asked_for_and_of_no_others(store: Store) -> None:
    await put_versions(store)
    gone = VersionId("v99")
    found = await store.forms.of({"desk": {V1, V2, gone}, "side": {V3}, "unknown": {V1}})
    assert {graph: sorted(forms) for graph, forms in found.items()} == {"desk": [V1, V2], "side": [V3], "unknown": []}
    whole = await store.versions.get(V2)
    assert found["desk"][V2].entry == whole.graphs["desk"]
    assert (found["desk"][V1].contract, found["desk"][V2].contract) == (contract(Noted), contract(WithNotes))
    assert await store.forms.of({}) == {}


async def test_an_equal_contract_is_one_object_and_an_older_description_another(
    store: Store, sql: Callable[..., Any]
) -> None:
    await put_versions(store)
    found = (await store.forms.of({"desk": {V1, V2, V5}}))["desk"]
    assert found[V1].contract is found[V5].contract
    assert found[V1].contract is not found[V2].contract
    await sql(store, "UPDATE contracts SET format = 0, contract = '{}' WHERE graph_digest = 'e'")
    found = (await store.forms.of({"desk": {V1, V5}}))["desk"]
    assert [(found[id_].format, found[id_].contract) for id_ in (V1, V5)] == [(1, contract(Noted)), (0, {})]
