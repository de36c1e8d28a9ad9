"""Log lines: which version and run, never what was said."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from changeover.server.logging import configure


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def write(form: str, capsys: pytest.CaptureFixture[str]) -> str:
    configure(form)
    structlog.contextvars.bind_contextvars(version="v7", run_id="r1")
    logging.getLogger("changeover.runs").warning(
        "run_failed", extra={"error": "no\nsuch thing", "input": "my secret", "token": "t0ken", "nothing": None}
    )
    structlog.get_logger("changeover.rollout").info("saved", path="agents.yaml")
    return capsys.readouterr().err


def test_json_lines_carry_the_context_and_hide_what_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    failed, saved = (json.loads(line) for line in write("json", capsys).splitlines())
    assert (failed["event"], failed["level"], failed["version"], failed["run_id"]) == (
        "run_failed",
        "warning",
        "v7",
        "r1",
    )
    assert (failed["input"], failed["token"]) == ("(hidden)", "(hidden)")
    assert (saved["event"], saved["path"], saved["version"]) == ("saved", "agents.yaml", "v7")


def test_text_lines_stay_on_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    failed, saved = write("text", capsys).splitlines()
    assert "run_failed" in failed
    assert "version=v7" in failed
    assert "my secret" not in failed
    assert r"error='no\nsuch thing'" in failed
    assert "path=agents.yaml" in saved


def test_configuring_twice_writes_each_line_once(capsys: pytest.CaptureFixture[str]) -> None:
    configure("text")
    assert len(write("text", capsys).splitlines()) == 2
