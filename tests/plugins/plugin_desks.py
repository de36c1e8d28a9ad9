"""Projects with a plugin that writes into a file, from its own process, what is opened and closed of it."""

from __future__ import annotations

from pathlib import Path

from changeover import GraphVersionManager

BOOK = """
    import os

    EDITION = 1

    class Book:
        def on_init(self, config):
            self.folder, self.name = config["folder"], config.get("name", "one")

        def _write(self, word):
            file = os.open(os.path.join(self.folder, "diary"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(file, f"{word} {self.name} {EDITION}\\n".encode())
            os.close(file)

        def on_start(self):
            self._write("open")
            if os.path.exists(os.path.join(self.folder, "locked")):
                raise RuntimeError("the shelf is locked")

        def on_stop(self):
            self._write("close")

        def health_check(self):
            if os.path.exists(os.path.join(self.folder, "down")):
                raise RuntimeError("no answer")
            return {"edition": EDITION}

        def find(self, word):
            return f"{word} in {self.name}, edition {EDITION}"
    """
PROJECT = {
    "agents.yaml": """
        models:
          demo: {model: "demo:rules", params: {rules: [{when: 'find (?P<word>\\w+)', call: find}]}}
        agents:
          clerk: {model: demo, prompt: {text: You look it up.}, tools: [find]}
        """,
    "tools.yaml": "tools:\n  find: {python: 'graphs.tools:find'}\n",
    "graphs/book.py": BOOK,
    "graphs/tools.py": '''
        def find(word: str, ctx) -> str:
            """Find a word in the book."""
            return ctx.resource("book").find(word)
        ''',
    "graphs/desk.py": """
        from typing import TypedDict
        from langgraph.graph import START, StateGraph

        class State(TypedDict, total=False):
            word: str
            found: str

        def graph(ctx):
            book = ctx.resource("book")

            def look(state):
                return {"found": book.find(state["word"])}

            built = StateGraph(State)
            built.add_node("look", look)
            built.add_edge(START, "look")
            return built
        """,
}


def settings(folder: Path, **entries: str) -> str:
    """A changeover.yaml with the plugin `book`; `entries` are further ones, in YAML."""
    config = entries.pop("config", "")
    given = {
        "class": "graphs.book:Book",
        "config": f"{{folder: '{folder}'{', ' + config if config else ''}}}",
        "deadline": "5s",
        "health": "{every: 50ms, timeout: 5s}",
        **entries,
    }
    return "plugins:\n  book:\n" + "".join(f"    {key}: {value}\n" for key, value in given.items())


def diary(folder: Path) -> list[str]:
    """What was opened and closed, in order."""
    file = folder / "diary"
    return file.read_text().splitlines() if file.exists() else []


async def look(manager: GraphVersionManager, word: str = "cat", **options: str) -> str:
    """What the graph finds."""
    answer = await manager.invoke("desk", {"word": word}, **options)
    return str(answer["found"])


async def ask(manager: GraphVersionManager, word: str = "cat") -> str:
    """What the agent's tool finds."""
    answer = await manager.invoke("clerk", {"messages": [("user", f"find {word}")]})
    return next(str(message.text) for message in answer["messages"] if message.type == "tool")


async def changed(manager: GraphVersionManager) -> str:
    """The folder as it is now serves."""
    version = await manager.build()
    await manager.switch(version)
    return version.id
