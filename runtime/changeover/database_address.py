"""Where a database is: the path of a SQLite file, or the address of a Postgres, which may hold a password."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from typing import TypeGuard

from changeover.errors import OperatorError

SQLITE = "sqlite:///"
POSTGRES = ("postgresql://", "postgres://")


def is_postgres(where: Path | str) -> TypeGuard[str]:
    return isinstance(where, str) and where.startswith(POSTGRES)


def file_of(where: Path | str) -> Path:
    """The SQLite file, given as a path or as `sqlite:///path`."""
    return Path(where.removeprefix(SQLITE)) if isinstance(where, str) else where


def without_password(address: str) -> str:
    """The address of a database as it may be shown."""
    address = re.sub(r"(://[^/@:]*):.*@", r"\1:***@", address)
    return re.sub(r"(password\s*=\s*)('(?:[^'\\]|\\.)*'|[^&\s]*)", r"\1***", address, flags=re.IGNORECASE)


def mark_of(where: Path | str) -> str:
    """Tells databases apart without their addresses: of a Postgres by host, port and name, whoever asks and how."""
    return sha256(_place_of(where).encode()).hexdigest()[:12]


def _place_of(where: Path | str) -> str:
    if not is_postgres(where):
        return str(file_of(where).resolve())
    from psycopg.conninfo import conninfo_to_dict

    said = conninfo_to_dict(where)
    host = said.get("host") or said.get("hostaddr") or ""
    return "\n".join(
        str(part)
        for part in (host, said.get("port") or 5432, said.get("dbname") or said.get("user"), said.get("service"))
    )


def demand_postgres(address: str) -> None:
    """As libpq reads it. What libpq itself says of a wrong one may quote the password."""
    try:
        from psycopg import Error
        from psycopg.conninfo import conninfo_to_dict
    except ImportError:
        return  # an extra: who opens the database says that it is missing
    try:
        ports = str(conninfo_to_dict(address).get("port", "")).split(",")
    except Error:
        raise _no_address() from None
    credentials, _, place = address.partition("://")[2].partition("?")[0].partition("@")
    # Such characters in a password make libpq take a part of it for the host, the port or the name, which it shows.
    is_torn = "@" in place or (place and "/" in credentials)
    if is_torn or not all(re.fullmatch(r"[0-9]{0,5}", port) and int(port or 1) in range(1, 65536) for port in ports):
        raise _no_address()


def _no_address() -> OperatorError:
    return OperatorError(
        "--database is no valid address of a database",
        code="bad-setting",
        hint="give one such as postgresql://user@host:5432/name; in a password write % as %25, @ as %40 and / as %2F",
    )
