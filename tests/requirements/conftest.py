"""A shelf of wheels for each test, and a path that is as it was afterwards."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from wheels import Shelf


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    found = Shelf(tmp_path / "shelf")
    found.use(monkeypatch)
    path, modules = list(sys.path), set(sys.modules)
    yield found
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
