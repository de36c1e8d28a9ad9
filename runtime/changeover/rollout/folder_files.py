"""The bytes of a project's folder: reading them as they are, and replacing some of them for a request.

Owns what a request may see of the folder and write into it, and the note of which bytes of it were dealt with: what is
written here is no save to a watcher. Builds nothing.

Invariants: no reading between two files of one edit; an edit that was cut off is finished before anything is read.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Coroutine, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from changeover.alerts import parse_alerts
from changeover.errors import InvalidRequest, NotFound, OperatorError
from changeover.project.langgraph import LANGGRAPH_FILE
from changeover.settings import Settings
from changeover.store.journal import Journal
from changeover.versions import layout
from changeover.versions.editable import demand_editable, demand_same_rules, is_editable
from changeover.versions.edits import FolderEdits, file_changed
from changeover.versions.snapshot import Snapshot, SnapshotLimits, SnapshotUnstable, take, with_files

log = logging.getLogger(__name__)

LAST_SEEN = "folder-digest"  # the note that holds the digest of the folder's bytes as they were seen last
READ_WITHIN_S = 10.0

T = TypeVar("T")


@dataclass(frozen=True)
class FolderFile:
    """A file as it is in the folder now; of one that may hold secrets, what a version keeps of it."""

    path: str
    content: bytes
    editable: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "sha256": self.sha256,
            "size_bytes": len(self.content),
            "editable": self.editable,
        }


class FolderFiles:
    def __init__(self, path: Path, settings: Settings, journal: Journal) -> None:
        self.path = path
        self._settings = settings
        self._journal = journal
        self._limits = SnapshotLimits(file_bytes=settings.limit_file_bytes, version_bytes=settings.limit_version_bytes)
        self._edits = FolderEdits(path, self._limits)

    # --- reading

    async def read(self) -> Snapshot:
        """The folder at one instant. Raises `SnapshotUnstable`; `OperatorError` where an edit cannot be finished."""
        until = time.monotonic() + READ_WITHIN_S
        while True:
            await self.finish()
            snapshot, is_whole = await asyncio.to_thread(self._taken)
            if is_whole:
                self._demand_database_outside(snapshot)
                return snapshot
            if time.monotonic() >= until:
                raise SnapshotUnstable("the folder is written to again and again", hint="try again later")

    async def finish(self) -> None:
        """Bring to its end what a writer that died had begun."""
        if await asyncio.to_thread(self._edits.pending):
            await _to_its_end(self._finish())

    async def listed(self) -> list[FolderFile]:
        """What a version of the folder as it is now would hold."""
        snapshot = await self.read()
        return await asyncio.to_thread(lambda: [self._file(snapshot, path) for path in sorted(_visible(snapshot))])

    async def one(self, path: str) -> FolderFile:
        snapshot = await self.read()
        if path not in _visible(snapshot):
            raise NotFound(f"the folder has no file '{path[:500]}' that is part of a version", code="unknown-file")
        return self._file(snapshot, path)

    # --- replacing

    async def demand_allowed(self, files: Mapping[str, str]) -> None:
        """Raises `InvalidRequest` for files that no request may give, or that would be part of no version."""
        demand_editable(files, python=self._settings.edit_python)
        await asyncio.to_thread(self._edits.places.demand, sorted(files))

    def replaced(self, snapshot: Snapshot, files: Mapping[str, str]) -> Snapshot:
        return with_files(snapshot, files, self._limits)

    def demand_base(self, snapshot: Snapshot, base: Mapping[str, str | None]) -> None:
        """Raises `Conflict` (`file-changed`) where a file is not of this SHA-256; None: where there is one."""
        visible = _visible(snapshot)
        found = {path: hashlib.sha256(visible[path]).hexdigest() if path in visible else None for path in base}
        changed = [path for path in base if found[path] != base[path]]
        if changed:
            raise file_changed(sorted(changed))

    async def demand_writable(self, before: Snapshot, after: Snapshot, files: Mapping[str, str]) -> None:
        """Raises what can be told before anything is built: `Conflict`, `InvalidRequest`."""
        demand_same_rules(before.originals, after.originals)
        if layout.includes(before.originals) != layout.includes(after.originals):
            raise InvalidRequest(
                "files: a changeover.yaml that includes other files cannot be written by a request",
                code="file-not-editable",
                hint="leave include as it is, or save the file by hand",
            )
        for path in files.keys() & before.originals.keys():
            if _may_hold_secrets(path, before.originals[path]):
                raise InvalidRequest(
                    f"files: '{path}' holds the address of an alert, and is shown to nobody",
                    code="file-not-editable",
                    hint="write the address as ${NAME}, or save the file by hand",
                )
        places = await asyncio.to_thread(self._edits.places.demand, sorted(files))
        await asyncio.to_thread(self._edits.demand_writable, sorted(places.values()))

    async def write(self, before: Snapshot, files: Mapping[str, str], digest: str) -> None:
        """Save files in the folder, which was `before` when they were read, and is of this digest with them.

        To a watcher that is no save. Raises `Conflict` with nothing written: `file-changed`, `folder-not-writable`.
        """
        old, now = _contents(before), _contents(await self.read())
        changed = sorted(path for path in old.keys() | now.keys() if old.get(path) != now.get(path))
        if changed:
            raise file_changed(changed)
        await _to_its_end(self._write(old, {path: text.encode() for path, text in files.items()}, digest))

    # --- inside

    async def _write(self, old: Mapping[str, bytes], files: Mapping[str, bytes], digest: str) -> None:
        known = {path: hashlib.sha256(old[path]).hexdigest() if path in old else None for path in files}
        with ExitStack() as held:
            begun = await asyncio.to_thread(held.enter_context, self._edits.writing(files, known, digest))
            seen = await self._journal.note(LAST_SEEN)
            await self._journal.remember(LAST_SEEN, digest, durable=True)  # first: to a watcher it is no save
            try:
                await asyncio.to_thread(self._edits.make, begun, undo=old)
            except OSError:
                if seen is not None and not self._edits.pending():  # it was taken back
                    await self._journal.remember(LAST_SEEN, seen)
                raise

    async def _finish(self) -> None:
        try:
            with ExitStack() as held:
                for begun in await asyncio.to_thread(held.enter_context, self._edits.left()):
                    await self._journal.remember(LAST_SEEN, begun.digest, durable=True)
                    left = await asyncio.to_thread(self._edits.make, begun)
                    log.warning("edit_finished", extra={"files": len(begun.changes), "left_as_they_are": left})
        except OSError as error:
            raise OperatorError(
                f"files that were begun to be written cannot be: {error.strerror}",
                code="edit-not-finished",
                hint="give the server the right to write into the folder; what is missing lies in .changeover/edits",
            ) from error

    def _taken(self) -> tuple[Snapshot, bool]:
        """The folder, and whether nothing was written meanwhile by a request."""
        generation = self._edits.generation()
        snapshot = take(self.path, self._limits)
        return snapshot, generation == self._edits.generation() and not self._edits.pending()

    def _file(self, snapshot: Snapshot, path: str) -> FolderFile:
        content = _visible(snapshot)[path]
        is_whole = snapshot.originals.get(path, content) == content
        return FolderFile(path, content, is_whole and is_editable(path, python=self._settings.edit_python))

    def _demand_database_outside(self, snapshot: Snapshot) -> None:
        database = self._settings.database_address(self.path)
        if isinstance(database, str):
            return
        if database.is_relative_to(self.path) and database.relative_to(self.path).as_posix() in snapshot.files:
            raise OperatorError(
                f"the database {database} lies in a folder that is part of the versions",
                code="database-in-version",
                hint="keep it in .changeover, or name its folder in .changeoverignore",
            )


def _contents(snapshot: Snapshot) -> Mapping[str, bytes]:
    """The bytes of the folder's files as they are written."""
    return {**snapshot.files, **snapshot.originals}


def _visible(snapshot: Snapshot) -> Mapping[str, bytes]:
    """The bytes of the folder's files as somebody may see them: without what may be a secret."""
    shown = {path: content for path, content in snapshot.originals.items() if not _may_hold_secrets(path, content)}
    return {**snapshot.files, **shown}


def _may_hold_secrets(path: str, content: bytes) -> bool:
    """langgraph.json may hold values of the environment, changeover.yaml the address of an alert."""
    if path == LANGGRAPH_FILE:
        return True
    alerts = layout.section(content, path, "alerts")
    try:
        return alerts is not None and any(alert.shown != alert.url for alert in parse_alerts(alerts))
    except ValueError:
        return True


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """What holds a lock and moves files is not left half done when its caller is cancelled."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
