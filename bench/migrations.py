"""Threads that are moved between versions: on their next run, in batches, and a plan over many of them.

Batches beside a loop over LangGraph's public saver (`plain_loop`), in the same run and in turn; half of the threads
rest, half wait with a pending write, and the newer graph checks each. The processor's time of this process is given
too, since it tells more on a machine that others use.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver

from bench import desks, plain_loop, waiting_desks
from bench.postgres import postgres
from bench.table import Row, median, percentile
from changeover import GraphVersionManager

MESSAGES = 20
LENGTHS = (20, 100, 400)
LAZY_TARGET_MS = 10.0
BATCH_TARGET = 500.0
PLAN_TARGET_S = 2.0
PLANNED, WAITING = 100_000, 20_000


async def measure(quick: bool) -> list[Row]:
    rows = await _on("SQLite", None, quick)
    with postgres() as url:
        rows += await _on("Postgres", url, quick)
    return rows


async def _on(name: str, url: str | None, quick: bool) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder_name:
        async with _Bench.opened(name, Path(folder_name), url) as bench:
            pairs, threads, rounds = (10, 40, 2) if quick else (100, 200, 5)
            rows = [await bench.lazily(pairs)]
            rows += await bench.in_batches(threads, rounds)
            rows += await bench.by_number((40, 160) if quick else (100, 1_000))
            rows += await bench.by_length(LENGTHS[:2] if quick else LENGTHS, 20 if quick else 60)
            planned = (10_000, 2_000) if quick else (PLANNED, WAITING)
            return [*rows, await bench.plan(*planned, 2 if quick else 5)]


@dataclass(frozen=True)
class Cost:
    """Of one thread: seconds that passed, and those that this process had the processor."""

    wall_s: float
    processor_s: float

    @property
    def rate(self) -> float:
        return 1 / self.wall_s

    def __str__(self) -> str:
        return f"{self.rate:.0f}/s, {self.processor_s * 1000:.2f} ms of the processor"


@dataclass(frozen=True)
class _Bench:
    name: str
    manager: GraphVersionManager
    stock: BaseCheckpointSaver[Any]
    numbers: itertools.count[int]

    @classmethod
    @asynccontextmanager
    async def opened(cls, name: str, folder: Path, url: str | None) -> AsyncIterator[_Bench]:
        (folder / "project").mkdir()
        async with (
            GraphVersionManager.open(folder / "project", url) as manager,
            plain_loop.stock_saver(folder, url) as stock,
        ):
            await desks.registered(manager)
            yield cls(name, manager, stock, itertools.count())

    # --- on the next run -------------------------------------------------------------------------

    async def lazily(self, pairs: int) -> Row:
        """The same turn on threads that have to be migrated for it and on others that need not, in turn."""
        for version in (desks.OLDER, desks.NEWER):
            await desks.talk(self.manager, f"lazy-{version}", MESSAGES, version=version, waits=False)
            ids = [f"lazy-{version}-{number:04}" for number in range(pairs + 2)]
            await desks.copies(self.manager, f"lazy-{version}", ids)
        moved_ms, same_ms, more_ms = [], [], []
        for number in range(pairs + 2):
            moved, same = [await self._turn_ms(f"lazy-{version}-{number:04}") for version in (desks.OLDER, desks.NEWER)]
            if number >= 2:  # warm-up
                moved_ms.append(moved)
                same_ms.append(same)
                more_ms.append(moved - same)
        more = median(more_ms)
        return Row(
            f"{self.name}: run on a thread of {MESSAGES} messages that is migrated first, beside one that need not be",
            f"{median(moved_ms):.1f} ms",
            f"{median(same_ms):.1f} ms",
            f"+{more:.1f} ms (pairs: {percentile(more_ms, 10):.1f} to {percentile(more_ms, 90):.1f})",
            f"under +{LAZY_TARGET_MS:.0f} ms",
            more < LAZY_TARGET_MS,
            {"moved_ms": moved_ms, "same_ms": same_ms},
        )

    async def _turn_ms(self, thread_id: str) -> float:
        start = time.perf_counter()
        await self.manager.invoke(desks.GRAPH, desks.said(), thread_id=thread_id, version=desks.NEWER)
        return (time.perf_counter() - start) * 1000

    # --- in batches ------------------------------------------------------------------------------

    async def in_batches(self, threads: int, rounds: int) -> list[Row]:
        rows = []
        halves: dict[str, tuple[list[Cost], list[Cost]]] = {}
        for kind, waits in (("resting", False), ("waiting", True)):
            await desks.talk(self.manager, kind, MESSAGES, version=desks.OLDER, waits=waits)
            halves[kind] = ([], [])
        for round_ in range(rounds + 1):
            for kind, (ours, plain) in halves.items():
                pair = await self._moved(kind, threads // 2)
                if round_:  # the first is warm-up
                    ours.append(pair[0])
                    plain.append(pair[1])
        for kind, (ours, plain) in halves.items():
            rows.append(self._batch_row(f"threads {_told(kind)}", ours, plain))
        both = [_together([one, other]) for one, other in zip(*(half[0] for half in halves.values()), strict=True)]
        loop = [_together([one, other]) for one, other in zip(*(half[1] for half in halves.values()), strict=True)]
        rows.append(self._batch_row("both halves together", both, loop, BATCH_TARGET))
        return rows

    async def _moved(self, source: str, threads: int) -> tuple[Cost, Cost]:
        """Copies of a thread, moved by a batch, and as many of the stock saver's by the plain loop."""
        ids = [f"{source}-{next(self.numbers):06}" for _ in range(threads)]
        await desks.copies(self.manager, source, ids)
        beside = [f"plain-{id_}" for id_ in ids]
        await plain_loop.copied(self.manager.saver, source, self.stock, beside)
        loop = plain_loop.PlainLoop(self.stock)

        async def plain() -> None:
            for id_ in beside:
                await loop.move(id_)

        return await _cost(lambda: self._batch(ids), threads), await _cost(plain, threads)

    async def _batch(self, ids: Sequence[str]) -> None:
        operation = await self.manager.migrate(desks.NEWER, threads=ids)
        moved = (operation.result or {}).get("moved")
        if moved != len(ids):
            raise AssertionError(f"{moved} of {len(ids)} threads moved: {json.dumps(operation.result)[:500]}")

    def _batch_row(self, what: str, ours: Sequence[Cost], plain: Sequence[Cost], target: float | None = None) -> Row:
        own, other = _median(ours), _median(plain)
        ratio = median([one.wall_s for one in plain]) / median([one.wall_s for one in ours])
        saved = other.processor_s / own.processor_s
        return Row(
            f"{self.name}: batches, {what}",
            str(own),
            str(other),
            f"{ratio:.2f} times as many, {saved:.2f} times as many for the processor",
            f"at least {target:.0f}/s" if target else "",
            own.rate >= target if target else None,
            {"ours": [one.__dict__ for one in ours], "plain": [one.__dict__ for one in plain]},
        )

    # --- how the cost grows ----------------------------------------------------------------------

    async def by_number(self, numbers: Sequence[int]) -> list[Row]:
        return [
            await self._growth("resting", number, f"{number:,} threads of {MESSAGES} messages") for number in numbers
        ]

    async def by_length(self, lengths: Sequence[int], threads: int) -> list[Row]:
        rows = []
        for length in lengths:
            await desks.talk(self.manager, f"long-{length}", length, version=desks.OLDER, waits=True)
            rows.append(
                await self._growth(f"long-{length}", threads, f"{threads} waiting threads of {length} messages")
            )
        return rows

    async def _growth(self, source: str, threads: int, what: str) -> Row:
        ours, plain = await self._moved(source, threads)
        ratio = plain.wall_s / ours.wall_s
        told = [
            f"{cost.wall_s * 1000:.2f} ms a thread, {cost.processor_s * 1000:.2f} of the processor"
            for cost in (ours, plain)
        ]
        return Row(
            f"{self.name}: {what}", told[0], told[1], f"{ratio:.2f} times as many", numbers={"ours": ours.__dict__}
        )

    # --- plans -----------------------------------------------------------------------------------

    async def plan(self, threads: int, waiting: int, rounds: int) -> Row:
        """Each time with nothing known of before: contracts are read, compared, and every waiting set is graded."""
        situations = await waiting_desks.fill(self.manager, threads, waiting)
        taken_s, processor_s = [], []
        for _ in range(rounds):
            start, processor = time.perf_counter(), time.process_time()
            plan = await self.manager.plan(waiting_desks.NEWER, graphs=[waiting_desks.GRAPH])
            taken_s.append(time.perf_counter() - start)
            processor_s.append(time.process_time() - processor)
            waiting_desks.check(plan.to_json(), threads, waiting)
        return Row(
            f"{self.name}: plan over {threads:,} threads, of which {waiting:,} wait in {situations} different ways",
            f"{median(taken_s):.2f} s, {median(processor_s):.2f} s of the processor",
            "",
            f"{min(taken_s):.2f} to {max(taken_s):.2f} s",
            f"under {PLAN_TARGET_S:.0f} s",
            median(taken_s) < PLAN_TARGET_S,
            {"taken_s": taken_s},
        )


async def _cost(work: Callable[[], Awaitable[None]], threads: int) -> Cost:
    wall, processor = time.perf_counter(), time.process_time()
    await work()
    return Cost((time.perf_counter() - wall) / threads, (time.process_time() - processor) / threads)


def _together(costs: Sequence[Cost]) -> Cost:
    """Of threads of which each kind is as many."""
    return Cost(sum(one.wall_s for one in costs) / len(costs), sum(one.processor_s for one in costs) / len(costs))


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(median([one.wall_s for one in costs]), median([one.processor_s for one in costs]))


def _told(kind: str) -> str:
    return "that wait with a pending write" if kind == "waiting" else "at rest"
