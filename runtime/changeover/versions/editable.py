"""Which files of a project a request may give, and what it may not say in them.

Prompts and what is written in YAML or JSON; Python only where the operator allows it. Nothing of the environment, no
list of packages, no rule of what is ignored. Pure: whether a place in a folder may be written is told in `edits`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from changeover.errors import InvalidRequest
from changeover.versions import layout

_DATA = re.compile(
    r"(agents|tools|changeover)\.(yaml|yml|json)|(graphs|migrations)/.+\.(yaml|yml|json)|prompts/.+\.(md|txt)",
    re.DOTALL,
)
_PYTHON = re.compile(r"(graphs|migrations)/.+\.py", re.DOTALL)
_SHOWN_CHARS = 200
_PATH_LIMIT_CHARS = 1024
SECTION = "edit"


def is_editable(path: str, *, python: bool = False) -> bool:
    """Whether a request may give this file."""
    if any(part in ("", ".", "..") or layout.is_skipped(part) for part in path.split("/")):
        return False
    if (
        "\\" in path
        or len(path) > _PATH_LIMIT_CHARS
        or any(ord(char) < 32 or 0xD800 <= ord(char) <= 0xDFFF for char in path)
    ):
        return False
    return bool(_DATA.fullmatch(path) or (python and _PYTHON.fullmatch(path)))


def demand_editable(paths: Collection[str], *, python: bool) -> None:
    """Raises `InvalidRequest` for the first file that no request may give."""
    for path in sorted(paths):
        if is_editable(path, python=python):
            if any(other.startswith(f"{path}/") for other in paths):
                raise _refused(path, "it is given as a file and as a folder", "give one of both")
            continue
        if not python and is_editable(path, python=True):
            raise _refused(path, "it is Python", "the operator may allow it with edit.python")
        hint = "agents, tools and changeover.yaml, graphs/ and migrations/*.yaml, and prompts can"
        raise _refused(path, "it is none of the files that may", hint)


def demand_same_rules(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> None:
    """Raises `InvalidRequest` where a new changeover.yaml would say anew what may be edited: that is the operator's."""
    for name in layout.SERVER_FILES:
        if name in after and before.get(name) != after[name]:
            new, old = layout.section(after[name], name, SECTION), layout.section(before.get(name, b""), name, SECTION)
            if new != old:
                raise _refused(name, f"it changes {SECTION}", f"leave {SECTION} as it is, or change it in the folder")


def _refused(path: str, why: str, hint: str) -> InvalidRequest:
    message = f"files: '{path[:_SHOWN_CHARS]}' cannot be replaced by a request: {why}"
    return InvalidRequest(message, code="file-not-editable", hint=hint)
