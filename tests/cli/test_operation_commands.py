"""Operations and events on the command line: found, looked at, given up."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from changeover import GraphVersionManager

AGENTS = "agents: {support: {model: 'demo:rules', prompt: {text: One.}}}\n"


@pytest.fixture
def here(project: Any) -> tuple[str, str]:
    """A project with v1, and v2 that took its place."""
    folder: Path = project({"agents.yaml": AGENTS})

    async def fill() -> None:
        async with GraphVersionManager.open(folder) as manager:
            await manager.serve_folder()
            (folder / "agents.yaml").write_text(AGENTS.replace("One", "Two"))
            await manager.build()
            await manager.switch("v2", reason="better")

    asyncio.run(fill())
    return ("--project", str(folder))


def document(ended: Any) -> dict[str, Any]:
    assert ended.status == 0, ended
    found: dict[str, Any] = json.loads(ended.out)
    return found


def test_operations_are_listed_and_one_is_shown(call: Any, here: tuple[str, str]) -> None:
    listed = document(call("operations", "--kind", "switch", "--version", "v1", *here, "-o", "json"))["operations"]
    assert [one["request"]["to"] for one in listed] == ["v2", "v1"]
    first = call("operations", "-n", "1", *here)
    assert listed[0]["operation"] in first.out
    cursor = first.err.split("--before ")[1].strip()
    assert listed[1]["operation"] in call("operations", "-n", "1", "--before", cursor, *here).out
    shown = call("operations", listed[0]["operation"], *here)
    assert shown.status == 0
    assert "done" in shown.out
    assert call("operations", "nothing", *here).status == 4


def test_one_that_has_ended_is_not_given_up(call: Any, here: tuple[str, str]) -> None:
    one = document(call("operations", "--status", "done", *here, "-o", "json"))["operations"][0]["operation"]
    for option in (("--cancel",), ("--escalate", "handover")):
        refused = call("operations", one, *option, "--reason", "late", *here)
        assert (refused.status, "has ended: done" in refused.err) == (5, True), refused
    assert call("operations", "--cancel", *here).status == 2
    assert call("operations", one, "--cancel", "--escalate", "cancel", *here).status == 2


def test_events_are_found_by_what_they_name(call: Any, here: tuple[str, str]) -> None:
    found = document(call("events", "--type", "routing_changed", "--version", "v2", *here, "-o", "json"))["events"]
    assert [event["reason"] for event in found] == ["better"]
    built = document(call("events", "--type", "version_ready", "--type", "routing_changed", *here, "-o", "json"))
    assert [event["type"] for event in built["events"]].count("version_ready") == 2
    older = document(call("events", "--before", str(found[0]["id"]), "-n", "1", *here, "-o", "json"))["events"]
    assert older[0]["id"] < found[0]["id"]
    of_one = call("events", "--operation", found[0]["operation"], *here)
    assert "routing_changed" in of_one.out
    assert call("events", "--follow", "--before", "3", *here).status == 2
