"""A run's thread brought to the version that the run is on, before its graph sees it.

The run is the lock of its thread. What is migrated is stored in one transaction with the thread's row, under the run's
fence; where the thread cannot be migrated after all, the run goes back with it to the version that saved it, unless
it was to go nowhere else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from langgraph.types import Command

from changeover.errors import Conflict
from changeover.migrations.moving import Moving
from changeover.migrations.reading import NotMovable
from changeover.runs.request import RunRequest
from changeover.store.landings import Landing, Landings
from changeover.store.records.ids import VersionId
from changeover.store.records.run import Run
from changeover.store.runs import Runs

log = logging.getLogger(__name__)


class Arrivals:
    """Owns what happens to a thread between the decision for a version and the first step on it."""

    def __init__(self, rows: Runs, landings: Landings, moving: Moving) -> None:
        self._rows = rows
        self._landings = landings
        self._moving = moving

    async def arrive(self, run: Run, writer: VersionId | None) -> Run:
        """The run as it is to be executed: on its version, or back on that of its thread. `writer` saved the thread.

        Raises `Conflict` where the run must not go on with other code than it asked for.
        """
        if writer is None or run.thread_id is None:
            return run
        try:
            landing = await self._moving.for_run(run, writer, run.version)
        except NotMovable as error:
            if run.requested_version is not None or run.continues:
                await self._rows.stay_put(run, writer, f"stays: {error.message}")
                raise Conflict(
                    f"thread {run.thread_id} cannot move from {writer} to {run.version}: {error.message}",
                    code="contract-differs",
                    hint=error.hint or f"leave out the version, or name {writer}",
                ) from error
            log.info("migration_refused", extra={"from": writer, "to": run.version, "code": error.code})
            return await self._rows.stay_put(run, writer, f"stays: {error.message}")
        landed = await self._rows.land(run, landing)
        log.info("thread_migrated", extra={"from": writer, "to": run.version})
        return landed

    async def landing(self, run: Run, to: VersionId) -> Landing:
        """Of a run that stands at a boundary, on the version that it is handed over to. Raises `NotMovable`."""
        return await self._moving.for_run(run, run.version, to)

    async def forked(self, run: Run, request: RunRequest) -> RunRequest:
        """The request with an older state to go on from that another version saved brought to the run's version."""
        checkpoint_id = (request.checkpoint or {}).get("checkpoint_id")
        if request.checkpoint is None or checkpoint_id is None or run.thread_id is None:
            return request
        answers = isinstance(request.input, Command) and request.input.resume is not None
        try:
            landing = await self._moving.for_fork(run, request.checkpoint, answers=answers)
        except NotMovable as error:
            raise Conflict(
                f"checkpoint {checkpoint_id} of thread {run.thread_id} cannot be gone on from by {run.version}:"
                f" {error.message}",
                code="contract-differs",
                hint=error.hint or "go on from a newer state",
            ) from error
        if landing is None:
            return request
        await self._rows.land(run, landing)
        return _with_plain_answer(replace(request, checkpoint=None))

    async def heard(self, request: RunRequest) -> RunRequest:
        """The request with its answers given to the questions as they are called now: a move has changed their ids."""
        command = request.input
        if request.thread_id is None or not isinstance(command, Command) or not isinstance(command.resume, dict):
            return request
        known = await self._landings.current_interrupts(request.thread_id, [str(id_) for id_ in command.resume])
        return with_answers_by(request, known) if known else request


def with_answers_by(request: RunRequest, ids: Mapping[str, str]) -> RunRequest:
    """The request with the ids of the questions that it answers replaced, where they have others now."""
    command: Any = request.input
    if not isinstance(command, Command) or not isinstance(command.resume, dict):
        return request
    resume = {ids.get(id_, id_): answer for id_, answer in command.resume.items()}
    return replace(request, input=replace(command, resume=resume))


def _with_plain_answer(request: RunRequest) -> RunRequest:
    """The request with an answer to the one question that there is; by its id it would be one of another state."""
    command = request.input
    if not isinstance(command, Command) or not isinstance(command.resume, dict) or len(command.resume) != 1:
        return request
    ((id_, answer),) = command.resume.items()
    is_id = isinstance(id_, str) and len(id_) == 32 and all(letter in "0123456789abcdef" for letter in id_)
    return replace(request, input=replace(command, resume=answer)) if is_id else request
