"""A server in a process of its own, with a plugin."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from plugin_desks import PROJECT, diary, settings

WITHIN_S = 30.0


async def test_a_server_opens_the_plugin_uses_it_and_closes_it_at_its_end(
    project: Callable[..., Path], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    folder = project({**PROJECT, "changeover.yaml": settings(tmp_path)})
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CHANGEOVER_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "changeover.cli", "serve", str(folder), "--port", "0", "--no-watch"),
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        address = folder / ".changeover/server.json"
        await eventually(lambda: address.exists() and json.loads(address.read_text())["pid"] == process.pid, WITHIN_S)
        async with httpx.AsyncClient(base_url=json.loads(address.read_text())["url"], timeout=WITHIN_S) as client:

            async def answer() -> str:
                body = {"assistant_id": "desk", "input": {"word": "cat"}}
                return (await client.post("/runs/wait", json=body)).text

            async def is_ready() -> bool:
                return (await client.get("/readyz")).status_code == 200

            await eventually(is_ready, WITHIN_S)
            assert "cat in one, edition 1" in await answer()
            (tmp_path / "down").touch()

            async def says_so() -> bool:
                return "plugin 'book' is degraded since" in await answer()

            await eventually(says_so, WITHIN_S)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(WITHIN_S):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    words = [line.split()[0] for line in diary(tmp_path)]
    assert words.count("open") == words.count("close") >= 1
