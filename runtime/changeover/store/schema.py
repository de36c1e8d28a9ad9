"""Brings the schema of a database up to date: every numbered script that it has not seen yet, once.

The scripts of both databases have the same numbers and names and make the same tables. A fresh database equals one
that was brought up step by step. A newer schema than this code knows is refused and left as it is.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from changeover.errors import OperatorError
from changeover.store.sqlite_database import connect
from changeover.versions.lifecycle import MOVES

SQL = resources.files("changeover.store").joinpath("sql")


@dataclass(frozen=True, slots=True)
class Script:
    number: int
    name: str
    text: str


def scripts(*below: str) -> list[Script]:
    """The scripts of a folder in order, `NNNN_name.sql`."""
    found = [file for file in SQL.joinpath(*below).iterdir() if file.name[:4].isdigit() and file.name.endswith(".sql")]
    return sorted((Script(int(file.name[:4]), file.name, file.read_text()) for file in found), key=lambda s: s.number)


def migrate_sqlite(path: Path, upto: int | None = None) -> None:
    """Bring a file of SQLite to the newest schema, or to that of a number. Each script is one transaction."""
    connection = connect(path)
    try:
        for script in missing(scripts(), _seen_by(connection), upto, str(path)):
            _apply_to_file(connection, script)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM moves")
        connection.executemany("INSERT INTO moves VALUES (?, ?)", sorted(MOVES))
        connection.execute("COMMIT")
    finally:
        connection.close()


def _seen_by(connection: sqlite3.Connection) -> int:
    (seen,) = connection.execute("PRAGMA user_version").fetchone()
    return int(seen)


def _apply_to_file(connection: sqlite3.Connection, script: Script) -> None:
    """Unless another process did it while this one waited for the file."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _seen_by(connection) < script.number:
            for statement in statements_of(script.text):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {script.number}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def statements_of(text: str) -> list[str]:
    """The statements of a script: `executescript` would end the transaction that it is called in."""
    statements: list[str] = []
    pending = ""
    for line in text.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return statements


def missing(known: list[Script], seen: int, upto: int | None, where: str) -> list[Script]:
    newest = known[-1].number
    if seen > newest:
        raise OperatorError(
            f"{where} was written by a newer changeover (schema {seen}, this one knows {newest})",
            code="database-newer",
            hint="upgrade changeover, or give it another --database",
        )
    return [script for script in known if seen < script.number <= (upto or newest)]
