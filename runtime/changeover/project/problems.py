"""A problem in a project's files: what is wrong, where, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. `line` and `column` count from 1; 0 means the file as a whole.

    `text` is the source line it points at, `width` how many characters to underline.
    """

    code: str
    message: str
    path: str = ""
    line: int = 0
    column: int = 0
    hint: str = ""
    severity: Severity = "error"
    text: str = ""
    width: int = 1

    @property
    def sort_key(self) -> tuple[str, int, int, str]:
        return (self.path, self.line, self.column, self.code)

    def to_json(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "path": self.path,
            "line": self.line,
            "column": self.column,
            "hint": self.hint,
            "text": self.text,
            "width": self.width,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Problem:
        return cls(**data)

    def render(self) -> str:
        """The problem as a compiler prints it: position, code, message, the line, a marker and the hint."""
        place = ":".join(str(part) for part in (self.path, self.line, self.column) if part)
        head = f"{place or 'project'} {self.severity}[{self.code}] {self.message}"
        if not self.text:
            return f"{head}\n      hint: {self.hint}" if self.hint else head
        number = f"{self.line:>5}"
        marker = " " * max(self.column - 1, 0) + "^" * max(self.width, 1)
        hint = f" {self.hint}" if self.hint else ""
        return f"{head}\n{number} | {self.text}\n{' ' * 5} | {marker}{hint}"
