"""A server whose disk is full for a while: no file of its process may grow."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from recovery_desks import Desk, Server, wait

FULL_S = 2.0
CODES = ("disk-full", "database")  # a limit of the system is met as an error of writing

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs limits that are set from outside"),
    pytest.mark.timeout(90),
]


@contextmanager
def _full(desk: Desk, server: Server) -> Iterator[None]:
    """Without room: what the database writes next would make its log longer."""
    import resource

    log = desk.folder / ".changeover" / "changeover.db-wal"
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (log.stat().st_size, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _ready(server: Server) -> httpx.Response:
    return httpx.get(f"{server.url}/readyz", timeout=5.0)


def _busy_s(server: Server) -> float:
    """How long its process has computed."""
    with open(f"/proc/{server.pid}/stat") as opened:
        fields = opened.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _wait_on(server: Server, thread: str) -> httpx.Response:
    body = {"assistant_id": "steps", "input": {"parts": []}}
    return httpx.post(f"{server.url}/threads/{thread}/runs/wait", json=body, timeout=60.0)


def _without_room(desk: Desk, server: Server) -> None:
    """What clients are told meanwhile, and that nothing is tried without a pause."""
    problem = wait(lambda: (found := _ready(server)).status_code == 503 and found, server.said).json()
    assert problem["code"] in CODES, problem
    refused = httpx.post(f"{server.url}/threads", json={}, timeout=10.0)
    assert refused.status_code >= 500
    assert refused.json()["code"] in CODES, refused.text
    assert "changeover.db" in refused.json()["detail"]
    before, began = _busy_s(server), time.monotonic()
    time.sleep(FULL_S)  # how long it stays full
    assert _busy_s(server) - before < 0.5 * (time.monotonic() - began), "it is busy with trying"
    assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_a_full_disk_ends_runs_with_a_reason_and_is_recovered_from(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk()
    server = desk.start()
    done = server.submit("steps", server.thread())
    assert server.join(done) == {"parts": ["a", "b", "c"]}
    desk.hold("b", "talk")
    synced = server.submit("steps", server.thread(), durability="sync")
    queued = server.submit("steps", synced["thread_id"], multitask_strategy="enqueue")
    loose = server.submit("steps", server.thread())
    stream = server.submit("talks", server.thread(), stream_resumable=True, stream_mode=["custom"])
    held = server.thread()
    with ThreadPoolExecutor(1) as beside:
        waiting: Future[httpx.Response] = beside.submit(_wait_on, server, held)
        wait(lambda: desk.lines().count("begin b") == 3 and "begin talk" in desk.lines(), server.said)
        with _full(desk, server):
            desk.let_go("b", "talk")
            _without_room(desk, server)
        wait(lambda: _ready(server).status_code == 200, server.said)
        answer = waiting.result(60.0)
    for run in (synced, loose, stream):
        row = server.ended(run)
        assert row["status"] in ("error", "success")
    assert answer.json()["code"] in CODES, answer.text
    assert server.ended(queued)["status"] == "success", server.said()
    assert server.run(done)["status"] == "success"
    assert server.state(done["thread_id"])["values"]["parts"] == ["a", "b", "c"]
    for run in (synced, loose, stream):
        thread = run["thread_id"]
        wait(lambda thread=thread: server.status_of_thread(thread) != "busy", server.said)
        again = server.submit("steps", thread)
        assert server.ended(again)["status"] == "success", server.said()
    assert server.ask("GET", "/admin/runs?active=true")["runs"] == []
    assert server.lives
    assert "Traceback" not in server.said()
