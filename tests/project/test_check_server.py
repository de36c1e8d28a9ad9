"""Values of changeover.yaml that the server would refuse are found where they stand."""

from __future__ import annotations

import dataclasses

import pytest

from changeover.project.check import analyse
from changeover.project.models import ChangeoverFile
from changeover.settings import Settings

PROJECT = {"agents.yaml": b"models: {demo: {model: 'demo:rules'}}\nagents: {a: {model: demo}}\n"}


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("watch:\n  quiet: soon\n", (2, 10), "watch.quiet is 'soon', expected a duration"),
        ("server: {port: 99999}\n", (1, 16), "server.port is '99999', expected a whole number"),
        ("keep: {loaded: -1}\n", (1, 16), "keep.loaded is '-1', expected a whole number"),
        ("limits: {file: big}\n", (1, 16), "limits.file is 'big', expected a size"),
    ],
)
def test_a_value_that_serve_would_refuse_is_a_problem(text, place, said):
    _, problems = analyse({**PROJECT, "changeover.yaml": text.encode()}, {})
    (problem,) = problems
    assert (problem.line, problem.column) == place
    assert problem.message.startswith(said)


def test_every_value_of_the_documentation_is_taken():
    text = b"""
watch: {auto: promote, quiet: 100ms, poll: off}
rollout: {drain: after, in_flight: finish, finish: 15m}
keep: {versions: 20, for: 7d, loaded: 50}
limits: {file: 5MB, version: 100MB, body: 10MB, build: 60s}
runs: {concurrency: 64}
server: {host: 127.0.0.1, port: 2024, cors: []}
"""
    _, problems = analyse({**PROJECT, "changeover.yaml": text}, {})
    assert problems == []


def test_every_setting_that_a_file_may_hold_is_a_key_of_it() -> None:
    for field in dataclasses.fields(Settings):
        if not field.metadata.get("in_file") or "." not in field.metadata["key"]:
            continue
        section, name = field.metadata["key"].split(".", 1)
        model = ChangeoverFile.model_fields[section].annotation
        assert model is not None
        assert name in {known.alias or own for own, known in model.model_fields.items()}, field.metadata["key"]
