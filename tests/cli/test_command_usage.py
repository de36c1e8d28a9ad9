"""Help, usage errors, exit statuses that no state is needed for, and that docs/cli.md names everything."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import typer.main

from changeover.cli.app import app

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text("utf-8")
GROUP = typer.main.get_command(app)
VERBS = {name: GROUP.get_command(None, name) for name in GROUP.list_commands(None)}
RELEASE = [
    *("init", "check", "schema", "doctor", "serve"),
    *("build", "plan", "switch", "ramp", "rollback", "drain", "retire", "gc"),
    *("status", "versions", "show", "diff", "history", "events", "holders", "operations"),
    *("threads", "thread", "pin", "migrate"),
    *("run", "chat", "approve"),
    *("adopt", "backup", "resources", "restore"),
]


def test_verbs_are_those_of_this_release() -> None:
    assert sorted(VERBS) == sorted(RELEASE)


@pytest.mark.parametrize("verb", RELEASE)
def test_every_verb_has_help_and_is_documented(call, verb: str) -> None:
    helped = call(verb, "--help")
    assert helped.status == 0
    assert verb in helped.out
    flags = {flag for one in VERBS[verb].params for flag in (*one.opts, *one.secondary_opts) if flag.startswith("-")}
    assert f"`changeover {verb}" in PAGE
    assert [flag for flag in sorted(flags - {"--help", "-h"}) if not re.search(rf"{flag}\b", PAGE)] == []


@pytest.mark.parametrize(
    "wrong",
    [
        ["frobnicate"],
        ["switch"],
        ["run", "support"],
        ["build", "--nothing"],
        ["status", "-o", "xml"],
        ["switch", "v1", "--timeout", "soon"],
        ["migrate", "t"],
        ["migrate", "new"],
        ["migrate", "t", "--from", "v1", "--to", "v2"],
        ["serve", "--workers", "0"],
        ["chat", "-o", "json"],
        ["status", "--url", "127.0.0.1:2024"],
        ["--project", "/nowhere/at/all", "status"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_status_2_and_one_sentence(call, tmp_path: Path, monkeypatch, wrong: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    refused = call(*wrong)
    assert refused.status == 2
    assert refused.err
    assert "Traceback" not in refused.err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_project_gets_no_database(call, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused = call("status")
    assert refused.status == 2
    assert "changeover init" in refused.err
    assert list(tmp_path.iterdir()) == []


def test_no_server_at_the_address_is_status_3(call) -> None:
    refused = call("status", "--url", f"http://127.0.0.1:{free_port()}", "-o", "json")
    assert refused.status == 3
    assert json.loads(refused.out)["error"]["code"] == "unreachable"
    assert "changeover serve" in refused.err


def test_the_address_of_a_running_process_that_does_not_answer_is_status_3(call, project) -> None:
    folder = project({"agents.yaml": "agents: {}\n"})
    left = folder / ".changeover" / "server.json"
    left.parent.mkdir()
    left.write_text(json.dumps({"url": f"http://127.0.0.1:{free_port()}", "pid": os.getpid()}))
    assert call("status", "--project", str(folder)).status == 3


def test_a_server_is_found_after_a_newer_one_of_its_folder_has_ended(call, project) -> None:
    folder = project({"agents.yaml": "agents: {}\n"})
    left = folder / ".changeover"
    left.mkdir()
    (left / "server.json").write_text(json.dumps({"url": "http://127.0.0.1:9", "pid": 2**22 + 1}))
    (left / f"server-{2**22 + 2}.json").write_text(json.dumps({"url": "http://127.0.0.1:9", "pid": 2**22 + 2}))
    with server_that_answers(409, {"status": 409, "detail": "heard", "code": "routing-changed"}) as url:
        (left / f"server-{os.getpid()}.json").write_text(json.dumps({"url": url, "pid": os.getpid()}))
        asked = call("switch", "v2", "--project", str(folder))
    assert asked.status == 5
    assert "heard" in asked.err


@pytest.mark.parametrize(
    ("url", "pid"),
    [
        ("http://192.0.2.1:2024", os.getpid()),  # not an address of this machine: it must not get the token
        ("http://127.0.0.1:9", 2**22 + 1),  # a process that is no more
        ("http://[", os.getpid()),
        (None, None),
    ],
    ids=["foreign", "dead", "broken", "empty"],
)
def test_an_address_that_cannot_be_ours_is_passed_over(call, project, url: str | None, pid: int | None) -> None:
    folder = project({"agents.yaml": "agents: {}\n"})
    left = folder / ".changeover" / "server.json"
    left.parent.mkdir()
    left.write_text(json.dumps({"url": url, "pid": pid}))
    assert call("status", "--project", str(folder)).status == 0


@pytest.mark.parametrize(
    ("answer", "code", "status"),
    [
        (409, "would-break-threads", 6),
        (409, "routing-changed", 5),
        (412, "routing-changed", 5),
        (404, "unknown-version", 4),
        (422, "invalid-request", 2),
        (401, "token-required", 2),
        (503, "nothing-current", 3),
        (504, "drain-timed-out", 7),
    ],
)
def test_each_refusal_of_a_server_has_its_exit_status(call, answer: int, code: str, status: int) -> None:
    problem = {"type": "about:blank", "status": answer, "detail": "a \x1b[31mreason", "code": code, "hint": "do this"}
    with server_that_answers(answer, problem) as url:
        refused = call("switch", "v2", "--url", url, "-o", "json")
    assert refused.status == status
    assert "do this" in refused.err
    assert "\x1b" not in refused.err
    assert json.loads(refused.out)["error"]["code"] == code


def test_a_page_that_is_not_ours_is_not_taken_for_an_answer(call) -> None:
    with server_that_answers(200, None) as url:
        assert call("status", "--url", url).status == 3


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def server_that_answers(status: int, problem: dict[str, object] | None) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = b"<html>" if problem is None else json.dumps(problem).encode()
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.send_response(status)
            self.send_header("content-type", "text/html" if problem is None else "application/problem+json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, format: str, *args: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
