"""JSON answers."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from changeover.runs.encoding import dumps, interrupt_json, plain

__all__ = ["JSON", "dumps", "interrupt_json", "plain"]


class JSON(Response):
    """A JSON answer, in the shapes that LangGraph's clients expect."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return dumps(content)
