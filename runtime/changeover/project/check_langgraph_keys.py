"""Rules for the keys of langgraph.json that are settings: `env`, `store`, and all that has no effect here.

What makes a server less safe if it were left out (`auth`, `encryption`) is an error until changeover.yaml says that it
is meant; anything else that has no effect is a warning.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from changeover.project import langgraph
from changeover.project.findings import Findings
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


class Keys:
    """The checks of these keys, and how a finding in langgraph.json is added."""

    def __init__(self, findings: Findings, data: dict[str, Any]) -> None:
        self._findings = findings
        self._project = findings.project
        self._data = data

    def _error(self, code: str, message: str, *path: str | int, **more: Any) -> None:
        self._findings.add(code, message, SECTION, *path, **more)

    def _warn(self, code: str, message: str, *path: str | int, **more: Any) -> None:
        self._findings.add(code, message, SECTION, *path, severity="warning", **more)

    def _attribute(self, what: str, file: str, attribute: str, place: tuple[str | int, ...]) -> None:
        outline = self._project.python.module(file)
        first = attribute.split(".", 1)[0]
        if outline.problem is None and first not in outline.names and not outline.open:
            message = f"{what}: {file} does not define '{shown(first)}'"
            self._error("import", message, *place, hint=suggestion(first, outline.names))

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


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
