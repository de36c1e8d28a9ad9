"""What a row of the outbox becomes when it is sent: an address, a body, and what may be said of it in logs and events.

The address of a webhook is in its row. That of an alert is in the settings, with variables that are resolved anew for
each attempt, so that a changed `.env` is heeded and no address is ever stored. It goes to any address that the
operator wrote, private ones too; that of a webhook came from a client.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from changeover.alerts import Alert, brief, sentence, version_in
from changeover.errors import InvalidRequest
from changeover.project.environment import MissingVariable, resolve
from changeover.resources.addresses import parse
from changeover.runs.posting import Undelivered
from changeover.store.outbox import Delivery
from changeover.store.records.times import timestamp


@dataclass(frozen=True)
class Letter:
    """`is_trusted`: its address was written by the operator."""

    url: httpx.URL
    body: bytes
    is_trusted: bool


class Letters:
    """Writes letters for the rows of the outbox. `environment` gives the values for `${NAME}` as they are now."""

    def __init__(self, alerts: Sequence[Alert], project: str, environment: Callable[[], Mapping[str, str]]) -> None:
        self._alerts = {alert.id: alert for alert in alerts}
        self._project = project
        self._environment = environment

    @property
    def alerts(self) -> Sequence[str]:
        """The alerts whose addresses are known here."""
        return list(self._alerts)

    def write(self, delivery: Delivery, now: float) -> Letter:
        """Raises `Undelivered`."""
        if delivery.alert is None:
            assert delivery.url is not None
            return Letter(httpx.URL(delivery.url), _of_webhook(delivery.body, timestamp(now)), is_trusted=False)
        return Letter(self._address(self._alerts[delivery.alert]), self._of_alert(delivery, now), is_trusted=True)

    def missing(self) -> list[str]:
        """What keeps alerts from being sent, a sentence each."""
        told = []
        for alert in self._alerts.values():
            try:
                self._address(alert)
            except Undelivered as error:
                told.append(f"alerts of {', '.join(alert.on)} cannot be sent: {error}")
        return told

    def _address(self, alert: Alert) -> httpx.URL:
        try:
            return parse(resolve(alert.url, self._environment()), "its address")
        except (MissingVariable, InvalidRequest) as error:
            raise Undelivered(str(error)) from None

    def _of_alert(self, delivery: Delivery, now: float) -> bytes:
        told = json.loads(delivery.body)
        details: dict[str, Any] = told["details"]
        message = sentence(told["type"], details, self._project, delivery.again)
        document = {
            "type": told["type"],
            "version": version_in(details),
            "at": timestamp(told["at"]),
            "project": self._project,
            "message": message,
            "text": message,  # what Slack, Mattermost and their like show
            "count": delivery.again + 1,
            "event": told["event"],
            "details": brief(details),
            "sent_at": timestamp(now),
        }
        return json.dumps(document, ensure_ascii=False).encode()


def said_of(delivery: Delivery) -> dict[str, Any]:
    """Which one it is, without its address: that may hold a secret."""
    if delivery.alert is None:
        return {"run_id": delivery.run_id, "host": delivery.lane}
    told = json.loads(delivery.body)
    return {"alert": told["type"], "event_id": told["event"]}


def _of_webhook(body: str, sent_at: str | None) -> bytes:
    """The stored object with the time of this attempt."""
    separator = "," if body[1:-1].strip() else ""
    return f'{body[:-1]}{separator}"webhook_sent_at":"{sent_at}"}}'.encode()
