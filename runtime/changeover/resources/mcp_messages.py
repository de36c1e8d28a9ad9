"""Messages of an MCP server of bounded size, and what is said in place of one that is too long or cannot be read.

Invariant: of a message that is too long no more than the limit is ever held, and whoever waits for it is told so.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

from mcp import types
from mcp.shared.message import SessionMessage
from pydantic import ValidationError

MAX_MESSAGE_BYTES = 5_000_000
TOO_LONG = f"its answer is longer than {MAX_MESSAGE_BYTES // 1_000_000} MB"
UNREADABLE = "its answer is no message of the protocol"
FAILED = -32_099  # the code of an error that is ours
EDGE_BYTES = 300  # of one that is too long: they say what it answers
_FIRST_ID = re.compile(r'"id"\s*:\s*(\d{1,15})\s*[,}]')
_LAST_ID = re.compile(r',\s*"id"\s*:\s*(\d{1,15})\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$')


@dataclass(frozen=True)
class Line:
    """A message as it came. Of one that is too long the begin and the end are kept."""

    text: str
    is_cut: bool = False


class Lines:
    """Bytes as they come, made into lines."""

    def __init__(self, encoding: str = "utf-8", errors: str = "strict") -> None:
        self._decoder = codecs.getincrementaldecoder(encoding)(errors)
        self._pieces: list[str] = []
        self._length = 0
        self._head: str | None = None  # of a line that is too long

    def fed(self, content: bytes) -> Iterator[Line]:
        """The lines that these bytes complete."""
        *ends, rest = self._decoder.decode(content).split("\n")
        for end in ends:
            self._add(end)
            yield Line("".join([self._head or "", *self._pieces]), self._head is not None)
            self._pieces, self._length, self._head = [], 0, None
        self._add(rest)

    def _add(self, piece: str) -> None:
        if not piece:
            return
        self._pieces.append(piece)
        self._length += len(piece)
        if self._length > MAX_MESSAGE_BYTES:
            text = "".join(self._pieces)
            self._head = self._head or text[:EDGE_BYTES]
            self._pieces = [text[-EDGE_BYTES:]]
            self._length = MAX_MESSAGE_BYTES  # whatever comes, only its end is kept


def message_of(line: Line) -> SessionMessage | None:
    """What a line says; None where it says nothing to anybody."""
    if line.is_cut:
        return _instead(line.text, TOO_LONG)
    try:
        return SessionMessage(types.JSONRPCMessage.model_validate_json(line.text))
    except ValidationError:
        return _instead(line.text, UNREADABLE)


def is_message(content: bytes | bytearray) -> bool:
    try:
        types.JSONRPCMessage.model_validate_json(content)
    except ValidationError:
        return False
    return True


def failure(id_: str | int, text: str) -> types.JSONRPCError:
    """The answer to a call that has no other."""
    return types.JSONRPCError(jsonrpc="2.0", id=id_, error=types.ErrorData(code=FAILED, message=text))


def _instead(text: str, reason: str) -> SessionMessage | None:
    if not text.lstrip().startswith("{"):
        return None
    head = re.split(r'"(?:result|error|method|params)"', text[:EDGE_BYTES], maxsplit=1)[0]
    found = _FIRST_ID.search(head) or _LAST_ID.search(text[-EDGE_BYTES:])
    return SessionMessage(types.JSONRPCMessage(failure(int(found[1]), reason))) if found else None
