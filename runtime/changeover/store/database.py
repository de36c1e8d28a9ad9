"""What a database of ours does: jobs in transactions, asked for in the event loop, done in threads.

Owns the contract (`Database`) and how a job travels to a thread and its result back. Which statements a job may use
is said in `connection`; `sqlite_database` and `postgres_database` keep the contract.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from changeover.errors import ChangeoverError, OperatorError, Unavailable
from changeover.store.connection import Connection

T = TypeVar("T")
Job = Callable[[Any], Any]
Kind = Literal["sqlite", "postgres"]


class Database(Protocol):
    """Jobs are plain functions of a `Connection`. What they raise is raised to who asked for them.

    A job is asked for by the call itself: a caller that stops waiting does not take it back.
    """

    @property
    def kind(self) -> Kind: ...

    @property
    def trouble(self) -> ChangeoverError | None:
        """What keeps it from answering, or from writing, as the newest answers tell; None where nothing does."""
        ...

    def write(
        self, job: Callable[[Connection], T], *, durable: bool = True, repeatable: bool = False
    ) -> asyncio.Future[T]:
        """Run `job` in a write transaction; its result comes once that is committed.

        No two of these overlap, whichever processes of one database ask for them. One that is not `durable` survives
        the end of the process, and need not survive the loss of power. Where a connection is lost while it commits, one
        that is `repeatable` is done again, another fails with `commit-unknown` if what became of it cannot be found
        out.
        """
        ...

    def save(
        self, job: Callable[[Connection], T], *, durable: bool = True, repeatable: bool = False
    ) -> asyncio.Future[T]:
        """Like `write`, for what needs no order among all writers: such jobs may overlap, and guard their rows."""
        ...

    def read(self, job: Callable[[Connection], T], *, small: bool = False) -> asyncio.Future[T]:
        """Run `job` in a read transaction that sees everything committed before the call.

        A small one is of a few rows by their key.
        """
        ...

    async def close(self) -> None:
        """Finish what was asked for, then end. Idempotent."""
        ...


class Trouble:
    """What the newest answers of a database tell, for reads and for writes. Told of in threads."""

    def __init__(self) -> None:
        self._by_kind: dict[str, ChangeoverError] = {}

    def note(self, kind: Literal["read", "write"], error: BaseException | None) -> None:
        """How the newest one of a kind ended; what is the matter of a job alone is none of the database's."""
        if isinstance(error, (OperatorError, Unavailable)):
            self._by_kind[kind] = error
        elif self._by_kind:
            self._by_kind.pop(kind, None)

    @property
    def now(self) -> ChangeoverError | None:
        return next(iter(list(self._by_kind.values())), None)


@dataclass(slots=True)
class Request:
    """A job on its way, and who is to be told."""

    job: Job
    durable: bool
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    repeatable: bool = False


Outcome = tuple[Request, Any, BaseException | None]


def request(job: Job, durable: bool, repeatable: bool = False) -> Request:
    loop = asyncio.get_running_loop()
    return Request(job, durable, loop, loop.create_future(), repeatable)


def refused(request: Request) -> asyncio.Future[Any]:
    request.future.set_exception(Unavailable("the database is closed", hint="open the manager again"))
    return request.future


def answer(outcomes: list[Outcome]) -> None:
    """Hand results to the loops that wait for them, one wake-up for each loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Outcome]] = {}
    for outcome in outcomes:
        by_loop.setdefault(outcome[0].loop, []).append(outcome)
    for loop, group in by_loop.items():
        try:
            loop.call_soon_threadsafe(deliver, group)
        except RuntimeError:  # the loop was closed while its job ran: nobody is left to be told
            continue


def deliver(outcomes: list[Outcome]) -> None:
    for asked, result, error in outcomes:
        if asked.future.done():
            continue
        if error is None:
            asked.future.set_result(result)
        else:
            asked.future.set_exception(error)
