"""Contracts that an older release stored are replaced, on both databases; those of this one are left alone."""

from __future__ import annotations

from changeover.store.opening import Store
from changeover.store.records.version import GraphEntry, NewVersion


async def put(store: Store, version: str, contract: dict[str, object], format_: int) -> None:
    new = NewVersion(
        version, {}, graphs={"desk": GraphEntry("g", "c")}, contracts={"g": contract}, contract_format=format_
    )
    await store.versions.put(new, {})


async def test_only_an_older_contract_gives_way(store: Store) -> None:
    await put(store, "a", {"old": True}, 1)
    assert await store.versions.refresh_contracts({"g": {"new": True}, "unknown": {}}, 2)
    assert await store.versions.contract("g") == {"new": True}
    assert await store.versions.contract("unknown") is None
    assert not await store.versions.refresh_contracts({"g": {"other": True}}, 2)
    assert await store.versions.contract("g") == {"new": True}


async def test_a_version_with_a_known_graph_brings_the_newer_contract(store: Store) -> None:
    await put(store, "a", {"old": True}, 1)
    before = (await store.versions.get("v1")).graphs["desk"].contract_digest
    await put(store, "b", {"new": True}, 2)
    await put(store, "c", {"old": True}, 1)
    digests = {(await store.versions.get(id_)).graphs["desk"].contract_digest for id_ in ("v1", "v2", "v3")}
    assert await store.versions.contract("g") == {"new": True}
    assert len(digests) == 1
    assert before not in digests
