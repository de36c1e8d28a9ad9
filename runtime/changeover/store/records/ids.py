"""Ids of what the store keeps: text, told apart by type."""

from __future__ import annotations

from typing import NewType

VersionId = NewType("VersionId", str)
RunId = NewType("RunId", str)
ThreadId = NewType("ThreadId", str)
AssistantId = NewType("AssistantId", str)
