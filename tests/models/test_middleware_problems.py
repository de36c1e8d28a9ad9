"""Errors of middleware stand at the argument that is wrong, whoever finds them: check, or langchain at the build."""

from __future__ import annotations

from typing import Any

import pytest

from changeover.errors import ProjectError
from changeover.project.check import analyse

AGENT = """\
models: {demo: {model: 'demo:rules'}}
agents:
  desk:
    model: demo
    middleware:
      - todo_list
      - """
CODE = """
from langchain.agents.middleware import AgentMiddleware


class Strict(AgentMiddleware):
    def __init__(self, n: int = 0):
        super().__init__()
        if n > 3:
            raise ValueError("n is too large")
"""
CHECKED = [
    ("modelcall_limit", "unknown-middleware", "modelcall_limit", "did you mean 'model_call_limit'?"),
    ("model_call_limit: {run_limit: many}", "wrong-type", "many", ""),
    ("model_call_limit: {run_limits: 5}", "unknown-key", "run_limits", "did you mean 'run_limit'?"),
    ("summarization: {model: opnai:gpt}", "unknown-model", "opnai:gpt", "did you mean 'openai'?"),
    ("summarization: {model: demo, trigger: [tokens, many]}", "wrong-type", "many", ""),
    ("summarization: {trigger: [tokens, 60000]}", "middleware", "summarization", "write model: ..."),
    ("pii: {pii_type: email, strategy: hide}", "wrong-type", "hide", "there are: block, hash, mask, redact"),
    (
        "context_editing: {edits: [{class: ClearToolUsesEdit, with: {triger: 1}}]}",
        "unknown-key",
        "triger",
        "did you mean 'trigger'?",
    ),
]
BUILT = [
    ("graphs.parts:Strict: {n: 9}", "n is too large", ("graphs/parts.py", 9)),
    ("model_call_limit", "limit", ("agents.yaml", 7)),
    ("pii: {pii_type: thing}", "thing", ("agents.yaml", 7)),
]


@pytest.mark.parametrize(("entry", "code", "at", "hint"), CHECKED, ids=[entry for entry, *_ in CHECKED])
def test_check_shows_the_argument_that_does_not_fit(entry: str, code: str, at: str, hint: str) -> None:
    _, (problem,) = analyse({"agents.yaml": f"{AGENT}{entry}\n".encode()}, {})
    shown = problem.text[problem.column - 1 :][: problem.width]
    assert (problem.code, problem.line, shown, problem.hint) == (code, 7, at, hint)


@pytest.mark.parametrize(("entry", "said", "at"), BUILT)
async def test_what_is_refused_by_its_class_stands_where_that_can_be_corrected(
    project: Any, opened: Any, entry: str, said: str, at: tuple[str, int]
) -> None:
    async with opened(project({"agents.yaml": f"{AGENT}model_retry\n", "graphs/parts.py": CODE})) as manager:
        project({"agents.yaml": f"{AGENT}{entry}\n"})
        with pytest.raises(ProjectError, match=said) as raised:
            await manager.build()
    (problem,) = raised.value.problems
    assert (problem.path, problem.line) == at
