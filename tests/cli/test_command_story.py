"""The main story on the command line: without a server, and with one that is found by the file it leaves."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from changeover import GraphVersionManager

DEADLINE_S = 60.0
SLOW = """\
    models:
      slow: {model: "demo:rules", params: {latency: 20s}}
      fast: {model: "demo:rules"}
    agents:
      slow: {model: slow, prompt: {text: "I am slow."}}
      support: {model: fast, prompt: {text: "I am the first."}}
    """


def wait_for(what: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait until it is true; a process that ended meanwhile says why."""
    deadline = time.monotonic() + DEADLINE_S
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_from_nothing_to_an_answer_and_back_without_a_server(call, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("init", "desk").status == 0
    monkeypatch.chdir(tmp_path / "desk")
    built = call("build", "-m", "the first")
    assert built.status == 0, built
    assert built.out.startswith("v1 is ready")
    assert call("run", "support", "-i", "hello").status == 3, "nothing is current yet"
    assert call("switch", "v1", "--reason", "begin").status == 0

    asked = call("run", "support", "-i", "Where is A-1042?", "--thread", "t1")
    assert asked.status == 0, asked
    assert "the front desk" in asked.out
    assert "v1, thread t1" in asked.err

    prompt = Path("prompts/support.md")
    prompt.write_text(prompt.read_text().replace("the front desk", "the CHEERFUL desk"))
    assert json.loads(call("build", "-o", "json").out)["id"] == "v2"
    assert "no new version" in call("build").out
    assert json.loads(call("-o", "json", "switch", "v2").out)["to"] == "v2"
    streamed = call("run", "support", "-i", "hello", "--thread", "t1", "--stream")
    assert streamed.status == 0, streamed
    assert "the CHEERFUL desk" in streamed.out
    assert "v2, thread t1" in streamed.err

    changed = call("diff", "v1")
    assert "+You are the CHEERFUL desk" in changed.out
    assert call("rollback", "--dry-run").out.startswith("would roll back from v2 to v1")
    assert json.loads(call("status", "-o", "json").out)["routing"]["current"] == "v2"
    assert call("rollback", "--reason", "too cheerful").out.startswith("rolled back from v2 to v1")
    assert "the front desk" in call("run", "support", "-i", "hello", "--thread", "t1").out

    assert "(bad)" in call("versions").out
    assert json.loads(call("show", "v2", "-o", "json").out)["author"] in call("versions").out
    history = json.loads(call("history", "-o", "json").out)["history"]
    assert next((one["action"], one["to"], one["reason"]) for one in history) == ("rollback", "v1", "too cheerful")
    assert "too cheerful" in call("history").out
    used = {one["id"]: one["usage"] for one in json.loads(call("status", "-o", "json").out)["versions"]}
    assert (used["v1"]["runs"], used["v1"]["errors"], used["v1"]["tool_calls"]) == (2, 0, 1)
    assert "TOKENS_IN" in call("status").out


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with v1, which is current, and v2."""
    folder = tmp_path_factory.mktemp("story") / "project"
    folder.mkdir()

    async def build() -> None:
        async with GraphVersionManager.open(folder) as manager:
            for word in ("One", "Two"):
                prompt = f"agents: {{support: {{model: 'demo:rules', prompt: {{text: {word}.}}}}}}\n"
                (folder / "agents.yaml").write_text(prompt)
                await manager.build()
            await manager.switch("v1")

    asyncio.run(build())
    return folder


@pytest.fixture
def switched(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "project")
    return tmp_path / "project"


def test_every_verb_that_answers_prints_one_document(call, switched: Path) -> None:
    for verb in (
        ["status"],
        ["versions"],
        ["versions", "--status", "ready", "-n", "1"],
        ["show", "v1"],
        ["diff", "v1", "v2"],
        ["history"],
        ["events"],
        ["holders", "v1"],
        ["run", "support", "-i", '{"messages": [{"role": "user", "content": "hi"}]}'],
        ["run", "support", "-i", "hi", "--stream", "--version", "v2"],
        ["switch", "v2", "--graph", "support"],
        ["rollback", "--graph", "support"],
        ["drain", "v2", "--timeout", "5s"],
        ["retire", "v2"],
        ["gc"],
        ["build"],
    ):
        done = call(*verb, "-o", "json", "--project", str(switched))
        assert done.status == 0, (verb, done)
        assert isinstance(json.loads(done.out), dict), verb
        tabled = ["status", "versions", "show", "diff", "history", "events", "holders", "gc", "build"]
        if verb[0] in tabled:
            shown = call(*verb, "--project", str(switched))
            assert shown.status == 0, (verb, shown)
            assert shown.out.strip(), verb


def test_refusals_without_a_server_have_their_exit_status(call, switched: Path) -> None:
    here = ("--project", str(switched))
    assert call("switch", "v9", *here).status == 4
    assert call("show", "v9", *here).status == 4
    assert call("run", "nobody", "-i", "x", *here).status == 4
    assert call("retire", "v1", *here).status == 5
    assert call("drain", "v1", *here).status == 5
    assert call("rollback", *here).status == 5
    refused = call("run", "support", "-i", "{not json", *here)
    assert (refused.status, refused.out) == (2, "")
    assert call("status", *here, "-o", "json").status == 0, "nothing has moved"


def test_a_broken_folder_is_rejected_with_positions(call, switched: Path, project) -> None:
    project({"agents.yaml": "agents: {support: {modle: 'demo:rules'}}\n"})
    refused = call("build", "--project", str(switched), "-o", "json")
    assert refused.status == 1
    assert "agents.yaml:1:" in refused.err
    told = json.loads(refused.out)
    assert told["problems"][0]["path"] == "agents.yaml"
    rejected = told["error"]["version"]
    assert call("switch", rejected, "--project", str(switched)).status == 5
    assert "agents.yaml:1:" in call("show", rejected, "--project", str(switched)).out
    assert "rejected" in call("status", "--project", str(switched)).out


def test_a_run_that_fails_is_status_1_and_says_why(call, switched: Path, project) -> None:
    project(
        {
            "graphs/boom.py": """\
                from langgraph.graph import MessagesState, StateGraph

                def node(state):
                    raise RuntimeError("no such order")

                graph = StateGraph(MessagesState).add_node(node).set_entry_point("node")
                """
        }
    )
    here = ("--project", str(switched))
    built = call("build", *here, "-o", "json")
    assert built.status == 0, built
    for how in ([], ["--stream"]):
        failed = call("run", "boom", "-i", "x", "--version", json.loads(built.out)["id"], *how, *here, "-o", "json")
        assert failed.status == 1
        assert json.loads(failed.out)["error"]["code"] == "run-failed"
        assert "RuntimeError: no such order" in failed.err


def test_input_comes_from_a_file_and_from_stdin(call, switched: Path, tmp_path: Path) -> None:
    here = ("--project", str(switched))
    file = tmp_path / "question.json"
    file.write_text('{"messages": [{"role": "user", "content": "hi"}]}')
    assert call("run", "support", "-i", f"@{file}", *here).status == 0
    assert "(demo)" in call("run", "support", "-i", "-", *here, typed="hello\n").out
    assert call("run", "support", "-i", "@nowhere.json", *here).status == 2


def test_chat_asks_a_person_and_says_which_version_answered(call, sample: Path) -> None:
    here = ("--project", str(sample))
    assert call("build", *here).status == 0
    assert call("switch", "v1", *here).status == 0
    talk = call("chat", "support", *here, typed="Where is A-1042?\nrefund 5 for A-1042\ny\n/quit\n")
    assert talk.status == 0, talk
    assert "(demo)" in talk.out
    assert "[lookup_order]" in talk.err
    assert "wants to call refund" in talk.err
    assert talk.err.count("-- support v1") == 3
    assert call("chat", *here, typed="").status == 2, "several graphs: which one?"


def test_a_token_from_the_environment_opens_the_project(call, switched: Path, monkeypatch) -> None:
    monkeypatch.setenv("CHANGEOVER_TOKEN", "s3cret")
    assert call("status", "--project", str(switched)).status == 0


def test_commands_find_the_server_that_serves_the_folder(call, start, project) -> None:
    folder = project({"agents.yaml": SLOW})
    here = ("--project", str(folder))
    server = start("serve", "--port", "0", "--no-watch", "--token", "s3cret", cwd=folder)
    address = folder / ".changeover" / "server.json"
    wait_for(address.exists, server)
    url = json.loads(address.read_text())["url"]
    wait_for(lambda: httpx.get(f"{url}/readyz").is_success, server)
    assert call("status", *here).status == 2, "it asks for its token"
    here = (*here, "--token", "s3cret")
    assert json.loads(call("status", *here, "-o", "json").out)["routing"]["current"] == "v1"
    assert "v1" in call("versions", "--url", url, "--token", "s3cret").out

    project({"agents.yaml": SLOW.replace("the first", "the second")})
    assert json.loads(call("build", *here, "-o", "json").out)["id"] == "v2"
    running = start("run", "slow", "-i", "hello", *here, cwd=folder)
    wait_for(lambda: in_flight(url), running)
    assert call("switch", "v2", *here).status == 0
    assert "I am the second." in call("run", "support", "-i", "hello", *here).out
    late = call("drain", "v1", "--timeout", "50ms", "-o", "json", *here)
    assert late.status == 7
    assert json.loads(late.out)["error"]["code"] == "drain-timed-out"
    assert call("drain", "v1", "--in-flight", "cancel", *here).status == 0
    assert running.wait(DEADLINE_S) != 0
    assert "v1" in call("rollback", *here).out

    port = url.rpartition(":")[2]
    elsewhere = folder.parent / "elsewhere"
    assert call("init", str(elsewhere)).status == 0
    third = start("serve", "--port", port, cwd=elsewhere)
    second = start("serve", "--port", "0", cwd=folder)
    assert second.wait(DEADLINE_S) == 2
    assert "another changeover process uses" in second.communicate()[1]
    assert third.wait(DEADLINE_S) == 2
    assert f"port {port} on 127.0.0.1 is in use" in third.communicate()[1]

    server.send_signal(signal.SIGTERM)
    assert server.wait(DEADLINE_S) == 0
    told = server.communicate()[1]
    assert url in told
    assert "Traceback" not in told
    assert not address.exists()
    assert call("status", *here).status == 0, "without a server the project is opened here"


def in_flight(url: str) -> bool:
    status = httpx.get(f"{url}/admin/status", headers={"x-api-key": "s3cret"}).json()
    return any(version["in_flight"] for version in status["versions"])


def test_serve_shows_the_problems_of_a_broken_folder(start, call, project) -> None:
    folder = project({"agents.yaml": "agents: {support: {modle: 'demo:rules'}}\n"})
    server = start("serve", "--port", "0", "--no-watch", cwd=folder)
    assert server.wait(DEADLINE_S) == 1
    told = server.communicate()[1]
    assert "agents.yaml:1:" in told
    assert "Traceback" not in told
