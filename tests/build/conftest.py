"""A project written in the test, and its parts: real files, real imports, real models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest
from build_samples import Make

from changeover.build.modules import CodeTrees
from changeover.build.parts import Parts
from changeover.errors import ProjectError
from changeover.project.load import load
from changeover.project.problems import Problem
from changeover.project.prompts import Prompts
from changeover.resources.models import ModelPool


@dataclass
class Failure:
    """The problems of a part that cannot be built."""

    problems: tuple[Problem, ...]

    @property
    def codes(self) -> list[str]:
        return [problem.code for problem in self.problems]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """`make({"agents.yaml": text, ...})` loads a project of these files and gives its parts."""
    trees = CodeTrees(tmp_path / "trees")
    acquired = []

    def build(files: Mapping[str, str], env: Mapping[str, str] | None = None) -> Parts:
        content = {path: dedent(text).encode() for path, text in files.items()}
        loaded = load(content)
        wrong = [problem for problem in loaded.problems if problem.severity == "error" and problem.code != "no-agents"]
        assert not [problem.render() for problem in wrong]
        tree = trees.acquire(content)
        acquired.append(tree)
        return Parts(loaded.project, tree, env or {}, Prompts(loaded.project.prompts), ModelPool())

    yield build
    for tree in acquired:
        trees.release(tree)


@pytest.fixture
def fails() -> Callable[[Callable[[], object]], Failure]:
    """`fails(lambda: parts.graph("g"))` gives the problems that the build ends with."""

    def run(build: Callable[[], object]) -> Failure:
        with pytest.raises(ProjectError) as raised:
            build()
        return Failure(raised.value.problems)

    return run
