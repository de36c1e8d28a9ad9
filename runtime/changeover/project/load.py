"""From the files of a snapshot to a `Project`.

Owns which files mean what, and where each part stands. It reads bytes that are already taken: no folder, no
environment, no project code. Rules across files are in `check`; what one file says wrongly by itself is found here.

Invariants: `load` never raises; a project is complete enough to be checked even where files are wrong, and is only
built when no problem is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel

from changeover.project.document import Document, Lines, decode, read, read_text
from changeover.project.langgraph import (
    LANGGRAPH_FILE,
    NATIVE_FILES,
    GraphTarget,
    LangGraphFile,
    import_roots,
    read_langgraph,
    without_values,
)
from changeover.project.migrations import FOLDER as MIGRATIONS
from changeover.project.migrations import Migration, MigrationReader
from changeover.project.models import (
    NAME_PATTERN,
    AgentsFile,
    AgentSpec,
    ChangeoverFile,
    EdgeSpec,
    GraphFile,
    McpServerSpec,
    ModelSpec,
    NodeSpec,
    PluginSpec,
    PromptHead,
    PromptVariable,
    StateKey,
    ToolsFile,
    ToolSpec,
)
from changeover.project.openapi import OpenApiFiles
from changeover.project.problems import Problem, Severity
from changeover.project.python import PythonFiles
from changeover.project.validate import NAMING, keys_of, read_model, shown, suggestion

M = TypeVar("M", bound=BaseModel)

SUFFIXES = (".yaml", ".yml", ".json")
PROMPT_SUFFIXES = (".md", ".txt")
_FRONT = re.compile(r"---[ \t]*\r?\n(?P<head>.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_PROMPT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(/[A-Za-z0-9_-]+)*")
_NAME = re.compile(NAME_PATTERN)


@dataclass(frozen=True)
class Prompt:
    """A file below prompts/. `name` is its path there without suffix, `include` its path there with it."""

    name: str
    path: str
    include: str
    description: str
    variables: Mapping[str, PromptVariable]
    text: str
    first_line: int  # line of the file at which `text` starts


@dataclass(frozen=True)
class Project:
    """What a person wrote, as data. Files that are not there are empty parts."""

    files: Mapping[str, bytes] = field(repr=False)
    models: dict[str, ModelSpec] = field(default_factory=dict)
    agents: dict[str, AgentSpec] = field(default_factory=dict)
    tools: dict[str, ToolSpec] = field(default_factory=dict)
    mcp_servers: dict[str, McpServerSpec] = field(default_factory=dict)
    graphs: dict[str, GraphFile] = field(default_factory=dict)
    graph_paths: dict[str, str] = field(default_factory=dict)
    python_graphs: dict[str, str] = field(default_factory=dict)
    langgraph: LangGraphFile | None = None
    import_roots: tuple[str, ...] = ()
    prompts: dict[str, Prompt] = field(default_factory=dict)
    migrations: tuple[Migration, ...] = ()
    settings: ChangeoverFile = field(default_factory=ChangeoverFile)
    documents: Mapping[str, Document] = field(default_factory=dict, repr=False)
    python: PythonFiles = field(default_factory=lambda: PythonFiles({}), repr=False)
    openapi: OpenApiFiles = field(default_factory=lambda: OpenApiFiles({}), repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """All that is served: agents and graphs."""
        return tuple(sorted({*self.agents, *self.graphs, *self.python_graphs, *self.langgraph_graphs}))

    @property
    def langgraph_graphs(self) -> Mapping[str, GraphTarget]:
        """The graphs that langgraph.json names."""
        return self.langgraph.graphs if self.langgraph else {}

    def document_of(self, section: str) -> tuple[Document, tuple[str, ...]]:
        """The file a section stands in, and where in it.

        Sections: `agents`, `models`, `tools`, `mcp_servers`, `graphs/<name>`, `prompts/<name>`, `migrations/<file>`,
        `changeover`; the file may be named in front of the first four, as in `agents.yaml/agents`. `langgraph` is
        langgraph.json.
        """
        if section.startswith(MIGRATIONS):
            return self.documents.get(section, Document(section)), ()
        kind, _, name = section.partition("/")
        if kind == "graphs" and name in self.langgraph_graphs and name not in self.graph_paths:
            return self.documents[LANGGRAPH_FILE], ("graphs", name)
        if kind == "langgraph":
            return self.documents.get(LANGGRAPH_FILE, Document(LANGGRAPH_FILE)), ()
        if kind == "graphs":
            path = self.graph_paths.get(name) or self.python_graphs.get(name, section)
            return self.documents.get(path, Document(path)), ()
        if kind == "prompts":
            path = self.prompts[name].path if name in self.prompts else section
            return self.documents.get(path, Document(path)), ()
        section = section.rpartition("/")[2]
        stem = {"models": "agents", "mcp_servers": "tools"}.get(section, section.partition(".")[0])
        keys = (section,) if section in ("agents", "models", "tools", "mcp_servers") else ()
        return self.documents.get(stem, Document(f"{stem}.yaml")), keys

    def problem(
        self,
        code: str,
        message: str,
        section: str,
        *path: str | int,
        hint: str = "",
        on_key: bool = False,
        severity: Severity = "error",
    ) -> Problem:
        """A problem at the value (or the key) that stands at `path` within a section; see `document_of`."""
        document, prefix = self.document_of(section)
        return document.problem(code, message, *prefix, *path, on_key=on_key, hint=hint, severity=severity)


@dataclass(frozen=True)
class Loaded:
    project: Project
    problems: tuple[Problem, ...]


def load(files: Mapping[str, bytes]) -> Loaded:
    """The project in `files`: paths with `/`, relative to its folder, and their bytes."""
    return _Loader(files).load()


class _Loader:
    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files
        self.problems: list[Problem] = []
        self.documents: dict[str, Document] = {}
        self.langgraph = self._langgraph()
        self.import_roots = import_roots(self.langgraph, files) if self.langgraph else ()
        self.python = PythonFiles(files, self.import_roots)
        self.native = self.langgraph is None or any(_is_native(path) for path in files)

    def load(self) -> Loaded:
        agents, tools, changeover = (self._file(stem) for stem in ("agents", "tools", "changeover"))
        graphs = dict(self._graphs())
        project = Project(
            files=self.files,
            models=self._entries(agents, AgentsFile, "models", ModelSpec, "model"),
            agents=self._entries(agents, AgentsFile, "agents", AgentSpec, "agent"),
            tools=self._entries(tools, ToolsFile, "tools", ToolSpec, "tool"),
            mcp_servers=self._entries(tools, ToolsFile, "mcp_servers", McpServerSpec, "MCP server"),
            graphs={name: self._graph(name, document) for name, document in graphs.items()},
            graph_paths={name: document.path for name, document in graphs.items()},
            python_graphs=self._python_graphs() if self.native else {},
            langgraph=self.langgraph,
            import_roots=self.import_roots,
            prompts=self._prompts() if self.native else {},
            migrations=self._migrations(),
            settings=self._settings(changeover),
            documents=self.documents,
            python=self.python,
            openapi=OpenApiFiles(self.files),
        )
        self._top_level(agents, AgentsFile)
        self._top_level(tools, ToolsFile)
        self._served(project, agents)
        return Loaded(project, tuple(self.problems))

    # --- files

    def _langgraph(self) -> LangGraphFile | None:
        if LANGGRAPH_FILE not in self.files:
            return None
        document = self._read(LANGGRAPH_FILE, LANGGRAPH_FILE)
        self.problems = without_values(self.problems, document.text)
        if not isinstance(document.data, dict) and document.readable:
            self.problems.append(document.problem("wrong-type", "should be a mapping of keys to values"))
        return read_langgraph(document)

    def _file(self, stem: str) -> Document:
        """agents.yaml and its like, under whichever suffix it has."""
        found = [stem + suffix for suffix in SUFFIXES if stem + suffix in self.files]
        for other in found[1:]:
            message = f"{found[0]} and {other} are the same file twice"
            self.problems.append(Problem("duplicate-name", message, other, hint=f"keep one of {', '.join(found)}"))
        document = self._read(found[0], stem) if found else Document(f"{stem}.yaml")
        if not isinstance(document.data, dict | None):
            self.problems.append(document.problem("wrong-type", "should be a mapping of keys to values"))
        return document

    def _read(self, path: str, known_as: str) -> Document:
        document = read(path, self.files[path])
        self.problems.extend(document.problems)
        self.documents[known_as] = document
        return document

    def _top_level(self, document: Document, model: type[BaseModel]) -> None:
        for key in document.data if isinstance(document.data, dict) else ():
            if key not in model.model_fields:
                hint = suggestion(key, keys_of(model))
                message = f"'{shown(key)}' is not a key here"
                self.problems.append(document.problem("unknown-key", message, key, on_key=True, hint=hint))

    def _entries(
        self, document: Document, file_model: type[BaseModel], section: str, model: type[M], what: str
    ) -> dict[str, M]:
        data = document.data.get(section) if isinstance(document.data, dict) else None
        return self._mapping(document, (section,), data, model, what)

    def _mapping(
        self, document: Document, path: tuple[str, ...], data: Any, model: type[M], what: str, names: bool = True
    ) -> dict[str, M]:
        if not isinstance(data, dict):
            if data is not None:
                message = f"'{path[-1]}' should be a mapping from names to what they are"
                self.problems.append(document.problem("wrong-type", message, *path))
            return {}
        return {
            name: self._entry(document, (*path, name), entry, model, f"{what} '{shown(name)}'", names)
            for name, entry in data.items()
        }

    def _entry(
        self, document: Document, path: tuple[str | int, ...], data: Any, model: type[M], what: str, named: bool = False
    ) -> M:
        if named and not _NAME.fullmatch(str(path[-1])):
            message = f"'{shown(path[-1])}' is not a name"
            self.problems.append(document.problem("bad-name", message, *path, on_key=True, hint=NAMING))
        entry, problems = read_model(model, document, path, data, what)
        self.problems.extend(problems)
        return entry

    # --- graphs

    def _graphs(self) -> Iterator[tuple[str, Document]]:
        paths: dict[str, str] = {}
        for path in sorted(self.files, key=lambda path: (path.endswith(".json"), path.endswith(".yml"), path)):
            name, suffix = _graph_name(path, SUFFIXES)
            if not name or (suffix == ".json" and not _looks_like_graph(self.files[path])):
                continue
            if name in paths:
                message = f"the graph '{name}' is also in {paths[name]}"
                self.problems.append(Problem("duplicate-name", message, path, hint="keep one of them"))
                continue
            paths[name] = path
            self._named_file(name, path)
            yield name, self._read(path, path)

    def _named_file(self, name: str, path: str) -> None:
        if not _NAME.fullmatch(name):
            self.problems.append(Problem("bad-name", f"'{shown(name)}' is not a name", path, hint=NAMING))

    def _graph(self, name: str, document: Document) -> GraphFile:
        """A graph whose wrong nodes, edges and state keys are left empty, each with its problems."""
        data = document.data
        if not isinstance(data, dict):
            if document.readable:
                message = "the graph is empty" if data is None else "a graph should be a mapping of keys to values"
                self.problems.append(document.problem("wrong-type", message, hint="it needs state, nodes and edges"))
            return GraphFile(state={}, nodes={}, edges=[])
        outer = dict(data)
        nodes: dict[str, NodeSpec] = {}
        edges: list[EdgeSpec] = []
        if isinstance(data.get("nodes"), dict | None) and "nodes" in data:
            nodes = self._mapping(document, ("nodes",), data["nodes"], NodeSpec, "node", names=False)
            outer["nodes"] = {}
        if isinstance(data.get("edges"), list | None) and "edges" in data:
            for index, edge in enumerate(data["edges"] or []):
                edges.append(self._entry(document, ("edges", index), edge, EdgeSpec, f"edge {index + 1}"))
            outer["edges"] = []
        if isinstance(data.get("state"), dict):
            outer["state"] = self._state(document, data["state"])
        graph = self._entry(document, (), outer, GraphFile, f"graph '{shown(name)}'")
        return graph.model_copy(update={"nodes": nodes, "edges": edges})

    def _state(self, document: Document, data: dict[str, Any]) -> dict[str, Any]:
        state: dict[str, Any] = {}
        for key, value in data.items():
            if isinstance(value, str):
                state[key] = value
            else:
                state[key] = self._entry(document, ("state", key), value, StateKey, f"state key '{shown(key)}'")
        return state

    def _python_graphs(self) -> dict[str, str]:
        graphs: dict[str, str] = {}
        named = {target.file for target in self.langgraph.graphs.values()} if self.langgraph else set()
        for path in self.python.paths:
            name, _ = _graph_name(path, (".py",))
            if path not in named and name and name != "__init__" and "graph" in self.python.module(path).names:
                self._named_file(name, path)
                graphs[name] = path
        return graphs

    # --- prompts

    def _prompts(self) -> dict[str, Prompt]:
        prompts: dict[str, Prompt] = {}
        for path in sorted(self.files):
            if path.startswith("prompts/") and path.endswith(PROMPT_SUFFIXES):
                prompt = self._prompt(path)
                if prompt.name in prompts:
                    message = f"the prompt '{prompt.name}' is also in {prompts[prompt.name].path}"
                    self.problems.append(Problem("duplicate-name", message, path, hint="keep one of them"))
                prompts.setdefault(prompt.name, prompt)
        return prompts

    def _prompt(self, path: str) -> Prompt:
        include = path.removeprefix("prompts/")
        name = include.rpartition(".")[0]
        if not _PROMPT_NAME.fullmatch(name):
            self.problems.append(Problem("bad-name", f"'{shown(name)}' is not a name", path, hint=NAMING))
        text = decode(path, self.files[path])
        if isinstance(text, Problem):
            self.problems.append(text)
            text = ""
        head, first_line, front = PromptHead(), 1, _FRONT.match(text)
        document = Document(path, text, lines=Lines(text))
        if front:
            document = read_text(path, "\n" + front["head"])  # the first line stands for the opening '---'
            self.problems.extend(document.problems)
            head = self._head(document)
            first_line = text.count("\n", 0, front.end()) + 1
            text = text[front.end() :]
        self.documents[path] = document
        return Prompt(name, path, include, head.description, head.variables, text, first_line)

    def _head(self, document: Document) -> PromptHead:
        data = document.data
        if isinstance(data, dict) and isinstance(data.get("variables"), dict):
            variables = {key: {} if value is None else value for key, value in data["variables"].items()}
            data = {**data, "variables": variables}
        return self._entry(document, (), data, PromptHead, "front matter")

    # --- changeover.yaml, and the whole

    def _migrations(self) -> tuple[Migration, ...]:
        reader = MigrationReader(self.files, self.documents, all_ours=self.langgraph is None)
        migrations = reader.read()
        self.problems += reader.problems
        return migrations

    def _settings(self, document: Document) -> ChangeoverFile:
        data = dict(document.data) if isinstance(document.data, dict) else {}
        plugins = self._mapping(document, ("plugins",), data.pop("plugins", None), PluginSpec, "plugin")
        settings = self._entry(document, (), data, ChangeoverFile, "")
        return settings.model_copy(update={"plugins": plugins})

    def _served(self, project: Project, agents: Document) -> None:
        """agents.yaml may be left out only where graphs are all there is; an empty one is a file being written."""
        if not agents.readable:
            return
        present = "agents" in self.documents
        if self.langgraph is not None and not present:
            return  # the check of langgraph.json says what it lacks
        if present and agents.data is None:
            hint = "write 'agents: {}' if there are none"
            self.problems.append(Problem("no-agents", "the file is empty", agents.path, hint=hint))
        elif not present and (project.prompts or "tools" in self.documents or not project.names):
            hint = "a project is a folder with agents.yaml, or with graphs alone"
            self.problems.append(Problem("no-agents", "agents.yaml is missing", agents.path, hint=hint))
        elif present and isinstance(agents.data, dict) and not project.names:
            hint = "write one below 'agents:'"
            self.problems.append(Problem("no-agents", "there is no agent and no graph", agents.path, hint=hint))


def _graph_name(path: str, suffixes: tuple[str, ...]) -> tuple[str, str]:
    """The name of the graph that a top-level file of graphs/ defines, and its suffix."""
    folder, _, file = path.rpartition("/")
    for suffix in suffixes if folder == "graphs" else ():
        if file.endswith(suffix) and not file.startswith("."):
            return file.removesuffix(suffix), suffix
    return "", ""


def _is_native(path: str) -> bool:
    """Is this a file of our own format? Beside a langgraph.json alone, prompts/ and graphs/ are as any other folder."""
    return path in NATIVE_FILES or bool(_graph_name(path, (".yaml", ".yml"))[0])


def _looks_like_graph(content: bytes) -> bool:
    """JSON below graphs/ may as well be data that nodes read."""
    return b'"nodes"' in content and b'"edges"' in content
