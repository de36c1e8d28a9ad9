"""From plain data to the models, with problems in words a person understands.

Owns the translation of pydantic's errors: code, position and hint. What can be kept of a wrong entry is kept, so that
everything else that is wrong is found in the same pass; the result is only ever built when there are no errors.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from changeover.project import migration_models, models
from changeover.project.document import Document
from changeover.project.problems import Problem

M = TypeVar("M", bound=BaseModel)
Path = tuple[str | int, ...]

MAX_ERRORS = 50  # of one entry
_PLACEHOLDERS: dict[str, Any] = {
    "model": "",
    "url": "",
    "command": "_",
    "text": "",
    "transport": "stdio",
    "from_": [],
    "graph": "",
    "class_": "_:_",
    "state": {},
    "nodes": {},
    "edges": [],
}
_NESTED: dict[tuple[str, str], type[BaseModel]] = {
    ("AgentSpec", "prompt"): models.InlinePrompt,
    ("ModelSpec", "rate_limit"): models.RateLimit,
    ("ToolSpec", "http"): models.HttpCall,
    ("PromptHead", "variables"): models.PromptVariable,
    ("ChangeoverFile", "plugins"): models.PluginSpec,
    ("ChangeoverFile", "alerts"): models.AlertSpec,
    ("PluginSpec", "health"): models.HealthSpec,
    **{
        (model, section): parts
        for model in ("MigrationFile", "MigrationArguments")
        for section, parts in migration_models.SECTIONS.items()
    },
}
_WORDS = {
    "string_type": "text",
    "string_sub_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "int_parsing": "a whole number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "list_type": "a list",
    "none_required": "nothing",
}
_BOUNDS = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}


def read_model(model: type[M], document: Document, path: Path, data: Any, what: str) -> tuple[M, list[Problem]]:
    """`data` as a model. Keys with problems are left out of it, required ones that are missing are empty."""
    if data is None:
        data = {}
    try:
        return model.model_validate(data), []
    except ValidationError as error:
        problems = _problems(model, document, path, data, what, error)
        return _salvaged(model, data, error), problems


def suggestion(wrong: object, known: Iterable[str]) -> str:
    """`did you mean ...?`, or the names there are."""
    names = sorted(set(known))
    close = difflib.get_close_matches(str(wrong), names[:2000], n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"there are: {', '.join(names[:12])}" if 0 < len(names) <= 12 else ""


def keys_of(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _salvaged(model: type[M], data: Any, error: ValidationError) -> M:
    wrong = {str(each["loc"][0]) for each in error.errors(include_url=False, include_input=False) if each["loc"]}
    kept = {key: value for key, value in data.items() if key not in wrong} if isinstance(data, dict) else {}
    fields = {field.alias or name: (name, field) for name, field in model.model_fields.items()}
    missing = {key: _PLACEHOLDERS.get(name) for key, (name, field) in fields.items() if field.is_required()}
    try:
        return model.model_validate({**missing, **kept})
    except ValidationError:
        return model.model_validate(missing)


def _problems(
    model: type[BaseModel], document: Document, path: Path, data: Any, what: str, error: ValidationError
) -> list[Problem]:
    grouped: dict[Path, list[Any]] = {}
    for each in error.errors(include_url=False)[:MAX_ERRORS]:
        grouped.setdefault(_data_path(each["loc"], data, each["type"]), []).append(each)
    problems = []
    for place, errors in grouped.items():
        if _explained_deeper(place, errors, grouped, data):
            continue
        problems.append(_problem(model, document, path, place, errors, what))
    return problems


def _data_path(loc: Sequence[Any], data: Any, kind: str) -> Path:
    """The part of pydantic's location that exists in the data; names of union members are dropped."""
    path: list[str | int] = []
    for index, step in enumerate(loc):
        if _has(data, step):
            data = data[step]
        elif kind != "missing" or index < len(loc) - 1:
            continue
        path.append(step)
    return tuple(path)


def _has(data: Any, step: Any) -> bool:
    """Whether one step leads on into plain data."""
    if isinstance(data, list):
        return isinstance(step, int) and step < len(data)
    return isinstance(data, dict) and step in data


def _explained_deeper(place: Path, errors: list[Any], grouped: dict[Path, list[Any]], data: Any) -> bool:
    """Whether these are the other members of a union whose fitting member says precisely what is wrong."""
    for step in place:
        data = data[step] if _has(data, step) else None
    if not isinstance(data, dict | list) or not all(each["type"].endswith(("_type", "_required")) for each in errors):
        return False
    return any(len(other) > len(place) and other[: len(place)] == place for other in grouped)


def _problem(
    model: type[BaseModel], document: Document, base: Path, place: Path, errors: list[Any], what: str
) -> Problem:
    path = (*base, *place)
    first = errors[0]
    where = f"{what}: " if what else ""
    name = ".".join(str(step) for step in place)
    if first["type"] == "extra_forbidden":
        known = _known_keys(model, place)
        hint = suggestion(place[-1], known)
        return document.problem(
            "unknown-key", f"{where}'{shown(place[-1])}' is not a key here", *path, on_key=True, hint=hint
        )
    if first["type"] == "missing":
        return document.problem("missing-key", f"{where}'{name}' is missing", *path[:-1], on_key=True, hint="add it")
    if "[key]" in first["loc"]:
        return document.problem(
            "bad-name", f"{where}'{shown(path[-1])}' is not a name", *path, on_key=True, hint=NAMING
        )
    code, text, hint = _wrong_value(errors)
    return document.problem(code, f"{where}'{name}' {text}" if name else f"{where}{text}", *path, hint=hint)


NAMING = "a name has letters, digits, '_' and '-' and starts with a letter or '_'"


def _wrong_value(errors: list[Any]) -> tuple[str, str, str]:
    value = errors[0]["input"]
    for each in errors:
        kind, context = each["type"], each.get("ctx", {})
        if kind == "string_pattern_mismatch":
            if ":" in context.get("pattern", ""):
                return (
                    "wrong-type",
                    f"should be 'module:attribute', not '{shown(value)}'",
                    "such as graphs.nodes:triage",
                )
            return "bad-name", f"'{shown(value)}' is not a name", NAMING
        if kind in ("literal_error", "enum"):
            known = re.findall(r"'([^']*)'", str(context.get("expected", "")))
            return "wrong-type", f"should be one of {', '.join(known)}, not '{shown(value)}'", suggestion(value, known)
        if kind == "string_too_short" and not value:
            return "wrong-type", "should not be empty", ""
    expected = list(dict.fromkeys(_expected(each) for each in errors))
    if "a number" in expected:
        expected = [each for each in expected if each != "a whole number"]
    return "wrong-type", f"should be {' or '.join(expected)}, not {_described(value)}", ""


def _expected(error: Any) -> str:
    context = error.get("ctx", {})
    for kind, words in _BOUNDS.items():
        if kind in context and error["type"].startswith(("greater", "less")):
            return f"{words} {context[kind]:g}"
    return _WORDS.get(error["type"], str(error["msg"]).removeprefix("Input should be ").removeprefix("Value error, "))


def _described(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {shown(value)}"
        case str():
            return "text"
        case list():
            return "a list"
        case _:
            return "a mapping"


def _known_keys(model: type[BaseModel], place: Path) -> list[str]:
    nested = _NESTED.get((model.__name__, str(place[0]))) if len(place) > 1 else None
    return keys_of(nested or model)
