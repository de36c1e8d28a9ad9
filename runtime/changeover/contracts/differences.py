"""One difference between two contracts, how bad it is, and which threads it concerns. Data alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["safe", "migrates", "breaks"]
Scope = Literal["always", "never", "task", "inside", "sources", "finished", "within", "question", "tool", "calls"]


@dataclass(frozen=True)
class Touches:
    """Which threads a difference concerns. Paths are those of the older contract.

    `always`: whatever the thread does. `never`: no thread. `task`: a task waits, or has finished, in the node at
    `path`. `inside`: something waits in the graph that runs in the node at `path` (the empty path: in the graph
    itself). `sources`: the `join` of that graph has gathered something, or one of its `sources` has finished, or waits
    without all of the `nodes` that the newer join waits for. `finished`: the node at `path` has finished beside others
    that wait, and the `nodes` are still there that its edges no longer lead to. `within`: a task of the node at `path`
    has not finished. `question`: the node at `path` has
    asked more than `after` questions. `tool`: a call of `tool` waits in the graph at `path`, and has the `argument` or
    (`with_argument` false) does not have it. `calls`: a functional graph is under way; up to `after` entries of its
    source are the same.
    """

    scope: Scope
    path: str = ""
    after: int = 0
    tool: str = ""
    argument: str | None = None
    with_argument: bool = True
    join: str = ""
    sources: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()

    def __str__(self) -> str:
        inside = f"threads that wait inside of '{self.path}'" if self.path else "threads that wait"
        words: dict[Scope, str] = {
            "always": "every thread",
            "never": "no thread",
            "task": f"threads that wait in '{self.path}'",
            "inside": inside,
            "sources": f"threads that wait in the middle of {', '.join(self.sources)}",
            "finished": f"threads in which '{self.path}' has finished beside others that wait",
            "within": f"threads that wait in '{self.path}'",
            "question": f"threads that '{self.path}' has asked a question",
            "tool": f"threads in which a call of '{self.tool}' waits",
            "calls": inside,
        }
        return words[self.scope]


ALWAYS = Touches("always")
NEVER = Touches("never")


@dataclass(frozen=True)
class Difference:
    """`what` is a word such as `key-removed`, `where` a path such as `support/draft`, `suggestion` parts of a step.

    `rewrites`: saved state must be appended anew before the new version goes on with it, even where no step is needed.
    """

    what: str
    where: str
    grade: Severity
    reason: str
    hint: str | None = None
    suggestion: dict[str, Any] | None = None
    touches: Touches = NEVER
    rewrites: bool = True

    def to_json(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "where": self.where,
            "grade": self.grade,
            "reason": self.reason,
            "hint": self.hint,
            "suggestion": self.suggestion,
            "touches": str(self.touches),
        }
