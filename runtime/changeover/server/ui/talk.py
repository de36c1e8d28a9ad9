"""Between forms and runs: the fields of an input, what a form gives, what a thread says. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["message", "text", "number", "truth", "choice", "json"]

FIELDS_LIMIT = 30
MESSAGES_SHOWN = 100  # the last of a thread; its own page has all
KINDS: dict[str, Kind] = {"string": "text", "integer": "number", "number": "number", "boolean": "truth"}
ROLES = {"human": "You", "ai": "Agent", "AIMessageChunk": "Agent", "tool": "Tool", "system": "System"}


class Unreadable(ValueError):
    """What was typed into a field is not what it asks for; says which field, and what is wrong."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the form of an input. `input_name` says its kind too: a form is read without its schema."""

    name: str
    kind: Kind
    title: str
    description: str = ""
    choices: tuple[str, ...] = ()

    @property
    def input_name(self) -> str:
        return f"{self.kind}:{self.name}"


def fields(schema: Mapping[str, Any]) -> list[Field]:
    """One for each property of an input, those that can be typed simply first; none where it is no plain object."""
    properties = schema.get("properties")
    if not isinstance(properties, dict) or len(properties) > FIELDS_LIMIT:
        return []
    found = [_field(name, told, schema) for name, told in properties.items() if isinstance(told, dict)]
    return sorted(found, key=lambda field: (field.kind != "message", field.kind == "json"))


def input_of(form: Mapping[str, str]) -> Any:
    """The input that a form of fields gives, or that of its field `input` where somebody wrote JSON. Empty fields give
    nothing. Raises `Unreadable`.
    """
    if form.get("input", "").strip():
        return parsed("input", form["input"])
    given: dict[str, Any] = {}
    for key, typed in form.items():
        kind, colon, name = key.partition(":")
        if colon and typed.strip():
            given[name] = _value(name, kind, typed)
    if not given:
        raise Unreadable("there is nothing to send: write a message, or fill in a field")
    return given


def resume_of(form: Mapping[str, str]) -> Any:
    """The answer to an interrupt that a form gives. Raises `Unreadable`."""
    if "decisions" not in form:
        return parsed("answer", form.get("answer", "")) if form.get("as") == "json" else form.get("answer", "")
    try:
        count = min(int(form["decisions"]), 1_000)
    except ValueError:
        raise Unreadable("decisions: it is no number") from None
    return {"decisions": [_decision(form, place) for place in range(count)]}


def decisions_of(value: Any) -> list[dict[str, Any]]:
    """The tool calls that a person is asked about, each with what may be decided; none of any other question."""
    if not isinstance(value, dict) or not isinstance(value.get("action_requests"), list):
        return []
    configs = value.get("review_configs")
    allowed = {
        config.get("action_name"): config.get("allowed_decisions")
        for config in (configs if isinstance(configs, list) else [])
        if isinstance(config, dict)
    }
    return [
        {
            "name": str(action.get("name", "")),
            "args": action.get("args"),
            "description": str(action.get("description") or ""),
            "allowed": allowed.get(action.get("name")) or ["approve", "reject"],
        }
        for action in value["action_requests"]
        if isinstance(action, dict)
    ]


def said(values: Any) -> tuple[list[dict[str, Any]], Any]:
    """The messages of a thread's values, to be shown, and its other values."""
    if not isinstance(values, dict) or not isinstance(values.get("messages"), list):
        return [], values
    shown = [_message(message) for message in values["messages"][-MESSAGES_SHOWN:]]
    return shown, {name: value for name, value in values.items() if name != "messages"}


def parsed(name: str, typed: str) -> Any:
    try:
        return json.loads(typed)
    except ValueError as error:
        raise Unreadable(f"{name}: it is not JSON: {error}") from None
    except RecursionError:
        raise Unreadable(f"{name}: it is nested too deeply") from None


def _field(name: str, told: Mapping[str, Any], schema: Mapping[str, Any]) -> Field:
    title, description = str(told.get("title") or name), str(told.get("description") or "")
    if name == "messages" and told.get("type") == "array":
        return Field(name, "message", "Message", description)
    plain = _without_null(_resolved(told, schema))
    choices = plain.get("enum")
    if isinstance(choices, list) and all(isinstance(choice, str) for choice in choices):
        return Field(name, "choice", title, description, tuple(choices))
    return Field(name, KINDS.get(str(plain.get("type")), "json"), title, description)


def _resolved(told: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = str(told.get("$ref", ""))
    found = schema.get("$defs", {}).get(reference.removeprefix("#/$defs/")) if reference else None
    return found if isinstance(found, dict) else told


def _without_null(told: Mapping[str, Any]) -> Mapping[str, Any]:
    """`T` of `T | None`."""
    options = told.get("anyOf")
    if not isinstance(options, list):
        return told
    others = [option for option in options if isinstance(option, dict) and option.get("type") != "null"]
    return others[0] if len(others) == 1 else {}


def _value(name: str, kind: str, typed: str) -> Any:
    if kind == "message":
        return [{"role": "user", "content": typed}]
    if kind in ("number", "truth", "json"):
        return parsed(name, typed)
    return typed


def _decision(form: Mapping[str, str], place: int) -> dict[str, Any]:
    kind, note = form.get(f"decision:{place}", "reject"), form.get(f"note:{place}", "")
    if kind == "edit":
        action = {"name": form.get(f"name:{place}", ""), "args": parsed("arguments", form.get(f"args:{place}", ""))}
        return {"type": "edit", "edited_action": action}
    return {"type": kind, **({"message": note} if note and kind != "approve" else {})}


def _message(message: Any) -> dict[str, Any]:
    if not isinstance(message, dict):
        return {"role": "", "type": "other", "name": "", "text": message, "calls": [], "status": ""}
    kind = str(message.get("type") or message.get("role") or "")
    calls = message.get("tool_calls")
    return {
        "role": ROLES.get(kind, kind),
        "type": kind if kind in ROLES else "other",
        "name": str(message.get("name") or ""),
        "text": _text(message.get("content")),
        "calls": [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else [],
        "status": str(message.get("status") or ""),
    }


def _text(content: Any) -> Any:
    """What a message says: the text of its blocks where it has several, and all else as it is."""
    if not isinstance(content, Sequence) or isinstance(content, str):
        return content or ""
    is_text = all(
        isinstance(block, str) or (isinstance(block, dict) and block.get("type") == "text") for block in content
    )
    if not is_text:
        return list(content)
    return "".join(block if isinstance(block, str) else str(block.get("text", "")) for block in content)
