"""Webhooks of runs: their rows in the outbox, written in the transaction that ends the run."""

from __future__ import annotations

import uuid
from dataclasses import replace
from urllib.parse import urlsplit

from changeover.store import rows
from changeover.store.connection import Connection
from changeover.store.records.outcome import Outcome
from changeover.store.records.run import Run
from changeover.store.records.times import timestamp


def enqueue(connection: Connection, run_id: str, url: str, body: str, now: float) -> str:
    """Write a webhook inside the transaction that ends its run; returns the id of its delivery."""
    id_ = str(uuid.uuid4())
    connection.execute(
        "INSERT INTO outbox (id, run_id, url, lane, body, next_at) VALUES (?, ?, ?, ?, ?, ?)",
        (id_, run_id, url, urlsplit(url).hostname or "", body, now),
    )
    return id_


def enqueue_end(
    connection: Connection,
    run: Run,
    outcome: Outcome,
    started_at: float | None,
    now: float,
) -> bool:
    """Write the webhook of a run, if it has one, inside the transaction that ends it; whether it has.

    Its body is the run as clients know it, without the address, with `values`, the last ones, and `error`.
    """
    kwargs = dict(run.kwargs or {})
    url = kwargs.pop("webhook", None)
    if url is None:
        return False
    failed = outcome.status in ("error", "timeout")
    shape = {
        **replace(
            run, status=outcome.status, status_reason=outcome.reason, started_at=started_at, ended_at=now
        ).to_json(),
        "assistant_id": run.assistant_id,
        "updated_at": timestamp(now),
        "kwargs": kwargs,
        "multitask_strategy": run.multitask_strategy,
        "run_started_at": timestamp(started_at),
        "run_ended_at": timestamp(now),
        "error": outcome.reason if failed else None,
    }
    body = f'{rows.dumps(shape)[:-1]},"values":{(outcome.values or b"null").decode()}}}'
    enqueue(connection, run.id, url, body, now)
    return True
