"""Calls of tools that wait, for an approval or in a queued Send: renamed with their arguments wherever they are kept.

A call that was answered is history and stays as it was said.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, ToolMessage
from langgraph.types import Interrupt, Overwrite, Send

from changeover.migrations.frames import INTERRUPT, SENDS, Frame
from changeover.migrations.reading import NotMovable
from changeover.project.migration_models import FieldParts, ToolParts

DEPTH = 4  # of lists and dicts in which messages are looked for


@dataclass(frozen=True)
class _Renamer:
    parts: ToolParts
    forward: bool

    def name(self, name: str) -> str:
        if self.forward:
            return self.parts.rename.get(name, name)
        return {new: old for old, new in self.parts.rename.items()}.get(name, name)

    def arguments(self, name: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """Of a call of the tool that has this name before the step is done or undone."""
        fields = self.parts.arguments.get(self.name(name) if self.forward else name)
        if fields is None:
            return dict(args)
        return _forward(fields, args) if self.forward else _backward(fields, name, args)

    def call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        return {**call, "name": self.name(call["name"]), "args": self.arguments(call["name"], call.get("args") or {})}


def rename_tool_calls(root: Frame, parts: ToolParts, *, forward: bool) -> None:
    """Do what a step says of tools to all calls that wait in the frames."""
    if not (parts.rename or parts.arguments):
        return
    renamer = _Renamer(parts, forward)
    for frame in root.walk():
        for name, value in frame.values.items():
            changed = _said(value, renamer)
            if changed is not value:
                frame.values[name] = changed
                frame.touched.add(name)
        if frame.sends():
            frame.values[SENDS] = [_send(send, renamer) for send in frame.sends()]
        for task in frame.tasks:
            task.writes = [(channel, _written(channel, value, renamer)) for channel, value in task.writes]
            for call in task.calls:
                call.writes = [(channel, _written(channel, value, renamer)) for channel, value in call.writes]
        frame.loose = [(channel, _written(channel, value, renamer)) for channel, value in frame.loose]


def _forward(fields: FieldParts, args: Mapping[str, Any]) -> dict[str, Any]:
    kept = {fields.rename.get(name, name): value for name, value in args.items() if name not in fields.drop}
    return {**copy.deepcopy(fields.set), **kept}


def _backward(fields: FieldParts, tool: str, args: Mapping[str, Any]) -> dict[str, Any]:
    if fields.drop:
        raise NotMovable(
            f"a call of '{tool}' waits, and arguments of it were dropped: {', '.join(fields.drop)}",
            code="one-way",
            hint="answer the approval first",
        )
    names = {new: old for old, new in fields.rename.items()}
    return {names.get(name, name): value for name, value in args.items() if name not in fields.set}


def _said(value: Any, renamer: _Renamer, depth: int = 0) -> Any:
    """A value with the calls changed that wait in what a model has said; the same object where there are none."""
    if isinstance(value, AIMessage):
        changed = _messages([value], renamer)
        return changed[0] if changed is not None else value
    if isinstance(value, Overwrite):
        inside = _said(value.value, renamer, depth + 1)
        return value if inside is value.value else Overwrite(inside)
    if depth > DEPTH:
        return value
    if isinstance(value, (list, tuple)):
        if any(isinstance(message, (AIMessage, ToolMessage)) for message in value):
            messages = _messages(value, renamer)
            return value if messages is None else type(value)(messages)
        parts = [_said(part, renamer, depth + 1) for part in value]
        return value if all(new is old for new, old in zip(parts, value, strict=True)) else type(value)(parts)
    if isinstance(value, dict):
        named = {name: _said(part, renamer, depth + 1) for name, part in value.items()}
        return value if all(named[name] is value[name] for name in value) else named
    return value


def _messages(messages: Sequence[Any], renamer: _Renamer) -> list[Any] | None:
    """The messages with the calls changed that nobody has answered; None if there are none."""
    answered = {message.tool_call_id for message in messages if isinstance(message, ToolMessage)}
    changed = [_message(message, answered, renamer) for message in messages]
    return changed if any(new is not old for new, old in zip(changed, messages, strict=True)) else None


def _message(message: Any, answered: set[str], renamer: _Renamer) -> Any:
    if not isinstance(message, AIMessage) or not message.tool_calls:
        return message
    waiting = {call["id"] for call in message.tool_calls if call["id"] not in answered}
    calls = [renamer.call(call) if call["id"] in waiting else call for call in message.tool_calls]
    if calls == message.tool_calls:
        return message
    by_id = {call["id"]: call for call in calls}
    return message.model_copy(
        update={
            "tool_calls": calls,
            "content": _content(message.content, by_id, waiting),
            "additional_kwargs": _additional(message.additional_kwargs, by_id, waiting),
        }
    )


def _content(content: Any, by_id: Mapping[Any, Any], waiting: set[Any]) -> Any:
    """Providers that say calls in the content too are shown what the call is now."""
    if not isinstance(content, list):
        return content
    return [_block(block, by_id, waiting) for block in content]


def _block(block: Any, by_id: Mapping[Any, Any], waiting: set[Any]) -> Any:
    if not isinstance(block, dict) or block.get("id") not in waiting:
        return block
    call = by_id[block["id"]]
    if block.get("type") == "tool_use":
        return {**block, "name": call["name"], "input": call["args"]}
    return {**block, "name": call["name"], "args": call["args"]} if block.get("type") == "tool_call" else block


def _additional(additional: Mapping[str, Any], by_id: Mapping[Any, Any], waiting: set[Any]) -> dict[str, Any]:
    """Raw calls, which langchain reads no more where a message has parsed ones: those that changed are left out."""
    raw = additional.get("tool_calls")
    if not isinstance(raw, list):
        return dict(additional)
    kept = [call for call in raw if not (isinstance(call, dict) and call.get("id") in waiting)]
    rest = {name: value for name, value in additional.items() if name != "tool_calls"}
    return {**rest, "tool_calls": kept} if kept else rest


def _send(send: Any, renamer: _Renamer) -> Any:
    return Send(send.node, _argument(send.arg, renamer), timeout=send.timeout) if isinstance(send, Send) else send


def _argument(argument: Any, renamer: _Renamer) -> Any:
    """What a tools node is sent: calls, or one call with the state around it."""
    if isinstance(argument, list) and argument and all(_is_call(call) for call in argument):
        return [renamer.call(call) for call in argument]
    if isinstance(argument, dict) and argument.get("__type") == "tool_call_with_context":
        argument = {**argument, "tool_call": renamer.call(argument["tool_call"])}
    return _said(argument, renamer)


def _is_call(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") == "tool_call" and "name" in value


def _written(channel: str, value: Any, renamer: _Renamer) -> Any:
    if channel == SENDS:
        return _send(value, renamer)
    if channel != INTERRUPT:
        return _said(value, renamer)
    return _each(value, lambda one: _question(one, renamer))


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    return type(value)(map(change, value)) if isinstance(value, (list, tuple)) else change(value)


def _question(question: Any, renamer: _Renamer) -> Any:
    """An approval as it is shown to who is asked."""
    if not isinstance(question, Interrupt) or not isinstance(question.value, dict):
        return question
    value = question.value
    if isinstance(value.get("action_requests"), list):
        shown = {
            **value,
            "action_requests": [_request(request, renamer) for request in value["action_requests"]],
            "review_configs": [
                {**config, "action_name": renamer.name(config.get("action_name", ""))}
                for config in value.get("review_configs", [])
            ],
        }
    elif value.get("type") == "tool_approval":
        shown = _request(value, renamer)
    else:
        return question
    if shown == value:
        return question
    return Interrupt(shown, question.id, response_schema=None)  # the old one speaks of the old arguments


def _request(request: Any, renamer: _Renamer) -> Any:
    """A request for approval; in the words that langchain makes for it the call is said once more."""
    called = renamer.call(request)
    description = request.get("description")
    if isinstance(description, str):
        called["description"] = description.replace(_told(request), _told(called))
    return called


def _told(request: Any) -> str:
    return f"Tool: {request['name']}\nArgs: {request.get('args')}"
