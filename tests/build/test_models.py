"""Models by name, shared by configuration; what is missing is said with what to do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from build_samples import MODELS, Make

from changeover.resources.demo import DemoRules
from changeover.resources.models import ModelPool, model_chain


def test_the_same_configuration_is_one_client(make: Make) -> None:
    text = """
        models:
          a: {model: 'demo:rules', params: {latency: '${WAIT}'}}
          b: {model: 'demo:rules', params: {latency: '1s'}}
    """
    parts = make({"agents.yaml": text}, {"WAIT": "1s"})
    assert parts.model("a") is parts.model("b")
    assert isinstance(parts.model("a"), DemoRules)


def test_a_changed_value_of_the_environment_is_another_client(make: Make) -> None:
    parts = make({"agents.yaml": "models: {a: {model: 'demo:rules', params: {latency: '${WAIT}'}}}"}, {"WAIT": "1s"})
    pool = ModelPool()
    (first,), (changed,), (again,) = (
        model_chain("a", parts.project, {"WAIT": wait}, pool) for wait in ("1s", "2s", "1s")
    )
    assert changed.client is not first.client
    assert again.client is first.client


def test_the_name_itself_may_come_from_the_environment(make: Make) -> None:
    parts = make({"agents.yaml": MODELS})
    assert parts.model("${M:-demo}") is parts.model("demo")
    assert isinstance(parts.model("demo:rules"), DemoRules)


def test_a_missing_package_names_the_extra(
    make: Make, fails: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "langchain_openai", None)  # as if it were not installed
    parts = make({"agents.yaml": "models:\n  big: {model: 'openai:gpt-5', params: {api_key: '${K:-none}'}}\n"})
    failure = fails(lambda: parts.model("big"))
    assert failure.codes == ["provider-missing"]
    assert failure.problems[0].hint == "pip install 'changeover[openai]'"
    assert failure.problems[0].line == 2


def test_a_missing_variable_is_named(make: Make, fails: Callable[..., Any]) -> None:
    parts = make({"agents.yaml": "models: {a: {model: 'demo:rules', params: {latency: '${WAIT}'}}}"})
    failure = fails(lambda: parts.model("a"))
    assert failure.codes == ["env-missing"]
    assert "WAIT" in failure.problems[0].message


def test_params_that_are_wrong_are_a_problem_that_quotes_no_value(make: Make, fails: Callable[..., Any]) -> None:
    text = "models: {a: {model: 'demo:rules', params: {latency: 1, api_key: '${K}'}}}"
    parts = make({"agents.yaml": text}, {"K": "s3cr3t"})
    failure = fails(lambda: parts.model("a"))
    assert failure.codes == ["model"]
    assert "s3cr3t" not in failure.problems[0].render()


def test_fallbacks_answer_when_the_first_fails(make: Make) -> None:
    files = {
        "agents.yaml": """
            models:
              broken:
                model: demo:rules
                params: {rules: [{when: '.', call: note}]}
                fallbacks: [spare]
              spare: {model: 'demo:rules'}
        """
    }
    parts = make(files)
    assert [model.rules != [] for model in parts.model_chain("broken")] == [True, False]
    assert parts.model("broken").invoke("hi").text
