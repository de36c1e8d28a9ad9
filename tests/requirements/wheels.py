"""Tiny packages, made on the spot, and the variables that make uv take them and nothing else."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest


class Shelf:
    """A folder of wheels that uv finds its packages in, without a network and with a cache of its own."""

    def __init__(self, folder: Path) -> None:
        self.wheels = folder / "wheels"
        self.cache = folder / "uv-cache"
        self.wheels.mkdir(parents=True)

    @property
    def variables(self) -> dict[str, str]:
        return {
            "UV_OFFLINE": "1",
            "UV_NO_INDEX": "1",
            "UV_FIND_LINKS": str(self.wheels),
            "UV_CACHE_DIR": str(self.cache),
        }

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in self.variables.items():
            monkeypatch.setenv(name, value)

    def add(
        self, name: str, version: str, files: Mapping[str, str] | None = None, requires: Iterable[str] = ()
    ) -> Path:
        """A wheel; without `files` a module of its name that says its RELEASE."""
        stem = f"{name}-{version}"
        told = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        told += [f"Requires-Dist: {line}" for line in requires]
        content = dict(files) if files is not None else {f"{name}.py": f"RELEASE = '{version}'\n"}
        content[f"{stem}.dist-info/METADATA"] = "\n".join(told) + "\n"
        content[f"{stem}.dist-info/WHEEL"] = (
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        record = [f"{path},sha256={_digest(text)},{len(text.encode())}" for path, text in content.items()]
        content[f"{stem}.dist-info/RECORD"] = "\n".join([*record, f"{stem}.dist-info/RECORD,,"]) + "\n"
        path = self.wheels / f"{stem}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            for inner, text in content.items():
                wheel.writestr(inner, text)
        return path


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def desk(node: str, requirements: str, **more: str) -> dict[str, str]:
    """A project with one graph, `desk`, whose node is this code and gives `said`."""
    graph = (
        "state: {said: str?}\n"
        "nodes:\n  speak: {python: 'graphs.code:speak'}\n"
        "edges:\n  - {from: START, to: speak}\n  - {from: speak, to: END}\n"
    )
    return {"graphs/desk.yaml": graph, "graphs/code.py": node, "requirements.txt": requirements, **more}


def lazy(*modules: str) -> str:
    """A node that imports when it runs, and says the releases it finds."""
    lines = "".join(f"    import {module}\n" for module in modules)
    said = " + ' ' + ".join(f"{module}.RELEASE" for module in modules)
    return f"def speak(state):\n{lines}    return {{'said': {said}}}\n"
