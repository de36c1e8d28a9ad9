"""The graphs of a run as a tree, from the events that are kept of it."""

from __future__ import annotations

from typing import Any

import orjson

from changeover.server.langgraph.v3.threads import ThreadEvents


def of(thread: ThreadEvents, run_id: str | None) -> dict[str, Any] | None:
    """The tree of a run, by default of the newest; None if nothing of it is kept."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    newest: str | None = None
    for event in thread.after(thread.first - 1):
        if event.method != "lifecycle" or (run_id is not None and event.run_id != run_id):
            continue
        if event.run_id != newest:
            newest, found = event.run_id, {}
        data = orjson.loads(event.body)["params"]["data"]
        node = found.setdefault(event.namespace, {"namespace": list(event.namespace), "graph_name": ""})
        node["status"] = data["event"]
        node["graph_name"] = data.get("graph_name") or node["graph_name"]
        if "metadata" in data:
            node["metadata"] = data["metadata"]
    return _joined(found)


def _joined(found: dict[tuple[str, ...], dict[str, Any]]) -> dict[str, Any] | None:
    root = found.get(())
    for namespace, node in sorted(found.items(), key=lambda item: len(item[0])):
        parent = found.get(namespace[:-1])
        if namespace and parent is not None:
            parent.setdefault("children", []).append(node)
    return root
