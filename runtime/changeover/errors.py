"""Every error a caller can meet, branched by who must act.

```
ChangeoverError
├── ProjectError        the author of the project: files, lines, fixes           422  exit 1
├── InvalidRequest      the caller: the request itself is wrong                   422  exit 2
├── NotFound            the caller: no such version, graph, thread, run           404  exit 4
├── Conflict            the caller: the world changed, or forbids it; look again  409  exit 5
├── PreconditionFailed  the caller: `If-Match` no longer holds                    412  exit 5
├── TimedOut            wait: the work goes on, ask again                         504  exit 7
├── Unavailable         wait: starting, stopping, or nothing is current yet       503  exit 3
└── OperatorError       the operator: port, database, disk, settings              500  exit 2
```

Each error has a stable `code` (a word clients may branch on), a message that says what is wrong and
where, and a `hint` that says what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from changeover.project.problems import Problem


class ChangeoverError(Exception):
    """Base of all errors that changeover raises on purpose."""

    http_status: ClassVar[int] = 500
    exit_status: ClassVar[int] = 1
    default_code: ClassVar[str] = "error"

    def __init__(self, message: str, *, code: str | None = None, hint: str | None = None, **extra: Any) -> None:
        super().__init__(message)
        self.code = code or self.default_code
        self.message = message
        self.hint = hint
        self.extra = extra  # members added to the problem document, JSON values only


class ProjectError(ChangeoverError):
    """The project's files have problems; all of them are in `problems`, in file order."""

    http_status = 422
    exit_status = 1
    default_code = "project-problems"

    def __init__(self, problems: Sequence[Problem], *, version: str | None = None) -> None:
        errors = sum(problem.severity == "error" for problem in problems)
        summary = f"the project has {errors} problem{'' if errors == 1 else 's'}"
        lines = "\n".join(problem.render() for problem in problems)
        super().__init__(f"{summary}\n{lines}", hint="fix the files named above and save again")
        self.problems = tuple(problems)
        self.version = version  # id of the rejected version, where one was recorded


class InvalidRequest(ChangeoverError):
    http_status = 422
    exit_status = 2
    default_code = "invalid-request"


class NotFound(ChangeoverError):
    http_status = 404
    exit_status = 4
    default_code = "not-found"


class Conflict(ChangeoverError):
    http_status = 409
    exit_status = 5
    default_code = "conflict"


class RunLost(Conflict):
    """The run was ended or taken over by somebody else: who executed it must write nothing more."""

    default_code = "run-lost"


class PreconditionFailed(ChangeoverError):
    http_status = 412
    exit_status = 5
    default_code = "precondition-failed"


class TimedOut(ChangeoverError):
    http_status = 504
    exit_status = 7
    default_code = "timed-out"


class Unavailable(ChangeoverError):
    http_status = 503
    exit_status = 3
    default_code = "unavailable"


class OperatorError(ChangeoverError):
    http_status = 500
    exit_status = 2
    default_code = "operator"
