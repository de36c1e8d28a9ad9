"""Who made a version, and which bytes of the folder were dealt with: what is written of them, on both databases."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from changeover.store.opening import Store
from changeover.store.records.version import NewVersion

NEW = NewVersion("d1", {}, "first", author="ada")


async def test_the_first_to_make_the_bytes_is_their_author(store: Store) -> None:
    assert (await store.versions.put(NEW, {})).author == "ada"
    assert (await store.versions.put(replace(NEW, author="bob"), {})).author == "ada"
    assert (await store.versions.put(NewVersion("d2", {}), {})).to_json()["author"] == "library"


async def test_who_mends_a_rejected_version_is_its_author(store: Store) -> None:
    await store.versions.put(replace(NEW, rejected=True), {})
    assert (await store.versions.put(replace(NEW, author="bob"), {})).author == "bob"


async def test_a_version_from_before_authors_were_kept_has_none(
    store: Store, sql: Callable[..., Awaitable[Any]]
) -> None:
    await store.versions.put(NEW, {})
    await sql(store, "UPDATE versions SET author = NULL")
    assert (await store.versions.get("v1")).to_json()["author"] is None


async def test_a_note_gives_way_only_to_who_knew_it(store: Store) -> None:
    await store.journal.remember_instead("seen", "a", None)
    await store.journal.remember_instead("seen", "b", "a")
    for outdated in ("a", None):
        await store.journal.remember_instead("seen", "c", outdated)
    assert await store.journal.note("seen") == "b"
