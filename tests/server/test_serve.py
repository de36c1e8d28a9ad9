"""Starting and stopping a server: ports, signals, a folder that is broken at first."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path

import httpx
import pytest
from server_samples import DEADLINE_S, ECHO, Serving, WriteProject, eventually, said

from changeover import GraphVersionManager, ProjectError
from changeover.errors import OperatorError
from changeover.server.serve import serve, server_file

SCRIPT = """
import sys
from changeover import GraphVersionManager
from changeover.server.logging import configure
from changeover.server.serve import run

configure("json")
sys.exit(run(GraphVersionManager.open(sys.argv[1], port=0, watch_auto="off"), announce=lambda text: None))
"""


async def test_a_port_in_use_is_one_sentence(project: WriteProject) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        folder = project(ECHO)
        with pytest.raises(OperatorError) as refused:
            await serve(GraphVersionManager.open(folder, port=port), lambda text: None)
    assert refused.value.code == "port-in-use"
    assert str(port) in refused.value.message
    assert not (folder / ".changeover").exists(), "nothing was opened"


async def test_a_second_server_on_one_database_is_refused(project: WriteProject, serving: Serving) -> None:
    folder = project(ECHO)
    async with serving(folder, watch_auto="off") as url:
        with pytest.raises(OperatorError) as refused:
            await serve(GraphVersionManager.open(folder, port=0), lambda text: None)
        assert refused.value.code == "database-in-use"
        async with httpx.AsyncClient(base_url=url) as http:
            assert (await http.get("/readyz")).status_code == 200


async def test_a_server_that_ends_takes_the_address_of_no_other_with_it(tmp_path: Path) -> None:
    """Several may serve a folder on one Postgres."""
    newest, dead = tmp_path / "server.json", tmp_path / f"server-{2**22 + 1}.json"
    parent = tmp_path / f"server-{os.getppid()}.json"
    other = json.dumps({"url": "http://127.0.0.1:2", "pid": os.getppid()})
    async with server_file(tmp_path, "http://127.0.0.1:1"):
        own = tmp_path / f"server-{os.getpid()}.json"
        assert json.loads(own.read_text()) == json.loads(newest.read_text())
        for path in (newest, dead, parent):
            path.write_text(other)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {newest.name: other, parent.name: other}


async def test_a_broken_folder_is_served_once_it_is_mended(project: WriteProject, serving: Serving) -> None:
    folder = project({**ECHO, "agents.yaml": "agents: {echo: {model: nobody}}\n"})
    async with (
        serving(folder, watch_quiet_s="20ms") as url,
        httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as http,
    ):
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/readyz")).status_code == 503
        assert (await http.get("/admin/status")).json()["folder"]["problems"][0]["code"] == "unknown-model"
        project(ECHO)

        async def ready() -> bool:
            return (await http.get("/readyz")).status_code == 200

        await eventually(ready)
        answer = await http.post("/runs/wait", json={"assistant_id": "echo", "input": said("Hello")})
        assert "First words." in answer.json()["messages"][-1]["content"]


async def test_a_broken_folder_that_is_not_followed_ends_the_start(project: WriteProject) -> None:
    heard: list[str] = []
    folder = project({**ECHO, "agents.yaml": "agents: {echo: {model: nobody}}\n"})
    status = await serve(GraphVersionManager.open(folder, port=0, watch_auto="off"), heard.append)
    assert status == ProjectError.exit_status
    assert "unknown-model" in heard[0]


async def test_signals_end_it_in_order_however_often_they_come(project: WriteProject) -> None:
    folder = project(ECHO)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SCRIPT, str(folder), env=environment, stderr=asyncio.subprocess.PIPE
    )
    place = folder / ".changeover" / "server.json"
    try:
        url = await eventually(lambda: _ready_url(place))
        async with httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as http:
            body = {"assistant_id": "echo", "input": said("Hello")}
            async with http.stream("POST", "/runs/stream", json=body) as stream, asyncio.timeout(DEADLINE_S):
                assert stream.status_code == 200
                for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
                    process.send_signal(number)
                text = "".join([chunk async for chunk in stream.aiter_text()])
        assert "First words." in text, "the running answer ended"
        async with asyncio.timeout(DEADLINE_S):
            _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        assert not place.exists()
        lines = [json.loads(line) for line in errors.decode().splitlines()]
        (finished,) = [line for line in lines if line["event"] == "run_finished"]
        assert (finished["version"], finished["status"], finished["graph"]) == ("v1", "success", "echo")
        assert "Hello" not in errors.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _ready_url(place: Path) -> str | None:
    try:
        url = str(json.loads(place.read_text())["url"])
        async with httpx.AsyncClient(base_url=url) as http:
            return url if (await http.get("/readyz")).status_code == 200 else None
    except (OSError, httpx.HTTPError):
        return None
