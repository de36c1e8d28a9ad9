"""Times as they are told: stored as Unix seconds, in JSON as ISO 8601 in UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def timestamp(seconds: float | None) -> str | None:
    """Unix seconds as ISO 8601 in UTC, the form of every time in JSON."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()
