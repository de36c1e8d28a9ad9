"""Which events are told to which alert: the rules that a trigger on the events follows.

The rules are those of the server that started last, not of a command or a program that only opens the database; all
servers of a database are given the same settings. From an event that a rule names comes a row of the outbox, in the
transaction of the event, whoever writes it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from changeover.alerts import NAMES, Alert
from changeover.store import rows
from changeover.store.connection import Connection
from changeover.store.database import Database

log = logging.getLogger(__name__)

OF_NOBODY = "alert IS NOT NULL AND alert NOT IN (SELECT value FROM json_each(?)) AND next_at < ?"
KEEP_S = 86_400.0  # what is still to be told to an alert that there is no more: it may come back
Rule = tuple[str, str, str, str | None]


class AlertRules:
    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def follow(self, alerts: Sequence[Alert]) -> None:
        """Tell of these from now on. What is due for a day to an alert that there is no more is dropped."""
        wanted = {_rule(alert, name) for alert in alerts for name in alert.names}
        of_nobody = (rows.dumps(sorted({rule[0] for rule in wanted})), self._clock() - KEEP_S)

        def known(connection: Connection) -> tuple[set[Rule], bool]:
            stale = connection.execute(f"SELECT EXISTS (SELECT 1 FROM outbox WHERE {OF_NOBODY})", of_nobody).fetchone()
            found = connection.execute("SELECT alert, name, type, action FROM alerts")
            return {(row[0], row[1], row[2], row[3]) for row in found}, bool(stale[0])

        def job(connection: Connection) -> None:
            connection.execute("DELETE FROM alerts")
            connection.executemany("INSERT INTO alerts (alert, name, type, action) VALUES (?, ?, ?, ?)", sorted(wanted))
            connection.execute(f"DELETE FROM outbox WHERE {OF_NOBODY}", of_nobody)

        before, is_stale = await self._database.read(known)
        if before != wanted or is_stale:
            await self._database.write(job)
        if before != wanted:
            _log_change(before, wanted)


def _log_change(before: set[Rule], wanted: set[Rule]) -> None:
    """Another server of this database may have wished for what is gone."""
    gone = sorted({name for _, name, _, _ in before - wanted})
    log.log(
        logging.WARNING if gone else logging.INFO,
        "alerts_changed",
        extra={
            "alerts": len({alert for alert, _, _, _ in wanted}),
            "added": sorted({name for _, name, _, _ in wanted - before}),
            "removed": gone,
        },
    )


def _rule(alert: Alert, name: str) -> Rule:
    return alert.id, name, NAMES[name].type, NAMES[name].action
