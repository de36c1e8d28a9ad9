"""Copies of a database, and its return from one; a Postgres is copied by `backup_postgres`, a SQLite file here.

A copy is one file that holds all state, ours and LangGraph's, as it was at one moment; it is made while others read
and write, and keeps no writer waiting. It appears under its name whole or not at all.

Invariants: nothing is overwritten that nobody said may be; a process that is killed at any point of a return leaves the
old database whole or the new one.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from changeover.errors import InvalidRequest, NotFound, OperatorError
from changeover.store.opening import lock_file

MAGIC = b"SQLite format 3\0"
BUSY_TIMEOUT_S = 10.0
MODE = 0o600  # a backup holds conversations
OLD_SUFFIX = ".before-restore"
COMPANIONS = ("-wal", "-shm", "-journal")
_OURS = {"blobs", "versions", "routing", "threads", "runs"}


@dataclass(frozen=True)
class Backup:
    """A backup that was found to be whole."""

    path: Path
    size_bytes: int
    schema: int
    rows: dict[str, int]
    """Of the tables that say most: versions, threads, runs."""

    def to_json(self) -> dict[str, Any]:
        return {"path": str(self.path), "size_bytes": self.size_bytes, "schema": self.schema, "rows": self.rows}


def back_up(address: Path | str, target: Path, *, force: bool = False) -> Backup:
    """Copy a database of either kind: the file at a path, or the Postgres at an address. Blocking."""
    if isinstance(address, Path):
        return backup(address, target, force=force)
    with _driver():
        from changeover.store import backup_postgres
    return backup_postgres.backup(address, target, force=force)


def put_back(source: Path, address: Path | str, *, force: bool = False) -> tuple[Backup, Path | None]:
    """Restore a database of either kind; returns the backup, and where a file's old state was put. Blocking."""
    if isinstance(address, Path):
        return restore(source, address, force=force)
    with _driver():
        from changeover.store import backup_postgres
    return backup_postgres.restore(source, address, force=force), None


def examined_of_either_kind(path: Path) -> Backup:
    """As `examined`, for an archive of a Postgres as well."""
    with path.open("rb") as stream:
        is_sqlite = stream.read(len(MAGIC)) == MAGIC
    if is_sqlite:
        return examined(path)
    with _driver():
        from changeover.store import backup_postgres
    return backup_postgres.examined(path)


def backup(database: Path, target: Path, *, force: bool = False) -> Backup:
    """Copy the database to a file as it is now. Blocking; whoever uses the database meanwhile is not in the way.

    Raises `NotFound` where there is no database, `InvalidRequest` where the file must not be written.
    """
    if not database.is_file():
        raise NotFound(f"there is no database at {database}", code="no-database", hint="name one with --database")
    with arriving(target, force=force) as partial:
        with _failing(f"cannot back up {database}"), closing(_open(database)) as source:
            source.execute("PRAGMA query_only = ON")
            copy_into(source, partial)
        found = examined(partial)
    return Backup(target, found.size_bytes, found.schema, found.rows)


def restore(source: Path, database: Path, *, force: bool = False) -> tuple[Backup, Path | None]:
    """Put a backup where the database is to be. Returns it, and where the old database was put. Blocking.

    Raises `OperatorError` (`database-in-use`) while a process uses the database, `InvalidRequest` for a file that is
    no backup of ours, or, without `force`, where there is a database.
    """
    lock = lock_file(database)
    try:
        if database.exists() and not force:
            raise InvalidRequest(
                f"there is a database at {database}",
                code="database-exists",
                hint="--force replaces it, and keeps it beside the new one",
            )
        examined(source)
        partial = _partial(database)
        try:
            with _failing(f"cannot restore {source}"), closing(_open(source, "ro")) as opened:
                copy_into(opened, partial)
            found = examined(partial)
            old = _put_aside(database) if database.exists() else None
            _remove_companions(database)
            os.replace(partial, database)
            sync_folder(database.parent)
        finally:
            partial.unlink(missing_ok=True)
        return Backup(source, found.size_bytes, found.schema, found.rows), old
    finally:
        lock.release()


def examined(path: Path) -> Backup:
    """A backup, after every page of it was looked at. Raises `InvalidRequest` for anything else."""
    if not path.is_file():
        raise NotFound(f"there is no file {path}", code="no-backup", hint="name a backup made by `changeover backup`")
    with path.open("rb") as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            raise _no_backup(path, "it is no SQLite database")
    try:
        with closing(_open(path, "ro")) as connection:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not tables >= _OURS:
                raise _no_backup(path, "it holds other tables")
            (schema,) = connection.execute("PRAGMA user_version").fetchone()
            if schema > newest_schema():
                raise InvalidRequest(
                    f"{path} was written by a newer changeover (schema {schema}, this one knows {newest_schema()})",
                    code="database-newer",
                    hint="upgrade changeover",
                )
            (said,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if said != "ok":
                raise _no_backup(path, f"it is damaged: {said}")
            rows = {
                table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in ("versions", "threads", "runs")
            }
    except sqlite3.DatabaseError as error:
        raise _no_backup(path, f"it is damaged: {error}") from None
    return Backup(path, path.stat().st_size, schema, rows)


@contextmanager
def arriving(target: Path, *, force: bool) -> Iterator[Path]:
    """A file to write, which has its name once the block ends, and is gone if it fails."""
    _check_target(target, force)
    partial = _partial(target)
    try:
        yield partial
        sync_file(partial)
        _name(partial, target, force)
        sync_folder(target.parent)
    except OSError as error:
        raise OperatorError(
            f"cannot write {target}: {error.strerror or error}", code="backup", hint="look at the disk"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
        Path(f"{partial}-journal").unlink(missing_ok=True)


def copy_into(source: sqlite3.Connection, target: Path) -> None:
    """All pages in one read transaction: the copy is of one moment, and writers go on in the WAL."""
    with closing(sqlite3.connect(target, isolation_level=None)) as copy:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, without companions
    sync_file(target)


def newest_schema() -> int:
    folder = resources.files("changeover.store").joinpath("sql")
    return max(int(file.name[:4]) for file in folder.iterdir() if file.name.endswith(".sql"))


def sync_file(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def sync_folder(path: Path) -> None:
    with suppress(OSError):  # some systems have no such thing
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _check_target(target: Path, force: bool) -> None:
    if not target.parent.is_dir():
        raise InvalidRequest(f"there is no folder {target.parent}", code="no-folder", hint="make it first")
    if target.is_dir():
        raise InvalidRequest(f"{target} is a folder", code="file-exists", hint="name a file")
    if target.exists() and not force:
        raise InvalidRequest(f"{target} exists", code="file-exists", hint="name another file, or --force")


def _partial(target: Path) -> Path:
    """An empty file beside the target that nobody else may read."""
    path = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.partial")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, MODE))
    except OSError as error:
        raise OperatorError(
            f"cannot write into {target.parent}: {error.strerror}", code="backup", hint="look at its permissions"
        ) from None
    return path


def _name(partial: Path, target: Path, force: bool) -> None:
    if force:
        os.replace(partial, target)
        return
    try:
        os.link(partial, target)  # unlike a rename it overwrites nothing
    except FileExistsError:
        raise InvalidRequest(f"{target} exists", code="file-exists", hint="name another file, or --force") from None
    except OSError:  # a file system without links
        os.replace(partial, target)


def _put_aside(database: Path) -> Path:
    """Give the old database a second name, first made one file if that is possible, else with its companions."""
    with suppress(sqlite3.Error), closing(_open(database)) as connection:  # a damaged one stays as it is
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode = DELETE")
    aside = Path(f"{database}{OLD_SUFFIX}")
    number = 1
    while aside.exists():
        number += 1
        aside = Path(f"{database}{OLD_SUFFIX}-{number}")
    for suffix in COMPANIONS:
        if Path(f"{database}{suffix}").exists():
            _second_name(Path(f"{database}{suffix}"), Path(f"{aside}{suffix}"))
    _second_name(database, aside)
    sync_folder(database.parent)
    return aside


def _second_name(path: Path, other: Path) -> None:
    try:
        os.link(path, other)
    except OSError:  # a file system without links
        other.write_bytes(path.read_bytes())
        sync_file(other)


def _remove_companions(database: Path) -> None:
    """Before the new database has the name: SQLite would apply the old one's log to it."""
    for suffix in COMPANIONS:
        Path(f"{database}{suffix}").unlink(missing_ok=True)
    sync_folder(database.parent)


def _open(path: Path, mode: str = "rw") -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=BUSY_TIMEOUT_S)


def _no_backup(path: Path, because: str) -> InvalidRequest:
    return InvalidRequest(
        f"{path} is no backup of changeover: {because}", code="no-backup", hint="name one made by `changeover backup`"
    )


@contextmanager
def _driver() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise OperatorError(
            f"Postgres needs a driver: {error}", code="missing-extra", hint="pip install 'changeover[postgres]'"
        ) from None


@contextmanager
def _failing(what: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        hint = "free some space and retry" if "full" in str(error) else "look at the disk and its permissions"
        raise OperatorError(
            f"{what}: {error}", code="disk-full" if "full" in str(error) else "backup", hint=hint
        ) from None
