"""Rules for the steps of migrations/ that need the rest of the project, or several parts of one step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from changeover.project.findings import Findings
from changeover.project.migration_models import StepParts
from changeover.project.migrations import Migration, functions_of
from changeover.project.validate import shown, suggestion

CODE = "migration-conflict"


def check_migrations(findings: Findings) -> None:
    for migration in findings.project.migrations:
        _graph(findings, migration)
        for path, ref in functions_of(migration.parts):
            findings.ref(".".join(path[:3]), ref, migration.path, *path)
        _names_once(findings, migration)
        _new_names(findings, migration)
    if findings.project.migrations and (first := findings.project.migrations[0]).number > 1:
        message = f"the steps begin with {first.number:04}: threads that have seen none are taken to need no older one"
        hint = "number the first step 0001, or keep the older files"
        findings.add("migration-gap", message, first.path, severity="warning", hint=hint)


def _graph(findings: Findings, migration: Migration) -> None:
    """A step of a graph that is gone does no harm: the threads of other versions may still need it."""
    names = findings.project.names
    if migration.graph and migration.graph not in names:
        message = f"there is no agent and no graph '{shown(migration.graph)}'"
        hint = suggestion(migration.graph, names)
        findings.add("unknown-graph", message, migration.path, "graph", severity="warning", hint=hint)


def _names_once(findings: Findings, migration: Migration) -> None:
    """A name has one fate, and two names do not become one."""
    parts, path = migration.parts, migration.path
    for key in parts.state.drop:
        if key in parts.state.rename:
            findings.add(CODE, f"'{shown(key)}' is renamed and dropped", path, "state", "rename", key, on_key=True)
    for section, renames in _renames(parts):
        for new, count in Counter(_in_place(old, new) for old, new in renames.items()).items():
            if count > 1:
                old = [old for old in renames if _in_place(old, renames[old]) == new][-1]
                message = f"{count} names become '{shown(new)}'"
                findings.add(CODE, message, path, section, "rename", old, hint="keep one of them")
    nodes = parts.nodes
    fates = {"rename": nodes.rename, "remove": nodes.remove, "split": nodes.split, "move": nodes.move}
    seen: dict[str, str] = {}
    for fate, names in fates.items():
        for node in names:  # type: ignore[attr-defined]
            if node in seen:
                message = f"node '{shown(node)}' is in '{seen[node]}' and in '{fate}'"
                findings.add(CODE, message, path, "nodes", fate, node, on_key=True, hint="keep one of them")
            seen.setdefault(node, fate)
    for node, split in nodes.split.items():
        if split.at not in split.into:
            message = f"'at' should be one of the nodes of 'into', not '{shown(split.at)}'"
            findings.add(CODE, message, path, "nodes", "split", node, "at", hint=suggestion(split.at, split.into))


def _new_names(findings: Findings, migration: Migration) -> None:
    """What a step converts or sets has the name that it has after the step."""
    parts = migration.parts
    keys = {old: _in_place(old, new) for old, new in parts.state.rename.items()}
    nodes = {old: _in_place(old, new) for old, new in parts.nodes.rename.items()} | parts.nodes.move
    for section, names in (("convert", parts.state.convert), ("set", parts.state.set)):
        for key in names:
            place = ("state", section, key)
            if key in parts.state.drop:
                findings.add(CODE, f"'{shown(key)}' is dropped in this step", migration.path, *place, on_key=True)
            elif (new := _renamed(key, keys, nodes)) is not None:
                message = f"'{shown(key)}' has another name after this step"
                findings.add(CODE, message, migration.path, *place, on_key=True, hint=f"write '{new}'")


def _renamed(key: str, keys: Mapping[str, str], nodes: Mapping[str, str]) -> str | None:
    if key in keys and key not in keys.values():
        return keys[key]
    for old, new in nodes.items():
        if key.startswith(f"{old}/") and old not in nodes.values():
            return new + key[len(old) :]
    return None


def _renames(parts: StepParts) -> Iterable[tuple[str, Mapping[str, str]]]:
    return (
        ("state", parts.state.rename),
        ("nodes", parts.nodes.rename),
        ("tools", parts.tools.rename),
        ("types", parts.types.rename),
        ("tasks", parts.tasks.rename),
    )


def _in_place(old: str, new: str) -> str:
    above = old.rpartition("/")[0]
    return f"{above}/{new}" if above and "/" not in new else new
