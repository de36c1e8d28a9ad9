"""Plugins of changeover.yaml: from what is written there to what a version needs live.

Owns the key of a plugin (which versions share it), its class, found in the version's code, and its problems, positioned
at the project's own line where its code failed. Blocking: the class is imported here, in the thread of the build.

A plugin of scope `version` is shared by versions with the same code: any edit of the project's Python or data makes
another one, an edit of a prompt does not. One of scope `server` is shared whatever the code is, and stays what it was
made of until its settings change or nothing needs it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from changeover.build.blame import own_code_problem, stack_problem
from changeover.build.modules import CodeTree, CodeTrees
from changeover.build.surroundings import Surroundings
from changeover.errors import ProjectError
from changeover.project.load import Project
from changeover.project.models import HealthSpec, PluginSpec
from changeover.project.problems import Problem
from changeover.resources.need import Key, Need
from changeover.resources.plugin import HookFailed, PluginResource, PluginSetup, has_hook
from changeover.resources.plugin_hooks import HookLate
from changeover.resources.plugin_proxy import plugin_proxy
from changeover.resources.pool import Handle
from changeover.resources.reconciling import Name
from changeover.secret_values import Secrets
from changeover.settings import duration

DEADLINE_S = 30.0
CHECK_EVERY_S = 30.0
CHECK_TIMEOUT_S = 5.0
SHOWN_CODE_CHARS = 12


def plugin_key(name: str, project: Project, around: Surroundings, code: str) -> Key:
    """Plugins whose keys are equal are one; two names are two, whatever they are made of. `code` names the project's.

    Raises `ProjectError` where a variable is missing.
    """
    spec = project.settings.plugins[name]
    timing = [spec.deadline, spec.health.model_dump() if spec.health else None]
    made_of = [spec.class_, spec.scope, _config(name, project, around), code if spec.scope == "version" else None]
    return around.keys.of("plugin", [name, made_of, timing])


def plugin_need(name: str, project: Project, around: Surroundings, tree: CodeTree, trees: CodeTrees) -> Need:
    """What a version needs for its plugin `name`. Raises `ProjectError`.

    `tree` must have a use whenever the need is opened; the plugin then holds one of its own, to the end of its life.
    """
    spec = project.settings.plugins[name]
    secrets = around.secrets(spec.config)
    plugin = _Plugin(name, spec, _config(name, project, around), secrets, project, tree, trees)
    return Need(
        "plugin",
        name,
        key=plugin_key(name, project, around, tree.key),
        make=plugin.make,
        problem=plugin.problem,
        required=spec.required,
        secrets=secrets,
    )


def plugins_of(
    project: Project, tree: CodeTree, needs: Mapping[Name, Need], handle: Callable[[Need], Handle]
) -> dict[str, Any]:
    """What `ctx.resource(name)` gives, by name. `needs` has the need of each."""
    found: dict[str, Any] = {}
    for name, spec in project.settings.plugins.items():
        need = needs["plugin", name]
        found[name] = plugin_proxy(handle(need), tree.resolve(spec.class_), need.title)
    return found


class _Plugin:
    def __init__(
        self,
        name: str,
        spec: PluginSpec,
        config: Mapping[str, Any],
        secrets: Secrets,
        project: Project,
        tree: CodeTree,
        trees: CodeTrees,
    ) -> None:
        self._name = name
        self._spec = spec
        self._config = config
        self._secrets = secrets
        self._project = project
        self._tree = tree
        self._trees = trees
        self._place = ("changeover", "plugins", name)
        self._kind = self._class()
        self._opened: PluginResource | None = None

    def _class(self) -> type[Any]:
        reference = self._spec.class_
        try:
            found = self._tree.resolve(reference)
        except (Exception, SystemExit, KeyboardInterrupt, GeneratorExit) as error:  # the project's code
            message = f"plugin '{self._name}': cannot import '{reference}'"
            raise ProjectError(
                [own_code_problem(self._project, "import", message, error, *self._place, "class")]
            ) from error
        if not inspect.isclass(found):
            hint = "name a class; changeover.Plugin says what it may have"
            raise self._error("plugin", f"{reference} is a {type(found).__name__}, not a class", "class", hint=hint)
        return found

    def make(self) -> PluginResource:
        spec, kind, health = self._spec, self._kind, self._spec.health or HealthSpec()
        self._trees.use(self._tree)
        self._opened = PluginResource(
            PluginSetup(
                self._name,
                spec.class_,
                kind,
                self._config,
                self._tree.folder,
                spec.scope,
                self._tree.digest[:SHOWN_CODE_CHARS],
                deadline_s=_seconds(spec.deadline, DEADLINE_S),
                check_every_s=_seconds(health.every, CHECK_EVERY_S) if has_hook(kind, "health_check") else None,
                check_timeout_s=_seconds(health.timeout, CHECK_TIMEOUT_S),
                hidden=self._secrets.hidden,
                let_go=partial(self._trees.release, self._tree),
            )
        )
        return self._opened

    # --- what is wrong ---------------------------------------------------------------------------

    def problem(self, reason: str) -> Problem:
        """Why it cannot be had: at the project's own line where one of its hooks failed."""
        failure = self._opened.failure if self._opened is not None else None
        what = f"plugin '{self._name}': {reason}"
        if failure is None:
            return self._project.problem("plugin-failed", what, *self._place)
        return replace(self._at_own_line(failure), message=what)

    def _at_own_line(self, failure: HookFailed) -> Problem:
        if isinstance(failure.error, HookLate):
            hint = "give what it waits for a deadline; 'deadline' of the plugin allows more"
            return stack_problem(self._project, "plugin-failed", "", failure.error.stack, *self._place, hint=hint)
        return own_code_problem(self._project, "plugin-failed", "", failure.error, *self._place, "class")

    def _error(self, code: str, message: str, *path: str, hint: str = "") -> ProjectError:
        text = f"plugin '{self._name}': {message}"
        return ProjectError([self._project.problem(code, text, *self._place, *path, hint=hint)])


def _config(name: str, project: Project, around: Surroundings) -> dict[str, Any]:
    written = project.settings.plugins[name].config
    return dict(around.resolved(written, project, "changeover", "plugins", name, "config"))


def _seconds(amount: str | int | float | None, otherwise_s: float) -> float:
    return otherwise_s if amount is None else duration(amount)
