"""Copies of the tables on Postgres, and their return from one.

A copy is a tar archive: each table as `COPY` writes it, and last a manifest with the tables' definitions as the server
gave them, their rows and digests. All of it is of one snapshot, which keeps nobody waiting. An archive without its
manifest is none.

Owns our schema and LangGraph's tables, and touches no others. Invariant: a return is one transaction.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psycopg
from psycopg import sql

from changeover.errors import InvalidRequest, NotFound, OperatorError
from changeover.store.backup import Backup, arriving, newest_schema
from changeover.store.postgres_definitions import Table, after_data, before_data, tables_of
from changeover.store.postgres_failures import explain
from changeover.store.postgres_session import SCHEMA, WRITER_LOCK

FORMAT = 1
MANIFEST = "manifest.json"
CONNECT_TIMEOUT_S = 10
CHUNK_BYTES = 1_000_000
SPOOL_BYTES = 16_000_000  # of a table in memory; more of it goes to a temporary file


@dataclass(frozen=True)
class _Written:
    table: Table
    rows: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        return {**self.table.to_json(), "rows": self.rows, "sha256": self.sha256}


def backup(url: str, target: Path, *, force: bool = False) -> Backup:
    """Copy all state to an archive as it is now. Blocking. Raises as `store.backup.backup` does."""
    with arriving(target, force=force) as partial:
        with _session(url, "cannot back up the database") as connection, connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            connection.execute("SET LOCAL search_path = ''")  # so that definitions name the schema of everything
            tables = tables_of(connection)
            if not any(table.schema == SCHEMA for table in tables):
                raise NotFound("the database holds no tables of changeover", code="no-database")
            with tarfile.open(partial, "w") as archive:
                definitions = {"before": before_data(connection, tables), "after": after_data(connection, tables)}
                written = [_write(connection, archive, table) for table in tables]
                manifest = {
                    "format": FORMAT,
                    "kind": "postgres",
                    "schema": _schema(connection),
                    "server_version": connection.info.server_version,
                    "tables": [one.to_json() for one in written],
                    **definitions,
                }
                _add(archive, MANIFEST, io.BytesIO(json.dumps(manifest).encode()))
        found = examined(partial)
    return Backup(target, found.size_bytes, found.schema, found.rows)


def restore(source: Path, url: str, *, force: bool = False) -> Backup:
    """Put a backup into an empty database, or with `force` in place of what it holds of ours. Blocking.

    Raises `OperatorError` (`database-in-use`) while a server uses the database.
    """
    found = examined(source)
    with tarfile.open(source) as archive, _session(url, f"cannot restore {source}") as connection:
        manifest = _manifest(archive, source)
        with connection.transaction():
            path = connection.execute("SELECT current_setting('search_path')").fetchone()
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (WRITER_LOCK,))
            _make_room(connection, force)
            connection.execute("SET LOCAL check_function_bodies = off")
            connection.execute("SELECT set_config('search_path', %s, true)", (f"{SCHEMA}, {path[0] if path else ''}",))
            _do(connection, manifest["before"])
            for told in manifest["tables"]:
                _read(connection, archive, Table.from_json(told), told)
            _do(connection, manifest["after"])
    return found


def examined(path: Path) -> Backup:
    """An archive, after every byte of it was looked at. Raises `InvalidRequest` for anything else."""
    if not path.is_file():
        raise NotFound(f"there is no file {path}", code="no-backup", hint="name a backup made by `changeover backup`")
    try:
        with tarfile.open(path) as archive:
            manifest = _manifest(archive, path)
            for told in manifest["tables"]:
                if _digest(_member(archive, Table.from_json(told).member)) != told["sha256"]:
                    raise _no_archive(path, f"the table {told['name']} is damaged")
    except (tarfile.TarError, KeyError, ValueError, TypeError, EOFError) as error:
        raise _no_archive(path, f"it cannot be read ({type(error).__name__})") from None
    rows = {told["name"]: told["rows"] for told in manifest["tables"] if told["schema"] == SCHEMA}
    counted = {name: rows.get(name, 0) for name in ("versions", "threads", "runs")}
    return Backup(path, path.stat().st_size, manifest["schema"], counted)


def _manifest(archive: tarfile.TarFile, path: Path) -> Mapping[str, Any]:
    try:
        manifest = json.loads(_member(archive, MANIFEST).read())
    except KeyError:
        raise _no_archive(path, "it is not whole") from None
    if not isinstance(manifest, dict) or manifest.get("kind") != "postgres":
        raise _no_archive(path, "it is an archive of something else")
    if manifest["format"] > FORMAT or manifest["schema"] > newest_schema():
        raise InvalidRequest(
            f"{path} was written by a newer changeover (schema {manifest['schema']}, this one knows {newest_schema()})",
            code="database-newer",
            hint="upgrade changeover",
        )
    return manifest


def _write(connection: psycopg.Connection[Any], archive: tarfile.TarFile, table: Table) -> _Written:
    digest = hashlib.sha256()
    with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as spool, connection.cursor() as cursor:
        with cursor.copy(sql.SQL("COPY {} ({}) TO STDOUT").format(table.name_sql, table.columns_sql)) as copy:
            for data in copy:
                spool.write(data)
                digest.update(data)
        rows = cursor.rowcount
        _add(archive, table.member, spool)
    return _Written(table, rows, digest.hexdigest())


def _read(connection: psycopg.Connection[Any], archive: tarfile.TarFile, table: Table, told: Mapping[str, Any]) -> None:
    member = _member(archive, table.member)
    with connection.cursor() as cursor:
        with cursor.copy(sql.SQL("COPY {} ({}) FROM STDIN").format(table.name_sql, table.columns_sql)) as copy:
            while data := member.read(CHUNK_BYTES):
                copy.write(data)
        if cursor.rowcount != told["rows"]:
            raise OperatorError(f"{table.schema}.{table.name}: {cursor.rowcount} rows of {told['rows']}", code="backup")
    for column, value in table.sequences.items():
        connection.execute(
            "SELECT setval(pg_get_serial_sequence(%s, %s), %s, %s)", (table.quoted, column, value[0], value[1])
        )


def _make_room(connection: psycopg.Connection[Any], force: bool) -> None:
    there = tables_of(connection)
    if not there:
        return
    if any(table.name == "servers" and table.schema == SCHEMA for table in there):
        query = sql.SQL(
            "SELECT count(*) FROM {}.servers WHERE lease_until > extract(epoch FROM clock_timestamp())"
        ).format(sql.Identifier(SCHEMA))
        row = connection.execute(query).fetchone()
        if row and row[0]:
            raise OperatorError(
                "a server uses the database",
                code="database-in-use",
                hint="stop it; one that was killed counts for 10 s",
            )
    if not force:
        raise InvalidRequest(
            "the database is not empty",
            code="database-exists",
            hint="--force replaces what changeover has in it; back it up first",
        )
    for table in there:
        connection.execute(sql.SQL("DROP TABLE IF EXISTS {} CASCADE").format(table.name_sql))
    connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(SCHEMA)))


def _schema(connection: psycopg.Connection[Any]) -> int:
    query = sql.SQL("SELECT max(number) FROM {}.migrations").format(sql.Identifier(SCHEMA))
    row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0


def _do(connection: psycopg.Connection[Any], statements: Sequence[str]) -> None:
    for statement in statements:
        connection.execute(statement.encode())


def _add(archive: tarfile.TarFile, name: str, data: Any) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = data.seek(0, io.SEEK_END)
    entry.mode = 0o600
    data.seek(0)
    archive.addfile(entry, data)


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    stream = archive.extractfile(name)
    if stream is None:
        raise KeyError(name)
    return stream


def _digest(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while data := stream.read(CHUNK_BYTES):
        digest.update(data)
    return digest.hexdigest()


def _no_archive(path: Path, because: str) -> InvalidRequest:
    return InvalidRequest(
        f"{path} is no backup of changeover on Postgres: {because}",
        code="no-backup",
        hint="name one made by `changeover backup` of a database of the same kind",
    )


@contextmanager
def _session(url: str, what: str) -> Iterator[psycopg.Connection[Any]]:
    try:
        with psycopg.connect(
            url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S, application_name="changeover backup"
        ) as connection:
            yield connection
    except psycopg.Error as error:
        problem = explain(error)
        raise type(problem)(f"{what}: {problem.message}", code=problem.code, hint=problem.hint) from None
