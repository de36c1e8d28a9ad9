"""From a checked project to compiled graphs: only what is new is compiled, the rest is taken over.

Blocking and CPU-bound: it runs in a thread of its own (`changeover.deadline`). Changes nothing outside the objects
it returns.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from changeover.build.blame import own_code_problem
from changeover.build.digest import Digests, Part, Reference
from changeover.build.factories import FactoryRoom
from changeover.build.loaded import Compiled, CompiledGraph
from changeover.build.modules import CodeTree
from changeover.build.parts import Parts
from changeover.build.plugins import plugins_of
from changeover.contracts.contract import contract_of
from changeover.errors import ProjectError
from changeover.project.load import Project
from changeover.project.problems import Problem
from changeover.project.prompts import Prompts
from changeover.resources.models import ModelPool
from changeover.resources.need import Need
from changeover.resources.pool import Handle
from changeover.resources.reconciling import Name


@dataclass(frozen=True)
class Workshop:
    """What every build of a process uses: clients shared between versions, and a key for fingerprints."""

    pool: ModelPool
    key: bytes  # random per process, so that a fingerprint says nothing about a value
    handle: Callable[[Need], Handle]
    room: FactoryRoom | None = None

    def fingerprint(self, environment: Mapping[str, str], names: Iterable[str]) -> str:
        """A keyed hash of the variables' values: equal if and only if the environment gives the same."""
        values = {name: environment.get(name) for name in sorted(names)}
        return hmac.new(self.key, json.dumps(values).encode(), hashlib.sha256).hexdigest()


def compile_project(
    project: Project,
    tree: CodeTree,
    environment: Mapping[str, str],
    known: Mapping[str, list[Compiled]],
    workshop: Workshop,
    needs: Mapping[Name, Need],
    exported: Iterable[str] = (),
) -> dict[str, Compiled]:
    """Every agent and graph of the project, compiled. Raises `ProjectError` with the problems of all of them.

    `exported` names the variables that the project's code may read from the process's environment.
    """
    return _Compiler(project, tree, environment, known, workshop, needs, exported).compile()


class _Compiler:
    def __init__(
        self,
        project: Project,
        tree: CodeTree,
        environment: Mapping[str, str],
        known: Mapping[str, list[Compiled]],
        workshop: Workshop,
        needs: Mapping[Name, Need],
        exported: Iterable[str],
    ) -> None:
        self._project = project
        self._tree = tree
        self._environment = environment
        self._known = known
        self._workshop = workshop
        self._digests = Digests(project, tree.digest, exported)
        self._reused: dict[str, Compiled] = {}
        self._parts = Parts(
            project,
            tree,
            environment,
            Prompts(project.prompts),
            workshop.pool,
            lambda name: self._reuse(name),
            workshop.room,
            lambda kind, name: workshop.handle(needs[kind, name]),
            plugins_of(project, tree, needs, workshop.handle),
        )

    def compile(self) -> dict[str, Compiled]:
        found: dict[str, Compiled] = {}
        problems: list[Problem] = []
        for name in self._project.names:
            try:
                found[name] = self._compile_one(name)
            except ProjectError as error:
                problems += error.problems
            except (Exception, SystemExit, KeyboardInterrupt, GeneratorExit) as error:  # project code, or its library
                place = ("agents", name) if name in self._project.agents else (f"graphs/{name}",)
                problems.append(own_code_problem(self._project, "build", f"cannot build '{name}'", error, *place))
        if problems:
            raise ProjectError(sorted(set(problems), key=lambda problem: problem.sort_key))
        return found

    def _compile_one(self, name: str) -> Compiled:
        graph = self._parts.graph(name)
        if name in self._reused:
            return self._reused[name]
        asked = self._asked(name)
        part = self._digests.graph(name, asked)
        contract = contract_of(graph, self._tree.logical_name)
        factory, warnings = self._parts.factories.get(name), self._parts.warnings.get(name, ())
        models = frozenset(self._parts.models.get(name, ()))
        return Compiled(name, part.digest, self._fingerprint(part), graph, contract, asked, factory, warnings, models)

    def _asked(self, name: str) -> frozenset[Reference]:
        """What Python graphs asked for: the graph itself and those inside it."""
        if name in self._reused:
            return self._reused[name].asked
        own = frozenset(self._parts.asked(name))
        inner = {wanted for kind, wanted in own if kind == "graph"}
        if name in self._project.graphs:
            inner |= {node.graph for node in self._project.graphs[name].nodes.values() if node.graph}
        return own.union(*(self._asked(graph) for graph in sorted(inner)))

    def _reuse(self, name: str) -> CompiledGraph | None:
        """The compiled graph of another version, where everything that it depends on is the same."""
        for candidate in self._known.get(name, ()):
            part = self._digests.graph(name, candidate.asked)
            if (candidate.digest, candidate.fingerprint) == (part.digest, self._fingerprint(part)):
                self._reused[name] = candidate
                if candidate.factory is not None:
                    self._parts.factories[name] = candidate.factory
                return candidate.graph
        return None

    def _fingerprint(self, part: Part) -> str:
        values = self._workshop.fingerprint(self._environment, part.variables)
        installed = self._tree.environment
        return f"{values}:{installed.digest}" if installed else values
