"""What .gitignore and .changeoverignore name, as git reads them.

Owns the rules found so far, per folder: a deeper file wins over a shallower one, .changeoverignore over
.gitignore beside it. Only files inside the project count, not those of folders above it or git's own
settings. Reads nothing: `walk` hands in the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pathspec import GitIgnoreSpec


@dataclass(slots=True)
class Ignores:
    """Rules by folder ("" is the project's own), added while the tree is walked from the top."""

    _specs: dict[str, list[tuple[str, GitIgnoreSpec]]] = field(default_factory=dict)

    def add(self, folder: str, file_name: str, content: bytes) -> list[str]:
        """Add one file's rules; the lines that are no patterns are left out and returned."""
        patterns: list[str] = []
        refused: list[str] = []
        for line in content.decode("utf-8-sig", "replace").splitlines():
            (patterns if _is_pattern(line) else refused).append(line)
        source = f"{folder}/{file_name}" if folder else file_name
        self._specs.setdefault(folder, []).append((source, GitIgnoreSpec.from_lines(patterns)))
        return refused

    def source_of(self, path: str, *, is_folder: bool = False) -> str | None:
        """The file that says this path is ignored, None where it is not."""
        if not self._specs:
            return None
        for folder in _folders_above(path):
            for source, spec in reversed(self._specs.get(folder, ())):
                relative = path[len(folder) + 1 :] if folder else path
                verdict = spec.check_file(f"{relative}/" if is_folder else relative).include
                if verdict is not None:
                    return source if verdict else None
        return None


def _is_pattern(line: str) -> bool:
    try:
        GitIgnoreSpec.from_lines([line])
    except ValueError:
        return False
    return True


def _folders_above(path: str) -> Iterator[str]:
    """Deepest first, the project's own last."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path
    yield ""
