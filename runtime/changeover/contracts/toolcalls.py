"""Tools and their arguments, compared for the calls that wait: approved once, executed by the new version."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from changeover.contracts.comparison import Comparison
from changeover.contracts.differences import Difference, Severity, Touches
from changeover.contracts.flat import Json, below
from changeover.contracts.likeness import most_alike
from changeover.contracts.widening import schema_fits


def tools_differ(comparison: Comparison) -> Iterator[Difference]:
    for level in comparison.old.levels:
        old = comparison.old.tools_of(level)
        target = comparison.level(level)
        if old and target is not None and comparison.has_level(level):
            new = comparison.new.tools_of(target)
            if old != new or comparison.names.steps:
                for name, schema in old.items():
                    yield from _tool(comparison, level, name, schema or {}, new)


def _tool(comparison: Comparison, level: str, name: str, schema: Json, new: Json) -> Iterator[Difference]:
    target = comparison.names.tool(name) or name
    where = below(level, name)
    if target not in new:
        yield _gone(comparison, level, name, target, new)
        return
    if target != name:
        yield Difference(
            "tool-renamed",
            where,
            "migrates",
            f"tool '{name}' is '{target}' now",
            touches=Touches("tool", level, tool=name),
        )
    yield from _Arguments(comparison, level, name, target, schema, new[target] or {}).differ()


def _gone(comparison: Comparison, level: str, name: str, target: str, new: Json) -> Difference:
    touches = Touches("tool", level, tool=name)
    where = below(level, name)
    if target != name:
        reason = f"a step makes tool '{name}' into '{target}', which the graph does not have"
        return Difference("tool-missing", where, "breaks", reason, "correct the step", None, touches, False)
    free = [each for each in new if each not in comparison.old.tools_of(level)]
    became = most_alike(name, free, fitting=free if len(free) == 1 else ())
    reason = f"tool '{name}' is gone; a call of it that waits for approval would not be executed"
    if became is None:
        hint = "let the call be answered first"
        return Difference("tool-removed", where, "breaks", reason, hint, None, touches, False)
    hint = f"write a step: tools.rename {{{name}: {became}}}"
    return Difference(
        "tool-removed", where, "breaks", reason, hint, {"tools": {"rename": {name: became}}}, touches, False
    )


@dataclass(frozen=True)
class _Arguments:
    """The arguments of one tool, on both sides."""

    comparison: Comparison
    level: str
    name: str
    target: str
    old: Json
    new: Json

    def differ(self) -> Iterator[Difference]:
        mine, theirs = self._properties(self.old), self._properties(self.new)
        if not self.new or (mine == theirs and self._required(self.old) == self._required(self.new)):
            return  # without a schema the tool takes what it gets
        for argument, schema in mine.items():
            yield from self._kept(argument, schema, theirs)
        given = self.comparison.names.arguments(self.name, mine)
        became = {self.comparison.names.argument(self.name, each) for each in mine}
        for argument, schema in theirs.items():
            if argument in became and argument in mine:
                yield from self._default(argument, mine[argument], schema)
            elif argument not in became:
                yield self._added(argument, schema, argument in given)

    def _kept(self, argument: str, schema: Json, theirs: Json) -> Iterator[Difference]:
        target = self.comparison.names.argument(self.name, argument)
        if target is None:
            yield self._difference("argument-dropped", argument, "migrates", "is dropped by a step")
        elif target not in theirs:
            if self.new.get("additionalProperties") in (None, False) or target != argument:
                yield self._removed(argument, target, theirs)
        elif not schema_fits(schema, theirs[target]):
            hint = "let the call be answered first"
            yield self._difference("argument-retyped", argument, "breaks", "takes other values now", hint)
        elif target != argument:
            yield self._difference("argument-renamed", argument, "migrates", f"is '{target}' now")

    def _removed(self, argument: str, target: str, theirs: Json) -> Difference:
        if target != argument:
            what = f"becomes '{target}' by a step, which the tool does not have"
            return self._difference("argument-missing", argument, "breaks", what, "correct the step")
        free = [each for each in theirs if each not in self._properties(self.old)]
        became = most_alike(argument, free, fitting=free if len(free) == 1 else ())
        said = {"rename": {argument: became}} if became is not None else {"drop": [argument]}
        words = f"rename: {{{argument}: {became}}}" if became is not None else f"drop: [{argument}]"
        hint = f"write a step: tools.arguments {{{self.target}: {{{words}}}}}"
        what = "is gone; the call that was approved would be executed without it"
        suggestion = {"tools": {"arguments": {self.target: said}}}
        return self._difference("argument-removed", argument, "breaks", what, hint, suggestion)

    def _added(self, argument: str, schema: Json, is_given: bool) -> Difference:
        if is_given:
            return self._difference("argument-added", argument, "migrates", "is new and set by a step", present=False)
        hint = f"write a step: tools.arguments {{{self.target}: {{set: {{{argument}: <value>}}}}}}"
        if argument in self._required(self.new):
            what = "is new and must be given; a call that waits does not have it"
        else:
            what = (
                f"is new; a call that waits would be executed with {argument}={schema.get('default')!r}, not approved"
            )
        suggestion = {"tools": {"arguments": {self.target: {"set": {argument: schema.get("default")}}}}}
        return self._difference("argument-added", argument, "breaks", what, hint, suggestion, present=False)

    def _default(self, argument: str, old: Json, new: Json) -> Iterator[Difference]:
        """A call without an argument was approved with its old default."""
        is_required = argument in self._required(self.new)
        if argument in self._required(self.old) or (not is_required and old.get("default") == new.get("default")):
            return
        hint = f"write a step: tools.arguments {{{self.target}: {{set: {{{argument}: {old.get('default')!r}}}}}}}"
        suggestion = {"tools": {"arguments": {self.target: {"set": {argument: old.get("default")}}}}}
        given = self.comparison.names.arguments(self.name, ())
        if argument in given:
            yield self._difference("argument-default", argument, "migrates", "is set by a step", present=False)
        else:
            what = f"was {old.get('default')!r} where a call does not give it, and is not any more"
            yield self._difference("argument-default", argument, "breaks", what, hint, suggestion, present=False)

    def _difference(
        self,
        what: str,
        argument: str,
        grade: Severity,
        words: str,
        hint: str | None = None,
        suggestion: dict[str, Any] | None = None,
        *,
        present: bool = True,
    ) -> Difference:
        touches = Touches("tool", self.level, tool=self.name, argument=argument, with_argument=present)
        reason = f"argument '{argument}' of tool '{self.name}' {words}"
        where = f"{below(self.level, self.name)}.{argument}"
        return Difference(what, where, grade, reason, hint, suggestion, touches, False)

    @staticmethod
    def _properties(schema: Json) -> Json:
        found: Json = schema.get("properties") or {}
        return found

    @staticmethod
    def _required(schema: Json) -> list[str]:
        return sorted(schema.get("required") or [])
