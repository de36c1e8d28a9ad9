"""Projects as people write them for LangGraph's server, each a folder with a langgraph.json.

Every one has a graph whose only node says that it has begun, waits for a gate, and only then asks its project for the
word to say: so a run can be caught in the middle, and what it imports late must still be of its own version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NODE = """
import asyncio
import os
from pathlib import Path
from typing import TypedDict

from langgraph.graph import END, START, StateGraph

GATE = Path({gate!r})


class State(TypedDict, total=False):
    said: str


async def speak(state):
    (GATE / "begun").touch()
    while not (GATE / "open").exists():
        await asyncio.sleep(0.01)
    {late}
    return {{"said": {says}}}


def drawn(node=speak):
    builder = StateGraph(State)
    builder.add_node("speak", node)
    builder.add_edge(START, "speak")
    builder.add_edge("speak", END)
    return builder
"""


@dataclass(frozen=True)
class Shape:
    """A project; `edited` is the file that is saved while a run is under way, `one` becomes `two` in it."""

    files: Mapping[str, str]
    edited: str
    config: Mapping[str, Any] = field(default_factory=dict)
    says: str = "{word}"
    environment: Mapping[str, str] = field(default_factory=dict)


def node(gate: Path, late: str, says: str = "word()", more: str = "graph = drawn().compile()") -> str:
    return NODE.format(gate=str(gate), late=late, says=says) + "\n\n" + more + "\n"


def settings(graph: str | Mapping[str, Any], dependencies: list[str], **more: Any) -> str:
    return json.dumps({"dependencies": dependencies, "graphs": {"desk": graph}, **more}, indent=2)


WORD = "def word():\n    return 'one'\n"


def shapes(gate: Path) -> dict[str, Shape]:
    return {
        "src layout": Shape(
            {
                "langgraph.json": settings("./src/desk_app/graph.py:graph", ["."]),
                "pyproject.toml": "[project]\nname = 'desk-app'\nversion = '1'\ndependencies = ['langgraph']\n",
                "src/desk_app/__init__.py": "",
                "src/desk_app/graph.py": node(
                    gate, "from .words import word; import desk_app.graph as own; assert own.drawn is drawn"
                ),
                "src/desk_app/words.py": WORD,
            },
            "src/desk_app/words.py",
        ),
        "several folders": Shape(
            {
                "langgraph.json": settings(
                    {"path": "./apps/desk/desk_graph.py:graph", "description": "The desk"},
                    ["./apps/desk", "./libs/common"],
                ),
                "apps/desk/desk_graph.py": node(gate, "from common.words import word"),
                "libs/common/pyproject.toml": "[project]\nname = 'common'\nversion = '1'\n",
                "libs/common/src/common/__init__.py": "",
                "libs/common/src/common/words.py": WORD,
                "elsewhere/notes.txt": "not part of it\n",
            },
            "libs/common/src/common/words.py",
        ),
        "package names": Shape(
            {
                "langgraph.json": settings("desk_app.graph:graph", ["langgraph>=1", "langchain", "./"]),
                "desk_app/graph.py": node(gate, "from desk_app.words import word"),
                "desk_app/words.py": WORD,
            },
            "desk_app/words.py",
        ),
        "factory": Shape(
            {
                "langgraph.json": settings("./desk_app/graph.py:make", ["."]),
                "desk_app/__init__.py": "",
                "desk_app/words.py": WORD,
                "desk_app/graph.py": node(
                    gate,
                    "pass",
                    "''",
                    """
from contextlib import asynccontextmanager

from langchain_core.runnables import RunnableConfig
from langgraph_sdk.runtime import ServerRuntime


@asynccontextmanager
async def make(config: RunnableConfig, runtime: ServerRuntime):
    async def tone(state):
        await speak(state)
        from desk_app.words import word
        assert opened
        return {"said": f"{word()} for {config['configurable'].get('tenant')}"}

    opened = [runtime.access_context]
    try:
        yield drawn(tone)
    finally:
        opened.clear()
        with (GATE / "accesses").open("a") as file:
            file.write(runtime.access_context + "\\n")
""",
                ),
            },
            "desk_app/words.py",
            config={"configurable": {"tenant": "acme"}},
            says="{word} for acme",
        ),
        "env as a file": Shape(
            {
                "langgraph.json": settings("./desk_app/graph.py:graph", ["."], env="./config/desk.env"),
                "config/desk.env": "DESK_TONE=kind\n",
                "desk_app/words.py": "import os\nTONE = os.environ['DESK_TONE']\n" + WORD,
                "desk_app/graph.py": node(gate, "from .words import word, TONE", "f'{word()}, {TONE}'"),
            },
            "desk_app/words.py",
            says="{word}, kind",
        ),
        "env as a mapping": Shape(
            {
                "langgraph.json": settings("./desk_app/graph.py:graph", ["."], env={"DESK_TONE": "kind", "DESK_N": 3}),
                "desk_app/words.py": WORD,
                "desk_app/graph.py": node(
                    gate,
                    "from .words import word",
                    "f'{word()}, ' + os.environ['DESK_TONE'] + os.environ['DESK_N']",
                ),
            },
            "desk_app/words.py",
            says="{word}, kind3",
        ),
        "a store": Shape(
            {
                "langgraph.json": settings(
                    "./desk_app/graph.py:graph",
                    ["."],
                    store={
                        "index": {"embed": "./desk_app/vectors.py:embed", "dims": 2, "fields": ["text"]},
                        "ttl": {"default_ttl": 60, "sweep_interval_minutes": 1, "refresh_on_read": False},
                    },
                ),
                "desk_app/vectors.py": "def embed(texts):\n"
                "    return [[float('cat' in text), float('dog' in text) + 0.01] for text in texts]\n",
                "desk_app/words.py": WORD,
                "desk_app/graph.py": node(
                    gate,
                    "from .words import word; found = await remembered()",
                    "f'{word()}: {found}'",
                    """
from langgraph.config import get_store


async def remembered():
    store = get_store()
    await store.aput(("pets",), "a", {"text": "a cat"})
    await store.aput(("pets",), "b", {"text": "a dog"})
    return (await store.asearch(("pets",), query="which dog"))[0].value["text"]


graph = drawn().compile()
""",
                ),
            },
            "desk_app/words.py",
            says="{word}: a dog",
        ),
    }
