"""The sample is a project without problems, and docs/files.md names every setting and every key."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from changeover.project import models
from changeover.project.load import load
from changeover.settings import knobs

FILES_PAGE = (Path(__file__).resolve().parents[2] / "docs" / "files.md").read_text("utf-8")


def test_sample_is_served_without_a_problem(sample: Path) -> None:
    files = {
        path.relative_to(sample).as_posix(): path.read_bytes()
        for path in sample.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    loaded = load(files)
    assert loaded.problems == ()
    assert loaded.project.names == ("billing", "digest", "helpdesk", "support")


@pytest.mark.parametrize("knob", knobs(), ids=lambda knob: knob.name)
def test_every_setting_is_documented(knob: object) -> None:
    metadata = knob.metadata  # type: ignore[attr-defined]
    assert f"`{metadata['variable']}`" in FILES_PAGE
    assert not metadata["in_file"] or f"`{metadata['key']}`" in FILES_PAGE


@pytest.mark.parametrize(
    "model", [models.ModelSpec, models.AgentSpec, models.NodeSpec, models.GraphFile, models.EdgeSpec]
)
def test_every_key_is_documented(model: type[BaseModel]) -> None:
    missing = [
        key
        for name, field in model.model_fields.items()
        if f"`{(key := field.alias or name)}`" not in FILES_PAGE and f"{key}:" not in FILES_PAGE
    ]
    assert missing == []


def test_every_word_for_a_node_is_documented() -> None:
    assert [kind for kind in models.NODE_KINDS if f"| `{kind}` |" not in FILES_PAGE] == []
