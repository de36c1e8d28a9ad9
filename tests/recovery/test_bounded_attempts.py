"""A run whose node kills its process is given up after some attempts, and says so."""

from __future__ import annotations

import pytest
from recovery_desks import Desk


@pytest.mark.parametrize("allowed", [1, 3])
def test_a_run_that_kills_its_process_ends_as_a_dead_letter(desk: Desk, allowed: int) -> None:
    environment = {"CHANGEOVER_RUNS_MAX_ATTEMPTS": str(allowed)}
    (desk.work / "die-b").touch()
    server = desk.start(environment=environment)
    run = server.submit("steps", server.thread(), stream_resumable=True, durability="sync")
    thread = run["thread_id"]
    for _ in range(allowed - 1):
        server.wait_for_end()
        server = desk.begin(environment=environment)
    server.wait_for_end()
    server = desk.start(environment=environment)
    row = server.ended(run)
    assert row["status"] == "error"
    assert "given up" in row["status_reason"]
    assert f"{allowed} times" in row["status_reason"]
    assert desk.ran() == {"a": 1, "b": allowed}
    (dead,) = server.events("run_dead")
    assert dead["run_id"] == run["run_id"]
    assert server.status_of_thread(thread) == "error"
    last = server.follow(run)[-1]
    assert last[1] == "error"
    assert "given up" in last[2]["message"]
    (desk.work / "die-b").unlink()
    assert server.join(server.submit("steps", thread, input=None)) == {"parts": ["a", "b", "c"]}
    assert server.lives


def test_what_waits_behind_a_dead_letter_has_its_turn(desk: Desk) -> None:
    environment = {"CHANGEOVER_RUNS_MAX_ATTEMPTS": "1"}
    desk.hold("b")
    server = desk.start(environment=environment)
    thread = server.thread()
    first, second = server.submit("steps", thread, durability="sync"), server.submit("steps", thread)
    desk.wait_for("begin b")
    server.kill()
    desk.let_go("b")
    server = desk.start(environment=environment)
    assert server.ended(first)["status"] == "error"
    assert server.ended(second)["status"] == "success"
