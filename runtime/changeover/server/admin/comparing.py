"""What differs between two versions: files, and the parts and graphs they make."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from changeover.manager import GraphVersionManager
from changeover.project.load import load
from changeover.store.records.version import Version
from changeover.versions.diff import diff

Files = Mapping[str, bytes]
PROMPTS = "prompts/"


async def compare(manager: GraphVersionManager, before: Version, after: Version) -> dict[str, Any]:
    old, new = await manager.store.versions.files(before.id), await manager.store.versions.files(after.id)
    digests = [{name: graph.digest for name, graph in version.graphs.items()} for version in (before, after)]
    contracts = [{name: graph.contract_digest for name, graph in version.graphs.items()} for version in (before, after)]
    return {
        "from": before.id,
        "to": after.id,
        **await asyncio.to_thread(_compare_files, old, new),
        "graphs": changes(*digests),
        "contracts": changes(*contracts),
        "resources": (await manager.resource_plan(before.id, after.id)).to_json(),
        "contract_changes": await manager.rollout.planning.differences(before, after),
    }


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """Each name that differs: added, removed or changed."""
    found = {}
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            found[name] = "added"
        elif name not in new:
            found[name] = "removed"
        elif old[name] != new[name]:
            found[name] = "changed"
    return found


def _compare_files(old: Files, new: Files) -> dict[str, Any]:
    before, after = load(old).project, load(new).project
    return {
        "files": [change.to_json() for change in diff(old, new)],
        "models": changes(before.models, after.models),
        "agents": changes(before.agents, after.agents),
        "tools": changes(before.tools, after.tools),
        "prompts": changes(_prompts(old), _prompts(new)),
    }


def _prompts(files: Files) -> dict[str, bytes]:
    return {path.removeprefix(PROMPTS): data for path, data in files.items() if path.startswith(PROMPTS)}
