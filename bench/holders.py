"""The holders of a version that 10,000 of 100,000 threads hold, counted and listed over HTTP while runs are written."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import projects
from bench.numbered import numbered
from bench.postgres import postgres
from bench.rollout import Load
from bench.servers import Server, served
from bench.table import Row, percentile
from bench.wire import Wire, call

THREADS, HOLDING = 100_000, 10_000
TARGET_MS = 50.0
PAGE = 100
COLUMNS = "id, graph, version, status, waiting, holds, created_at, updated_at"


async def measure(quick: bool) -> list[Row]:
    threads, holding = (20_000, 2_000) if quick else (THREADS, HOLDING)
    times = 60 if quick else 400
    rows = [await _measured("SQLite", None, threads, holding, times)]
    with postgres() as url:
        rows.append(await _measured("Postgres", url, threads, holding, times))
    return rows


async def _measured(name: str, url: str | None, threads: int, holding: int, times: int) -> Row:
    with tempfile.TemporaryDirectory() as folder_name:
        folder = Path(folder_name)
        project = projects.write(folder / "project", numbered(0))
        server = Server(project, folder / "server.log", "--no-watch", *(["--database", url] if url else []))
        async with served(server):
            projects.write(project, numbered(1))
            later = (await call(server.port, "POST", "/admin/versions", {}))["id"]
            await call(server.port, "POST", "/admin/switch", {"to": later})
        await asyncio.to_thread(_insert, project, url, _threads(threads, holding, "v1", later))
        async with served(server):
            return await _under_load(server, name, "v1", threads, holding, times)


def _threads(threads: int, holding: int, held: str, other: str) -> list[tuple[Any, ...]]:
    """Every tenth waits for an answer on the old version; the others are idle on both."""
    every, found = threads // holding, []
    now = time.time() - threads
    for number in range(threads):
        holds = "interrupt" if number % every == 0 else None
        version = held if holds or number % 2 else other
        status = "interrupted" if holds else "idle"
        found.append((f"made-{number:06}", "numbered", version, status, holds, holds, now + number, now + number))
    return found


def _insert(project: Path, url: str | None, rows: list[tuple[Any, ...]]) -> None:
    if url is None:
        connection = sqlite3.connect(project / ".changeover/changeover.db")
        with connection:
            connection.executemany(f"INSERT INTO threads ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        connection.close()
        return
    import psycopg

    with psycopg.connect(url) as opened, opened.cursor() as cursor:
        cursor.execute("SELECT table_schema FROM information_schema.tables WHERE table_name = 'version_graphs'")
        (schema,) = cursor.fetchone() or ("public",)
        cursor.execute(f'SET search_path TO "{schema}"')
        with cursor.copy(f"COPY threads ({COLUMNS}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        opened.commit()
        opened.autocommit = True
        cursor.execute("VACUUM ANALYZE threads")  # as the server does by itself a minute later


async def _under_load(server: Server, name: str, version: str, threads: int, holding: int, times: int) -> Row:
    load, wire = Load(server.port), Wire(server.port)
    path = f"/admin/versions/{version}/holders?limit={PAGE}"
    capacity = await load.capacity(3.0)
    found_ms, alone_ms = [], []
    async with load.at(capacity / 2):
        for _ in range(times):
            await asyncio.sleep(0.02)
            start = time.perf_counter()
            _, found = await wire.call("GET", path)
            found_ms.append((time.perf_counter() - start) * 1000)
            if found["count"] != holding or len(found["holders"]) != PAGE:
                raise AssertionError(f"wrong holders: {json.dumps(found)[:300]}")
            start = time.perf_counter()
            await wire.call("GET", "/admin/routing")
            alone_ms.append((time.perf_counter() - start) * 1000)
    wire.close()
    p50, p95 = percentile(found_ms, 50), percentile(found_ms, 95)
    return Row(
        f"holders of a version that {holding:,} of {threads:,} threads hold, {name}, at {capacity / 2:.0f} runs/s"
        f" (half of {capacity:.0f}/s): count and first page of {PAGE}",
        f"p50 {p50:.1f} ms, p95 {p95:.1f} ms",
        "",
        f"the routing in turn: p50 {percentile(alone_ms, 50):.1f} ms, p95 {percentile(alone_ms, 95):.1f} ms",
        f"p50 and p95 under {TARGET_MS:.0f} ms",
        p95 < TARGET_MS and not load.failed,
        {"found_ms": found_ms, "routing_ms": alone_ms, "failed": load.failed[:20]},
    )
