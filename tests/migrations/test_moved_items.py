"""Items of the long-term memory move with the steps of a version: once, all the way, and back to what they were."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph.graph import START, StateGraph

from changeover import GraphVersionManager
from changeover.errors import Conflict
from changeover.migrations import items as moving_items
from changeover.migrations.items import ItemsMoved

HERE = ("memories",)
EVERYTHING = {
    "namespace": ["memories"],
    "rename": {"text": "content"},
    "drop": ["tmp"],
    "set": {"lang": "en"},
    "convert": {"count": "str"},
}
EMBEDDINGS = """
def letters(texts):
    return [[1.0 + text.count("a"), 1.0 + text.count("b")] for text in texts]
"""


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state.db'}"
    create: Callable[[], str] = request.getfixturevalue("new_postgres_url")
    return create()


@pytest.fixture
def here(tmp_path: Path) -> str:
    """Where both databases do the same: a SQLite file."""
    return f"sqlite:///{tmp_path / 'state.db'}"


@pytest.fixture
def folder(project: Any) -> Path:
    made: Path = project({"agents.yaml": "agents: {}\n"})
    return made


def desk() -> StateGraph[Any]:
    return StateGraph(dict).add_node("work", lambda state: {}).add_edge(START, "work")


def step(store: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"graph": "desk", "store": dict(store), **more}


@asynccontextmanager
async def opened(folder: Path, where: str, *steps: Mapping[str, Any]) -> AsyncIterator[GraphVersionManager]:
    """With the versions `old`, which has no step, and `new`, which has all of them."""
    async with GraphVersionManager.open(folder, where) as manager:
        await manager.register("old", {"desk": desk()})
        await manager.register("new", {"desk": desk()}, migrations=[dict(each) for each in steps])
        yield manager


async def forward(manager: GraphVersionManager, **options: Any) -> ItemsMoved:
    return await manager.items.move("desk", "old", "new", **options)  # type: ignore[arg-type]


async def back(manager: GraphVersionManager) -> ItemsMoved:
    return await manager.items.move("desk", "new", "old")  # type: ignore[arg-type]


async def put(manager: GraphVersionManager, key: str, value: dict[str, Any], *more: str) -> None:
    await manager.memory.aput((*HERE, *more), key, value)


async def value(manager: GraphVersionManager, key: str, *more: str) -> Any:
    found = await manager.memory.aget((*HERE, *more), key)
    assert found is not None
    return found.value


def counts(told: ItemsMoved) -> tuple[int, int, int]:
    return told.moved, told.skipped, told.failed


async def test_items_move_and_move_back_to_what_they_were(folder: Path, where: str) -> None:
    async with opened(folder, where, step(EVERYTHING)) as manager:
        full = {"text": "hi", "tmp": [1, {"a": None}], "count": 3, "other": True}
        await put(manager, "full", full)
        await put(manager, "nested", {"text": "ünï\n"}, "anna", "facts")
        await put(manager, "strange", {"content": "was so before", "lang": "de"})
        await manager.memory.aput(("memories2",), "beside", {"text": "not below"})
        assert counts(await forward(manager)) == (3, 0, 0)
        assert await value(manager, "full") == {"content": "hi", "count": "3", "other": True, "lang": "en"}
        assert await value(manager, "nested", "anna", "facts") == {"content": "ünï\n", "lang": "en"}
        assert await value(manager, "strange") == {"content": "was so before", "lang": "de"}
        assert counts(await back(manager)) == (3, 0, 0)
        assert await value(manager, "full") == full
        assert await value(manager, "nested", "anna", "facts") == {"text": "ünï\n"}
        assert await value(manager, "strange") == {"content": "was so before", "lang": "de"}
        beside = await manager.memory.aget(("memories2",), "beside")
        assert beside is not None
        assert beside.value == {"text": "not below"}


async def test_asked_twice_it_is_done_once(folder: Path, where: str) -> None:
    twice = {"namespace": ["memories"], "convert": {"n": {"up": "builtins:bin", "down": "builtins:len"}}}
    async with opened(folder, where, step(twice)) as manager:
        await put(manager, "one", {"n": 5})
        assert counts(await forward(manager)) == (1, 0, 0)
        await put(manager, "two", {"n": "0b1", "by": "the newer version"})
        assert counts(await forward(manager)) == (0, 0, 0)
        assert await value(manager, "one") == {"n": "0b101"}
        assert await value(manager, "two") == {"n": "0b1", "by": "the newer version"}
        assert counts(await back(manager)) == (2, 0, 0)
        assert await value(manager, "two") == {"n": 3, "by": "the newer version"}
        assert counts(await back(manager)) == (0, 0, 0)


async def test_what_was_never_moved_is_not_moved_back(folder: Path, here: str) -> None:
    async with opened(folder, here, step(EVERYTHING)) as manager:
        await put(manager, "one", {"content": "x"})
        assert counts(await back(manager)) == (0, 0, 0)
        assert await value(manager, "one") == {"content": "x"}


async def test_killed_between_pages_and_resumed_it_is_done_once(
    folder: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving_items, "PAGE", 4)
    convert = {"n": {"up": "json:dumps", "down": "json:loads"}}
    written = step({"namespace": ["memories"], "rename": {"text": "content"}, "convert": convert})
    async with opened(folder, where, written) as manager:
        for number in range(10):
            await put(manager, f"k{number}", {"text": "t", "n": number})
        settle, pages = manager.items._rows.settle, []

        def dies_at_the_second(way: Any, moved: Any) -> Any:
            pages.append(len(moved))
            if len(pages) == 2:
                raise KeyboardInterrupt
            return settle(way, moved)

        monkeypatch.setattr(manager.items._rows, "settle", dies_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            await forward(manager)
        monkeypatch.undo()
        await put(manager, "later", {"content": "new", "n": "already"})
    async with opened(folder, where, written) as manager:
        assert counts(await forward(manager)) == (6, 0, 0)
        for number in range(10):
            assert await value(manager, f"k{number}") == {"content": "t", "n": str(number)}
        assert await value(manager, "later") == {"content": "new", "n": "already"}


async def test_one_way_turned_round_in_the_middle_ends_where_it_is_sent_last(
    folder: Path, here: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving_items, "PAGE", 2)
    async with opened(folder, here, step(EVERYTHING)) as manager:
        before = {f"k{number}": {"text": "t", "count": number} for number in range(5)}
        for key, item in before.items():
            await put(manager, key, item)
        settle = manager.items._rows.settle
        calls: list[int] = []

        async def stops(way: Any, moved: Any) -> int:
            if calls:
                raise KeyboardInterrupt
            calls.append(1)
            return await settle(way, moved)

        monkeypatch.setattr(manager.items._rows, "settle", stops)
        with pytest.raises(KeyboardInterrupt):
            await forward(manager)
        monkeypatch.setattr(manager.items._rows, "settle", settle)
        assert counts(await back(manager)) == (2, 0, 0)
        assert {key: await value(manager, key) for key in before} == before
        assert counts(await forward(manager)) == (5, 0, 0)
        assert await value(manager, "k4") == {"content": "t", "count": "4", "lang": "en"}


async def test_an_item_that_cannot_be_moved_stays_and_has_another_turn(folder: Path, where: str) -> None:
    async with opened(
        folder, where, step({"namespace": ["memories"], "convert": {"n": "int"}}, one_way=True)
    ) as manager:
        await put(manager, "good", {"n": "5"})
        await put(manager, "bad", {"n": "five"})
        told = await forward(manager)
        assert counts(told) == (1, 0, 1)
        assert (told.reasons[0]["namespace"], told.reasons[0]["key"]) == ("memories", "bad")
        assert "ValueError" in told.reasons[0]["reason"]
        assert await value(manager, "bad") == {"n": "five"}
        await put(manager, "bad", {"n": "6"})
        assert counts(await forward(manager)) == (1, 0, 0)
        assert await value(manager, "bad") == {"n": 6}


async def test_an_item_that_one_step_left_is_left_by_those_after_it(folder: Path, where: str) -> None:
    steps = (
        step({"namespace": ["memories"], "convert": {"n": {"up": "int", "down": "str"}}}),
        step({"namespace": ["memories"], "rename": {"n": "number"}}),
    )
    async with opened(folder, where, *steps) as manager:
        await put(manager, "good", {"n": "5"})
        await put(manager, "bad", {"n": "five"})
        assert counts(await forward(manager)) == (2, 0, 2)
        assert (await value(manager, "good"), await value(manager, "bad")) == ({"number": 5}, {"n": "five"})
        assert counts(await back(manager)) == (2, 0, 0)
        assert (await value(manager, "good"), await value(manager, "bad")) == ({"n": "5"}, {"n": "five"})


async def test_what_the_store_could_not_keep_is_refused(folder: Path, where: str) -> None:
    convert = {"a": "set", "b": "builtins:complex", "c": "float", "d": "math:factorial", "e": "builtins:chr"}
    hostile = {"a": [1, 2], "b": 5, "c": "nan", "d": 30, "e": 0xD800}
    async with opened(folder, where, step({"namespace": ["memories"], "convert": convert}, one_way=True)) as manager:
        for name, one in hostile.items():
            await put(manager, name, {name: one})
        assert counts(await forward(manager)) == (0, 0, len(hostile))
        assert {name: (await value(manager, name))[name] for name in hostile} == hostile


async def test_text_that_only_one_database_can_keep_is_refused_by_the_other(folder: Path, where: str) -> None:
    made = step({"namespace": ["memories"], "convert": {"n": "builtins:chr"}}, one_way=True)
    async with opened(folder, where, made) as manager:
        await put(manager, "one", {"n": 0})
        is_sqlite = manager.store.database.kind == "sqlite"
        assert counts(await forward(manager)) == ((1, 0, 0) if is_sqlite else (0, 0, 1))
        assert await value(manager, "one") == {"n": "\0" if is_sqlite else 0}


async def test_two_that_move_at_the_same_time_move_each_item_once(
    folder: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving_items, "PAGE", 3)
    written = step({"namespace": ["memories"], "convert": {"n": "json:dumps"}}, one_way=True)
    async with opened(folder, where, written) as manager:
        for number in range(10):
            await put(manager, f"k{number}", {"n": number})
        one, other = await asyncio.gather(forward(manager), forward(manager))
        assert one.moved + other.moved == 10
        assert [await value(manager, f"k{number}") for number in range(10)] == [{"n": str(n)} for n in range(10)]


async def test_a_conversion_that_takes_for_ever_is_given_up(folder: Path, here: str, project: Any) -> None:
    written = step({"namespace": ["memories"], "convert": {"n": "time:sleep"}}, one_way=True)
    (folder / "changeover.yaml").write_text("limits: {step: 300ms}\n")
    async with opened(folder, here, written) as manager:
        await put(manager, "one", {"n": 60})
        with pytest.raises(Conflict) as refused:
            await forward(manager)
        assert refused.value.code == "step-timeout"
        assert await value(manager, "one") == {"n": 60}


async def test_a_name_that_is_taken_is_not_written_over(folder: Path, here: str) -> None:
    async with opened(folder, here, step(EVERYTHING)) as manager:
        await put(manager, "both", {"text": "a", "content": "b"})
        told = await forward(manager)
        assert counts(told) == (0, 0, 1)
        assert "'content'" in told.reasons[0]["reason"]
        assert await value(manager, "both") == {"text": "a", "content": "b"}


async def test_times_and_the_time_to_live_stay(folder: Path, where: str) -> None:
    async with opened(folder, where, step(EVERYTHING)) as manager:
        await manager.memory.aput(HERE, "short", {"text": "t"}, ttl=60)
        before = await row_of(manager, "short")
        await forward(manager)
        after = await row_of(manager, "short")
        assert after == before
        assert after["expires_at"] is not None


async def test_items_that_are_gone_or_over_are_skipped(folder: Path, here: str) -> None:
    async with opened(folder, here, step(EVERYTHING)) as manager:
        await put(manager, "over", {"text": "t"})
        await manager.store.database.write(
            lambda connection: connection.execute("UPDATE store SET expires_at = '2001-01-01 00:00:00.000'") and None
        )
        assert counts(await forward(manager)) == (0, 1, 0)


async def test_an_item_made_anew_gets_nothing_of_the_one_before(folder: Path, where: str) -> None:
    async with opened(folder, where, step(EVERYTHING)) as manager:
        await put(manager, "one", {"text": "first", "tmp": "secret"})
        await forward(manager)
        await manager.memory.adelete(HERE, "one")
        await put(manager, "one", {"content": "second", "lang": "de"})
        await back(manager)
        assert await value(manager, "one") == {"text": "second"}
        await forward(manager)
        assert await value(manager, "one") == {"content": "second", "lang": "de"}  # what the newer one had set


async def test_a_dry_run_counts(folder: Path, where: str) -> None:
    async with opened(folder, where, step(EVERYTHING)) as manager:
        await put(manager, "one", {"text": "t"})
        assert counts(await forward(manager, dry_run=True)) == (1, 0, 0)
        assert await value(manager, "one") == {"text": "t"}
        await forward(manager)
        assert counts(await forward(manager, dry_run=True)) == (0, 0, 0)


async def test_another_step_of_the_same_number_is_refused_while_items_have_the_first(folder: Path, here: str) -> None:
    async with opened(folder, here, step(EVERYTHING)) as manager:
        await put(manager, "one", {"text": "t"})
        await forward(manager)
        other = step({"namespace": ["memories"], "rename": {"text": "words"}})
        await manager.register("other", {"desk": desk()}, migrations=[other])
        with pytest.raises(Conflict, match="another step 0001") as refused:
            await manager.items.move("desk", "old", "other")  # type: ignore[arg-type]
        assert refused.value.code == "chain-rewritten"
        await back(manager)
        assert counts(await manager.items.move("desk", "old", "other")) == (1, 0, 0)  # type: ignore[arg-type]
        assert await value(manager, "one") == {"words": "t"}


async def test_without_a_namespace_all_items_move(folder: Path, where: str) -> None:
    async with opened(folder, where, step({"rename": {"text": "content"}})) as manager:
        await put(manager, "one", {"text": "t"})
        await manager.memory.aput(("other", "place"), "two", {"text": "t"})
        assert counts(await forward(manager)) == (2, 0, 0)


async def test_the_index_finds_what_an_item_says_now(project: Any, where: str) -> None:
    index = {"embed": "./embed.py:letters", "dims": 2, "fields": ["text", "content"]}
    folder = project(
        {
            "embed.py": EMBEDDINGS,
            "desk.py": "from langgraph.graph import START, StateGraph\n"
            "graph = StateGraph(dict).add_node('work', lambda s: {}).add_edge(START, 'work').compile()\n",
            "langgraph.json": json.dumps(
                {"dependencies": ["."], "graphs": {"desk": "./desk.py:graph"}, "store": {"index": index}}
            ),
        }
    )
    renamed = step({"namespace": ["memories"], "rename": {"text": "content"}})
    async with opened(folder, where, renamed) as manager:
        await put(manager, "a", {"text": "aaaa"})
        await put(manager, "b", {"text": "bbbb"})
        await manager.memory.aput(HERE, "hidden", {"text": "aaaaaaaa"}, index=False)
        await forward(manager)
        fields = await vectors_of(manager)
        assert fields == [("a", "content"), ("b", "content")]
        found = await manager.memory.asearch(HERE, query="aaa", limit=1)
        assert [(item.key, item.value) for item in found] == [("a", {"content": "aaaa"})]
        await back(manager)
        assert await vectors_of(manager) == [("a", "text"), ("b", "text")]
        found = await manager.memory.asearch(HERE, query="bbb", limit=1)
        assert [(item.key, item.value) for item in found] == [("b", {"text": "bbbb"})]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab.$é", max_size=3), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["text", "content", "tmp", "lang", "count", "other", "$", "a.b"])


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.lists(st.dictionaries(NAMES, JSON, max_size=6), min_size=8, max_size=16))
async def test_down_of_up_is_what_was_there(folder: Path, here: str, before: list[dict[str, Any]]) -> None:
    async with opened(folder, here, step(EVERYTHING)) as manager:
        for number, item in enumerate(before):
            await put(manager, f"k{number}", item)
        for _ in range(2):
            await forward(manager)
            await back(manager)
            assert [await value(manager, f"k{number}") for number in range(len(before))] == before
        await manager.store.database.write(_forget_everything)


def _forget_everything(connection: Any) -> None:
    for table in ("store", "moved_items", "item_moves"):
        connection.execute(f"DELETE FROM {table}")


async def row_of(manager: GraphVersionManager, key: str) -> dict[str, Any]:
    """The times of an item as they are stored."""

    def job(connection: Any) -> dict[str, Any]:
        columns = "created_at, updated_at, expires_at, ttl_minutes"
        found = connection.execute(f"SELECT {columns} FROM store WHERE key = ?", (key,)).fetchone()
        return dict(found)

    return await manager.store.database.read(job)


async def vectors_of(manager: GraphVersionManager) -> list[tuple[str, str]]:
    def job(connection: Any) -> list[tuple[str, str]]:
        found = connection.execute("SELECT key, field_name FROM store_vectors ORDER BY key, field_name")
        return [(row[0], row[1]) for row in found]

    return await manager.store.database.read(job)


async def test_a_batch_moves_the_items_after_the_threads(folder: Path, where: str) -> None:
    async with opened(folder, where, step(EVERYTHING)) as manager:
        await manager.switch("old")
        await put(manager, "good", {"text": "t"})
        await put(manager, "both", {"text": "a", "content": "b"})
        dry = await manager.migrate("new", "old", dry_run=True)
        assert dry.result is not None
        assert dry.result["items"]["moved"] == 2
        for target, source, item in (("new", "old", {"content": "t", "lang": "en"}), ("old", "new", {"text": "t"})):
            done = await manager.migrate(target, source)
            assert done.status == "done"
            assert done.result is not None
            assert done.result["items"]["moved"] == 1
            assert await value(manager, "good") == item


async def test_a_way_back_that_is_none_is_told(folder: Path, here: str) -> None:
    async with opened(folder, here, step({"namespace": ["memories"], "set": {"a": 1}}, one_way=True)) as manager:
        await put(manager, "one", {})
        await manager.migrate("new", "old")
        done = await manager.migrate("old", "new")
        assert done.result is not None
        assert "one-way" in done.result["items"]["reasons"][0]["reason"]
        assert await value(manager, "one") == {"a": 1}
