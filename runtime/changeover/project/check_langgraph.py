"""Rules for langgraph.json: what it names exists, and what of it is not supported is said, never passed over.

Owns the rules for `graphs` and `dependencies`; those for the other keys are in `check_langgraph_keys`. Looks at the
files of the version and at which packages are installed; runs none of the project's code.
"""

from __future__ import annotations

import difflib
import importlib.machinery
import sys
from collections.abc import Collection
from typing import Any

from changeover.project import langgraph
from changeover.project.check_langgraph_keys import SECTION, Keys
from changeover.project.findings import Findings
from changeover.project.installed import lack_of
from changeover.project.langgraph import GraphTarget
from changeover.project.requirements import install_command, wanted_by_folder, wrong_with
from changeover.project.validate import shown, suggestion

SCRIPTS = (".ts", ".tsx", ".js", ".mjs", ".cjs", ".mts", ".cts")


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


class _Check(Keys):
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

    def _module(self, target: GraphTarget, place: tuple[str | int, ...]) -> None:
        what = f"graph '{shown(target.name)}'"
        file = self._project.python.path_of(target.module)
        if file is not None and not file.endswith("/"):
            self._attribute(what, file, target.attribute, place)
        elif target.module.partition(".")[0] in self._project.python.imports.roots:
            hint = suggestion(target.module, self._project.python.imports.modules)
            self._error("import", f"{what}: there is no module '{shown(target.module)}'", *place, hint=hint)
        elif self._findings.requirements == "install" and not _is_installed_module(target.module):
            return  # it may be installed for the project; what is not there then cannot be imported
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
        wrong = wrong_with(item)
        if wrong is None:
            message = f"the dependency '{shown(item)}' is neither a folder nor a package"
            self._error("requirement", message, *place, hint="folders begin with './'")
        elif wrong and self._findings.requirements == "check":
            self._error("requirement", f"the package {shown(item)} {wrong}", *place, hint=install_command([item]))

    def _requirements_of(self, folder: str, place: tuple[str | int, ...]) -> None:
        """What the folder itself requires. Not an error: what is missed is found when the graphs are built."""
        listed = wanted_by_folder(folder, self._project.files) if self._findings.requirements == "check" else []
        wanted = [found.text for found in listed if lack_of(found.requirement) is not None]
        if wanted:
            message = f"{folder or 'the project'} requires what is not installed: {shown(', '.join(wanted))}"
            self._warn("requirement", message, *place, hint=install_command(wanted))


def _is_installed_module(module: str) -> bool:
    """Whether the top-level package can be imported; it is looked for, not run."""
    root = module.partition(".")[0]
    if root in sys.modules or root in sys.builtin_module_names:
        return True
    try:
        return importlib.machinery.PathFinder.find_spec(root) is not None
    except (ImportError, ValueError):
        return False
