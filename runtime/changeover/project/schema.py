"""JSON Schemas of the project's files, for completion in editors."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from changeover.project.migration_models import MigrationFile
from changeover.project.models import AgentsFile, ChangeoverFile, GraphFile, PromptHead, ToolsFile

_FILES: tuple[tuple[str, type[BaseModel]], ...] = (
    ("agents.yaml", AgentsFile),
    ("tools.yaml", ToolsFile),
    ("graph", GraphFile),
    ("prompt", PromptHead),
    ("changeover.yaml", ChangeoverFile),
    ("migration", MigrationFile),
)


def schemas() -> dict[str, dict[str, Any]]:
    """The schema of each kind of file; `prompt` is the front matter of one."""
    return {
        kind: {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema(by_alias=True)}
        for kind, model in _FILES
    }
