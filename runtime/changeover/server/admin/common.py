"""What the routes of the administration share: strict bodies, entity tags, who is asking."""

from __future__ import annotations

import base64
import json
import math
import re
from typing import Annotated, Any

from fastapi import Header, Query
from pydantic import BaseModel, ConfigDict, Field

from changeover.errors import InvalidRequest, PreconditionFailed
from changeover.manager import GraphVersionManager
from changeover.store.records.version import Version

ACTOR_LIMIT_CHARS = 100
Name = Annotated[str, Field(max_length=255)]
Limit = Annotated[int, Field(ge=1, le=1000)]
Offset = Annotated[int, Field(ge=0, le=10**9)]
Number = Annotated[int, Field(ge=0, le=10**15)]  # of a row, a version, a revision
Seconds = Annotated[float, Field(ge=0, le=86_400)]
Actor = Annotated[str | None, Header(alias="Changeover-Actor")]
Key = Annotated[str | None, Header(alias="Idempotency-Key")]
IfMatch = Annotated[str | None, Header(alias="If-Match")]


After = Annotated[str | None, Query(max_length=2000)]  # a cursor, as `next` of the page before has it


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


def actor(given: str | None) -> str:
    """Who asks, for the history: what the client says it is, since one token serves all."""
    name = re.sub(r"[^\w.@:+-]", "", _as_utf8(given or ""))[:ACTOR_LIMIT_CHARS]
    return name or "http"


def _as_utf8(header: str) -> str:
    """A header is read as Latin-1; a client of today writes UTF-8."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeError:
        return header


def etag(revision: int) -> str:
    return f'"{revision}"'


def expected_revision(if_match: str | None) -> int | None:
    """The revision of the routing that `If-Match` insists on."""
    if if_match is None or if_match.strip() == "*":
        return None
    found = re.fullmatch(r'\s*(?:W/)?"?(\d{1,15})"?\s*', if_match)
    if found is None:
        raise PreconditionFailed(
            "If-Match is not an ETag of /admin/routing", code="routing-changed", hint="read the routing again"
        )
    return int(found[1])


def cursor_of(*values: float | str) -> str:
    """Where a page ends, for `next`: opaque to clients, and safe in an address."""
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


def cursor(after: str | None, *kinds: type) -> Any:
    """The values of a cursor, None without one. Raises `InvalidRequest` for anything that is none of ours."""
    if after is None:
        return None
    try:
        values = json.loads(base64.urlsafe_b64decode(after + "=" * (-len(after) % 4)))
        if not isinstance(values, list) or [type(value) for value in values] != list(kinds):
            raise ValueError(after)
        if any(isinstance(value, float) and not math.isfinite(value) for value in values):
            raise ValueError(after)
    except ValueError:
        raise InvalidRequest(
            "after is not the end of a page", code="invalid-cursor", hint="use `next` of the page before"
        ) from None
    return tuple(values)


def version_json(manager: GraphVersionManager, version: Version) -> dict[str, Any]:
    return version.to_json(loaded=version.id in manager.loader.loaded)
