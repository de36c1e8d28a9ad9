"""Questions that wait for a person: what each asks, what may be said to it, and a form's fields as the answer.

Three kinds are known: requests of langchain's `HumanInTheLoopMiddleware` for all calls of a turn (`review`: a decision
on each) and for one call (`approval`: a decision), and everything else (`open`: a text or JSON, with the choices that
the question names). The kind is found anew when the answer comes: no form can say another one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from changeover.server.ui.excerpt import Allowance, Excerpt, pretty

Kind = Literal["review", "approval", "open"]
Fields = Mapping[str, str]

DECISIONS = ("approve", "edit", "reject", "respond")
USUAL = ("approve", "edit", "reject")
ASKS = ("question", "message", "prompt", "text", "description", "instruction", "title")
OPTIONS = ("options", "choices", "enum", "allowed_answers")
CHOICES = 12
EDITED_CHARS = 8_000  # of arguments that are edited in a field; longer ones are edited elsewhere
BY_ID = re.compile(r"[0-9a-f]{32}")  # ids that LangGraph takes an answer for by name
YES_OR_NO = re.compile(
    r"(?is)^\W*(do|does|did|is|are|was|may|shall|should|can|could|will|would|ok|proceed|confirm|approve|allow|continue)\b"
    r".*\?|\b(y/n|yes/no|yes or no)\b|\b(please confirm|confirm|approve|proceed)\s*\?"
)


class Unclear(Exception):
    """A form that is no answer: what is missing."""


class Gone(Exception):
    """What was asked is not asked any more."""


@dataclass(frozen=True, slots=True)
class Choice:
    label: str
    value: Any


@dataclass(frozen=True, slots=True)
class Action:
    """A call of a tool that waits for a decision. `edited` is its arguments to be edited, None if they are too long."""

    name: str
    args: Excerpt
    description: Excerpt | None
    edited: str | None
    allowed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Question:
    id: str
    kind: Kind
    text: Excerpt | None
    value: Excerpt | None
    actions: tuple[Action, ...]
    choices: tuple[Choice, ...]
    schema: Excerpt | None
    wants_json: bool


def question(interrupt: Mapping[str, Any], allowance: Allowance) -> Question:
    """An interrupt as the API tells it, to be shown and answered."""
    value, schema = interrupt.get("value"), interrupt.get("response_schema")
    kind = _kind(value)
    actions = tuple(_action(request, allowed, allowance) for request, allowed in _requests(value, schema, kind))
    text = None if actions else _text(value)
    choices = tuple(_choices(value, schema, text)) if kind == "open" else ()
    told = actions or (text and not _has_more(value, bool(choices)))
    return Question(
        str(interrupt.get("id", "")),
        kind,
        allowance.take(text) if text else None,
        None if told else allowance.take(value),
        actions,
        choices,
        allowance.take(schema) if kind == "open" and schema else None,
        isinstance(schema, Mapping) and schema.get("type") not in (None, "string"),
    )


def questions(waits: Mapping[str, Any] | None, allowance: Allowance) -> list[Question]:
    """All that is asked where a thread waits."""
    return [question(one, allowance) for one in (waits or {}).get("interrupts") or []]


def answer(interrupt: Mapping[str, Any], fields: Fields) -> Any:
    """What the fields of a form say to an interrupt. Raises `Unclear`."""
    value, schema = interrupt.get("value"), interrupt.get("response_schema")
    kind = _kind(value)
    if kind == "open":
        return _free(fields, list(_choices(value, schema, _text(value))))
    decisions = [
        _decision(number, request, allowed, fields)
        for number, (request, allowed) in enumerate(_requests(value, schema, kind))
    ]
    return decisions[0] if kind == "approval" else {"decisions": decisions}


def resume(waits: Mapping[str, Any] | None, id_: str, fields: Fields) -> Any:
    """What a run is resumed with that answers the question of this id. Raises `Gone` and `Unclear`."""
    asked = (waits or {}).get("interrupts") or []
    found = next((one for one in asked if one.get("id") == id_), None)
    if found is None:
        raise Gone
    said = answer(found, fields)
    return {id_: said} if BY_ID.fullmatch(id_) else said


def _kind(value: Any) -> Kind:
    if not isinstance(value, Mapping):
        return "open"
    requests = value.get("action_requests")
    if isinstance(requests, list) and requests and all(isinstance(one, Mapping) and "name" in one for one in requests):
        return "review"
    return "approval" if value.get("type") == "tool_approval" and "name" in value else "open"


def _requests(value: Any, schema: Any, kind: Kind) -> list[tuple[Mapping[str, Any], tuple[str, ...]]]:
    if kind == "open":
        return []
    if kind == "approval":
        return [(value, _allowed_by(schema))]
    configs = value.get("review_configs")
    found = configs if isinstance(configs, list) else []
    return [(request, _allowed(request, found, number)) for number, request in enumerate(value["action_requests"])]


def _allowed(request: Mapping[str, Any], configs: Sequence[Any], number: int) -> tuple[str, ...]:
    """By the name of the action; the one in its place where names are missing."""
    known = [config for config in configs if isinstance(config, Mapping)]
    fitting = [config for config in known if config.get("action_name") == request.get("name")]
    config = (fitting or known[number : number + 1] or [{}])[0]
    given = config.get("allowed_decisions")
    return tuple(word for word in DECISIONS if word in given) if isinstance(given, list) else USUAL


def _allowed_by(schema: Any) -> tuple[str, ...]:
    """The decisions that a schema of answers lets through, wherever in it they are named."""
    if not schema:
        return USUAL
    told = json.dumps(schema, default=str)
    return tuple(word for word in DECISIONS if f'"const": "{word}"' in told) or USUAL


def _action(request: Mapping[str, Any], allowed: tuple[str, ...], allowance: Allowance) -> Action:
    args = request.get("args", request.get("arguments", {}))
    told, name = request.get("description"), str(request["name"])
    description = str(told).partition(f"\n\nTool: {name}\nArgs: ")[0] if told else ""  # which are shown beside it
    edited = pretty(args)
    return Action(
        name,
        allowance.take(args),
        allowance.take(description) if description else None,
        edited if len(edited) <= EDITED_CHARS else None,
        allowed,
    )


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if not isinstance(value, Mapping):
        return None
    key = _asks(value)
    return value[key] if key else None


def _has_more(value: Any, offers: bool) -> bool:
    """Whether a question says anything beside its text and, where they are offered, its choices."""
    return isinstance(value, Mapping) and bool(set(value) - {_asks(value)} - (set(OPTIONS) if offers else set()))


def _asks(value: Mapping[str, Any]) -> str | None:
    """The key that has the text of a question."""
    return next((key for key in ASKS if isinstance(value.get(key), str) and value[key]), None)


def _choices(value: Any, schema: Any, text: str | None) -> list[Choice]:
    if isinstance(schema, Mapping) and schema:
        if schema.get("type") == "boolean":
            return [Choice("Yes", True), Choice("No", False)]
        given = schema.get("enum")
    else:
        given = next((value[key] for key in OPTIONS if key in value), None) if isinstance(value, Mapping) else None
        if given is None and text and YES_OR_NO.search(text):
            return [Choice("Yes", True), Choice("No", False)]
    if not isinstance(given, list) or len(given) > CHOICES:
        return []
    return [Choice(str(one)[:100], one) for one in given if isinstance(one, (str, int, float, bool))]


def _free(fields: Fields, choices: Sequence[Choice]) -> Any:
    if chosen := fields.get("choice"):
        try:
            return choices[int(chosen) if chosen.isdecimal() else -1 - len(choices)].value
        except IndexError:
            raise Unclear("the question has no such choice any more") from None
    text = fields.get("answer", "")
    if fields.get("as") != "json":
        if not text.strip():
            raise Unclear("there is no answer: type one, or choose JSON and type null")
        return text
    return _parsed(text, "the answer")


def _decision(number: int, request: Mapping[str, Any], allowed: Sequence[str], fields: Fields) -> dict[str, Any]:
    name = str(request["name"])
    chosen = fields.get(f"decision_{number}", "")
    if chosen not in allowed:
        raise Unclear(f"there is no decision on {name}" + (f": it may be {', '.join(allowed)}" if allowed else ""))
    if chosen == "approve":
        return {"type": "approve"}
    if chosen == "edit":
        args = _parsed(fields.get(f"args_{number}", ""), f"the arguments of {name}")
        if not isinstance(args, dict):
            raise Unclear(f'the arguments of {name} are no JSON object: {{"name": value}}')
        return {"type": "edit", "edited_action": {"name": name, "args": args}}
    message = fields.get(f"message_{number}", "").strip()
    if chosen == "respond":
        if not message:
            raise Unclear(f"there is no message to answer {name} with")
        return {"type": "respond", "message": message}
    return {"type": "reject", "message": message} if message else {"type": "reject"}


def _parsed(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Unclear(f"{what} cannot be read as JSON: {error}") from None
