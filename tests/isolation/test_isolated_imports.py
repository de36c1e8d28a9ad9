"""Two versions of one project live in one process, each with its own modules and classes."""

from __future__ import annotations

import gc
import sys
import traceback
from pathlib import Path

import pytest

from changeover import GraphVersionManager
from changeover.build.modules import PREFIX, CodeTrees
from changeover.checkpoints.serializer import LogicalSerializer, UnknownType
from changeover.errors import ProjectError

AGENTLESS = "agents: {}\n"

DEEP_PROJECT = {
    "agents.yaml": AGENTLESS,
    "graphs/desk/__init__.py": "from .inner import LEVEL\n",
    "graphs/desk/inner/__init__.py": "from .core.values import LEVEL\n",
    "graphs/desk/inner/core/__init__.py": "",
    "graphs/desk/inner/core/values.py": """
        from __future__ import annotations
        from dataclasses import dataclass, field
        from enum import Enum
        from pathlib import Path
        from pydantic import BaseModel

        LEVEL = "~"

        class Mood(Enum):
            CALM = "calm"
            LOUD = "loud"

        class Note(BaseModel):
            text: str
            mood: Mood = Mood.CALM

            def says(self) -> str:
                return f"{self.text}{LEVEL}"

        class Shelf:
            class Label(BaseModel):
                name: str

        @dataclass
        class Ledger:
            notes: list[Note] = field(default_factory=list)
            label: Shelf.Label = field(default_factory=lambda: Shelf.Label(name="first"))

        def motto() -> str:
            return (Path(__file__).parent / "motto.txt").read_text().strip()
        """,
    "graphs/desk/inner/core/motto.txt": "motto ~",
    "graphs/desk/circle_a.py": """
        from graphs.desk import circle_b
        NAME = "a~"
        def both() -> str:
            return NAME + circle_b.NAME
        """,
    "graphs/desk/circle_b.py": """
        from . import circle_a
        NAME = "b~"
        def both() -> str:
            return circle_a.NAME + NAME
        """,
    "graphs/desk/late.py": "WHO = 'late~'\n",
    "graphs/ledger.py": """
        import importlib
        from typing import Annotated, TypedDict
        from langgraph.graph import END, START, StateGraph
        from graphs.desk.inner.core.values import Ledger, Mood, Note
        import graphs.desk.inner.core.values as values
        from .desk import circle_a

        class State(TypedDict):
            ledger: Ledger
            mood: Mood
            said: list[str]

        def write(state: State) -> dict:
            import graphs.desk.late
            from graphs.desk import late as again
            by_name = importlib.import_module("graphs.desk.late")
            relative = importlib.import_module(".late", "graphs.desk")
            assert graphs.desk.late is again is by_name is relative
            ledger = state.get("ledger") or Ledger()
            assert type(ledger) is Ledger, type(ledger)
            assert all(type(note) is Note and type(note.mood) is Mood for note in ledger.notes)
            assert state.get("mood") in (None, Mood.CALM, Mood.LOUD)
            ledger = Ledger([*ledger.notes, Note(text=f"n{len(ledger.notes)}", mood=Mood.LOUD)], ledger.label)
            said = [values.LEVEL, values.motto(), circle_a.both(), by_name.WHO, ledger.notes[0].says()]
            return {"ledger": ledger, "mood": Mood.LOUD, "said": said}

        def fail_if_asked(state: State) -> dict:
            if len(state["ledger"].notes) == 13:
                raise RuntimeError("thirteen")
            return {}

        graph = StateGraph(State)
        graph.add_node(write)
        graph.add_node(fail_if_asked)
        graph.add_edge(START, "write")
        graph.add_edge("write", "fail_if_asked")
        graph.add_edge("fail_if_asked", END)
        """,
}


def marked(files: dict[str, str], mark: str) -> dict[str, str]:
    return {path: text.replace("~", mark) for path, text in files.items()}


async def two_versions(manager: GraphVersionManager, project) -> tuple[str, str]:
    project(marked(DEEP_PROJECT, "1"))
    first = await manager.build()
    project(marked(DEEP_PROJECT, "2"))
    second = await manager.build()
    return first.id, second.id


async def test_two_versions_alternate_for_a_hundred_turns_each_with_its_own_classes(project):
    async with GraphVersionManager.open(project(marked(DEEP_PROJECT, "1"))) as manager:
        versions = await two_versions(manager, project)
        for turn in range(100):
            mark = str(turn % 2 + 1)
            await manager.switch(versions[turn % 2])
            if turn == 12:
                with pytest.raises(RuntimeError, match="thirteen") as failure:
                    await manager.invoke("ledger", {"said": []}, thread_id="t")
                frame = traceback.extract_tb(failure.value.__traceback__)[-1]
                assert frame.filename.endswith("/graphs/ledger.py")
                assert frame.line == 'raise RuntimeError("thirteen")'
                continue
            state = await manager.invoke("ledger", {"said": []}, thread_id="t")
            assert state["said"] == [mark, f"motto {mark}", f"a{mark}b{mark}", f"late{mark}", f"n0{mark}"]
            assert [note.text for note in state["ledger"].notes] == [f"n{n}" for n in range(turn + 1)]
        runs = await manager.store.runs.list(thread_id="t", limit=200)
        assert {run.version for run in runs} == set(versions)


async def test_saved_state_never_carries_a_private_module_name(project):
    folder: Path = project(marked(DEEP_PROJECT, "1"))
    async with GraphVersionManager.open(folder) as manager:
        await manager.switch(await manager.build())
        await manager.invoke("ledger", {"said": []}, thread_id="t")
    for file in (folder / ".changeover").glob("changeover.db*"):
        assert PREFIX.encode() not in file.read_bytes()


async def test_plain_langgraph_reads_what_a_version_saved(project, monkeypatch):
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    folder: Path = project(marked(DEEP_PROJECT, "1"))
    async with GraphVersionManager.open(folder) as manager:
        await manager.switch(await manager.build())
        await manager.invoke("ledger", {"said": []}, thread_id="t")
    monkeypatch.syspath_prepend(str(folder))
    try:
        async with AsyncSqliteSaver.from_conn_string(str(folder / ".changeover/changeover.db")) as saver:
            found = await saver.aget_tuple({"configurable": {"thread_id": "t"}})
        assert found is not None
        assert type(found.checkpoint["channel_values"]["ledger"]).__module__ == "graphs.desk.inner.core.values"
    finally:
        for name in [name for name in sys.modules if name == "graphs" or name.startswith("graphs.")]:
            del sys.modules[name]


async def test_annotations_and_pickle_find_the_private_module(project):
    import pickle
    import typing

    async with GraphVersionManager.open(project(marked(DEEP_PROJECT, "1"))) as manager:
        version = await manager.build()
        loaded = await manager.loader.load(version.id)
        assert loaded.tree is not None
        values = loaded.tree.import_module("graphs.desk.inner.core.values")
        assert typing.get_type_hints(values.Ledger)["label"] is values.Shelf.Label
        note = values.Note(text="kept")
        assert pickle.loads(pickle.dumps(note)) == note


def test_a_class_that_the_reading_version_lacks_is_an_error_and_never_a_dict(tmp_path):
    trees = CodeTrees(tmp_path)
    writer = trees.acquire({"graphs/types.py": b"import enum\nclass Kind(enum.Enum):\n    A = 'a'\n"})
    reader = trees.acquire({"graphs/types.py": b"class Other: ...\n"})
    kind = writer.import_module("graphs.types").Kind
    saved = LogicalSerializer(writer).dumps_typed({"deep": [{"kind": kind.A}]})
    with pytest.raises(UnknownType, match=r"graphs\.types\.Kind"):
        LogicalSerializer(reader).loads_typed(saved)
    trees.release(writer)
    trees.release(reader)


def test_values_that_are_not_the_projects_are_saved_as_langgraph_saves_them(tmp_path):
    from datetime import UTC, datetime
    from uuid import UUID

    from langchain_core.messages import AIMessage
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
    from langgraph.types import Send

    trees = CodeTrees(tmp_path)
    tree = trees.acquire({"graphs/types.py": b""})
    value = {
        "messages": [AIMessage("hi", id="1")],
        "when": datetime(2026, 1, 1, tzinfo=UTC),
        "id": UUID(int=1),
        "sends": [Send("node", {"a": {1, 2}})],
        "none": None,
    }
    assert LogicalSerializer(tree).dumps_typed(value) == JsonPlusSerializer().dumps_typed(value)
    assert LogicalSerializer(tree).loads_typed(JsonPlusSerializer().dumps_typed(value)) == value
    trees.release(tree)


def test_a_released_tree_leaves_no_module_finder_or_file(tmp_path):
    trees = CodeTrees(tmp_path)
    tree = trees.acquire({"graphs/a/b.py": b"X = 1\n"})
    assert tree.resolve("graphs.a.b:X") == 1
    assert any(name.startswith(tree.package) for name in sys.modules)
    trees.release(tree)
    gc.collect()
    assert not any(name.startswith(PREFIX) for name in sys.modules)
    assert trees not in sys.meta_path
    assert list(tmp_path.iterdir()) == []


def test_versions_with_the_same_code_share_their_modules(tmp_path):
    trees = CodeTrees(tmp_path)
    code = {"graphs/a.py": b"X = object()\n"}
    first = trees.acquire({**code, "prompts/p.md": b"one", "agents.yaml": b""})
    second = trees.acquire({**code, "prompts/p.md": b"two", "graphs/g.yaml": b"nodes: {}"})
    assert first is second
    trees.release(first)
    assert second.resolve("graphs.a:X") is not None
    trees.release(second)


async def test_an_import_that_fails_is_told_with_the_projects_names(project):
    folder = project(
        {
            "agents.yaml": AGENTLESS,
            "graphs/flow.py": "from graphs.parts import missing\ngraph = missing\n",
            "graphs/parts.py": "present = 1\n",
        }
    )
    async with GraphVersionManager.open(folder) as manager:
        with pytest.raises(ProjectError) as failure:
            await manager.build()
    (problem,) = failure.value.problems
    assert "cannot import name 'missing' from 'graphs.parts' (graphs/parts.py)" in problem.message
    assert (problem.path, problem.line) == ("graphs/flow.py", 1)
