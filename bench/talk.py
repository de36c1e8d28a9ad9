"""A conversation of the soak: turns of all kinds, one thread after the other, and what of each is to be checked.

It reports what a client can see. What a thread keeps is read when it is left behind; what the versions were called is
known at the end, so that both are judged there (`verdict`).
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from bench import desk
from bench.wire import Cut, Event, Wire

TURNS_OF_A_THREAD = 8
TURN_TIMEOUT_S = 120.0
GONE_TIMEOUT_S = 60.0  # a server that is started again is back after that
AGAIN_S = 0.1
KINDS = {"talk": 55, "ask": 20, "long": 12, "fan": 8, "background": 5}
MODES = ["updates", "custom"]
ON = ("stopping", "run-lost")  # what an answer says that was cut off and goes on elsewhere


@dataclass
class Turn:
    """One run as its client saw it. `seen` is what its updates said, each with the version that was named before it."""

    key: str
    thread: str
    kind: str
    steps: int
    began: float
    run: str = ""
    ended: float = 0.0
    disturbed: bool = False  # the client was cut off meanwhile
    seen: list[tuple[str | None, str]] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)  # as the stream named them
    question: Any = None
    last_id: int = 0


@dataclass
class Kept:
    """What is left of a thread: its runs and its checkpoints, newest first."""

    thread: str
    runs: list[dict[str, Any]]
    checkpoints: list[dict[str, Any]]


@dataclass
class Report:
    turns: list[Turn] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    pauses: list[tuple[float, str]] = field(default_factory=list)  # the longest of each turn, and where it was


class Talk:
    """Takes turns until it is told to end. `patient`: the server is killed at times, and cut streams are joined."""

    def __init__(self, port: int, report: Report, seed: int, think_s: float, *, patient: bool) -> None:
        self._port = port
        self._report = report
        self._random = random.Random(seed)
        self._think_s = think_s
        self._patient = patient

    async def go_on(self, ends: asyncio.Event) -> None:
        while not ends.is_set():
            thread, turns = str(uuid.uuid4()), []
            for _ in range(TURNS_OF_A_THREAD):
                if await _sleep_or(ends, self._random.uniform(0.5, 1.5) * self._think_s):
                    break
                turns += await self._turns(thread)
            if turns:
                await self._leave(thread)

    async def _turns(self, thread: str) -> list[Turn]:
        """A turn, and the answer to what it asks."""
        kind = self._random.choices(list(KINDS), list(KINDS.values()))[0]
        steps = self._random.randint(5, 15) if kind in ("long", "background") else 0
        given = desk.request("long" if steps else kind, steps=steps, pause_s=self._random.uniform(0.05, 0.25))
        found = [await self._turn(thread, kind, steps, {"input": given})]
        if kind == "ask" and found[0].ended:
            await asyncio.sleep(self._random.uniform(0.1, self._think_s))
            found.append(await self._turn(thread, "answer", 0, {"command": {"resume": found[0].key}}))
        return found

    async def _turn(self, thread: str, kind: str, steps: int, what: dict[str, Any]) -> Turn:
        turn = Turn(uuid.uuid4().hex, thread, kind, steps, time.time())
        self._report.turns.append(turn)
        body = {
            **what,
            "assistant_id": "desk",
            "if_not_exists": "create",
            "stream_mode": MODES,
            "stream_resumable": self._patient,
            "metadata": {"turn": turn.key},
        }
        try:
            async with asyncio.timeout(TURN_TIMEOUT_S):
                await (self._in_background(turn, body) if kind == "background" else self._streamed(turn, body))
            turn.ended = time.time()
        except TimeoutError:
            self._fail(turn, f"did not end within {TURN_TIMEOUT_S:g} s")
        except (Cut, AssertionError) as error:
            self._fail(turn, f"{type(error).__name__}: {error}")
        return turn

    def _fail(self, turn: Turn, what: str) -> None:
        self._report.failures.append(f"{turn.kind} {turn.run or '(no run)'} on {turn.thread}: {what}")

    # --- streams ---------------------------------------------------------------------------------

    async def _streamed(self, turn: Turn, body: dict[str, Any]) -> None:
        pause = _Pause(turn)
        path = f"/threads/{turn.thread}/runs/stream"
        request: tuple[str, str, Any, dict[str, str]] = ("POST", path, body, {})
        while True:
            wire = Wire(self._port)
            try:
                reply = await wire.open(*request)
                assert reply.status == 200, f"{reply.status} {(await reply.body())[:500]!r}"
                turn.run = turn.run or reply.headers["content-location"].rpartition("/")[2]
                await self._listen(turn, reply.events(), pause)
                break
            except Cut:
                if not self._patient:
                    raise
            finally:
                wire.close()
            turn.disturbed = True
            await self._find(turn)
            if turn.run:
                path = f"/threads/{turn.thread}/runs/{turn.run}/stream"
                request = ("GET", path, None, {"last-event-id": str(turn.last_id or -1)})
            await asyncio.sleep(AGAIN_S)
        self._report.pauses.append(pause.longest())
        if turn.disturbed:
            await self._ended(turn)

    async def _listen(self, turn: Turn, events: AsyncIterator[Event], pause: _Pause) -> None:
        async for event in events:
            pause.heard(event.name)
            if event.name == "error":
                if self._patient and event.data.get("code") in ON:
                    raise Cut(str(event.data))
                raise AssertionError(f"the stream said {event.data}")
            if event.id is not None:
                assert event.id == turn.last_id + 1, f"event {event.id} came after event {turn.last_id}"
                turn.last_id = event.id
            if event.name == "metadata":
                turn.versions.append(event.data["changeover_version"])
            elif event.name == "updates":
                self._note(turn, event.data)

    def _note(self, turn: Turn, update: dict[str, Any]) -> None:
        for node, values in update.items():
            if node == "__interrupt__":
                turn.question = values
            elif node != "__metadata__":  # LangGraph's own: what it tells was saved before the run was cut off
                assert "log" in values, f"the stream told {update}"
                turn.seen += [(turn.versions[-1] if turn.versions else None, entry) for entry in values["log"]]

    # --- in the background, and after a cut ------------------------------------------------------

    async def _in_background(self, turn: Turn, body: dict[str, Any]) -> None:
        path = f"/threads/{turn.thread}/runs"
        while not turn.run:
            try:
                turn.run = (await self._call("POST", path, body))["run_id"]
            except Cut:
                turn.disturbed = True
                await self._find(turn)
        await self._ended(turn)

    async def _ended(self, turn: Turn) -> None:
        """Wait for the end of a run, over as many connections as it takes."""
        while True:
            try:
                await self._call("GET", f"/threads/{turn.thread}/runs/{turn.run}/join")
                run = await self._call("GET", f"/threads/{turn.thread}/runs/{turn.run}")
            except Cut:
                turn.disturbed = True
                await self._find(turn)
                continue
            if run["status"] not in ("pending", "running"):
                return
            await asyncio.sleep(AGAIN_S)

    async def _find(self, turn: Turn) -> None:
        """Wait until the server is back; learn whether it knows the run, if its acceptance was not heard."""
        if not self._patient:
            raise Cut("the server is gone")
        async with asyncio.timeout(GONE_TIMEOUT_S):
            while True:
                try:
                    wire = Wire(self._port)
                    status, runs = await wire.call("GET", f"/threads/{turn.thread}/runs?limit=100")
                    wire.close()
                except Cut:
                    await asyncio.sleep(AGAIN_S)
                    continue
                if status < 500:
                    break
        mine = [run["run_id"] for run in runs if run["metadata"].get("turn") == turn.key] if status == 200 else []
        turn.run = turn.run or (mine[0] if mine else "")

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        wire = Wire(self._port)
        try:
            status, found = await wire.call(method, path, body)
        finally:
            wire.close()
        if status == 503 and self._patient:
            raise Cut(str(found))
        assert status < 300, f"{method} {path}: {status} {str(found)[:500]}"
        return found

    async def _leave(self, thread: str) -> None:
        for _ in range(100):
            try:
                runs = await self._call("GET", f"/threads/{thread}/runs?limit=1000")
                checkpoints = await self._call("POST", f"/threads/{thread}/history", {"limit": 1000})
            except Cut:
                await asyncio.sleep(AGAIN_S * 5)
                continue
            except AssertionError as error:
                self._report.failures.append(f"thread {thread}: {error}")
                return
            self._report.kept.append(Kept(thread, runs, checkpoints))
            return
        self._report.failures.append(f"thread {thread}: its history could not be read")


class _Pause:
    """The longest time in which a client heard nothing of its turn."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._at = time.perf_counter()
        self._last = "its request"
        self._longest = (0.0, "")

    def heard(self, what: str) -> None:
        now = time.perf_counter()
        cut = ", cut off meanwhile" if self._turn.disturbed else ""
        self._longest = max(self._longest, (now - self._at, f"{self._turn.kind}: {self._last} to {what}{cut}"))
        self._at, self._last = now, what

    def longest(self) -> tuple[float, str]:
        return self._longest


async def _sleep_or(ends: asyncio.Event, seconds: float) -> bool:
    """Whether it is to end."""
    try:
        await asyncio.wait_for(ends.wait(), seconds)
    except TimeoutError:
        return False
    return True
