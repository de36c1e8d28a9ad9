"""A Postgres that goes away under a server for longer than the server's lease, and comes back.

CHANGEOVER_TEST_AWAY_S gives the seconds that the first test takes it away for, such as 30.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from recovery_desks import Desk, Server, wait

from postgres_support import Postgres

AWAY_S = float(os.environ.get("CHANGEOVER_TEST_AWAY_S", "6"))
LEASE = {"CHANGEOVER_RUNS_LEASE": "3s"}
NOTICED_S = 5.0
READY_S = 10.0

pytestmark = pytest.mark.timeout(150)


@pytest.fixture
def beside() -> Iterator[ThreadPoolExecutor]:
    """Clients that wait, in threads of their own."""
    with ThreadPoolExecutor(8) as opened:
        yield opened


def _ready(server: Server) -> httpx.Response:
    return httpx.get(f"{server.url}/readyz", timeout=5.0)


def _post(server: Server, path: str, body: Any) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", json=body, timeout=60.0)


def _answer(server: Server, thread: str) -> Any:
    body = {"assistant_id": "steps", "input": {"parts": []}}
    return _post(server, f"/threads/{thread}/runs/wait", body).json()


def _streamed(server: Server, run: dict[str, Any]) -> list[tuple[int, str, Any]]:
    with httpx.Client(base_url=server.url, timeout=60.0) as http:
        reader = Server(server.folder, server.pid)
        reader._http = http
        return reader.follow(run)


def _away(own_postgres: Postgres, meanwhile: Callable[[], None], away_s: float = AWAY_S) -> None:
    """How long it is away, nothing is waited for but the time."""
    own_postgres.stop()
    began = time.monotonic()
    meanwhile()
    time.sleep(max(0.0, away_s - (time.monotonic() - began)))
    own_postgres.start()


def test_nothing_is_lost_while_the_database_is_away(
    own_postgres: Postgres, make_desk: Callable[..., Desk], beside: ThreadPoolExecutor
) -> None:
    desk = make_desk(database=own_postgres.url)
    server = desk.start(environment=LEASE)
    (desk.folder / "graphs" / "steps.py").write_text((desk.folder / "graphs" / "steps.py").read_text() + "\n# two\n")
    built = server.ask("POST", "/admin/versions", {})
    desk.hold("b", "talk")
    synced = server.submit("steps", server.thread(), durability="sync")
    queued = server.submit("steps", synced["thread_id"])
    loose = server.submit("steps", server.thread(), durability="async")
    stream = server.submit("talks", server.thread(), stream_resumable=True, stream_mode=["custom", "values"])
    waiting: Future[Any] = beside.submit(_answer, server, server.thread())
    reading: Future[Any] = beside.submit(_streamed, server, stream)
    wait(lambda: desk.lines().count("begin b") == 3 and "begin talk" in desk.lines(), server.said)
    asked: list[Future[Any]] = []
    quiet = server.thread()

    def meanwhile() -> None:
        told = wait(lambda: (found := _ready(server)).status_code != 200 and found, server.said, NOTICED_S)
        assert told.status_code == 503
        problem = told.json()
        assert problem["code"] == "database-unreachable", problem
        assert problem["detail"].startswith("the database cannot be reached"), problem
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        asked.append(beside.submit(_post, server, "/admin/switch", {"to": built["id"]}))
        asked.append(
            beside.submit(_post, server, f"/threads/{quiet}/runs", {"assistant_id": "steps", "input": {"parts": []}})
        )
        desk.let_go("b", "talk")  # all of them write from here on, and cannot

    _away(own_postgres, meanwhile)
    back = time.monotonic()
    wait(lambda: _ready(server).status_code == 200, server.said, READY_S)
    print(f"ready again after {time.monotonic() - back:.2f} s")
    assert server.lives
    switched, accepted = (future.result(60.0) for future in asked)
    assert switched.status_code == 200, switched.text
    assert accepted.status_code == 200, accepted.text
    assert server.ask("GET", "/admin/status")["routing"]["current"] == built["id"]
    for run in (synced, queued, loose, stream, accepted.json()):
        row = server.ended(run)
        assert row["status"] == "success", (row, server.said())
    print(f"all ended after {time.monotonic() - back:.2f} s")
    assert waiting.result(60.0) == {"parts": ["a", "b", "c"]}
    events = reading.result(60.0)
    assert [data for _, name, data in events if name == "custom"] == list(range(40))
    assert [number for number, *_ in events] == list(range(1, len(events) + 1))
    assert events == server.follow(stream)
    assert server.state(synced["thread_id"])["values"]["parts"] == ["a", "b", "c", "a", "b", "c"]
    ran = desk.ran()
    assert (ran["a"], ran["b"], ran["c"], ran["talk"], ran["last"]) == (6, 5, 5, 1, 1), ran
    again = server.submit("steps", server.thread())
    assert server.join(again) == {"parts": ["a", "b", "c"]}
    assert "pulse_failed" not in server.said()
    assert "Traceback" not in server.said()


def test_what_was_accepted_ends_also_after_more_than_is_waited_for(
    own_postgres: Postgres, make_desk: Callable[..., Desk]
) -> None:
    """A run that could not write fails; its end, and those that waited behind it, are not forgotten for that."""
    desk = make_desk(database=own_postgres.url)
    server = desk.start(environment=LEASE, retry_s=1.0)
    done = server.submit("steps", server.thread())
    assert server.join(done) == {"parts": ["a", "b", "c"]}
    desk.hold("b")
    failing = server.submit("steps", server.thread(), durability="sync")
    queued = [server.submit("steps", failing["thread_id"]) for _ in range(2)]
    late = server.submit("steps", server.thread(), after_seconds=2)
    wait(lambda: "begin b" in desk.lines(), server.said)

    def meanwhile() -> None:
        desk.let_go("b")
        wait(lambda: "run_failed" in server.said(), server.said)
        refused = _post(server, "/threads", {})
        assert refused.status_code == 503
        assert refused.json()["code"] == "database-unreachable"
        assert _ready(server).status_code == 503

    _away(own_postgres, meanwhile, 5.0)
    wait(lambda: _ready(server).status_code == 200, server.said, READY_S)
    row = server.ended(failing)
    assert row["status"] == "error"
    assert "the database cannot be reached" in server.ask("GET", f"/admin/runs/{failing['run_id']}")["status_reason"]
    for run in (*queued, late):
        assert server.ended(run)["status"] == "success", server.said()
    assert server.run(done)["status"] == "success"
    again = server.submit("steps", failing["thread_id"])
    assert server.ended(again)["status"] == "success", server.said()
    assert server.ask("GET", "/admin/runs?active=true")["runs"] == []
    assert server.said().count("pulse_missed") <= 2, server.said()
    assert "Traceback" not in server.said()


def test_two_servers_keep_their_runs_while_the_database_is_away(
    own_postgres: Postgres, make_desk: Callable[..., Desk]
) -> None:
    """The leases of both run out, and neither takes the other's for that."""
    desks = [make_desk(name, own_postgres.url) for name in ("one", "two")]
    servers = [desk.start(environment={"CHANGEOVER_RUNS_LEASE": "2s"}) for desk in desks]
    for desk in desks:
        desk.hold("b")
    runs = [server.submit("steps", server.thread()) for server in servers for _ in range(3)]
    for desk in desks:
        wait(lambda desk=desk: desk.lines().count("begin b") == 3)
    _away(own_postgres, lambda: None, 5.0)
    for server in servers:
        wait(lambda server=server: "lease_lost" in server.said(), server.said)
        wait(lambda server=server: _ready(server).status_code == 200, server.said, READY_S)
    for desk in desks:
        desk.let_go("b")
    for run in runs:
        assert servers[0].ended(run)["status"] == "success", servers[0].said()
    for desk, server in zip(desks, servers, strict=True):
        assert desk.ran() == {"a": 3, "b": 3, "c": 3}
        assert "Traceback" not in server.said()
        assert "runs_taken_over" not in server.said()
