"""Files of a project's folder replaced by a request: all of them or none, also across a crash.

What is to be written lies in `.changeover/edits` first, on disk to the end, with a small journal beside it. From the
journal on the edit is made: whoever reads the folder next finishes what its writer had begun. Owns the writing alone:
who may give which files is told in `editable`, where they lie in `places`. Blocking.

Invariants: one writer at a time, of whatever process; no file is written that changed since it was read; no link is
followed out of the folder, also not one that is made meanwhile; a file is never seen half written.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from changeover.errors import Conflict, OperatorError, Unavailable
from changeover.versions.places import Places
from changeover.versions.tree import SnapshotLimits

FOLDER = ".changeover/edits"
LOCK, JOURNAL, DONE = "lock", ".json", ".done"
LOCK_WAIT_S = 10.0
LOCK_POLL_S = 0.01
FILE_MODE = 0o666  # less what the process's mask takes away


@dataclass(frozen=True)
class Change:
    """One file: where it really lies below the folder, and the SHA-256 of its bytes before and after."""

    path: str
    place: str
    before: str | None
    after: str
    staged: str  # the name of the new bytes in the edit's own folder


@dataclass(frozen=True)
class Begun:
    """An edit that is in the journal. `digest` is of the version that the folder is once it is made."""

    id: str
    digest: str
    changes: Sequence[Change]


class FolderEdits:
    def __init__(self, folder: Path, limits: SnapshotLimits) -> None:
        self.places = Places(folder, limits)
        self._own = Path(self.places.root) / FOLDER

    # --- for who reads

    def generation(self) -> frozenset[str]:
        """Another one with each edit that is begun and with each that is made."""
        try:
            return frozenset(name for name in os.listdir(self._own) if name.endswith((JOURNAL, DONE)))
        except OSError:
            return frozenset()

    def pending(self) -> bool:
        """Whether an edit is in the journal that is not known to be made: by who is at it, or who died of it."""
        return any(name.endswith(JOURNAL) for name in self.generation())

    @contextmanager
    def left(self) -> Iterator[list[Begun]]:
        """What others have begun and left, and nobody else is at, to be made within: see `make`."""
        with self._locked():
            yield [self._read(name) for name in sorted(self.generation()) if name.endswith(JOURNAL)]

    # --- for who writes

    def demand_writable(self, places: Sequence[str]) -> None:
        """Raises `Conflict` where it is plain, before anything is built, that nothing can be written."""
        wanted = {FOLDER, *(os.path.dirname(place) for place in places)}
        for folder in sorted({self.places.nearest(folder) for folder in wanted}):
            if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
                raise _not_written(os.path.relpath(folder, self.places.root), "the server may not write there")

    @contextmanager
    def writing(self, files: Mapping[str, bytes], before: Mapping[str, str | None], digest: str) -> Iterator[Begun]:
        """Put an edit into the journal, to be made within by `make`; nothing else reads or writes meanwhile.

        Raises `Conflict`: `file-changed` where a file is not of the SHA-256 that is given, `folder-not-writable`.
        """
        places = self.places.demand(sorted(files))
        try:
            with self._locked(make=True):
                yield self._begin(files, places, before, digest)
        except OSError as error:
            raise _not_written(self._named(error), error.strerror or str(error)) from error

    def make(self, begun: Begun, *, undo: Mapping[str, bytes] | None = None) -> list[str]:
        """Bring an edit of the journal to its end. Returns the files that were left, since somebody changed them since.

        With `undo`, the bytes of before, it is taken back where it cannot be made. Raises `OSError`.
        """
        left: list[str] = []
        done: list[Change] = []
        try:
            for change in begun.changes:
                if self._rename(begun, change):
                    done.append(change)
                elif self.places.digest(change.place) != change.after:
                    left.append(change.path)
        except OSError:
            if undo is not None:
                self._take_back(begun, done, undo)
            raise
        self._close(begun)
        return left

    # --- inside ------------------------------------------------------------------------------

    def _named(self, error: OSError) -> str:
        """What could not be written, as a person knows it."""
        name = error.filename2 or error.filename
        path = os.fspath(name) if isinstance(name, str | os.PathLike) else ""
        return (os.path.relpath(path, self.places.root) if os.path.isabs(path) else str(path)) or "the folder"

    @contextmanager
    def _locked(self, *, make: bool = False) -> Iterator[None]:
        if make:
            self._own.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._own / LOCK, thread_local=False)
        try:
            lock.acquire(timeout=LOCK_WAIT_S, poll_interval=LOCK_POLL_S)
        except Timeout:
            hint = "try again; if it stays so, see which process holds the lock"
            raise Unavailable("another process writes to the folder", code="folder-busy", hint=hint) from None
        try:
            yield
        finally:
            lock.release()

    def _begin(
        self, files: Mapping[str, bytes], places: Mapping[str, str], before: Mapping[str, str | None], digest: str
    ) -> Begun:
        if self.pending():
            raise Unavailable("an edit was begun and is not made yet", code="folder-busy", hint="try again")
        self._sweep()
        id_ = uuid.uuid4().hex
        stage = self._own / id_
        stage.mkdir()
        try:
            changes = [
                Change(path, places[path], before[path], hashlib.sha256(content).hexdigest(), str(number))
                for number, (path, content) in enumerate(sorted(files.items()))
                if before[path] != hashlib.sha256(content).hexdigest()
            ]
            for change in changes:
                self._stage(stage / change.staged, change.place, files[change.path])
            _sync(stage)
            begun = Begun(id_, digest, changes)
            self._demand_unchanged(changes)
            self._write_journal(begun)
        except BaseException:
            shutil.rmtree(stage, ignore_errors=True)
            raise
        return begun

    def _stage(self, target: Path, place: str, content: bytes) -> None:
        """The new bytes, on disk, with the permissions of the file that they are to replace."""
        old = self.places.status(place)
        nearest = os.stat(self.places.nearest(os.path.dirname(place)))
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE), "wb") as file:
            file.write(content)
            file.flush()
            if os.fstat(file.fileno()).st_dev != nearest.st_dev:
                raise _not_written(place, "it lies on another file system than the project")
            if old is not None:
                with suppress(PermissionError):  # another owner's: who may write there may not give it away
                    os.fchown(file.fileno(), old.st_uid, old.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode))
            os.fsync(file.fileno())

    def _demand_unchanged(self, changes: Sequence[Change]) -> None:
        changed = [change.path for change in changes if self.places.digest(change.place) != change.before]
        if changed:
            raise file_changed(changed)

    def _write_journal(self, begun: Begun) -> None:
        told = {"id": begun.id, "digest": begun.digest, "changes": [asdict(change) for change in begun.changes]}
        partial = self._own / f"{begun.id}.tmp"
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(told, file)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(self._own / f"{begun.id}{JOURNAL}")
        _sync(self._own)

    def _read(self, name: str) -> Begun:
        try:
            told = json.loads((self._own / name).read_bytes())
            return Begun(told["id"], told["digest"], [Change(**change) for change in told["changes"]])
        except (ValueError, KeyError, TypeError) as error:
            raise OperatorError(
                f"{FOLDER}/{name} cannot be read: an edit was begun that nobody can finish",
                code="edit-not-finished",
                hint="look at the files beside it, bring the folder in order, and remove it",
            ) from error

    def _rename(self, begun: Begun, change: Change) -> bool:
        """Whether this made the change: it was not made before, and the file is as it was."""
        staged = self._own / begun.id / change.staged
        if not staged.exists() or self.places.digest(change.place) != change.before:
            return False
        *above, name = change.place.split("/")
        with self.places.folder(above, make=True) as folder:
            os.rename(staged, name, dst_dir_fd=folder)
            os.fsync(folder)
        return True

    def _take_back(self, begun: Begun, done: Sequence[Change], undo: Mapping[str, bytes]) -> None:
        for change in done:
            *above, name = change.place.split("/")
            with self.places.folder(above) as folder:
                if change.before is None:
                    os.unlink(name, dir_fd=folder)
                else:
                    old = self._own / begun.id / f"{change.staged}.old"
                    self._stage(old, change.place, undo[change.path])
                    os.rename(old, name, dst_dir_fd=folder)
                os.fsync(folder)
        self._close(begun)

    def _close(self, begun: Begun) -> None:
        """Out of the journal. Its name stays until the next one, so that who reads sees that something was made."""
        for name in self.generation():
            if name.endswith(DONE):
                (self._own / name).unlink(missing_ok=True)
        (self._own / f"{begun.id}{JOURNAL}").rename(self._own / f"{begun.id}{DONE}")
        shutil.rmtree(self._own / begun.id, ignore_errors=True)

    def _sweep(self) -> None:
        """What a writer that died before its journal was there has left."""
        for entry in os.scandir(self._own):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            elif entry.name.endswith(".tmp"):
                os.unlink(entry.path)


def file_changed(paths: Sequence[str]) -> Conflict:
    """The folder is not what the caller has seen of it."""
    names = ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")
    return Conflict(
        f"{names} changed meanwhile; nothing was written",
        code="file-changed",
        hint="read the folder again, and decide anew",
        files=sorted(paths),
    )


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _not_written(where: str, why: str) -> Conflict:
    return Conflict(
        f"the files were not written: {where}: {why}",
        code="folder-not-writable",
        hint="give the server the right to write there, or save the files by hand",
    )
