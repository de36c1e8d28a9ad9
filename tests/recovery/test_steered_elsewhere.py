"""Two servers on one Postgres: an operation of one is given up or hurried through the other, and survives its owner."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from recovery_desks import WAIT_S, Desk, Server, wait

from postgres_support import create_database, drop_database

ENVIRONMENT = {"CHANGEOVER_RUNS_LEASE": "2s", "CHANGEOVER_WATCH": "off"}

pytestmark = pytest.mark.timeout(180)


class Stage:
    """A run that waits on v1, a server that has v2 ready, and another one."""

    def __init__(self, make_desk: Callable[..., Desk], url: str) -> None:
        self.desk = make_desk("one", url)
        other = make_desk("two", url, self.desk.work)
        self.desk.hold("b")
        first, second = self.desk.begin(environment=ENVIRONMENT), other.begin(environment=ENVIRONMENT)
        self.owner, self.other = first.wait_until_ready(), second.wait_until_ready()
        self.run = self.owner.submit("steps", self.owner.thread(), durability="sync")
        self.desk.wait_for("begin b")
        steps = self.desk.folder / "graphs" / "steps.py"
        steps.write_text(steps.read_text() + "# said otherwise\n")
        self.version = self.owner.ask("POST", "/admin/versions", {})["id"]

    def switch(self, **body: Any) -> str:
        return str(self.owner.ask("POST", "/admin/switch", {"to": self.version, **body})["operation"])

    def status(self, server: Server, operation: str) -> str:
        return str(server.ask("GET", f"/admin/operations/{operation}")["status"])


@pytest.fixture
def stage(make_desk: Any, postgres_server: str, postgres_template: str) -> Iterator[Stage]:
    url = create_database(postgres_server, postgres_template)
    yield Stage(make_desk, url)
    drop_database(postgres_server, url)


def test_a_switch_that_waits_in_one_process_is_given_up_in_another(stage: Stage) -> None:
    answers: list[httpx.Response] = []
    body = {"to": stage.version, "drain": "before"}
    caller = threading.Thread(
        target=lambda: answers.append(httpx.post(f"{stage.owner.url}/admin/switch", json=body, timeout=WAIT_S))
    )
    caller.start()

    def waits() -> Any:
        found = stage.other.ask("GET", "/admin/operations?kind=switch&status=running")["operations"]
        return found and found[0]["waits_for"]["what"] == "runs" and found[0]

    waiting = wait(waits, stage.owner.said)
    assert [run["run_id"] for run in waiting["waits_for"]["runs"]] == [stage.run["run_id"]]
    stage.other.ask(
        "POST",
        f"/admin/operations/{waiting['operation']}/cancel",
        {"reason": "not now"},
        headers={"Changeover-Actor": "ann"},
    )
    caller.join(WAIT_S)
    (answer,) = answers
    assert (answer.status_code, answer.json()["code"]) == (409, "operation-cancelled")
    assert (answer.json()["cancelled_by"], answer.json()["reason"]) == ("ann", "not now")
    assert stage.status(stage.other, waiting["operation"]) == "cancelled"
    assert stage.other.ask("GET", "/admin/routing")["current"] == "v1"
    stage.desk.let_go("b")
    assert stage.owner.ended(stage.run)["status"] == "success"


def test_a_drain_of_one_process_is_hurried_in_another(stage: Stage) -> None:
    operation = stage.switch()
    stage.other.ask("POST", f"/admin/operations/{operation}/escalate", {"in_flight": "cancel"})
    assert stage.other.ended(stage.run)["status"] == "interrupted"
    wait(lambda: stage.status(stage.other, operation) == "done", stage.owner.said)


def test_what_was_asked_of_a_killed_process_is_heeded_by_who_takes_over(stage: Stage) -> None:
    operation = stage.switch()
    stage.owner.kill()
    asked = stage.other.ask("POST", f"/admin/operations/{operation}/cancel", {"reason": "let it talk"})
    assert asked["asked"]["what"] == "cancel"
    wait(lambda: stage.status(stage.other, operation) == "done", stage.other.said)
    told = stage.other.ask("GET", f"/admin/operations/{operation}")
    assert told["result"]["drain"].startswith("cancelled by ")
    stage.desk.let_go("b")
    ended = stage.other.ended(stage.run)
    assert (ended["status"], ended["metadata"].get("version", "v1")) == ("success", "v1")
