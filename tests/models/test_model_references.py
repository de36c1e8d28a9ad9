"""What a reference to a model may be, and what is said of one that is none: by check, and by the build."""

from __future__ import annotations

from typing import Any

import pytest

from changeover.errors import ProjectError
from changeover.project.check import analyse

WRONG = [
    ("opnai:gpt-5", "there is no provider 'opnai'", "did you mean 'openai'?"),
    ("OpenAI:gpt-5", "there is no provider 'OpenAI'", "did you mean 'openai'?"),
    ("llama3", "model 'llama3' does not say its provider", "write provider:model, such as openai:gpt-5-mini"),
    ("openai:", "model 'openai:' names a provider and no model", "write provider:model, such as openai:gpt-5-mini"),
    ("openai: gpt-5", "model 'openai: gpt-5' has spaces after its provider", "take them out"),
    ("demo:rulez", "there is no model 'demo:rulez'", "write demo:rules"),
    ("", "the name of the model is empty", "write provider:model, such as openai:gpt-5-mini"),
]


@pytest.mark.parametrize(("model", "message", "hint"), WRONG)
def test_check_says_what_is_wrong_with_a_provider_string(model: str, message: str, hint: str) -> None:
    text = f"models:\n  m: {{model: '{model}'}}\nagents:\n  desk: {{model: m}}\n"
    _, (problem,) = analyse({"agents.yaml": text.encode()}, {})
    assert (problem.code, problem.line, problem.column) == ("unknown-model", 2, 14)
    assert (problem.message, problem.hint) == (f"model 'm': {message}", hint)


@pytest.mark.parametrize(
    ("model", "line", "package", "command"),
    [
        ("anthropic:claude", 2, "langchain-anthropic", "pip install 'changeover[anthropic]'"),
        ("cohere:command-r", 2, "langchain-cohere", "pip install langchain-cohere"),
    ],
)
async def test_a_missing_package_is_one_sentence_with_its_command(
    project: Any, opened: Any, model: str, line: int, package: str, command: str
) -> None:
    async with opened(project({"agents.yaml": "agents:\n  desk: {model: 'demo:rules'}\n"})) as manager:
        project({"agents.yaml": f"agents:\n  desk: {{model: '{model}'}}\n"})
        with pytest.raises(ProjectError) as raised:
            await manager.build()
        (problem,) = raised.value.problems
        assert (problem.code, problem.line, problem.hint) == ("provider-missing", line, command)
        assert problem.message == f"model '{model}': needs {package}, which is not installed"
        assert manager.routing.current == "v1"


@pytest.mark.parametrize(
    ("limit", "at"),
    [
        ("{requests_per_second: 0}", "0"),
        ("{requests_per_second: fast}", "fast"),
        ("{requests_per_second: 2, burst: 0}", "0"),
        ("{per_second: 2}", "per_second"),
    ],
)
def test_a_rate_limit_that_is_none_is_a_problem_at_its_value(limit: str, at: str) -> None:
    text = f"models: {{m: {{model: 'demo:rules', rate_limit: {limit}}}}}\nagents: {{desk: {{model: m}}}}\n"
    _, problems = analyse({"agents.yaml": text.encode()}, {})
    assert at in [each.text[each.column - 1 :][: each.width] for each in problems]
    assert {each.line for each in problems} == {1}
