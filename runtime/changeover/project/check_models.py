"""Rules of the `models` of agents.yaml: what they name, what they fall back to, and the parameters of `demo:rules`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from changeover.project.demo import DemoRule, latency_s
from changeover.project.environment import MissingVariable, resolve
from changeover.project.findings import Findings, chain, cycles
from changeover.project.models import ModelSpec
from changeover.project.providers import DEMO_MODEL
from changeover.project.validate import shown, suggestion

OWN_PARAMS = {
    "configurable_fields": "a model of a version does not change while it runs",
    "config_prefix": "a model of a version does not change while it runs",
    "rate_limiter": "write 'rate_limit: {requests_per_second: 2}' beside 'params'",
    "model": "write it beside 'params'",
}
"""What `init_chat_model` takes and `params` does not."""


def check_models(findings: Findings) -> None:
    for name, model in findings.project.models.items():
        what = f"model '{shown(name)}'"
        _model(findings, what, name, model)
        for index, other in enumerate(model.fallbacks):
            message = f"{what}: fallback '{shown(other)}' is not in models"
            findings.known("unknown-model", message, other, findings.project.models, "models", name, "fallbacks", index)
    fallbacks = {name: list(model.fallbacks) for name, model in findings.project.models.items()}
    for circle in cycles(fallbacks):
        index = fallbacks[circle[-1]].index(circle[0])
        message = f"models fall back in a circle: {chain(circle)}"
        findings.add("cycle", message, "models", circle[-1], "fallbacks", index, hint="leave one fallback out")


def _model(findings: Findings, what: str, name: str, model: ModelSpec) -> None:
    for key in OWN_PARAMS.keys() & model.params.keys():
        message, place = f"{what}: params takes no '{key}'", ("models", name, "params", key)
        findings.add("unknown-key", message, *place, on_key=True, hint=OWN_PARAMS[key])
    try:
        params = resolve(model.params, findings.env)
        if findings.provider_string(what, model.model, params, "models", name, "model") == DEMO_MODEL:
            _DemoParams.model_validate({key: value for key, value in params.items() if key not in OWN_PARAMS})
    except MissingVariable:
        return  # reported as env-missing
    except ValidationError as error:
        for each in error.errors(include_url=False, include_input=False):
            if each["type"] == "extra_forbidden" and len(each["loc"]) == 1 and _any_model_takes(each["loc"][0]):
                continue
            _demo_param(findings, what, name, each["type"], each["loc"], each["msg"])


def _demo_param(findings: Findings, what: str, name: str, kind: str, steps: tuple[int | str, ...], text: str) -> None:
    key = ".".join(str(step) for step in steps)
    known = DemoRule.model_fields if len(steps) > 1 else _DemoParams.model_fields
    unknown = kind == "extra_forbidden"
    hint = suggestion(steps[-1], known) if unknown else ""
    message = f"{what}: {DEMO_MODEL} takes no '{shown(key)}'" if unknown else f"{what}: '{key}': {text}"
    findings.add("model", message, "models", name, "params", *steps, on_key=unknown, hint=hint)


def _any_model_takes(key: int | str) -> bool:
    from langchain_core.language_models.chat_models import BaseChatModel

    return key in BaseChatModel.model_fields


class _DemoParams(BaseModel):
    """What `demo:rules` takes, in the words of its `params`."""

    model_config = ConfigDict(extra="forbid")

    rules: list[DemoRule] = Field(default_factory=list)
    latency: Any = 0
    chunk: int | None = Field(default=None, ge=1)

    @field_validator("latency")
    @classmethod
    def _is_duration(cls, value: Any) -> Any:
        return latency_s(value)
