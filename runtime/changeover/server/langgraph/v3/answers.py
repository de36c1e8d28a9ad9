"""Answers to commands: success, or an error in the protocol's words."""

from __future__ import annotations

from typing import Any

from changeover.errors import ChangeoverError, Conflict, InvalidRequest, NotFound

CODES = {
    "unsupported": "not_supported",
    "unknown-checkpoint": "no_such_checkpoint",
    "unknown-run": "no_such_run",
    "unknown-thread": "no_such_run",
    "empty-thread": "no_such_run",
    "already-answered": "no_such_interrupt",
    "nothing-waits": "no_such_interrupt",
    "state-changed": "no_such_interrupt",
}


class Refused(Exception):
    """A command that is not done, with one of the protocol's words for why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def success(id_: int, result: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    return {"type": "success", "id": id_, "result": result, "meta": meta}


def failure(id_: int | None, error: str, message: str, **more: Any) -> dict[str, Any]:
    return {"type": "error", "id": id_, "error": error, "message": message, **more}


def failure_of(id_: int | None, error: ChangeoverError) -> dict[str, Any]:
    """One of our errors; its own code and hint are kept beside the protocol's."""
    more = {"code": error.code, **({"hint": error.hint} if error.hint else {})}
    return failure(id_, _code(error), error.message, **more)


def _code(error: ChangeoverError) -> str:
    if error.code in CODES:
        return CODES[error.code]
    return "invalid_argument" if isinstance(error, InvalidRequest | NotFound | Conflict) else "unknown_error"
