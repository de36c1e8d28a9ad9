"""Which events are told to which alert: the rules that a trigger on the events follows.

The rules are those of the server that started last; all servers of a database are given the same settings. From an
event that a rule names comes a row of the outbox, in the transaction of the event, whoever writes it.
"""

from __future__ import annotations

from collections.abc import Sequence

from changeover.alerts import NAMES, Alert
from changeover.store import rows
from changeover.store.connection import Connection
from changeover.store.database import Database

Rule = tuple[str, str, str, str | None]


class AlertRules:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def follow(self, alerts: Sequence[Alert]) -> None:
        """Tell of these from now on. What is still to be told to an alert that there is no more is dropped."""
        wanted = {_rule(alert, name) for alert in alerts for name in alert.names}

        def known(connection: Connection) -> set[Rule]:
            return {(row[0], row[1], row[2], row[3]) for row in connection.execute("SELECT * FROM alerts")}

        def job(connection: Connection) -> None:
            connection.execute("DELETE FROM alerts")
            connection.executemany("INSERT INTO alerts (alert, name, type, action) VALUES (?, ?, ?, ?)", sorted(wanted))
            connection.execute(
                "DELETE FROM outbox WHERE alert IS NOT NULL AND alert NOT IN (SELECT value FROM json_each(?))",
                (rows.dumps(sorted({rule[0] for rule in wanted})),),
            )

        if await self._database.read(known) != wanted:
            await self._database.write(job)


def _rule(alert: Alert, name: str) -> Rule:
    return alert.id, name, NAMES[name].type, NAMES[name].action
