"""What goes wrong with Postgres: what may be tried again, and the sentence an operator needs for the rest."""

from __future__ import annotations

import psycopg
from psycopg import errors

from changeover.errors import ChangeoverError, InvalidRequest, OperatorError, Unavailable
from changeover.store.connection import ConstraintViolated

_PASSING = (
    errors.SerializationFailure,
    errors.DeadlockDetected,
    errors.LockNotAvailable,
    errors.TooManyConnections,
    errors.CannotConnectNow,
)
_REFUSALS = ("authentication failed", "does not exist", "no password", "pg_hba.conf")
_ADDRESS_WORDS = ("for connection option", "invalid port number", "invalid sslmode value", "invalid connection option")
_LOST = (
    errors.AdminShutdown,
    errors.CrashShutdown,
    errors.IdleInTransactionSessionTimeout,
    errors.ConnectionException,
)


def is_lost(error: BaseException) -> bool:
    """Whether the session is over, or never began: whatever was not committed is undone."""
    if isinstance(error, _LOST):
        return True
    return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)) and _is_of_libpq(error)


def _is_of_libpq(error: psycopg.Error) -> bool:
    """What the server says has a code; what the library says of a connection that broke has none."""
    return error.sqlstate is None and not _is_for_good(error) and not _is_of_address(error)


def _is_for_good(error: psycopg.Error) -> bool:
    """A refusal to connect that waiting does not change. On the way in, libpq tells it by its words alone."""
    text = str(error)
    return any(words in text for words in _REFUSALS)


def _is_of_address(error: BaseException) -> bool:
    """What libpq says of an address that it cannot read, or of an option in it: the words may quote a password."""
    if not isinstance(error, psycopg.Error) or error.sqlstate is not None:
        return False
    text = str(error)
    return isinstance(error, psycopg.ProgrammingError) or any(words in text for words in _ADDRESS_WORDS)


def is_passing(error: BaseException) -> bool:
    """Whether the same transaction may well succeed a moment later."""
    return isinstance(error, _PASSING)


def told(error: BaseException) -> BaseException:
    """What a job raised, as who asked for it is told."""
    if isinstance(error, psycopg.IntegrityError):
        said = error.diag.message_primary or str(error)
        problem: ChangeoverError = ConstraintViolated(said, hint="this is a bug of changeover: please report it")
    elif isinstance(error, psycopg.DataError) and "NUL" in str(error):
        problem = InvalidRequest("text may not hold the character NUL", hint="Postgres cannot store it: leave it out")
    elif isinstance(error, (psycopg.ProgrammingError, psycopg.DataError)):
        return error
    elif isinstance(error, psycopg.Error):
        problem = explain(error)
    else:
        return error
    problem.__cause__ = error
    return problem


def explain(error: BaseException) -> ChangeoverError:
    """One sentence; the address of the server may hold a password and is not in it."""
    if _is_of_address(error):
        return OperatorError(
            "--database is no valid address of a database, or has an option with a wrong value",
            code="bad-setting",
            hint="give one such as postgresql://user@host:5432/name; in a password write % as %25",
        )
    text = (getattr(error, "diag", None) and error.diag.message_primary) or str(error).strip()  # type: ignore[attr-defined]
    if isinstance(error, errors.DiskFull):
        return OperatorError(
            f"the disk of the database is full: {text}", code="disk-full", hint="free some space there and retry"
        )
    if isinstance(error, errors.InsufficientPrivilege):
        return OperatorError(
            f"the database refuses it: {text}",
            code="database",
            hint="let its user create a schema, or make it the owner of the schema 'changeover' and what is in it",
        )
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return OperatorError(
            "the database is read-only, and state must be written",
            code="database",
            hint="name its primary with --database, or take default_transaction_read_only off",
        )
    if isinstance(error, psycopg.Error) and _is_for_good(error):
        return OperatorError(f"the database refuses: {text}", code="database", hint="correct --database")
    if isinstance(error, psycopg.ProgrammingError):
        return OperatorError(f"the database cannot do this: {text}", code="database", hint="look at its schema")
    if is_passing(error):
        return Unavailable(f"the database is busy: {text}", code="database-busy", hint="try again")
    if is_lost(error):
        return Unavailable(
            f"the database cannot be reached: {text}",
            code="database-unreachable",
            hint="see that it is up and that --database is right",
        )
    return OperatorError(f"the database failed: {text}", code="database", hint="look at its log")


def unknown_commit() -> Unavailable:
    return Unavailable(
        "the database was lost while it wrote this down, and nobody knows whether it did",
        code="commit-unknown",
        hint="look whether it was done before you ask again",
    )
