"""The streaming protocol as JavaScript's clients speak it: `threads.stream`, and the controller behind `useStream`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from v3_desks import Gate, at_socket, graphs

from changeover import GraphVersionManager
from js_support import Script

both = pytest.mark.parametrize("transport", ["sse", "websocket"])
RELEASES = ["1.15", "1.11"]  # the newest, and the one that the hook pins


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    gate = Gate()
    async with GraphVersionManager.open(tmp_path) as manager:
        await manager.switch(await manager.register("desks", graphs(gate)))
        async with at_socket(manager) as address:
            yield address
            gate.let(1_000)


@both
async def test_a_run_is_told_from_its_start_to_its_output(javascript: Script, url: str, transport: str) -> None:
    found = await javascript("v3_threads.mjs", url, "run", transport)
    assert (found["status"], found["metadata"]) == ("success", "ada")
    assert found["log"][-1] == "spoke"
    assert found["types"][:2] == ["human", "ai"]
    assert {"I add", "bye", "note"} <= set(found["told"])
    assert [(name, given) for name, given, _ in found["tools"]] == [("add", {"a": 1, "b": 2})]
    assert "inner" in " ".join(map(str, found["subgraphs"]))
    assert found["progress"] == {"done": 1}


@both
async def test_a_question_is_answered(javascript: Script, url: str, transport: str) -> None:
    found = await javascript("v3_threads.mjs", url, "answer", transport)
    assert found == {"payload": "within?", "answers": ["yes"], "same": True}


@both
async def test_commands_are_done_or_refused_in_words(javascript: Script, url: str, transport: str) -> None:
    found = await javascript("v3_threads.mjs", url, "commands", transport)
    assert found["same"]
    assert found["steps"] == [1, 0, -1]
    assert found["tree"] == ["chatting", "completed"]
    assert found["messages"] == 4
    assert found["refused"] == ["ProtocolError", "not_supported"]


@both
async def test_a_stream_that_is_cut_loses_nothing(javascript: Script, url: str, transport: str) -> None:
    found = await javascript("v3_threads.mjs", url, "cut", transport)
    assert found["cuts"] >= 1
    seqs = [seq for seq, _, _ in found["events"]]
    assert seqs == sorted(set(seqs))
    assert {"I add", "bye", "note"} <= set(found["told"])
    assert found["log"][-1] == "spoke"


@both
async def test_a_thread_is_gone_on_with_turn_by_turn(javascript: Script, url: str, transport: str) -> None:
    assert await javascript("v3_threads.mjs", url, "turns", transport) == [2, 4, 6, 8]


@both
@pytest.mark.parametrize("release", RELEASES)
async def test_the_page_shows_an_answer_as_it_grows(javascript: Script, url: str, transport: str, release: str) -> None:
    found = await javascript("v3_controller.mjs", url, "submit", transport, release)
    assert found["first"] == [["human", "hi"], ["ai", "one two three"]]
    assert found["then"] == [*found["first"], ["human", "again"], ["ai", "one two three"]]
    assert (found["created"], found["completed"]) == (2, ["success", "success"])


@both
@pytest.mark.parametrize("release", RELEASES)
async def test_the_page_shows_a_question_and_sends_the_answer(
    javascript: Script, url: str, transport: str, release: str
) -> None:
    found = await javascript("v3_controller.mjs", url, "respond", transport, release)
    assert found["asked"] == "within?"
    assert found["answers"] == found["shown"]
    assert found["answers"][-1] == "later"


@pytest.mark.parametrize("release", RELEASES)
async def test_the_page_answers_several_questions_together(javascript: Script, url: str, release: str) -> None:
    found = await javascript("v3_controller.mjs", url, "respondAll", "sse", release)
    assert found["answers"] == ["first", "second"]


@pytest.mark.parametrize("release", RELEASES)
async def test_the_page_shows_why_a_run_failed(javascript: Script, url: str, release: str) -> None:
    found = await javascript("v3_controller.mjs", url, "fail", "sse", release)
    assert "no paper" in found["error"]
    assert found["completed"] == ["error"]


@both
async def test_the_page_stops_a_run(javascript: Script, url: str, transport: str) -> None:
    assert await javascript("v3_controller.mjs", url, "stop", transport, "1.15") == {"status": "interrupted"}


@both
async def test_the_page_finds_subgraphs_and_forks(javascript: Script, url: str, transport: str) -> None:
    found = await javascript("v3_controller.mjs", url, "discover", transport, "1.15")
    assert found["subgraphs"]
    assert found["parents"]
    assert found["error"] == "undefined"


@both
async def test_the_page_shows_what_is_at_work_already(javascript: Script, url: str, transport: str) -> None:
    found = await javascript("v3_controller.mjs", url, "watch", transport, "1.15")
    assert found == [["human", "before"], ["ai", "one two three"]]
