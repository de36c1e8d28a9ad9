"""A help desk in the middle of a day: what every page shows when there is something to show.

Several versions, one of them rejected and one rolled back; a drain with a run at work, a ramp; conversations, among
them some that wait for a person and one that failed; names and texts that are too long for any line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx

WAIT_S = 30.0
LONG_NAME = "quarterly_reconciliation_of_supplier_invoices_with_warehouse_receipts"
LONG_WORDS = (
    "Hello! I ordered the lamp for my daughter's room three weeks ago, and the parcel service says that it was handed"
    " to a neighbour whom nobody in this street knows. I have asked at every door, twice, I have called the depot,"
    " where a machine wanted a number that is on no paper that I have, and now somebody else's lamp was delivered"
    " here instead.\n\nPlease tell me what to do: A-1042 is the order, and this is its tracking link\n"
    "https://parcels.example.com/track/0034/9012/4412/7780/5561?language=en&reference=A-1042-of-the-third-of-may"
)

WORKING = """
import asyncio
from pathlib import Path

from langchain_core.messages import AIMessage


async def collect(state):
    if not state.get("quarter"):
        raise ValueError("there are no figures for this quarter yet: name one, such as 2026-3")
    return {"figures": {"orders": 412, "refunds": 9, "open": 37}}


async def reconcile(state):
    while not Path(%r).exists():
        await asyncio.sleep(0.05)
    return {"figures": {**state["figures"], "matched": 391}}


async def write(state):
    return {"messages": [AIMessage(f"Quarter {state['quarter']}: {state['figures']}")]}
"""
REPORT = """
description: Matches what suppliers billed with what arrived, and writes it down
state:
  messages: messages
  quarter:  {type: str, default: ""}
  figures:  {type: dict, default: {}}
input: [quarter]
nodes:
  collect:   {python: graphs.working:collect}
  reconcile: {python: graphs.working:reconcile}
  write:     {python: graphs.working:write}
edges:
  - {from: START, to: collect}
  - {from: collect, to: reconcile}
  - {from: reconcile, to: write}
  - {from: write, to: END}
"""
SECOND_LOOK = (
    "  reply:    {python: graphs.nodes:reply}\n",
    "  reply:    {python: graphs.nodes:reply}\n  check:    {python: graphs.nodes:triage}\n",
)
REROUTED = ("  - {from: escalate, to: reply}\n", "  - {from: escalate, to: check}\n  - {from: check, to: reply}\n")


@dataclass(frozen=True)
class BusyDesk:
    """What is at the desk: versions, threads, an operation by what they are."""

    first: str
    current: str
    ramping: str
    rejected: str
    waiting: str  # a thread with a question
    review: str  # a thread with a call that waits for a decision
    failed: str  # a thread whose step failed
    talked: str
    beside: tuple[str, str]  # threads that were asked the same, of what is current and of what ramps
    operation: str
    resource: str
    event: int

    @property
    def pages(self) -> dict[str, str]:
        """The address of each page below /ui, by a name for a picture of it."""
        apart = urlencode({"from": self.first, "to": self.ramping})
        sides = {"graph": "support", "a": self.current, "b": self.ramping, "ta": self.beside[0], "tb": self.beside[1]}
        return {
            "overview": "",
            "versions": "versions",
            "version": f"versions/{self.current}",
            "version-rejected": f"versions/{self.rejected}",
            "graph": f"versions/{self.current}/graphs/helpdesk",
            "graph-long": f"versions/{self.first}/graphs/{LONG_NAME}",
            "file": f"versions/{self.current}/files/graphs/helpdesk.yaml",
            "holders": f"versions/{self.first}/holders",
            "compare": "diff",
            "diff": f"diff?{apart}",
            "diff-file": f"diff?{apart}&path=prompts/support.md",
            "diff-graph": f"diff/graph?{apart}&graph=helpdesk",
            "plan-empty": "plan",
            "plan": f"plan?to={self.ramping}",
            "rollback": "rollback",
            "threads": "threads",
            "threads-none": "threads?version=nothing",
            "thread": f"threads/{self.talked}",
            "thread-waiting": f"threads/{self.waiting}",
            "thread-review": f"threads/{self.review}",
            "thread-failed": f"threads/{self.failed}",
            "thread-steps": f"threads/{self.talked}?show=steps",
            "approvals": "approvals",
            "operations": "operations",
            "operation": f"operations/{self.operation}",
            "playground-new": "playground",
            "playground": f"playground?{urlencode(sides)}",
            "playground-asks": f"playground?{urlencode({'graph': 'support', 'a': self.current, 'ta': self.review})}",
            "edit": "edit",
            "edit-file": "edit?path=prompts/support.md",
            "edit-yaml": "edit?path=agents.yaml&line=20",
            "edit-built": f"edit/built?version={self.ramping}&path=prompts/support.md",
            "resources": "resources",
            "resource": f"resources/{quote(self.resource, safe='')}",
            "history": "history",
            "change": "history/2",
            "events": "events",
            "event": f"events/{self.event}",
            "login": "login",
            "problem": "versions/no-such-version",
            "no-page": "no/such/page",
        }


def furnish(folder: Path, gate: Path) -> None:
    """More for the folder of the sample: a long graph whose runs work until the file `gate` is there."""
    (folder / "graphs" / f"{LONG_NAME}.yaml").write_text(REPORT, encoding="utf-8")
    (folder / "graphs" / "working.py").write_text(WORKING % str(gate), encoding="utf-8")


async def open_busy_desk(url: str, folder: Path) -> BusyDesk:
    """Work at the desk that is served at `url`: switches, runs, questions. Some of it is under way at the end."""
    headers = {"Changeover-Actor": "ada"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=WAIT_S) as client:
        return await _Day(client, folder).passes()


class _Day:
    def __init__(self, client: httpx.AsyncClient, folder: Path) -> None:
        self._client = client
        self._prompt = (folder / "prompts" / "support.md").read_text(encoding="utf-8")
        self._helpdesk = (folder / "graphs" / "helpdesk.yaml").read_text(encoding="utf-8")

    async def passes(self) -> BusyDesk:
        talked = await self._thread()
        await self._talk(talked, "Where is A-1042?", LONG_WORDS, "What was I charged for order A-1042?")
        await asyncio.gather(*(self._talk(None, f"Where is A-{n}?") for n in (1042, 1043, 1044)))
        waiting, review, failed = [await self._thread() for _ in range(3)]
        await self._run(waiting, "helpdesk", _said("I want to talk to a human, and I have called my lawyer."))
        await self._run(review, "support", _said("Please refund 12.50 of my order A-1042"))
        await self._run(failed, LONG_NAME, {"quarter": ""})
        await self._begin(LONG_NAME, {"quarter": "2026-3"})

        hurried = await self._build("Answers in haste", {"prompts/support.md": "Answer in one word.\n"})
        await self._post("/admin/switch", to=hurried, reason="shorter answers")
        await self._talk(None, "Where is A-1043?")
        await self._post("/admin/rollback", reason="customers complain: one word is too few")
        rejected = await self._build(
            "A tool with a wrong name", {"agents.yaml": "agents:\n  support:\n    tools: [lookup_ordr]\n"}
        )
        current = await self._build(
            "Greets by name, and says when it does not know; agreed on with the night shift, who have to live with it",
            {"prompts/support.md": self._prompt.replace("the front desk of", "the friendly front desk of")},
        )
        switched = await self._post("/admin/switch", to=current, reason="what the night shift asked for")
        await asyncio.gather(*(self._talk(None, f"Where is A-{n}?") for n in (1042, 1043, 1044, 1045)))
        pin = {"policy": "pinned", "version": current, "reason": "the customer is on the phone"}
        assert (await self._client.patch(f"/admin/threads/{talked}", json=pin)).is_success
        graph = self._helpdesk.replace(*SECOND_LOOK).replace(*REROUTED)
        prompt = self._prompt.replace("the front desk of", "the patient, friendly front desk of")
        ramping = await self._build(
            "A second look at what a person answers", {"graphs/helpdesk.yaml": graph, "prompts/support.md": prompt}
        )
        await self._post("/admin/ramp", to=ramping, percent=20, reason="a fifth first")
        await asyncio.gather(*(self._talk(None, f"Is A-{n} on its way?") for n in range(1042, 1050)))
        beside = (await self._thread(), await self._thread())
        for thread, version in zip(beside, (current, ramping), strict=True):
            await self._run(thread, "support", _said("Where is A-1042?"), version)
        resources = (await self._get("/admin/resources"))["resources"]
        events = (await self._get("/admin/events", type="routing_changed"))["events"]
        return BusyDesk(
            "v1",
            current,
            ramping,
            rejected,
            waiting,
            review,
            failed,
            talked,
            beside,
            switched["operation"],
            resources[0]["id"],
            events[-1]["id"],
        )

    async def _build(self, message: str, files: Mapping[str, str]) -> str:
        answer = await self._client.post("/admin/versions", json={"message": message, "files": files})
        told = answer.json()
        return str(told["id"] if answer.is_success else told["version"])

    async def _thread(self) -> str:
        return str((await self._post("/threads"))["thread_id"])

    async def _talk(self, thread: str | None, *words: str) -> None:
        thread = thread or await self._thread()
        for one in words:
            await self._run(thread, "support", _said(one))

    async def _run(self, thread: str, graph: str, given: Any, version: str | None = None) -> None:
        asked = {"assistant_id": graph, "input": given}
        headers = {"Changeover-Version": version} if version else {}
        answer = await self._client.post(f"/threads/{thread}/runs/wait", json=asked, headers=headers)
        assert answer.status_code in (200, 500), answer.text

    async def _begin(self, graph: str, given: Any) -> None:
        """A run that is at its first node that takes time."""
        thread = await self._thread()
        await self._post(f"/threads/{thread}/runs", assistant_id=graph, input=given)
        async with asyncio.timeout(WAIT_S):
            while (await self._get("/admin/runs", thread_id=thread))["runs"][0].get("node") is None:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def _get(self, path: str, **query: Any) -> Any:
        answer = await self._client.get(path, params=query)
        assert answer.is_success, (path, answer.text)
        return answer.json()

    async def _post(self, path: str, **body: Any) -> Any:
        answer = await self._client.post(path, json=body)
        assert answer.is_success, (path, answer.text)
        return answer.json()


def _said(words: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": words}]}
