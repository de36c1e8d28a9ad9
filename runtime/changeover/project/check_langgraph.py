"""Rules for langgraph.json: what it names exists, and what of it is not supported is said, never passed over.

What makes a server less safe if it were left out (`auth`, `encryption`) is an error until changeover.yaml says that it
is meant. Looks at the files of the version and at which packages are installed; runs none of the project's code.
"""

from __future__ import annotations

import difflib
import importlib.machinery
import importlib.metadata
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from packaging.markers import UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement

from changeover.project import langgraph
from changeover.project.findings import Findings
from changeover.project.langgraph import GraphTarget
from changeover.project.validate import shown, suggestion

SECTION = "langgraph"
READ = ("graphs", "dependencies", "env", "store")
IMAGE = (
    "python_version",
    "pip_config_file",
    "pip_installer",
    "dockerfile_lines",
    "node_version",
    "api_version",
    "base_image",
    "image_distro",
    "keep_pkg_tools",
    "_INTERNAL_docker_tag",
)
SAFETY = {
    "auth": "its author wanted requests to be authenticated by the project's code",
    "encryption": "its author wanted saved state to be encrypted by the project's code",
}
UNSUPPORTED = {
    "checkpointer": "conversations are kept by the server itself, without an expiry",
    "http": "no routes, middleware, headers or switches of the project are applied to the HTTP server",
    "ui": "user interface components are not served",
    "ui_config": "user interface components are not served",
    "webhooks": "its rules for webhooks are not applied",
    "mcp": "graphs are not served over MCP",
    "a2a": "graphs are not served over A2A",
    "disable_persistence": "conversations are always kept",
    "middleware": "no middleware of the project is applied",
}
HTTP = {
    "app": "its routes are not served and its middleware does not run: what it guards is open",
    "cors": "give the origins as server.cors in changeover.yaml",
    "middleware_order": "no middleware of the project runs",
    "enable_custom_route_auth": "no routes of the project are served",
    "configurable_headers": "headers do not become part of a run's config",
    "mount_prefix": "routes stand at the root",
}
STORE = ("index", "ttl")
INDEX = ("embed", "dims", "fields")
TTL: dict[str, Callable[[Any], bool]] = {
    "default_ttl": lambda value: _is_number(value) and value > 0,
    "sweep_interval_minutes": lambda value: _is_number(value) and value > 0,
    "refresh_on_read": lambda value: isinstance(value, bool),
}
SCRIPTS = (".ts", ".tsx", ".js", ".mjs", ".cjs", ".mts", ".cts")
MAX_REQUIREMENTS = 500


def check_langgraph(findings: Findings, reserved: Collection[str]) -> None:
    if findings.project.langgraph is None:
        return
    document, _ = findings.project.document_of(SECTION)
    if not document.readable or not isinstance(document.data, dict):
        return
    check = _Check(findings, document.data)
    check.graphs(reserved)
    check.dependencies()
    check.environment()
    check.store()
    check.others()
    findings.problems[:] = langgraph.without_values(findings.problems, document.text)


class _Check:
    def __init__(self, findings: Findings, data: dict[str, Any]) -> None:
        self._findings = findings
        self._project = findings.project
        self._data = data

    def _error(self, code: str, message: str, *path: str | int, **more: Any) -> None:
        self._findings.add(code, message, SECTION, *path, **more)

    def _warn(self, code: str, message: str, *path: str | int, **more: Any) -> None:
        self._findings.add(code, message, SECTION, *path, severity="warning", **more)

    # --- graphs

    def graphs(self, reserved: Collection[str]) -> None:
        graphs = self._data.get("graphs")
        if not isinstance(graphs, dict) or not graphs:
            wrong = graphs is not None and not isinstance(graphs, dict)
            if wrong or not self._project.names:
                message = "'graphs' should be a mapping from names to graphs" if wrong else "it names no graphs"
                hint = 'write "graphs": {"agent": "./agent.py:graph"}'
                self._error("no-graphs", message, "graphs", on_key=True, hint=hint)
            return
        for name, value in graphs.items():
            self._name(name, reserved)
            self._graph(name, value)

    def _name(self, name: str, reserved: Collection[str]) -> None:
        if not name.strip():
            self._error("bad-name", "a graph has no name", "graphs", name, on_key=True, hint="name it")
        if name in reserved:
            message = f"'{name}' is also the name of a route: its routes for RemoteRunnable are not served"
            self._warn("reserved-name", message, "graphs", name, on_key=True, hint="all other clients reach it")

    def _graph(self, name: str, value: Any) -> None:
        place = ("graphs", name, *(("path",) if isinstance(value, dict) and "path" in value else ()))
        target = langgraph.target_of(name, value)
        if target is None:
            self._no_target(name, value, place)
            return
        for key in value if isinstance(value, dict) else ():
            if key not in ("path", "description"):
                message = f"graph '{shown(name)}': '{shown(key)}' has no effect"
                self._warn("unsupported", message, "graphs", name, key, on_key=True, hint="leave it out")
        if target.file.endswith(SCRIPTS):
            message = f"graph '{shown(name)}': graphs in JavaScript or TypeScript cannot be served"
            self._error("unsupported", message, *place, hint="serve them with LangGraph's own server")
        elif target.file:
            self._file(target, place)
        else:
            self._module(target, place)

    def _no_target(self, name: str, value: Any, place: tuple[str | int, ...]) -> None:
        path = value.get("path") if isinstance(value, dict) else value
        hint = "write path.py:attribute or module:attribute"
        if not isinstance(path, str):
            self._error("wrong-type", f"graph '{shown(name)}' should be a text", *place, hint=hint)
        elif ":" in path and langgraph.inside(path.strip().rpartition(":")[0]) is None:
            message = f"graph '{shown(name)}': '{shown(path)}' does not lie in the project folder"
            self._error("bad-path", message, *place, hint="use a path relative to the folder of langgraph.json")
        else:
            self._error("bad-path", f"graph '{shown(name)}': '{shown(path)}' names no graph", *place, hint=hint)

    def _file(self, target: GraphTarget, place: tuple[str | int, ...]) -> None:
        what = f"graph '{shown(target.name)}'"
        if target.file not in self._project.python.paths:
            known = [path for path in self._project.python.paths if not path.rpartition("/")[2].startswith("_")]
            close = difflib.get_close_matches(target.file, known, n=1)
            hint = f"did you mean './{close[0]}'?" if close else "a path is relative to the folder of langgraph.json"
            self._error("import", f"{what}: there is no file {shown(target.file)}", *place, hint=hint)
            return
        folders = self._project.langgraph.folders if self._project.langgraph else ()
        if not any(not folder or target.file.startswith(f"{folder}/") for folder in folders):
            message = f"{what}: {target.file} lies in no folder of 'dependencies'; nothing beside it is in the version"
            self._warn("not-a-dependency", message, *place, hint='add "." to dependencies')
        self._attribute(what, target.file, target.attribute, place)

    def _attribute(self, what: str, file: str, attribute: str, place: tuple[str | int, ...]) -> None:
        outline = self._project.python.module(file)
        first = attribute.split(".", 1)[0]
        if outline.problem is None and first not in outline.names and not outline.open:
            message = f"{what}: {file} does not define '{shown(first)}'"
            self._error("import", message, *place, hint=suggestion(first, outline.names))

    def _module(self, target: GraphTarget, place: tuple[str | int, ...]) -> None:
        what = f"graph '{shown(target.name)}'"
        file = self._project.python.path_of(target.module)
        if file is not None and not file.endswith("/"):
            self._attribute(what, file, target.attribute, place)
        elif target.module.partition(".")[0] in self._project.python.imports.roots:
            hint = suggestion(target.module, self._project.python.imports.modules)
            self._error("import", f"{what}: there is no module '{shown(target.module)}'", *place, hint=hint)
        elif _is_installed_module(target.module):
            message = f"{what}: '{shown(target.module)}' is an installed package; its code is not part of the version"
            self._warn("not-versioned", message, *place, hint="name its folder in dependencies to edit it live")
        else:
            hint = "name the folder that holds it in dependencies, or install it"
            self._error("import", f"{what}: there is no module '{shown(target.module)}'", *place, hint=hint)

    # --- dependencies

    def dependencies(self) -> None:
        listed = self._data.get("dependencies")
        if listed is None:
            return
        if not isinstance(listed, list):
            message = "'dependencies' should be a list of folders and packages"
            self._error("wrong-type", message, "dependencies", hint='write "dependencies": ["."]')
            return
        for index, item in enumerate(listed):
            place = ("dependencies", index)
            if not isinstance(item, str) or not item.strip():
                self._error("wrong-type", "a dependency should be a folder or the name of a package", *place)
            elif langgraph.is_local(item.strip()):
                self._folder(item.strip(), place)
            else:
                self._package(item.strip(), place)

    def _folder(self, item: str, place: tuple[str | int, ...]) -> None:
        folder = langgraph.inside(item)
        files = self._project.files
        if folder is None:
            message = f"the dependency '{shown(item)}' does not lie in the project folder"
            hint = "move it into the folder of langgraph.json, or put langgraph.json above both"
            self._error("bad-path", message, *place, hint=hint)
        elif folder in files:
            self._error("bad-path", f"the dependency '{shown(item)}' is a file, not a folder", *place)
        elif folder and not any(path.startswith(f"{folder}/") for path in files):
            message = f"there is no folder '{shown(item)}', or nothing in it is part of a version"
            self._error("bad-path", message, *place, hint="make it, or leave it out")
        else:
            self._requirements_of(folder, place)

    def _package(self, item: str, place: tuple[str | int, ...]) -> None:
        try:
            missing = _missing(Requirement(item))
        except InvalidRequirement:
            message = f"the dependency '{shown(item)}' is neither a folder nor a package"
            self._error("requirement", message, *place, hint="folders begin with './'")
            return
        if missing:
            self._error("requirement", f"the package {shown(item)} {missing}", *place, hint=_install([item]))

    def _requirements_of(self, folder: str, place: tuple[str | int, ...]) -> None:
        """What the folder itself requires. Not an error: what is missed is found when the graphs are built."""
        wanted: list[str] = []
        for text in list(_required(folder, self._project.files))[:MAX_REQUIREMENTS]:
            try:
                requirement = Requirement(text)
                if _applies(requirement) and _missing(requirement):
                    wanted.append(text)
            except InvalidRequirement:
                continue
        if wanted:
            message = f"{folder or 'the project'} requires what is not installed: {shown(', '.join(wanted))}"
            self._warn("requirement", message, *place, hint=_install(wanted))

    # --- env and store

    def environment(self) -> None:
        given = self._data.get("env")
        if given is None:
            return
        if isinstance(given, str):
            if langgraph.inside(given.strip()) is None:
                hint = "use a path relative to the folder of langgraph.json"
                self._error("bad-path", "'env' does not lie in the project folder", "env", hint=hint)
            return
        if not isinstance(given, dict):
            self._error("wrong-type", "'env' should be the path of a file, or a mapping of names to values", "env")
            return
        for name, value in given.items():
            if not langgraph.is_variable(name):
                self._error("wrong-type", "this cannot be the name of a variable", "env", name, on_key=True)
            elif not isinstance(value, str | int | float | bool):
                self._error("wrong-type", f"the value of {shown(name)} should be a text", "env", name, on_key=True)

    def store(self) -> None:
        store = self._data.get("store")
        if store is None:
            return
        if not isinstance(store, dict):
            self._error("wrong-type", "'store' should be a mapping", "store")
            return
        for key in store:
            if key not in STORE:
                message = f"'store.{shown(key)}' has no effect: the long-term store is the server's own"
                self._warn("unsupported", message, "store", key, on_key=True, hint="leave it out")
        self._index(store.get("index"))
        self._ttl(store.get("ttl"))

    def _index(self, index: Any) -> None:
        if index is None:
            return
        place = ("store", "index")
        if not isinstance(index, dict):
            self._error("wrong-type", "'store.index' should be a mapping", *place)
            return
        for key in index:
            if key not in INDEX:
                self._warn("unsupported", f"'store.index.{shown(key)}' has no effect", *place, key, on_key=True)
        dims, embed = index.get("dims"), index.get("embed")
        if not isinstance(dims, int) or isinstance(dims, bool) or dims < 1:
            self._error("wrong-type", "'dims' should be the number of dimensions of an embedding", *place, "dims")
        if not isinstance(embed, str) or ":" not in embed:
            hint = "write provider:model, such as openai:text-embedding-3-small, or path.py:function"
            self._error("wrong-type", "'embed' should say what makes embeddings", *place, "embed", hint=hint)
        elif langgraph.is_path(embed.rpartition(":")[0]):
            self._embed(embed, (*place, "embed"))
        fields = index.get("fields")
        if fields is not None and (not isinstance(fields, list) or not all(isinstance(item, str) for item in fields)):
            self._error("wrong-type", "'fields' should be a list of paths such as $ or text", *place, "fields")

    def _embed(self, embed: str, place: tuple[str | int, ...]) -> None:
        target = langgraph.target_of("", embed)
        if target is None or target.file not in self._project.python.paths:
            hint = "a path is relative to the folder of langgraph.json, and lies in one of its dependencies"
            self._error("import", f"there is no file for '{shown(embed)}'", *place, hint=hint)
        else:
            self._attribute("'embed'", target.file, target.attribute, place)

    def _ttl(self, ttl: Any) -> None:
        if ttl is None:
            return
        if not isinstance(ttl, dict):
            self._error("wrong-type", "'store.ttl' should be a mapping", "store", "ttl")
            return
        for key, value in ttl.items():
            place = ("store", "ttl", key)
            if key not in TTL:
                message = f"'store.ttl.{shown(key)}' has no effect"
                self._warn("unsupported", message, *place, on_key=True, hint=suggestion(key, TTL))
            elif value is not None and not TTL[key](value):
                kind = "true or false" if key == "refresh_on_read" else "a number of minutes"
                self._error("wrong-type", f"'{key}' should be {kind}", *place)

    # --- the rest

    def others(self) -> None:
        self._image()
        for key, value in self._data.items():
            if key in READ or key in IMAGE or key.startswith("$"):
                continue
            if key in SAFETY:
                self._safety(key, value)
            elif key == "http" and isinstance(value, dict):
                self._http(value)
            elif key in UNSUPPORTED:
                self._warn("unsupported", f"'{key}' has no effect: {UNSUPPORTED[key]}", key, on_key=True)
            else:
                known = [*READ, *IMAGE, *SAFETY, *UNSUPPORTED]
                message = f"'{shown(key)}' is not a key that is known here; it has no effect"
                self._warn("unknown-key", message, key, on_key=True, hint=suggestion(key, known))

    def _image(self) -> None:
        found = [key for key in self._data if key in IMAGE]
        if found:
            verb = "shapes a Docker image" if len(found) == 1 else "shape a Docker image"
            message = f"{', '.join(found)} {verb}, and none is built here: no effect"
            self._warn("unsupported", message, found[0], on_key=True)
        wanted = self._data.get("python_version")
        running = f"{sys.version_info.major}.{sys.version_info.minor}"
        if wanted is not None and str(wanted) != running:
            message = f"it wants Python {shown(wanted)}, and this is Python {running}"
            self._warn("python-version", message, "python_version", hint="start changeover with that Python")

    def _safety(self, key: str, value: Any) -> None:
        if not value:
            return
        if key in self._project.settings.langgraph.without:
            message = f"'{key}' has no effect, as changeover.yaml accepts: {SAFETY[key]}"
            self._warn("unsupported", message, key, on_key=True)
            return
        guard = "a token (--token) guards every route instead; " if key == "auth" else ""
        hint = f"{guard}to serve without it, write 'langgraph: {{without: [{key}]}}' into changeover.yaml"
        message = f"'{key}' is not supported, and it is not left out silently: {SAFETY[key]}"
        self._error("unsupported", message, key, on_key=True, hint=hint)

    def _http(self, http: dict[str, Any]) -> None:
        for key, value in http.items():
            if value in (None, False, {}, []):
                continue
            said = HTTP.get(key) or ("these routes are served" if key.startswith("disable_") else UNSUPPORTED["http"])
            self._warn("unsupported", f"'http.{shown(key)}' has no effect: {said}", "http", key, on_key=True)


def _is_installed_module(module: str) -> bool:
    """Whether the top-level package can be imported; it is looked for, not run."""
    root = module.partition(".")[0]
    if root in sys.modules or root in sys.builtin_module_names:
        return True
    try:
        return importlib.machinery.PathFinder.find_spec(root) is not None
    except (ImportError, ValueError):
        return False


def _missing(requirement: Requirement) -> str:
    """What is wrong with what is installed, in words; empty where it fits."""
    try:
        version = importlib.metadata.version(requirement.name)
    except (importlib.metadata.PackageNotFoundError, ValueError, OSError):
        return "is not installed"
    fits = requirement.url is not None or requirement.specifier.contains(version, prereleases=True)
    return "" if fits else f"is installed as {version}"


def _applies(requirement: Requirement) -> bool:
    try:
        return requirement.marker is None or requirement.marker.evaluate()
    except UndefinedEnvironmentName:
        return False  # of an extra that nobody asked for


def _required(folder: str, files: Any) -> Iterator[str]:
    project = langgraph.pyproject(folder, files).get("project")
    if isinstance(project, dict):
        yield from langgraph.texts(project.get("dependencies"))
    lines = files.get(f"{folder}/requirements.txt" if folder else "requirements.txt", b"").decode("utf-8", "replace")
    for line in lines.splitlines():
        text = line.split(" #", 1)[0].strip()
        if text and not text.startswith(("#", "-", ".", "/")) and "://" not in text.split("@", 1)[0]:
            yield text


def _install(requirements: Iterable[str]) -> str:
    return f"install it: {sys.executable.rpartition('/')[2]} -m pip install {' '.join(map(shlex.quote, requirements))}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
